//! `stack watch` and `stack up --watch`: a line for each change: what changed, what was done, how long it took.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::args::{Global, ProfileArg, WatchArgs};
use super::context::{failed, file_path, host_of, look_of_stderr, require_root, variables, wait_for};
use super::exit::Exit;
use super::progress::{duration, tail};
use super::show::{JSON_VERSION, change_line, plan_json};
use super::style::{BAD, BOLD, DIM, GOOD, WARN, of_verb, paint};
use crate::model::{Name, parse_duration};
use crate::reconcile::{Event, HostError, Plan, protect_this_program};
use crate::watch::{Cause, NoticeError, Options, Told, WatchError, watch};

/// How often drift is looked for unless told.
const REPAIR: Duration = Duration::from_secs(30);
/// Shorter, a look would be under way all the time.
const SHORTEST_REPAIR: Duration = Duration::from_secs(1);

pub fn run(global: &Global, args: &WatchArgs) -> ExitCode {
    let file = file_path(args.path.as_ref(), &args.file);
    let repair = match args.repair.as_deref().map(interval).transpose() {
        Ok(repair) => repair,
        Err(exit) => return exit.into(),
    };
    follow(global, &file, &args.file.profiles, repair, args.json).unwrap_or_else(|exit| exit).into()
}

fn interval(text: &str) -> Result<Duration, Exit> {
    if text.is_empty() {
        return Ok(REPAIR);
    }
    match parse_duration(text) {
        Ok(interval) if interval >= SHORTEST_REPAIR => Ok(interval),
        Ok(_) => Err(usage("--repair cannot look more often than every second")),
        Err(error) => Err(usage(&format!("--repair={text}: {error}"))),
    }
}

fn usage(message: &str) -> Exit {
    failed(message, &["for example `--repair=30s`"]);
    Exit::Usage
}

/// Watches until it is told to end.
pub fn follow(
    global: &Global,
    file: &Path,
    profiles: &ProfileArg,
    repair: Option<Duration>,
    json: bool,
) -> Result<Exit, Exit> {
    require_root()?;
    // A process in a container must never find our file behind /proc/self/exe.
    protect_this_program().map_err(|error| failed(&error.to_string(), &[]))?;
    let path = std::path::absolute(file).map_err(|error| failed(&error.to_string(), &[]))?;
    let options =
        Options { file: file.to_path_buf(), path, variables: variables(), profiles: profiles.chosen(), repair };
    let here = std::env::current_dir().unwrap_or_default();
    let mut shown = Shown { here, file: options.path.clone(), json, begun: false, steps: 0 };
    let (ask, stop) = tokio::sync::watch::channel(false);
    let host_of = |name: &Name| host_of(global, name);
    let ended = wait_for(async {
        let asked = async {
            let mut signals = Vec::new();
            for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
                signals.extend(signal(kind).ok());
            }
            let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
            futures_util::future::select_all(any).await;
            let _ = ask.send(true);
            std::future::pending::<()>().await;
        };
        let mut tell = |told: Told<'_>| shown.tell(told);
        tokio::select! {
            ended = watch(&options, &host_of, &mut tell, stop) => ended,
            () = asked => unreachable!("it waits for the watch to end"),
        }
    })?;
    match ended {
        Ok(_) => {
            if !json {
                anstream::eprintln!("\nwatch ended; containers keep running: `stack down` takes them away");
            }
            Ok(Exit::Ok)
        }
        Err(error) => Err(watch_failed(&error)),
    }
}

fn watch_failed(error: &WatchError) -> Exit {
    let WatchError::Notice(notice) = error;
    let hint = match notice {
        NoticeError::Watches { wanted, .. } => {
            let enough = (wanted * 2).next_power_of_two().max(524_288);
            format!("allow more: sysctl -w fs.inotify.max_user_watches={enough}; or leave folders out with `ignore`")
        }
        NoticeError::Instances { .. } => "allow more: sysctl -w fs.inotify.max_user_instances=1024".into(),
        _ => "containers keep running".into(),
    };
    failed(&chain(error), &[&hint])
}

fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

struct Shown {
    here: PathBuf,
    file: PathBuf,
    json: bool,
    /// Whether it was said what is watched.
    begun: bool,
    /// Of the plan that is carried out.
    steps: usize,
}

