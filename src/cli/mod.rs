//! The command line: one file a command. The only place that prints; here errors become words, hints and exit codes.

mod args;
mod build;
mod check;
mod context;
mod diff;
mod down;
mod enable;
mod events;
mod exec;
mod exit;
mod graph;
mod history;
mod image;
mod logs;
mod oci;
mod progress;
mod ps;
mod rollback;
mod seccomp;
mod show;
mod stats;
mod style;
mod terminal;
mod up;
mod wait;
mod watch;
mod why;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use exit::Exit;

/// Parses the command line, does what it asks, and says how it ended.
pub fn run() -> ExitCode {
    if let Some(arguments) = oci_arguments() {
        return oci::run(arguments);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return match error.exit_code() {
                0 => ExitCode::SUCCESS,
                _ => Exit::Usage.into(),
            };
        }
    };
    match cli.command {
        Command::Up(args) => up::run(&cli.global, &args),
        Command::Build(args) => build::run(&cli.global, &args),
        Command::Watch(args) => watch::run(&cli.global, &args),
        Command::Diff(args) => diff::run(&cli.global, &args),
        Command::Down(args) => down::run(&cli.global, &args),
        Command::History(args) => history::run(&cli.global, &args),
        Command::Rollback(args) => rollback::run(&cli.global, &args),
        Command::Enable(args) => enable::enable(&cli.global, &args),
        Command::Disable(args) => enable::disable(&args),
        Command::Ps(args) => ps::run(&cli.global, &args),
        Command::Why(args) => why::run(&cli.global, &args),
        Command::Stats(args) => stats::run(&cli.global, &args),
        Command::Top(args) => stats::run_top(&cli.global, &args),
        Command::Logs(args) => logs::run(&cli.global, &args),
        Command::Events(args) => events::run(&cli.global, &args),
        Command::Wait(args) => wait::run(&cli.global, &args),
        Command::Exec(args) => exec::run(&cli.global, &args),
        Command::Check(args) => check::run(&cli.global, &args),
        // Taken before it comes to this, unless flags of `stack` itself stand before it.
        Command::Oci => oci::run([]),
        Command::Graph(args) => graph::run(&args),
        Command::Image(args) => image::run(&cli.global, &args.command),
        Command::Seccomp(args) => seccomp::run(&args.command),
    }
}

/// The runtime's command line has its own form: `stack-oci …` or `stack oci …`. Looked for before anything is parsed.
fn oci_arguments() -> Option<impl Iterator<Item = OsString>> {
    let mut arguments = std::env::args_os();
    let program = arguments.next()?;
    if Path::new(&program).file_name().is_some_and(|name| name == oci::PROGRAM) {
        return Some(arguments);
    }
    (arguments.next()? == "oci").then_some(arguments)
}
