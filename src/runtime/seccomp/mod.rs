//! Seccomp: profile to rules to BPF, an evaluator, and installation.
