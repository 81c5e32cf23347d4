//! `stack up`: shows the plan, carries it out, and shows what runs and where it listens.

use std::path::Path;
use std::process::ExitCode;

use super::args::{Global, UpArgs};
use super::context::{failed, file_paths, host, load, road_failed, timings, wait_for};
use super::exit::Exit;
use super::progress::Progress;
use super::show::{JSON_VERSION, Tense, plan, plan_json};
use super::style::{BAD, GOOD, WARN, paint};
use super::{ps, show, watch};
use crate::model::{Condition, Container, Stack};
use crate::reconcile::{
    Host, LinuxHost, Looked, Rebuild, Renewal, Report, RoadError, Travelled, Wish, look, protect_this_program, travel,
};

pub fn run(global: &Global, args: &UpArgs) -> ExitCode {
    let files = file_paths(&args.files, &args.file);
    if args.watch {
        return match &files[..] {
            [file] => {
                watch::follow(global, file, &args.file.profiles, None, args.json).unwrap_or_else(|exit| exit).into()
            }
            _ => {
                failed("`--watch` follows one stack file", &["start a `stack watch` for each"]);
                Exit::Usage.into()
            }
        };
    }
    for path in files {
        if let Err(exit) = up(global, args, &path) {
            return exit.into();
        }
    }
    Exit::Ok.into()
}

fn up(global: &Global, args: &UpArgs, path: &Path) -> Result<(), Exit> {
    let stack = load(path, &args.file.profiles)?;
    if stack.containers.values().any(Container::runs_commands) {
        // A process in a container must never find our file behind /proc/self/exe.
        protect_this_program().map_err(|error| failed(&error.to_string(), &[]))?;
    }
    let renewal = if args.pull { Renewal::All } else { Renewal::AsWritten };
    let rebuild = if args.build { Rebuild::All } else { Rebuild::Changed };
    let host = host(global, &stack.name)?.with_renewal(renewal).with_rebuild(rebuild);
    let _lock = host.lock().map_err(|error| lock_failed(&error))?;
    let wish = Wish::Run(&stack);
    let (travelled, sick) = wait_for(async {
        let travelled = road(&host, &wish, &Shown { file: path, json: args.json }).await?;
        let sick = match args.wait && travelled.report.succeeded() {
            true => tokio::select! {
                sick = wait_for_all(&host, &stack) => sick,
                // What was asked for stands; only the waiting ends.
                Ok(()) = tokio::signal::ctrl_c() => return Ok((travelled, Some(Exit::Interrupted))),
            },
            false => None,
        };
        Ok((travelled, sick))
    })?
    .map_err(|error| road_failed(&error))?;
    host.write_image_lock(path).map_err(|error| failed(&error.chain(), &[]))?;
    match args.json {
        true => anstream::println!("{:#}", json(&travelled)),
        false => anstream::print!("{}", ps::table(&travelled.actual, stack.name.as_str())),
    }
    timings(global, &travelled.timings);
    match sick {
        Some(exit) => Err(exit),
        None => ended(&travelled),
    }
}

/// How a plan is shown while it is carried out.
pub struct Shown<'a> {
    pub file: &'a Path,
    pub json: bool,
}

/// Goes the whole road: looks, shows the plan, carries it out, looks again.
pub async fn road(host: &LinuxHost, wish: &Wish<'_>, shown: &Shown<'_>) -> Result<Travelled, RoadError> {
    let _held = match wish {
        Wish::Stack(_) | Wish::Run(_) => Some(host.hold_images()?),
        Wish::Nothing { .. } => None,
    };
    let looked: Looked = look(host, wish).await?;
    if !shown.json {
        anstream::print!("{}", plan(&looked.plan, &shown.file.display().to_string(), Tense::Does));
    }
    let mut progress = Progress::new(&looked.plan);
    let acts = !looked.plan.is_empty();
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler the signal ends the process, which the next run repairs too.
            std::future::pending::<()>().await;
        }
    };
    let travelled = travel(host, wish, looked, interrupt, |event| progress.event(&event)).await?;
    if acts && !shown.json {
        anstream::println!();
    }
    Ok(travelled)
}

/// Waits until what has a probe is healthy and what is to end has ended.
async fn wait_for_all(host: &LinuxHost, stack: &Stack) -> Option<Exit> {
    let mut sick = None;
    for (name, container) in &stack.containers {
        let condition = match (container.job, &container.health) {
            (Some(_), _) => Condition::Completed,
            (None, Some(_)) => Condition::Healthy,
            (None, None) => continue,
        };
        for slot in crate::plan::instances(name, container) {
            if let Err(error) = host.reached(&host.instance_in(&slot), condition).await {
                sick = Some(failed(&error.chain(), &[]));
            }
        }
    }
    sick
}

/// What a run comes to: the same report that was shown decides the exit status.
pub fn ended(travelled: &Travelled) -> Result<(), Exit> {
    let Report { failed: failures, skipped, interrupted, .. } = &travelled.report;
    if *interrupted {
        anstream::eprintln!("{} stopped half-way; `stack up` goes on from here", paint(WARN, "interrupted:"));
        return Err(Exit::Interrupted);
    }
    if !failures.is_empty() {
        let left_out = match skipped.len() {
            0 => String::new(),
            1 => ", and 1 that hangs on it was left out".into(),
            n => format!(", and {n} that hang on it were left out"),
        };
        let count = match failures.len() {
            1 => "1 step failed".to_string(),
            n => format!("{n} steps failed"),
        };
        anstream::eprintln!("{} {count}{left_out}", paint(BAD, "error:"));
        return Err(Exit::Failed);
    }
    if !travelled.left.is_empty() {
        anstream::eprintln!("{} the host is not as it should be after all steps succeeded:", paint(BAD, "error:"));
        for step in &travelled.left.steps {
            anstream::eprintln!("  {} {} {}", step.verb, step.resource, step.why);
            for change in &step.changes {
                anstream::eprintln!("      {}", show::change_line(change, 0));
            }
        }
        return Err(Exit::Failed);
    }
    Ok(())
}

fn json(travelled: &Travelled) -> serde_json::Value {
    let failures: Vec<_> = travelled
        .report
        .failed
        .iter()
        .map(|failure| serde_json::json!({ "step": failure.step, "error": failure.error.chain() }))
        .collect();
    serde_json::json!({
        "version": JSON_VERSION,
        "converged": travelled.left.is_empty() && travelled.report.succeeded(),
        "done": travelled.report.done.len(),
        "failed": failures,
        "skipped": travelled.report.skipped.len(),
        "left": plan_json(&travelled.left),
        "containers": ps::json(&travelled.actual),
    })
}

/// Says that another run is under way, or that there can be no lock.
pub fn lock_failed(error: &crate::reconcile::LockError) -> Exit {
    match error {
        crate::reconcile::LockError::Held { .. } => {
            failed(&error.to_string(), &["wait for it to end, or end it; what it has done so far stays"]);
            Exit::Locked
        }
        other => failed(&other.to_string(), &[]),
    }
}

/// "ok" in the colour of success, for commands that end with one line.
pub fn ok() -> String {
    paint(GOOD, "ok")
}
