//! Parses the command line, calls it, and returns its exit code.

fn main() -> std::process::ExitCode {
    stack::cli::run()
}
