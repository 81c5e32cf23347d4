//! Cgroups that systemd makes and keeps: a scope for each container, asked for over D-Bus by the socket that systemd keeps for
//! root. Only what is needed of D-Bus: `wire` has the messages, `scope` says what they are about.
//!
//! Why no library, and why only on version 2: docs/decisions/systemd-by-a-small-client.md.

mod scope;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::runtime::oci::OciResources;

use super::cgroups::CgroupsError;
use wire::{FIXED, Message, Reader, Target, Writer, call};

pub use scope::Scope;

/// There as long as systemd is what started the host: sd_booted(3).
const BOOTED: &str = "/run/systemd/system";
/// systemd's own, and that of the bus which passes messages on to it.
const SOCKET: &str = "/run/systemd/private";
const BUS_SOCKET: &str = "/run/dbus/system_bus_socket";
/// How long systemd may take for a unit.
const LIMIT: Duration = Duration::from_secs(30);
/// Longer than any line of the greeting.
const MAX_LINE: usize = 512;
/// Signals about others that come in between.
const MAX_MESSAGES: usize = 10_000;

const MANAGER: Target = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

const BUS: Target =
    Target { destination: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };
/// What the bus passes on to us.
const MATCH: &str = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

/// A user namespace's map of ids where it is the host's.
const ALL_IDS: [&str; 3] = ["0", "0", "4294967295"];

/// That it is a systemd which lets us.
fn check_host() -> Result<(), CgroupsError> {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if !rustix::process::geteuid().is_root() || !map.split_whitespace().eq(ALL_IDS) {
        return Err(CgroupsError::SystemdUser);
    }
    if Path::new(BOOTED).is_dir() { Ok(()) } else { Err(CgroupsError::NoSystemd) }
}

/// Start the scope with a process in it, and wait until it is there. Annotations may say more of its properties.
pub fn start(
    scope: &Scope,
    (id, pid): (&str, i32),
    resources: Option<&OciResources>,
    annotations: &BTreeMap<String, String>,
) -> Result<(), CgroupsError> {
    check_host()?;
    let mut properties = scope.properties(id, pid);
    properties.extend(resources.map(scope::limits).unwrap_or_default());
    properties.extend(scope::annotated(annotations)?);
    let mut bus = Bus::connect(&scope.unit)?;
    let mut start = || {
        let mut body = Writer::default();
        body.text(&scope.unit);
        body.text("fail");
        body.properties(&properties);
        body.array(8, |_| ());
        bus.job("StartTransientUnit", ("ssa(sv)a(sa(sv))", body))
    };
    match start() {
        // One of the same name that failed long ago is still known. One that runs stays, and is in the way again.
        Err(error) if is(&error, "UnitExists") => {
            reset(&mut Bus::connect(&scope.unit)?)?;
            start()
        }
        result => result,
    }
}

fn is(error: &CgroupsError, name: &str) -> bool {
    matches!(error, CgroupsError::Systemd { error, .. } if error.rsplit('.').next() == Some(name))
}

fn reset(bus: &mut Bus<'_>) -> Result<(), CgroupsError> {
    let mut body = Writer::default();
    body.text(bus.unit);
    match bus.call("ResetFailedUnit", ("s", body)) {
        Err(error) if !is(&error, "NoSuchUnit") => Err(error),
        _ => Ok(()),
    }
}

/// Stop a unit, if it is there, and wait for its end.
pub fn stop(unit: &str) -> Result<(), CgroupsError> {
    let mut bus = Bus::connect(unit)?;
    let mut body = Writer::default();
    body.text(unit);
    body.text("replace");
    match bus.job("StopUnit", ("ss", body)) {
        Err(error) if !is(&error, "NoSuchUnit") => return Err(error),
        _ => {}
    }
    // One that failed stays known otherwise.
    reset(&mut bus)
}

/// Other limits for a unit that runs.
pub fn set_limits(unit: &str, resources: &OciResources) -> Result<(), CgroupsError> {
    let list = scope::limits(resources);
    if list.is_empty() {
        return Ok(());
    }
    let mut body = Writer::default();
    body.text(unit);
    // Until the host's end, as the unit.
    body.uint32(1);
    body.properties(&list);
    Bus::connect(unit)?.call("SetUnitProperties", ("sba(sv)", body)).map(drop)
}

/// A connection to systemd.
struct Bus<'a> {
    socket: UnixStream,
    /// For messages.
    unit: &'a str,
    serial: u32,
    deadline: Instant,
    /// What was told while an answer was waited for.
    told: Vec<Message>,
}

