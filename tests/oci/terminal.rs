//! `run` and `exec` in front: the program's terminal is shown at the caller's.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;

use crate::bundle::Bundle;

/// A terminal with a program of ours in front.
struct Screen {
    master: File,
    slave: OwnedFd,
    child: Child,
    shown: String,
}

impl Screen {
    fn new(command: &Command, rows: u16, columns: u16) -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        tcsetwinsize(&pty.slave, size(rows, columns)).unwrap();
        let end = || pty.slave.try_clone().unwrap();
        // The terminal's session is that of the command, which so hears of its size.
        let child = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        Self { master: pty.master.into(), slave: pty.slave, child, shown: String::new() }
    }

    fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.master, size(rows, columns)).unwrap();
    }

    fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let mut bytes = [0; 1024];
        while !self.shown.contains(text) {
            let limit = Timespec { tv_sec: 60, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&limit)).unwrap();
            assert_eq!(ready, 1, "no `{text}` in {:?}", self.shown);
            let count = self.master.read(&mut bytes).unwrap();
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// Its status, once it has left the terminal as it was.
    fn end(mut self) -> i32 {
        let status = self.child.wait().unwrap();
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        assert!(modes.contains(rustix::termios::LocalModes::ECHO | rustix::termios::LocalModes::ICANON));
        status.code().unwrap()
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

const SCRIPT: &str = "trap 'echo size; stty size' WINCH; trap 'echo got INT' INT; \
                      tty; stty size; echo ready; while :; do read -r line || continue; echo \"line $line\"; [ \"$line\" = end ] && exit 7; done";

fn check(mut screen: Screen) {
    screen.wait_for("/dev/pts/0\r\n33 99\r\nready");
    screen.resize(20, 70);
    screen.wait_for("20 70");
    screen.type_in("one\r");
    screen.wait_for("line one");
    // Keys are the program's: this one is no interrupt of ours.
    screen.type_in("\x03");
    screen.wait_for("got INT");
    screen.type_in("end\r");
    screen.wait_for("line end");
    assert_eq!(screen.end(), 7);
}

#[test]
fn run_shows_the_programs_terminal() {
    let mut bundle = Bundle::new(&["sh", "-c", SCRIPT]);
    bundle.config["process"]["terminal"] = json!(true);
    bundle.write();
    let directory = bundle.directory.path().to_str().unwrap();
    check(Screen::new(&bundle.command(&["run", "--bundle", directory, &bundle.id]), 33, 99));
    bundle.assert_nothing_left();
}

#[test]
fn exec_shows_the_programs_terminal() {
    let bundle = Bundle::new(&["sleep", "60"]);
    bundle.create().ok();
    check(Screen::new(&bundle.command(&["exec", "--tty", &bundle.id, "sh", "-c", SCRIPT]), 33, 99));
}

#[test]
fn a_terminal_needs_no_caller_with_one() {
    let mut bundle = Bundle::new(&["sh", "-c", "tty; exit 5"]);
    bundle.config["process"]["terminal"] = json!(true);
    let outcome = bundle.run();
    assert_eq!((outcome.code, outcome.stdout.as_str()), (5, "/dev/pts/0\r\n"), "{outcome:?}");
}

#[test]
fn signals_are_handed_on_to_the_program_in_front() {
    for terminal in [false, true] {
        let mut bundle = Bundle::new(&["sh", "-c", "trap 'exit 9' TERM; >/ready; while :; do sleep 0.1; done"]);
        bundle.config["process"]["terminal"] = json!(terminal);
        bundle.write();
        let directory = bundle.directory.path().to_str().unwrap();
        let mut child = bundle.command(&["run", "--bundle", directory, &bundle.id]).spawn().unwrap();
        while !bundle.rootfs().join("ready").exists() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(9), "terminal: {terminal}");
        bundle.assert_nothing_left();
    }
}