impl Shown {
    fn tell(&mut self, told: Told<'_>) {
        match self.json {
            true => {
                if let Some(document) = json_of(&told) {
                    anstream::println!("{document}");
                }
            }
            false => self.say(&told),
        }
    }

    fn say(&mut self, told: &Told<'_>) {
        match told {
            Told::Watching { stack, files, trees } => {
                if !self.begun {
                    self.begun = true;
                    let watched = format!("{} and {}", count(*files, "file"), count(*trees, "folder"));
                    anstream::println!("{} {}", paint(BOLD, format!("watching {stack}")), paint(DIM, watched));
                }
            }
            Told::Broken(diagnostics) => {
                anstream::eprint!("{}", diagnostics.render(look_of_stderr()));
                self.line(
                    WARN,
                    &self.name(&self.file),
                    "waiting",
                    "the last good state is kept until it is right",
                    None,
                );
            }
            Told::Mended => self.line(GOOD, &self.name(&self.file), "right", "the stack file can be used again", None),
            Told::Renamed { to } => {
                let text = format!("it is about the stack `{to}` now: end this watch and begin another");
                self.line(WARN, &self.name(&self.file), "waiting", &text, None);
            }
            Told::Waiting => self.line(WARN, "the lock", "waiting", "another run of stack works on this stack", None),
            Told::Plan { plan, .. } => {
                self.steps = plan.steps.len();
                for step in plan.steps.iter().filter(|step| !step.changes.is_empty()) {
                    for change in &step.changes {
                        anstream::println!("    {}  {}", paint(DIM, &step.resource), change_line(change, 0));
                    }
                }
            }
            Told::Step(cause, Event::Done(step, took)) => {
                let action = format!("{} {}", step.resource, paint(of_verb(step.verb), step.verb));
                self.line(GOOD, &self.cause(cause), &action, &step.why, Some(*took));
            }
            Told::Step(cause, Event::Failed(step, error)) => {
                let action = format!("{} {}", step.resource, step.verb);
                self.line(
                    BAD,
                    &self.cause(cause),
                    &action,
                    &format!("{} {}", paint(BAD, "failed:"), error.chain()),
                    None,
                );
                tail(error);
            }
            Told::Step(cause, Event::Skipped(step, _)) => {
                self.line(
                    WARN,
                    &self.cause(cause),
                    &step.resource.to_string(),
                    "left out: what it waits for failed",
                    None,
                );
            }
            Told::Step(_, Event::Started(_)) => {}
            Told::Arrived { cause, left, took } => self.arrived(cause, left, *took),
            Told::Synced { cause, instance, synced, took } => {
                let removed = (synced.removed > 0).then(|| format!("{} removed", synced.removed));
                let copied = (synced.copied > 0).then(|| count(synced.copied, "file"));
                let text: Vec<String> = copied.into_iter().chain(removed).collect();
                self.line(
                    GOOD,
                    &self.cause(cause),
                    &format!("container {instance} sync"),
                    &text.join(", "),
                    Some(*took),
                );
            }
            Told::Reacted { cause, instance, reactions, took } => {
                let action = format!("container {instance} {}", reactions.word());
                self.line(GOOD, &self.cause(cause), &action, "", Some(*took));
            }
            Told::Failed { cause, what, error } => {
                let cause = cause.map_or_else(String::new, |cause| self.cause(cause));
                self.line(BAD, &cause, what, &format!("{} {}", paint(BAD, "failed:"), chain(*error)), None);
                if let Some(error) = error.downcast_ref::<HostError>() {
                    tail(error);
                }
            }
            Told::Paused { what, echoes } => {
                let text = format!(
                    "what it does changes what is watched, {echoes} times in a row; it goes on after 10 s of quiet, or leave the path out with `ignore`"
                );
                self.line(WARN, what, "paused", &text, None);
            }
            Told::Resumed { what } => self.line(GOOD, what, "goes on", "it has been quiet", None),
            Told::LeftAlone { resource, pause } => {
                let text = format!("it does not stay repaired; left alone for {} s", pause.as_secs());
                self.line(WARN, resource, "paused", &text, None);
            }
            Told::Down => self.line(WARN, "the stack", "gone", "somebody took it down; a change brings it back", None),
        }
    }

