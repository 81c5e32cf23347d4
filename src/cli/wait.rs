//! `stack wait`: until containers have come to a state, or cannot come there any more.

use std::process::ExitCode;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::json;

use super::args::{Global, WaitArgs, WaitState};
use super::context::{failed, file_path, host, load, wait_for};
use super::exit::Exit;
use super::logs::chosen;
use super::progress::tail;
use super::show::JSON_VERSION;
use crate::model::{Stack, parse_duration};
use crate::plan::instances;
use crate::reconcile::{Awaited, LinuxHost};

pub fn run(global: &Global, args: &WaitArgs) -> ExitCode {
    wait(global, args).map_or_else(|exit| exit, |()| Exit::Ok).into()
}

fn wait(global: &Global, args: &WaitArgs) -> Result<(), Exit> {
    let timeout = match args.timeout.as_deref().map(parse_duration).transpose() {
        Ok(timeout) => timeout,
        Err(error) => {
            failed(&format!("--timeout: {error}"), &["for example `--timeout 30s`"]);
            return Err(Exit::Usage);
        }
    };
    let stack = load(&file_path(None, &args.file), &args.file.profiles)?;
    let known: Vec<String> = stack.containers.iter().flat_map(|(name, container)| instances(name, container)).collect();
    let wanted = chosen(&known, &args.names, &stack.name)?;
    let wishes: Vec<(String, Awaited)> = wanted
        .into_iter()
        .map(|instance| {
            let awaited = awaited(args.state, &stack, &instance);
            (instance, awaited)
        })
        .collect();
    let host = host(global, &stack.name)?;
    wait_for(async {
        let all = wait_for_all(&host, &wishes, args.json);
        tokio::select! {
            ended = all => ended,
            () = at_most(timeout) => {
                failed("not in time", &["`stack ps` and `stack logs` say how far they have come"]);
                Err(Exit::TimedOut)
            }
            Ok(()) = tokio::signal::ctrl_c() => Err(Exit::Interrupted),
        }
    })?
}

async fn at_most(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// The first that cannot come there ends the waiting.
async fn wait_for_all(host: &LinuxHost, wishes: &[(String, Awaited)], json: bool) -> Result<(), Exit> {
    let mut pending: FuturesUnordered<_> = wishes
        .iter()
        .map(|(instance, awaited)| async move {
            (instance, *awaited, host.wait_for(&host.instance_in(instance), *awaited).await)
        })
        .collect();
    while let Some((instance, awaited, ended)) = pending.next().await {
        if let Err(error) = ended {
            let exit = failed(&error.chain(), &[]);
            tail(&error);
            return Err(exit);
        }
        match json {
            true => {
                let state = awaited.to_string();
                anstream::println!("{}", json!({ "version": JSON_VERSION, "container": instance, "state": state }));
            }
            false => anstream::println!("{instance} {awaited}"),
        }
    }
    Ok(())
}

fn awaited(state: Option<WaitState>, stack: &Stack, instance: &str) -> Awaited {
    let has_probe = || {
        let is_of = |(name, container)| instances(name, container).iter().any(|one| one == instance);
        stack.containers.iter().any(|(name, container)| container.health.is_some() && is_of((name, container)))
    };
    match state {
        Some(WaitState::Healthy) => Awaited::Healthy,
        Some(WaitState::Started) => Awaited::Started,
        Some(WaitState::Completed) => Awaited::Completed,
        Some(WaitState::Stopped) => Awaited::Stopped,
        None if has_probe() => Awaited::Healthy,
        None => Awaited::Started,
    }
}
