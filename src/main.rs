//! Parses the command line, calls it, and returns its exit code.

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args_os().peekable();
    if arguments.peek().is_some_and(stack::monitor::is_monitor) {
        return stack::monitor::main(arguments);
    }
    if arguments.peek().is_some_and(stack::build::is_step) {
        return stack::build::step_main(arguments);
    }
    stack::cli::run()
}
