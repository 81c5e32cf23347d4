//! `stack history`: what was brought up when, by whom, and which of it runs.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::args::{FileArg, Global, HistoryArgs};
use super::context::{failed, file_path, host, load, wait_for};
use super::exit::Exit;
use super::show::{JSON_VERSION, table};
use super::style::{DIM, paint};
use crate::model::Name;
use crate::reconcile::{Generation, GenerationError, Host, LinuxHost, labels, running};

pub fn run(global: &Global, args: &HistoryArgs) -> ExitCode {
    history(global, args).map_or_else(|exit| exit, |()| Exit::Ok).into()
}

fn history(global: &Global, args: &HistoryArgs) -> Result<(), Exit> {
    let stack = named(args.name.as_ref(), (args.path.as_ref(), &args.file))?;
    let host = host(global, &stack)?;
    let generations = host.generations().list().map_err(|error| generation_failed(&error))?;
    let current = wait_for(current(&host, &stack, &generations))??.map(|generation| generation.number);
    if args.json {
        let documents = generations.iter().map(|one| document(one, current)).collect::<Vec<_>>();
        anstream::println!("{:#}", json!({ "version": JSON_VERSION, "stack": stack, "generations": documents }));
        return Ok(());
    }
    if generations.is_empty() {
        anstream::println!("{}", paint(DIM, format!("no generation of {stack} is kept: `stack up` makes the first")));
        return Ok(());
    }
    let head = ["NUMBER", "TIME", "WHO", "WHAT CHANGED", ""];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    rows.extend(generations.iter().rev().map(|one| {
        let mark = if current == Some(one.number) { "runs" } else { "" };
        let time = one.time.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        vec![one.number.to_string(), time, one.who.clone(), one.summary(), mark.to_string()]
    }));
    anstream::print!("{}", table(&rows));
    Ok(())
}

/// A stack by its name, or by its file.
pub fn named(name: Option<&String>, (path, flag): (Option<&PathBuf>, &FileArg)) -> Result<Name, Exit> {
    match name {
        Some(name) => Name::new(name.as_str()).map_err(|error| failed(&error.to_string(), &[])),
        None => Ok(load(&file_path(path, flag), &flag.profiles)?.name),
    }
}

/// The generation that runs; nothing but the kernel knows.
pub async fn current<'g>(
    host: &LinuxHost,
    stack: &Name,
    generations: &'g [Generation],
) -> Result<Option<&'g Generation>, Exit> {
    let actual = host.observe(stack).await.map_err(|error| failed(&error.chain(), &[]))?;
    Ok(running(generations, &labels(&actual)))
}

pub fn generation_failed(error: &GenerationError) -> Exit {
    match error {
        GenerationError::Unknown { .. } => failed(&error.to_string(), &["`stack history` lists those that are kept"]),
        _ => failed(&chain(error), &[]),
    }
}

fn chain(error: &GenerationError) -> String {
    use std::error::Error;
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn document(generation: &Generation, current: Option<u32>) -> serde_json::Value {
    let images = generation.source.images.iter().map(|(name, image)| {
        let digest = image.registry.as_ref().map(|registry| registry.resolved);
        (name.clone(), json!({ "id": image.id, "digest": digest }))
    });
    json!({
        "number": generation.number,
        "time": generation.time.to_string(),
        "who": generation.who,
        "runs": current == Some(generation.number),
        "from": generation.from,
        "changes": generation.changes,
        "file": generation.source.file,
        "profiles": generation.source.profiles,
        "files": generation.source.files.keys().collect::<Vec<_>>(),
        "images": images.collect::<serde_json::Map<_, _>>(),
    })
}
