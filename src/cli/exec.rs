//! `stack exec`: a command in a running container; its status is the command's own.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::args::{ExecArgs, Global};
use super::context::{failed, file_path, host, load};
use super::style::{BAD, paint};
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
    let stack = load(&file_path(None, &args.file)).map_err(|_| ExitCode::from(OUR_FAULT))?;
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
        terminal: wants_terminal.then(own_size),
    };
    let executed = host.exec(instance, &wish).map_err(|failure| {
        anstream::eprintln!("{} {}", paint(BAD, "error:"), failure.error.chain());
        ExitCode::from(u8::try_from(failure.code).unwrap_or(OUR_FAULT))
    })?;
    if let Some(terminal) = &executed.terminal {
        let _raw = RawMode::enter();
        relay(terminal.as_fd(), &executed);
    }
    Ok(ExitCode::from(wait(&executed)))
}

/// A program that has a terminal wants to know which kind. What is asked for by `--env` comes after it.
fn kind_of_terminal() -> Option<String> {
    std::env::var("TERM").ok().map(|kind| format!("TERM={kind}"))
}

fn own_size() -> TerminalSize {
    let size = tcgetwinsize(rustix::stdio::stdout());
    match size {
        Ok(size) if size.ws_row > 0 => TerminalSize { rows: size.ws_row, columns: size.ws_col },
        _ => TerminalSize { rows: 24, columns: 80 },
    }
}

/// The caller's terminal passes every key on while this lives.
pub(super) struct RawMode(Option<Termios>);

impl RawMode {
    pub(super) fn enter() -> Self {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = tcgetattr(stdin) else { return RawMode(None) };
        let mut raw = before.clone();
        raw.make_raw();
        let _ = tcsetattr(stdin, OptionalActions::Now, &raw);
        RawMode(Some(before))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// Copies between the caller's terminal and the container's until the process has ended and all it wrote was shown.
fn relay(terminal: BorrowedFd, executed: &Executed) {
    let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let mut input_is_open = true;
    loop {
        keep_size(terminal);
        let mut fds = vec![
            PollFd::from_borrowed_fd(terminal, PollFlags::IN),
            PollFd::from_borrowed_fd(executed.pidfd.as_fd(), PollFlags::IN),
        ];
        if input_is_open {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            // SIGWINCH is one of those that end the wait.
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let (from_container, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        let from_caller = fds.get(2).is_some_and(|fd| !fd.revents().is_empty());
        if from_container && copy(terminal, stdout).is_none() {
            return;
        }
        if ended && !from_container {
            return;
        }
        if from_caller {
            input_is_open = copy(stdin, terminal).is_some();
        }
    }
}

/// Copies what one read gives. `None`: the end.
fn copy(from: BorrowedFd, to: BorrowedFd) -> Option<()> {
    let mut bytes = [0; 16 << 10];
    let count = loop {
        match read(from, &mut bytes) {
            Err(Errno::INTR) => {}
            other => break other.ok()?,
        }
    };
    let mut rest = bytes.get(..count).filter(|read| !read.is_empty())?;
    while !rest.is_empty() {
        match write(to, rest) {
            Ok(written) => rest = &rest[written..],
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(())
}

fn keep_size(terminal: BorrowedFd) {
    let TerminalSize { rows, columns } = own_size();
    let current = tcgetwinsize(terminal).map(|size| (size.ws_row, size.ws_col));
    if current != Ok((rows, columns)) {
        let _ = tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 });
    }
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
