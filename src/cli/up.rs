//! `stack up`: shows the plan, carries it out, and shows what runs and where it listens.

use std::path::Path;
use std::process::ExitCode;

use super::args::{Global, UpArgs};
use super::context::{Loaded, failed, file_paths, host, load_all, road_failed, timings, wait_for};
use super::exit::Exit;
use super::progress::Progress;
use super::show::{JSON_VERSION, Tense, plan, plan_json};
use super::style::{BAD, GOOD, WARN, paint};
use super::{ps, show, watch};
use crate::model::{Condition, Container, Stack};
use crate::reconcile::{
    Actor, Brought, GenerationChange, Host, LinuxHost, Looked, PlanFile, PlanFileError, Rebuild, Renewal, Report,
    StoreHold, Travelled, Wish, changes, look, protect_this_program, seen, travel,
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
        match up(global, args, &path) {
            Ok(()) | Err(Exit::Ok) => {}
            Err(exit) => return exit.into(),
        }
    }
    Exit::Ok.into()
}

fn up(global: &Global, args: &UpArgs, path: &Path) -> Result<(), Exit> {
    let agreed = plan_file(path)?;
    let path = agreed.as_ref().map_or(path, |agreed| &agreed.file);
    let profiles = agreed.as_ref().map_or_else(|| args.file.profiles.chosen(), |agreed| agreed.profiles.clone());
    let loaded = load_all(path, profiles)?;
    let stack = &loaded.stack;
    protect(stack)?;
    let renewal = if args.pull { Renewal::All } else { Renewal::AsWritten };
    let rebuild = if args.build { Rebuild::All } else { Rebuild::Changed };
    let host = host(global, &stack.name)?.with_renewal(renewal).with_rebuild(rebuild);
    if args.repair && !global.run_dir.join(stack.name.as_str()).exists() {
        // Somebody took it down.
        return Ok(());
    }
    let host = if args.repair { host.with_actor(Actor::Repair) } else { host };
    let _lock = host.lock().map_err(|error| lock_failed(&error))?;
    // A repair runs no job.
    let wish = if args.repair { Wish::Stack(stack) } else { Wish::Run(stack) };
    let shown = Shown { file: path, json: args.json };
    let (did, travelled, sick) = wait_for(async {
        let _held = held(&host)?;
        let looked = match args.repair {
            true => repair_look(&host, &loaded, &shown).await?,
            false => shown_look(&host, &wish, &shown).await?,
        };
        if let Some(agreed) = &agreed {
            check(agreed, &host, &loaded, &looked)?;
        }
        let did = changes(&looked.plan);
        let travelled = carry_out(&host, &wish, looked, &shown).await?;
        let sick = match args.wait && travelled.report.succeeded() {
            true => tokio::select! {
                sick = wait_for_all(&host, stack) => sick,
                // What was asked for stands; only the waiting ends.
                Ok(()) = tokio::signal::ctrl_c() => Some(Exit::Interrupted),
            },
            false => None,
        };
        Ok((did, travelled, sick))
    })??;
    host.write_image_lock(path).map_err(|error| failed(&error.chain(), &[]))?;
    match args.json {
        true => anstream::println!("{:#}", json(&travelled)),
        false => anstream::print!("{}", ps::table(&travelled.actual, stack.name.as_str())),
    }
    timings(global, &travelled.timings);
    ended(&travelled)?;
    keep(global, &host, &loaded, (&travelled, did, None));
    sick.map_or(Ok(()), Err)
}

/// The plan that was made before, where `path` is one: a stack file cannot begin with a brace.
fn plan_file(path: &Path) -> Result<Option<PlanFile>, Exit> {
    match PlanFile::read(path) {
        Err(PlanFileError::NotOne) => Ok(None),
        other => other.map(Some).map_err(|error| failed(&error.to_string(), &["make it anew: `stack diff -o`"])),
    }
}

/// A plan is carried out only where all that it was made from is as it was.
fn check(agreed: &PlanFile, host: &LinuxHost, loaded: &Loaded, looked: &Looked) -> Result<(), Exit> {
    let source = host.source_of(&loaded.given()).map_err(|error| failed(&error.chain(), &[]))?;
    let moved = agreed.moved(&seen(&source, looked), &plan_json(&looked.plan));
    if moved.is_empty() {
        return Ok(());
    }
    anstream::eprintln!("{} this is no longer what the plan was made for; nothing was changed:", paint(BAD, "error:"));
    for line in &moved {
        anstream::eprintln!("  {line}");
    }
    anstream::eprintln!("  hint: look at the plan above, and make it anew with `stack diff -o`");
    Err(Exit::Failed)
}

