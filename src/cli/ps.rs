//! `stack ps`: what runs, where it listens, how it is.

use std::process::ExitCode;

use jiff::{SignedDuration, Timestamp};

use super::args::{Global, PsArgs};
use super::context::{failed, file_path, host, load, wait_for};
use super::exit::Exit;
use super::show::{self, JSON_VERSION};
use super::style::{BOLD, DIM, WARN, paint};
use crate::model::Name;
use crate::reconcile::{Actual, ActualContainer, Host, LinuxHost, Phase};

pub fn run(global: &Global, args: &PsArgs) -> ExitCode {
    ps(global, args).map_or_else(|exit| exit, |()| Exit::Ok).into()
}

fn ps(global: &Global, args: &PsArgs) -> Result<(), Exit> {
    let path = file_path(None, &args.file);
    let stacks = match args.all || (args.file.file.is_none() && !path.exists()) {
        true => LinuxHost::stacks(&global.run_dir),
        false => vec![load(&path, &args.file.profiles)?.name],
    };
    let mut documents = Vec::new();
    for stack in &stacks {
        let actual = observe(global, stack)?;
        match args.json {
            true => documents.push(serde_json::json!({ "stack": stack, "containers": json(&actual) })),
            false => {
                if stacks.len() > 1 {
                    anstream::println!("{} {}", paint(BOLD, "stack"), paint(BOLD, stack));
                }
                anstream::print!("{}", table(&actual, stack.as_str()));
            }
        }
    }
    match args.json {
        true => anstream::println!("{:#}", serde_json::json!({ "version": JSON_VERSION, "stacks": documents })),
        false if stacks.is_empty() => anstream::println!("{}", paint(DIM, "no stack runs on this host")),
        false => {}
    }
    Ok(())
}

fn observe(global: &Global, stack: &Name) -> Result<Actual, Exit> {
    let host = host(global, stack)?;
    wait_for(host.observe(stack))?.map_err(|error| failed(&error.chain(), &[]))
}

/// The containers of a stack, a line each.
pub fn table(actual: &Actual, stack: &str) -> String {
    if actual.containers.is_empty() {
        return format!("{}\n", paint(DIM, format!("nothing of {stack} runs")));
    }
    let head = ["NAME", "STATE", "HEALTH", "UP", "RESTARTS", "ADDRESS", "LISTENS ON"];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    for (instance, container) in &actual.containers {
        rows.push(vec![
            instance.clone(),
            state(container),
            container.health.to_string(),
            uptime(container),
            restarts(container),
            addresses(container).join(" "),
            ports(actual, container).join(" "),
        ]);
    }
    let mut out = show::table(&rows);
    for (instance, container) in &actual.containers {
        if let Some(text) = &container.run.last_oom {
            out += &format!("{}\n", paint(WARN, format!("{instance}: {text}")));
        }
    }
    out
}

/// A job that ended well has done what it is for.
fn state(container: &ActualContainer) -> String {
    let is_job = container.stored.as_ref().is_some_and(|stored| stored.live.job.is_some());
    match container.phase {
        Phase::Exited { code: 0 } if is_job => "completed".into(),
        _ => container.phase.to_string(),
    }
}

fn restarts(container: &ActualContainer) -> String {
    match container.run.oom_kills {
        0 => container.run.restarts.to_string(),
        kills => format!("{} (out of memory {kills}×)", container.run.restarts),
    }
}

fn uptime(container: &ActualContainer) -> String {
    let Some(started) = container.run.started_at.filter(|_| container.run.pid.is_some()) else { return "-".into() };
    let seconds = (Timestamp::now().as_second() - started).max(0);
    let rounded = match seconds {
        0..120 => seconds,
        120..7200 => seconds - seconds % 60,
        _ => seconds - seconds % 3600,
    };
    format!("{:#}", SignedDuration::from_secs(rounded))
}

fn addresses(container: &ActualContainer) -> Vec<String> {
    container.stored.iter().flat_map(|stored| &stored.spec.endpoints).map(|e| e.address.to_string()).collect()
}

/// The IPv6 ones.
fn addresses6(container: &ActualContainer) -> Vec<String> {
    let endpoints = container.stored.iter().flat_map(|stored| &stored.spec.endpoints);
    endpoints.filter_map(|e| e.address6).map(|address| address.addr().to_string()).collect()
}

/// The published ports that lead to a container, as the kernel has them.
fn ports(actual: &Actual, container: &ActualContainer) -> Vec<String> {
    let mut addresses = addresses(container);
    addresses.extend(addresses6(container).iter().map(|address| format!("[{address}]")));
    let parts = actual.nat.iter().flat_map(|table| &table.parts);
    parts
        .filter_map(|(name, target)| {
            let port = name.strip_prefix("port ")?;
            let (address, container_port) = target.rsplit_once(':')?;
            let port = port.strip_suffix("/tcp").unwrap_or(port);
            addresses.iter().any(|mine| mine == address).then(|| format!("{port}→{container_port}"))
        })
        .collect()
}

/// The containers of a stack as data.
pub fn json(actual: &Actual) -> serde_json::Value {
    let containers = actual.containers.iter().map(|(instance, container)| {
        serde_json::json!({
            "name": instance,
            "image": container.stored.as_ref().map(|stored| &stored.spec.image),
            "phase": container.phase,
            "job": container.stored.as_ref().and_then(|stored| stored.live.job),
            "health": container.health,
            "addresses": addresses(container),
            "addresses6": addresses6(container),
            "ports": ports(actual, container),
            "run": container.run,
            "limits": container.limits,
        })
    });
    containers.collect()
}
