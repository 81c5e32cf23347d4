//! Hooks: programs that are run at points of a container's life, with its state on their standard input (runtime-spec
//! config.md, "POSIX-platform Hooks"). The same for those that the runtime runs and those that the container's own process
//! runs between clone and exec: no allocation once they are prepared.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::runtime::oci::OciHook;
use crate::runtime::sys::{self, Cloned, Errno, ExecStrings, NamespaceFlags, SignalSet};

use super::compile::{CompileError, c_path, c_string};
use super::init::FAILURE;
use super::spawn::kill_and_reap;

/// A hook, ready to be run.
#[derive(Debug)]
pub struct HookProgram {
    path: CString,
    arguments: ExecStrings,
    environment: ExecStrings,
    /// The state document up to the number of the container's process, and from there on.
    state: (Vec<u8>, Vec<u8>),
    /// `None`: as long as it takes.
    timeout: Option<Duration>,
    /// Which one it is, for messages.
    pub(super) name: String,
}

/// Whose number the state on a hook's standard input gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatePid {
    Known(i32),
    /// The process that runs the hook is the container's: its number as it sees it itself.
    Own,
}

/// Where a state document has the number of the process, to be filled in when it is known.
pub const PID_PLACE: &str = "2147483647";

impl HookProgram {
    /// `state` is a state document whose `pid` is [`PID_PLACE`], or that has none.
    pub fn new(hook: &OciHook, name: String, state: &str) -> Result<Self, CompileError> {
        let strings = |list: &[String]| -> Result<ExecStrings, CompileError> {
            let strings: Result<Vec<CString>, _> = list.iter().map(|text| c_string(&name, text)).collect();
            Ok(ExecStrings::new(strings?))
        };
        let path = c_path(&name, &hook.path)?;
        // A program without any argument does not know its own name, and some fall over that.
        let own = [String::from_utf8_lossy(hook.path.as_os_str().as_bytes()).into_owned()];
        let arguments = strings(if hook.args.is_empty() { &own } else { &hook.args })?;
        let (head, tail) = state.split_once(PID_PLACE).unwrap_or((state, ""));
        let timeout = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let state = (head.as_bytes().to_vec(), tail.as_bytes().to_vec());
        Ok(Self { path, arguments, environment: strings(&hook.env)?, state, timeout, name })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Run it to its end. `TIMEDOUT`: it took too long and was killed; `CANCELED`: it failed; anything else: it could not be run.
    pub fn run(&self, pid: StatePid) -> Result<(), Errno> {
        let (input, state) = pipe_with(PipeFlags::CLOEXEC)?;
        let (failed, failed_write) = pipe_with(PipeFlags::CLOEXEC)?;
        let Cloned::Parent { pidfd, .. } = sys::clone_child(NamespaceFlags::default(), None)? else {
            self.become_it(&input, &failed_write)
        };
        drop(failed_write);
        // Documents that a pipe does not take in one go are not written by anybody who means well. Our copy of the reading end
        // stays open meanwhile: a hook that does not read must not get us a SIGPIPE.
        let written = rustix::io::ioctl_fionbio(&state, true).and_then(|()| self.write_state(&state, pid));
        drop(state);
        drop(input);
        let ended = wait_within(&pidfd, self.timeout);
        match ended {
            Ok(true) => {}
            Ok(false) => {
                kill_and_reap(pidfd.as_fd());
                return Err(Errno::TIMEDOUT);
            }
            Err(errno) => return Err(errno),
        }
        let status = super::spawn::wait(pidfd.as_fd())?;
        let mut errno = [0_u8; 4];
        if rustix::io::read(&failed, &mut errno) == Ok(4) {
            return Err(Errno::from_raw_os_error(i32::from_le_bytes(errno)));
        }
        if status == 0 { written } else { Err(Errno::CANCELED) }
    }

    fn become_it(&self, input: &OwnedFd, failed: &OwnedFd) -> ! {
        let prepared = || -> Result<(), Errno> {
            sys::default_dispositions()?;
            sys::block_signals(SignalSet::EMPTY)?;
            sys::duplicate_onto(input.as_fd(), 0)?;
            sys::close_on_exec_from(3)
        };
        let errno = prepared().err().unwrap_or_else(|| sys::execute(&self.path, &self.arguments, &self.environment));
        let _ = rustix::io::write(failed, &errno.raw_os_error().to_le_bytes());
        sys::exit_now(FAILURE)
    }

    fn write_state(&self, state: &OwnedFd, pid: StatePid) -> Result<(), Errno> {
        let number = match pid {
            StatePid::Known(pid) => pid,
            StatePid::Own => rustix::process::getpid().as_raw_nonzero().get(),
        };
        rustix::io::write(state, &self.state.0)?;
        if !self.state.1.is_empty() {
            let mut digits = [0_u8; 10];
            rustix::io::write(state, decimal(number.unsigned_abs(), &mut digits))?;
            rustix::io::write(state, &self.state.1)?;
        }
        Ok(())
    }
}

/// `number` in digits, without allocating.
fn decimal(mut number: u32, place: &mut [u8; 10]) -> &[u8] {
    let mut start = place.len();
    for (index, digit) in place.iter_mut().enumerate().rev() {
        *digit = b'0' + (number % 10) as u8;
        start = index;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    place.get(start..).unwrap_or_default()
}

/// Whether a process ends in time.
fn wait_within(pidfd: &OwnedFd, timeout: Option<Duration>) -> Result<bool, Errno> {
    let limit = timeout.map(|limit| Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 });
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], limit.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: Option<i64>) -> HookProgram {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        let hook = OciHook { path: "/bin/sh".into(), args, env: vec!["A=b".into()], timeout };
        HookProgram::new(&hook, "hooks.test[0]".into(), &format!(r#"{{"pid":{PID_PLACE},"id":"x"}}"#)).unwrap()
    }

    #[test]
    fn numbers_are_written_without_help() {
        let mut place = [0; 10];
        assert_eq!(decimal(0, &mut place), b"0");
        assert_eq!(decimal(4_294_967_295, &mut place), b"4294967295");
    }

    #[test]
    fn a_hook_gets_the_state_and_its_environment_only() {
        let asked = hook(r#"read line; [ "$line" = '{"pid":77,"id":"x"}' ] && [ "$A" = b ] && [ -z "$HOME" ]"#, None);
        assert_eq!(asked.run(StatePid::Known(77)), Ok(()));
    }

    #[test]
    fn a_hook_that_fails_or_takes_too_long_is_an_error() {
        assert_eq!(hook("exit 3", None).run(StatePid::Own), Err(Errno::CANCELED));
        assert_eq!(hook("exec sleep 60", Some(1)).run(StatePid::Own), Err(Errno::TIMEDOUT));
    }

    #[test]
    fn a_hook_that_is_not_there_is_told_from_one_that_fails() {
        let hook = OciHook { path: "/nonexistent".into(), ..OciHook::default() };
        let hook = HookProgram::new(&hook, "hooks.test[0]".into(), "{}").unwrap();
        assert_eq!(hook.run(StatePid::Own), Err(Errno::NOENT));
    }
}
