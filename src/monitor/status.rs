//! What a monitor says about its container: `status.json` in the bundle directory, replaced by rename at each change.
//!
//! A status is a claim about processes that may be gone; [`ProcessId::is_alive`] holds it against the kernel.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::oom::OomReport;
use super::policy::Exit;
use super::spec::{BundleError, read_json, write_json};

/// The status's name in the bundle directory.
pub const STATUS_FILE: &str = "status.json";
/// A text kept in a status is cut here, in bytes.
pub const MAX_TEXT: usize = 1024;

/// A container as its monitor last saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub monitor_pid: i32,
    /// Clock ticks after boot, field 22 of `/proc/<pid>/stat`; with the pid it names one process for ever.
    pub monitor_start: u64,
    /// PID 1 of the container, in the host's pid namespace, while it runs.
    pub init_pid: Option<i32>,
    pub init_start: Option<u64>,
    pub state: State,
    /// Whether the monitor was told to stop the container, which may take its time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopping: bool,
    /// How the last run ended, when it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended the last run.
    pub signal: Option<i32>,
    pub health: HealthState,
    /// How often the container was started again since `up` made it.
    pub restarts: u32,
    /// Processes of the container that the kernel killed for memory since `up` made it.
    pub oom_kills: u64,
    #[serde(default)]
    pub last_oom: Option<OomReport>,
    #[serde(with = "rfc3339")]
    pub started_at: Option<Timestamp>,
    #[serde(with = "rfc3339")]
    pub finished_at: Option<Timestamp>,
    /// In state `restarting`: when the next start is due.
    #[serde(with = "rfc3339")]
    pub next_start_at: Option<Timestamp>,
    pub last_probe: Option<ProbeReport>,
    /// What a person should know: why a start failed, why a stop did not wait.
    pub note: Option<String>,
    /// Bytes of output that were not kept, such as on a full disk.
    pub log_bytes_dropped: u64,
}

/// Where in its life a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The monitor stands; nothing of the container's has run.
    Created,
    Running,
    /// Ended, and the policy wants it back at `next_start_at`.
    Restarting,
    /// Ended for good; the monitor is gone or going.
    Exited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// No probe is asked for.
    None,
    Starting,
    Healthy,
    Unhealthy,
}

/// The probe that ended last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    #[serde(with = "rfc3339")]
    pub at: Option<Timestamp>,
    pub passed: bool,
    pub took_ms: u64,
    /// What the probe said, at most [`MAX_TEXT`] bytes.
    pub text: String,
}

/// One process for ever: a pid is used again, a pid with its start time is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessId {
    pub pid: i32,
    /// Clock ticks after boot.
    pub start: u64,
}

impl Status {
    /// Whether the container is one to be led to. One without a health check is while it runs.
    pub fn serves(&self) -> bool {
        let well = matches!(self.health, HealthState::None | HealthState::Healthy);
        self.state == State::Running && !self.stopping && well
    }

    /// The status of a monitor that has done nothing yet.
    pub fn created(monitor: ProcessId) -> Self {
        Self {
            monitor_pid: monitor.pid,
            monitor_start: monitor.start,
            init_pid: None,
            init_start: None,
            state: State::Created,
            stopping: false,
            exit_code: None,
            signal: None,
            health: HealthState::None,
            restarts: 0,
            oom_kills: 0,
            last_oom: None,
            started_at: None,
            finished_at: None,
            next_start_at: None,
            last_probe: None,
            note: None,
            log_bytes_dropped: 0,
        }
    }

