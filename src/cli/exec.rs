//! `stack exec`: a command in a running container; its status is the command's own.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::args::{ExecArgs, Global};
use super::context::{failed, file_path, host, load};
use super::style::{BAD, paint};
use super::terminal::{Attended, attend, own_size};
use crate::plan::instances;
use crate::reconcile::{ExecWish, Executed, TerminalSize, protect_this_program};

/// The field's status for a failure of ours.
const OUR_FAULT: u8 = 125;

pub fn run(global: &Global, args: &ExecArgs) -> ExitCode {
    // A process in the container must never find our file behind /proc/self/exe.
    if let Err(error) = protect_this_program() {
        failed(&error.to_string(), &[]);
        return ExitCode::from(OUR_FAULT);
    }
    exec(global, args).unwrap_or_else(|code| code)
}

fn exec(global: &Global, args: &ExecArgs) -> Result<ExitCode, ExitCode> {
    let stack = load(&file_path(None, &args.file), &args.file.profiles).map_err(|_| ExitCode::from(OUR_FAULT))?;
    let known: Vec<String> = stack.containers.iter().flat_map(|(name, container)| instances(name, container)).collect();
    let instance = known.iter().find(|instance| **instance == args.container).ok_or_else(|| {
        let hint = format!("{} has {}", stack.name, known.join(", "));
        failed(&format!("there is no container `{}`", args.container), &[&hint]);
        ExitCode::from(OUR_FAULT)
    })?;
    let host = host(global, &stack.name).map_err(|_| ExitCode::from(OUR_FAULT))?;
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let wants_terminal = args.tty || (has_terminal && !args.no_tty);
    let wish = ExecWish {
        command: args.command.clone(),
        user: args.user.clone(),
        env: match wants_terminal {
            true => kind_of_terminal().into_iter().chain(args.env.iter().cloned()).collect(),
            false => args.env.clone(),
        },
        workdir: args.workdir.clone(),
        terminal: wants_terminal.then(size_of_terminal),
    };
    let executed = host.exec(instance, &wish).map_err(|failure| {
        anstream::eprintln!("{} {}", paint(BAD, "error:"), failure.error.chain());
        ExitCode::from(u8::try_from(failure.code).unwrap_or(OUR_FAULT))
    })?;
    if let Some(terminal) = &executed.terminal {
        let program = Attended { terminal: terminal.as_fd(), pid: executed.pid, pidfd: executed.pidfd.as_fd() };
        attend(program).map_err(|errno| {
            failed(&format!("cannot hand signals on: {errno}"), &[]);
            ExitCode::from(OUR_FAULT)
        })?;
    }
    Ok(ExitCode::from(wait(&executed)))
}

/// A program that has a terminal wants to know which kind. What is asked for by `--env` comes after it.
fn kind_of_terminal() -> Option<String> {
    std::env::var("TERM").ok().map(|kind| format!("TERM={kind}"))
}

fn size_of_terminal() -> TerminalSize {
    own_size()
        .map_or(TerminalSize { rows: 24, columns: 80 }, |size| TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

fn wait(executed: &Executed) -> u8 {
    loop {
        match waitid(WaitId::PidFd(executed.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                let code = signal.or(status.exit_status()).unwrap_or(i32::from(OUR_FAULT));
                return u8::try_from(code & 0xff).unwrap_or(OUR_FAULT);
            }
            _ => return OUR_FAULT,
        }
    }
}