/// A process in a container must never find our file behind /proc/self/exe.
pub fn protect(stack: &Stack) -> Result<(), Exit> {
    if stack.containers.values().any(Container::runs_commands) {
        protect_this_program().map_err(|error| failed(&error.to_string(), &[]))?;
    }
    Ok(())
}

/// Keeps what a run has brought up as a generation, where it did anything. The stack runs whether this succeeds or not.
pub fn keep(
    global: &Global,
    host: &LinuxHost,
    loaded: &Loaded,
    (travelled, did, from): (&Travelled, Vec<GenerationChange>, Option<u32>),
) {
    if did.is_empty() {
        return;
    }
    let brought = Brought {
        given: loaded.given(),
        actual: &travelled.actual,
        changes: did,
        who: who(),
        from,
        most: global.generations,
    };
    if let Err(error) = host.keep_generation(brought) {
        anstream::eprintln!("{} {}; `stack rollback` will not know of it", paint(WARN, "warning:"), error.chain());
    }
}

/// Who had this done, as far as the environment says.
fn who() -> String {
    let name = ["SUDO_USER", "LOGNAME", "USER"].into_iter().find_map(|name| std::env::var(name).ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("uid {}", nix::unistd::getuid()))
}

/// How a plan is shown while it is carried out.
pub struct Shown<'a> {
    pub file: &'a Path,
    pub json: bool,
}

/// Goes the whole road: looks, shows the plan, carries it out, looks again.
pub async fn road(host: &LinuxHost, wish: &Wish<'_>, shown: &Shown<'_>) -> Result<Travelled, Exit> {
    let looked = shown_look(host, wish, shown).await?;
    carry_out(host, wish, looked, shown).await
}

/// As [`shown_look`], for a repair: it ends where there is nothing to put back, and where the stack file or what it reads is
/// not what was brought up last.
async fn repair_look(host: &LinuxHost, loaded: &Loaded, shown: &Shown<'_>) -> Result<Looked, Exit> {
    let looked = look(host, &Wish::Stack(&loaded.stack)).await.map_err(|error| road_failed(&error))?;
    if looked.plan.is_empty() {
        return Err(Exit::Ok);
    }
    let source = host.source_of(&loaded.given()).map_err(|error| failed(&error.chain(), &[]))?;
    let generations = host.generations().list().map_err(|error| failed(&error.to_string(), &[]))?;
    if generations.last().is_none_or(|newest| newest.source != source) {
        let file = shown.file.display();
        anstream::eprintln!(
            "{} {file}, or what it reads, is not what was brought up last; `stack up` brings it up",
            paint(WARN, "nothing is repaired:")
        );
        return Err(Exit::Ok);
    }
    if !shown.json {
        anstream::print!("{}", plan(&looked.plan, &shown.file.display().to_string(), Tense::Does));
    }
    Ok(looked)
}

/// Keeps `image prune` from what a run brings in.
pub fn held(host: &LinuxHost) -> Result<StoreHold, Exit> {
    host.hold_images().map_err(|error| failed(&error.chain(), &[]))
}

/// The first half: looks and shows the plan.
pub async fn shown_look(host: &LinuxHost, wish: &Wish<'_>, shown: &Shown<'_>) -> Result<Looked, Exit> {
    let looked: Looked = look(host, wish).await.map_err(|error| road_failed(&error))?;
    if !shown.json {
        anstream::print!("{}", plan(&looked.plan, &shown.file.display().to_string(), Tense::Does));
    }
    Ok(looked)
}

/// The second half: carries it out and looks again.
pub async fn carry_out(
    host: &LinuxHost,
    wish: &Wish<'_>,
    looked: Looked,
    shown: &Shown<'_>,
) -> Result<Travelled, Exit> {
    let mut progress = Progress::new(&looked.plan);
    let acts = !looked.plan.is_empty();
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler the signal ends the process, which the next run repairs too.
            std::future::pending::<()>().await;
        }
    };
    let travelled = travel(host, wish, looked, interrupt, |event| progress.event(&event)).await;
    let travelled = travelled.map_err(|error| road_failed(&error))?;
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

pub fn json(travelled: &Travelled) -> serde_json::Value {
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