    /// Reads the status of a bundle. `None`: there is none, the monitor never came so far.
    pub fn load(bundle: &Path) -> Result<Option<Self>, BundleError> {
        match read_json(&bundle.join(STATUS_FILE)) {
            Ok(status) => Ok(Some(status)),
            Err(BundleError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn save(&self, bundle: &Path) -> Result<(), BundleError> {
        write_json(&bundle.join(STATUS_FILE), self)
    }

    pub fn monitor(&self) -> ProcessId {
        ProcessId { pid: self.monitor_pid, start: self.monitor_start }
    }

    pub fn init(&self) -> Option<ProcessId> {
        Some(ProcessId { pid: self.init_pid?, start: self.init_start? })
    }

    /// Keeps how a run ended; `None` clears it for the next run.
    pub fn set_exit(&mut self, exit: Option<Exit>) {
        (self.exit_code, self.signal) = match exit {
            Some(Exit::Code(code)) => (Some(code), None),
            Some(Exit::Signal(signal)) => (None, Some(signal)),
            None => (None, None),
        };
    }
}

impl ProcessId {
    /// The process that has this pid now. `None`: there is none, or it is a zombie.
    pub fn of(pid: i32) -> Option<Self> {
        let (life, start) = read_stat(pid)?;
        (life == Life::Alive).then_some(Self { pid, start })
    }

    /// Whether this very process lives. A zombie does not: it runs nothing and only waits for its parent.
    pub fn is_alive(&self) -> bool {
        read_stat(self.pid) == Some((Life::Alive, self.start))
    }

    /// Whether this very process has ended and waits for its parent.
    pub fn is_zombie(&self) -> bool {
        read_stat(self.pid) == Some((Life::Zombie, self.start))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Alive,
    Zombie,
}

/// The start time of a child that was not reaped yet, dead or not.
pub(super) fn start_of_child(pid: i32) -> Option<u64> {
    read_stat(pid).map(|(_, start)| start)
}

fn read_stat(pid: i32) -> Option<(Life, u64)> {
    // At most some hundred bytes, made by the kernel.
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// State and start time out of `/proc/<pid>/stat` (proc_pid_stat(5)). The second field is the program's name in
/// parentheses and may itself hold parentheses and spaces, so what follows the last `)` counts.
fn parse_stat(stat: &str) -> Option<(Life, u64)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let life = match fields.next()? {
        "Z" | "X" | "x" => Life::Zombie,
        _ => Life::Alive,
    };
    // The state is field 3, the start time field 22.
    Some((life, fields.nth(22 - 3 - 1)?.parse().ok()?))
}

/// Cuts a text at [`MAX_TEXT`] bytes, at a character's border.
pub(super) fn shorten(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text
}

/// Time stamps as RFC 3339 texts.
pub(super) mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => to.collect_str(time),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        let text: Option<String> = Option::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// One time stamp as an RFC 3339 text.
pub(crate) mod rfc3339_text {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(time)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_a_name_with_parentheses() {
        let tail = "S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1024 1 18446744073709551615";
        assert_eq!(parse_stat(&format!("42 (a) b (c)) {tail}")), Some((Life::Alive, 98765)));
        let zombie = format!("42 (x) {}", tail.replacen('S', "Z", 1));
        assert_eq!(parse_stat(&zombie), Some((Life::Zombie, 98765)));
        assert_eq!(parse_stat("42 (x) S 1"), None);
    }

    #[test]
    fn a_process_lives_only_with_its_own_start_time() {
        let own = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { start: own.start + 1, ..own }.is_alive());
    }

    #[test]
    fn a_zombie_does_not_live() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        while ProcessId::of(pid).is_some() {
            std::thread::yield_now();
        }
        let (_, start) = read_stat(pid).expect("not yet reaped");
        assert!(ProcessId { pid, start }.is_zombie());
        child.wait().unwrap();
        assert!(!ProcessId { pid, start }.is_zombie());
    }

    #[test]
    fn a_status_survives_the_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Status::load(dir.path()).unwrap(), None);
        let mut status = Status::created(ProcessId { pid: 7, start: 9 });
        status.started_at = Some("2026-01-02T03:04:05.000000006Z".parse().unwrap());
        status.set_exit(Some(Exit::Signal(9)));
        status.save(dir.path()).unwrap();
        assert_eq!(Status::load(dir.path()).unwrap(), Some(status));
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let text = shorten("é".repeat(MAX_TEXT));
        assert_eq!(text.len(), MAX_TEXT);
        assert_eq!(shorten("x".to_owned() + &text).len(), MAX_TEXT - 1);
    }
}
