//! The caller's terminal in front of a program's own: keys, output, size and signals are handed on until the program ends.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::termios::{OptionalActions, Termios, Winsize, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::runtime::sys::{SignalSet, block_signals, send_signal, signal_descriptor};

/// A program with a terminal of its own, of which the caller has the other end.
#[derive(Clone, Copy)]
pub struct Attended<'a> {
    pub terminal: BorrowedFd<'a>,
    pub pid: i32,
    pub pidfd: BorrowedFd<'a>,
}

/// Copy between the caller's terminal and the program's until the program has ended and all it wrote was shown. Signals are
/// the program's from here on: the caller's stay blocked.
pub fn attend(program: Attended<'_>) -> Result<(), Errno> {
    block_signals(SignalSet::ALL)?;
    let signals = signal_descriptor(SignalSet::ALL)?;
    let _raw = RawMode::enter();
    relay(program, &signals);
    Ok(())
}

/// Of the caller's terminal, if it has one.
pub fn own_size() -> Option<Winsize> {
    let ends = [rustix::stdio::stdout(), rustix::stdio::stdin(), rustix::stdio::stderr()];
    ends.into_iter().find_map(|end| tcgetwinsize(end).ok().filter(|size| size.ws_row > 0))
}

/// The caller's terminal passes every key on while this lives.
pub struct RawMode(Option<Termios>);

impl RawMode {
    pub fn enter() -> Self {
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

fn relay(program: Attended<'_>, signals: &OwnedFd) {
    let (stdin, stdout) = (rustix::stdio::stdin(), rustix::stdio::stdout());
    let (mut input_is_open, mut terminal_is_open) = (true, true);
    keep_size(program.terminal);
    loop {
        // A closed end would say so for ever: a copy of the signals' stands in for it.
        let or_nothing = |open: bool, end| if open { end } else { signals.as_fd() };
        let mut ends = [
            program.pidfd,
            signals.as_fd(),
            or_nothing(terminal_is_open, program.terminal),
            or_nothing(input_is_open, stdin),
        ]
        .map(|end| PollFd::from_borrowed_fd(end, PollFlags::IN));
        match poll(&mut ends, None) {
            Err(Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        let [ended, signalled, output, input] = ends.map(|end| !end.revents().is_empty());
        if signalled {
            hand_on(program, signals);
        }
        let output = output && terminal_is_open;
        if output {
            terminal_is_open = copy(program.terminal, stdout).is_some();
        }
        if ended && !output {
            return;
        }
        if input && input_is_open {
            input_is_open = copy(stdin, program.terminal).is_some();
        }
    }
}

/// One signal: another size of the caller's terminal, or for the program.
fn hand_on(program: Attended<'_>, signals: &OwnedFd) {
    /// Of terminals and children of ours.
    const OURS: [i32; 4] = [libc::SIGCHLD, libc::SIGTTIN, libc::SIGTTOU, libc::SIGTSTP];
    // `struct signalfd_siginfo` begins with the number.
    let mut information = [0_u8; 128];
    if read(signals, &mut information[..]).is_err() {
        return;
    }
    match i32::from(information[0]) {
        libc::SIGWINCH => keep_size(program.terminal),
        signal if OURS.contains(&signal) => {}
        // It may have ended just now.
        signal => drop(send_signal(program.pid, signal)),
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

/// Give the program's terminal the size of the caller's, if that is another: the program hears of it.
pub fn keep_size(terminal: BorrowedFd) {
    let Some(size) = own_size() else { return };
    let same = |current: Winsize| (current.ws_row, current.ws_col) == (size.ws_row, size.ws_col);
    if !tcgetwinsize(terminal).is_ok_and(same) {
        let _ = tcsetwinsize(terminal, size);
    }
}