    /// What was done is told by then; a road without steps, or one that did not lead there, is not.
    fn arrived(&self, cause: &Cause, left: &Plan, took: Duration) {
        if cause.0.as_os_str().is_empty() {
            return;
        }
        match left.is_empty() {
            true if self.steps > 0 => {}
            true => self.line(GOOD, &self.cause(cause), "nothing to do", "", Some(took)),
            false => {
                let text = count(left.steps.len(), "difference");
                self.line(
                    BAD,
                    &self.cause(cause),
                    "not in sync",
                    &format!("{text} left: see `stack diff`"),
                    Some(took),
                );
            }
        }
    }

    fn line(&self, mark: anstyle::Style, cause: &str, action: &str, text: &str, took: Option<Duration>) {
        let took = took.map_or(String::new(), |took| format!("  {}", paint(DIM, duration(took))));
        let text = if text.is_empty() { String::new() } else { format!("  {text}") };
        anstream::println!("{} {} {action}{text}{took}", paint(BOLD, cause), paint(mark, "→"));
    }

    fn cause(&self, (path, others): &Cause) -> String {
        let name = match path.as_os_str().is_empty() {
            true => "drift".into(),
            false => self.name(path),
        };
        match others {
            0 => name,
            n => format!("{name} (+{n})"),
        }
    }

    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.here)
            .ok()
            .filter(|rest| !rest.as_os_str().is_empty())
            .unwrap_or(path)
            .display()
            .to_string()
    }
}

fn count(number: usize, word: &str) -> String {
    match number {
        1 => format!("1 {word}"),
        n => format!("{n} {word}s"),
    }
}

/// One event a line.
fn json_of(told: &Told<'_>) -> Option<Value> {
    let ms = |took: &Duration| took.as_secs_f64() * 1000.0;
    let path = |cause: &Cause| cause.0.display().to_string();
    let mut document = match told {
        Told::Watching { stack, files, trees } => {
            json!({ "event": "watching", "stack": stack, "files": files, "folders": trees })
        }
        Told::Broken(diagnostics) => json!({ "event": "broken", "text": diagnostics.render(crate::file::Look::Plain) }),
        Told::Mended => json!({ "event": "mended" }),
        Told::Renamed { to } => json!({ "event": "renamed", "to": to }),
        Told::Waiting => json!({ "event": "waiting" }),
        Told::Plan { cause, plan } => json!({ "event": "plan", "path": path(cause), "plan": plan_json(plan) }),
        Told::Step(cause, Event::Done(step, took)) => json!({
            "event": "done", "path": path(cause), "resource": step.resource.to_string(), "verb": step.verb, "why": step.why,
            "took_ms": ms(took),
        }),
        Told::Step(cause, Event::Failed(step, error)) => json!({
            "event": "failed", "path": path(cause), "resource": step.resource.to_string(), "verb": step.verb,
            "error": error.chain(),
        }),
        Told::Step(cause, Event::Skipped(step, _)) => {
            json!({ "event": "skipped", "path": path(cause), "resource": step.resource.to_string() })
        }
        Told::Step(_, Event::Started(_)) => return None,
        Told::Arrived { cause, left, took } => json!({
            "event": "arrived", "path": path(cause), "in_sync": left.is_empty(), "took_ms": ms(took),
        }),
        Told::Synced { cause, instance, synced, took } => json!({
            "event": "synced", "path": path(cause), "others": cause.1, "container": instance, "copied": synced.copied,
            "removed": synced.removed, "took_ms": ms(took),
        }),
        Told::Reacted { cause, instance, reactions, took } => json!({
            "event": "told", "path": path(cause), "others": cause.1, "container": instance, "action": reactions.word(),
            "took_ms": ms(took),
        }),
        Told::Failed { cause, what, error } => {
            json!({ "event": "failed", "path": cause.map(path), "what": what, "error": chain(*error) })
        }
        Told::Paused { what, echoes } => json!({ "event": "paused", "what": what, "echoes": echoes }),
        Told::Resumed { what } => json!({ "event": "resumed", "what": what }),
        Told::LeftAlone { resource, pause } => {
            json!({ "event": "left-alone", "resource": resource, "seconds": pause.as_secs() })
        }
        Told::Down => json!({ "event": "down" }),
    };
    document["version"] = JSON_VERSION.into();
    Some(document)
}
