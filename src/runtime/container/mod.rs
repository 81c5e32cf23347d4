//! One container's process: compiled to a list of operations, run between clone and exec.