impl<'a> Bus<'a> {
    fn connect(unit: &'a str) -> Result<Self, CgroupsError> {
        let failed = |source| CgroupsError::Bus { source };
        if let Ok(bus) = Self::greeted(SOCKET, unit) {
            return Ok(bus);
        }
        let mut bus = Self::greeted(BUS_SOCKET, unit).map_err(failed)?;
        bus.call_to(BUS, "Hello", ("", Writer::default()))?;
        let mut body = Writer::default();
        body.text(MATCH);
        bus.call_to(BUS, "AddMatch", ("s", body))?;
        Ok(bus)
    }

    fn greeted(path: &str, unit: &'a str) -> io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        let deadline = Instant::now() + LIMIT;
        socket.set_write_timeout(Some(LIMIT))?;
        let mut bus = Self { socket, unit, serial: 0, deadline, told: Vec::new() };
        bus.greet()?;
        Ok(bus)
    }

    /// D-Bus specification, "Authentication Protocol": the kernel tells systemd who is asking.
    fn greet(&mut self) -> io::Result<()> {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|byte| format!("{byte:02x}")).collect();
        // At once, and nothing more before the answer: what systemd reads together with `BEGIN` it would leave lying.
        self.socket.write_all(format!("\0AUTH EXTERNAL {hex}\r\nBEGIN\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read(&mut byte)?;
            line.push(byte[0]);
            if line.len() > MAX_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if line.starts_with(b"OK ") { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let left = self.deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        self.socket.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
        self.socket.read_exact(bytes)
    }

    fn next(&mut self) -> Result<Message, CgroupsError> {
        let mut read = || -> io::Result<Message> {
            let damaged = || io::Error::from(io::ErrorKind::InvalidData);
            let mut fixed = [0; FIXED];
            self.read(&mut fixed)?;
            let mut bytes = vec![0; FIXED + Message::rest(&fixed).ok_or_else(damaged)?];
            let (head, rest) = bytes.split_at_mut(FIXED);
            head.copy_from_slice(&fixed);
            self.read(rest)?;
            Message::parse(&bytes).ok_or_else(damaged)
        };
        read().map_err(|source| CgroupsError::Bus { source })
    }

    /// Call and wait for the answer.
    fn call(&mut self, member: &'static str, body: (&str, Writer)) -> Result<Message, CgroupsError> {
        self.call_to(MANAGER, member, body)
    }

    fn call_to(&mut self, target: Target, member: &'static str, body: (&str, Writer)) -> Result<Message, CgroupsError> {
        self.serial += 1;
        let bytes = call(self.serial, target, member, body);
        self.socket.write_all(&bytes).map_err(|source| CgroupsError::Bus { source })?;
        for _ in 0..MAX_MESSAGES {
            let message = self.next()?;
            match message.kind {
                Message::ANSWER if message.reply_to == Some(self.serial) => return Ok(message),
                Message::ERROR if message.reply_to == Some(self.serial) => {
                    let text = Reader { bytes: &message.body, place: 0 }.text().unwrap_or_default().to_owned();
                    let error = message.error.unwrap_or_default();
                    return Err(CgroupsError::Systemd { member, unit: self.unit.to_owned(), error, text });
                }
                Message::SIGNAL => self.told.push(message),
                _ => {}
            }
        }
        Err(CgroupsError::Bus { source: io::ErrorKind::TimedOut.into() })
    }

    /// Call what makes a job, and wait until that is done.
    fn job(&mut self, member: &'static str, body: (&str, Writer)) -> Result<(), CgroupsError> {
        self.call("Subscribe", ("", Writer::default()))?;
        let answer = self.call(member, body)?;
        let job = Reader { bytes: &answer.body, place: 0 }.text().unwrap_or_default().to_owned();
        let mut told = std::mem::take(&mut self.told).into_iter();
        for _ in 0..MAX_MESSAGES {
            let message = match told.next() {
                Some(message) => message,
                None => self.next()?,
            };
            if message.member.as_deref() != Some("JobRemoved") {
                continue;
            }
            // `uoss`: number, path, unit, result.
            let mut reader = Reader { bytes: &message.body, place: 4 };
            if reader.text() != Some(job.as_str()) {
                continue;
            }
            let (_, result) = (reader.text(), reader.text().unwrap_or_default());
            return match result {
                "done" => Ok(()),
                result => Err(CgroupsError::Systemd {
                    member,
                    unit: self.unit.to_owned(),
                    error: result.to_owned(),
                    text: "the job did not succeed".to_owned(),
                }),
            };
        }
        Err(CgroupsError::Bus { source: io::ErrorKind::TimedOut.into() })
    }
}
