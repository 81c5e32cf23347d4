//! What resources are now and what is known of a container's run, in words.

use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::Signal;

use super::{Evidence, Finding, Known, NOT_THERE};
use crate::monitor::status::{State, Status};
use crate::plan::{Kind, ResourceId};
use crate::reconcile::actual::{ActualBridge, ActualContainer, HealthState, KernelLimits};

/// What a resource is now.
pub(super) fn now(id: &ResourceId, known: &Known) -> String {
    let actual = known.actual;
    match id.kind {
        Kind::Container => container(actual.container_in(&id.name).map(|(_, container)| container)),
        Kind::Bridge => actual.bridges.get(&id.name).map_or(NOT_THERE.into(), bridge),
        Kind::Cgroup => actual.cgroups.get(&id.name).map_or(NOT_THERE.into(), |group| limits(&group.limits)),
        Kind::Volume if actual.volumes.contains(&id.name) => "there".into(),
        Kind::Volume => NOT_THERE.into(),
        Kind::Image => match (actual.unbuilt.get(&id.name), actual.missing_layers.get(&id.name)) {
            (Some(why), _) => format!("to be built: {why}"),
            (None, Some(1)) => "1 layer is not unpacked".into(),
            (None, Some(count)) => format!("{count} layers are not unpacked"),
            (None, None) => "there".into(),
        },
        Kind::Nat => match &actual.nat {
            Some(table) => {
                let ports = table.parts.keys().filter(|name| name.starts_with("port ")).count();
                format!("a table with {}", counted(ports as u64, "published port"))
            }
            None => NOT_THERE.into(),
        },
        Kind::Resolver => match &actual.resolver {
            Some(resolver) if resolver.runs => "answers".into(),
            Some(_) => "does not run".into(),
            None => NOT_THERE.into(),
        },
        Kind::Sysctl | Kind::Veth => String::new(),
    }
}

pub(super) fn container(container: Option<&ActualContainer>) -> String {
    let Some(container) = container else { return NOT_THERE.into() };
    match container.health {
        HealthState::None => container.phase.to_string(),
        health => format!("{}, {health}", container.phase),
    }
}

fn bridge(bridge: &ActualBridge) -> String {
    let addresses = [bridge.address.map(|net| net.to_string()), bridge.address6.map(|net| net.to_string())];
    let mut words = vec![format!("{} is {}", bridge.ifname, if bridge.up { "up" } else { "down" })];
    words.extend(addresses.into_iter().flatten());
    words.push(format!("mtu {}", bridge.mtu));
    words.join(", ")
}

/// Those of the kernel's limits that limit something.
fn limits(limits: &KernelLimits) -> String {
    let limits_nothing = |name: &str, value: &str| match name {
        "cpu.weight" => value == "100",
        _ => matches!(value, "max" | "0B" | "0 us" | "all"),
    };
    let words: Vec<String> = limits
        .iter()
        .filter(|(name, value)| !limits_nothing(name, value))
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    if words.is_empty() { "there, without limits".into() } else { words.join(", ") }
}

/// What is known of a container's run, whatever it is now.
pub(super) fn findings(evidence: &Evidence, now: Timestamp) -> Vec<Finding> {
    let finding = |about| move |text: String| Finding { about, text };
    let mut findings = Vec::new();
    if let Some(status) = &evidence.status {
        findings.extend(exit(status).map(finding("exit")));
        findings.extend(memory(status).map(finding("memory")));
        findings.extend(restarts(status, now).map(finding("restarts")));
        findings.extend(probe(status, now).map(finding("probe")));
        findings.extend(status.note.clone().map(finding("monitor")));
        let dropped = status.log_bytes_dropped;
        let lost = (dropped > 0).then(|| format!("{dropped} bytes of its output could not be kept"));
        findings.extend(lost.map(finding("log")));
    }
    findings.extend(evidence.denied.iter().cloned().map(finding("seccomp")));
    findings
}

/// How the last run ended, where that was not well.
fn exit(status: &Status) -> Option<String> {
    if let Some(number) = status.signal {
        let name = Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.to_string());
        let killed_for_memory = number == libc::SIGKILL && status.oom_kills > 0;
        let meaning = match number {
            libc::SIGKILL if killed_for_memory => "the kernel killed it for want of memory",
            libc::SIGKILL => "killed from outside, or by the kernel",
            libc::SIGSYS => "it made a system call that its seccomp profile kills for",
            libc::SIGSEGV => "it touched memory that is not its own",
            libc::SIGBUS => "it touched memory that is not there, as of a file that was cut",
            libc::SIGABRT => "it gave up by itself",
            libc::SIGILL => "its processor does not have an instruction of its",
            libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT => "somebody asked it to end",
            _ => "see its log",
        };
        return Some(format!("its last run was ended by {name}: {meaning}"));
    }
    let code = status.exit_code?;
    let meaning = match code {
        0 if status.state == State::Running => return None,
        0 => ": all went well",
        125 => ": it could not be started",
        126 => ": its program is there and cannot be executed",
        127 => ": its program, or one that it calls, is not there",
        134 => ": a process of it gave up by itself (SIGABRT)",
        137 => ": a process of it was killed (SIGKILL)",
        139 => ": a process of it touched memory that is not its own (SIGSEGV)",
        143 => ": it was asked to end (SIGTERM)",
        159 => ": a process of it made a system call that its seccomp profile kills for (SIGSYS)",
        _ => "",
    };
    Some(format!("its last run ended with status {code}{meaning}"))
}

fn memory(status: &Status) -> Option<String> {
    let report = status.last_oom.as_ref().map(|report| report.text());
    match (status.oom_kills, report) {
        (0, _) => None,
        (1, report) => Some(report.unwrap_or_else(|| "a process was killed for want of memory".into())),
        (kills, None) => Some(format!("{kills} processes were killed for want of memory")),
        (kills, Some(report)) => Some(format!("{report}; the last of {kills}")),
    }
}

fn restarts(status: &Status, now: Timestamp) -> Option<String> {
    let next = status.next_start_at.filter(|_| status.state == State::Restarting);
    let next = next.map(|at| match at.duration_since(now) {
        wait if wait.is_positive() => format!("the next start is due in {}", seconds(wait)),
        _ => "the next start is due now".into(),
    });
    let again = (status.restarts > 0).then(|| {
        let times = counted(u64::from(status.restarts), "time");
        format!("started again {times} by its monitor")
    });
    match (again, next) {
        (None, None) => None,
        (again, next) => Some([again, next].into_iter().flatten().collect::<Vec<_>>().join("; ")),
    }
}

/// The last probe, where it failed.
fn probe(status: &Status, now: Timestamp) -> Option<String> {
    let probe = status.last_probe.as_ref().filter(|probe| !probe.passed)?;
    let ago = probe.at.map_or(String::new(), |at| format!(" {} ago", seconds(now.duration_since(at))));
    Some(format!("the last one failed{ago} after {} ms: {}", probe.took_ms, probe.text.trim()))
}

/// In whole seconds, at least one.
fn seconds(duration: SignedDuration) -> String {
    format!("{:#}", SignedDuration::from_secs(duration.as_secs().max(1)))
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
