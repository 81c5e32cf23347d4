//! `stack down`: the same road as `up`, with nothing wished for.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::args::{DownArgs, Global};
use super::context::{failed, file_path, host, load, timings, wait_for};
use super::exit::Exit;
use super::show::{JSON_VERSION, plan_json};
use super::up::{Shown, ended, lock_failed, ok, road};
use crate::model::Name;
use crate::reconcile::{Actor, Volumes, Wish};

pub fn run(global: &Global, args: &DownArgs) -> ExitCode {
    down(global, args).map_or_else(|exit| exit, |()| Exit::Ok).into()
}

fn down(global: &Global, args: &DownArgs) -> Result<(), Exit> {
    let (stack, file) = which(args)?;
    let volumes = confirmed(args, &stack)?;
    let host = host(global, &stack)?.with_actor(Actor::Down);
    let lock = host.lock().map_err(|error| lock_failed(&error))?;
    let wish = Wish::Nothing { stack: &stack, volumes };
    let shown = Shown { file: &file, json: args.json };
    let travelled = wait_for(road(&host, &wish, &shown))??;
    timings(global, &travelled.timings);
    if args.json {
        let document = serde_json::json!({
            "version": JSON_VERSION,
            "converged": travelled.left.is_empty() && travelled.report.succeeded(),
            "left": plan_json(&travelled.left),
        });
        anstream::println!("{document:#}");
    }
    ended(&travelled)?;
    if volumes == Volumes::Remove {
        host.generations().remove().map_err(|error| failed(&error.to_string(), &[]))?;
    }
    lock.remove_with_folder().map_err(|error| failed(&error.to_string(), &[]))?;
    if !args.json {
        let kept = if volumes == Volumes::Keep { "; its volumes and logs stay" } else { "" };
        anstream::println!("{} nothing of {stack} runs{kept}", ok());
    }
    Ok(())
}

/// The stack, by its file or by its name.
fn which(args: &DownArgs) -> Result<(Name, PathBuf), Exit> {
    if let Some(name) = &args.name {
        let name = Name::new(name.as_str()).map_err(|error| failed(&error.to_string(), &[]))?;
        return Ok((name.clone(), PathBuf::from(format!("--name {name}"))));
    }
    let path = file_path(args.path.as_ref(), &args.file);
    Ok((load(&path, &args.file.profiles)?.name, path))
}

/// Data is deleted only where the stack's name was given.
fn confirmed(args: &DownArgs, stack: &Name) -> Result<Volumes, Exit> {
    let Some(given) = &args.volumes else { return Ok(Volumes::Keep) };
    let mut given = given.clone();
    if given.is_empty() {
        if !std::io::stdin().is_terminal() {
            let hint = format!("say so with `--volumes={stack}`");
            return Err(failed("`--volumes` deletes data and asks for the stack's name", &[&hint]));
        }
        anstream::eprint!("this deletes the volumes of {stack} and all data in them; type its name to go on: ");
        let _ = std::io::stderr().flush();
        let _ = std::io::stdin().read_line(&mut given);
    }
    match given.trim() == stack.as_str() {
        true => Ok(Volumes::Remove),
        false => Err(failed("that is not the stack's name; nothing was changed", &[])),
    }
}
