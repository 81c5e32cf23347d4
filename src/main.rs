//! Parses the command line, calls it, and returns its exit code.

fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args_os().peekable();
    if arguments.peek().is_some_and(stack::monitor::is_monitor) {
        return stack::monitor::main(arguments);
    }
    if arguments.peek().is_some_and(stack::monitor::is_helper) {
        return match stack::monitor::helper_arguments(arguments) {
            Some((bundle, leaves, netns)) => stack::reconcile::turn(&bundle, leaves, netns),
            None => std::process::ExitCode::from(64),
        };
    }
    if arguments.peek().is_some_and(stack::resolver::is_resolver) {
        return stack::resolver::main(arguments);
    }
    if arguments.peek().is_some_and(stack::build::is_step) {
        return stack::build::step_main(arguments);
    }
    stack::cli::run()
}
