//! The command line: one file a command. The only place that prints; here errors become words, hints and exit codes.

mod args;
mod check;
mod context;
mod diff;
mod down;
mod exec;
mod exit;
mod graph;
mod image;
mod logs;
mod progress;
mod ps;
mod show;
mod style;
mod up;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use exit::Exit;

/// Parses the command line, does what it asks, and says how it ended.
pub fn run() -> ExitCode {
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
        Command::Diff(args) => diff::run(&cli.global, &args),
        Command::Down(args) => down::run(&cli.global, &args),
        Command::Ps(args) => ps::run(&cli.global, &args),
        Command::Logs(args) => logs::run(&cli.global, &args),
        Command::Exec(args) => exec::run(&cli.global, &args),
        Command::Check(args) => check::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::Image(args) => image::run(&cli.global, &args.command),
    }
}
