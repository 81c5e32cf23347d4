//! `stack rollback`: the road of `up`, from a stack file, files and images that were kept.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::{Global, RollbackArgs};
use super::context::{Loaded, failed, host, told, variables, wait_for};
use super::exit::Exit;
use super::history::{current, generation_failed, named};
use super::style::{DIM, WARN, paint};
use super::up::{Shown, carry_out, ended, held, json, keep, lock_failed, protect, shown_look};
use super::{ps, up};
use crate::file::{Remembered, Surroundings, examine_text};
use crate::model::Name;
use crate::reconcile::{Generation, Generations, KeptVariable, LinuxHost, Looked, Wish, before, changes};

pub fn run(global: &Global, args: &RollbackArgs) -> ExitCode {
    rollback(global, args).map_or_else(|exit| exit, |()| Exit::Ok).into()
}

fn rollback(global: &Global, args: &RollbackArgs) -> Result<(), Exit> {
    let name = named(args.name.as_ref(), (None, &args.file))?;
    let host = host(global, &name)?;
    let _lock = host.lock().map_err(|error| lock_failed(&error))?;
    let generations = host.generations();
    let chosen = choose(&host, &name, args.number)?;
    let loaded = load_kept(&generations, &chosen)?;
    protect(&loaded.stack)?;
    let host = host.with_files_of(&chosen);
    let wish = Wish::Run(&loaded.stack);
    let path = generations.stack_file(chosen.number);
    let shown = Shown { file: &path, json: args.json };
    if !args.json {
        anstream::println!("{}", paint(DIM, format!("back to generation {}: {}", chosen.number, chosen.summary())));
    }
    let (did, travelled) = wait_for(async {
        let _held = held(&host)?;
        let looked = shown_look(&host, &wish, &shown).await?;
        for note in moved(&host, &chosen, &looked) {
            anstream::eprintln!("{} {note}", paint(WARN, "note:"));
        }
        if !looked.plan.is_empty() && !args.yes && !args.json && !agreed()? {
            return Err(failed("nothing was changed", &[]));
        }
        let did = changes(&looked.plan);
        Ok((did, carry_out(&host, &wish, looked, &shown).await?))
    })??;
    match args.json {
        true => anstream::println!("{:#}", json(&travelled)),
        false => anstream::print!("{}", ps::table(&travelled.actual, name.as_str())),
    }
    ended(&travelled)?;
    keep(global, &host, &loaded, (&travelled, did, Some(chosen.number)));
    if !args.json {
        let file = chosen.source.file.display();
        anstream::println!(
            "{} generation {} runs; {file} is as it was, and `stack up` goes by that",
            up::ok(),
            chosen.number
        );
    }
    Ok(())
}

fn choose(host: &LinuxHost, name: &Name, number: Option<u32>) -> Result<Generation, Exit> {
    let generations = host.generations();
    if let Some(number) = number {
        return generations.read(number).map_err(|error| generation_failed(&error));
    }
    let all = generations.list().map_err(|error| generation_failed(&error))?;
    let running = wait_for(current(host, name, &all))??;
    before(&all, running).cloned().ok_or_else(|| {
        failed(
            &format!("there is no generation of {name} to go back to"),
            &["`stack history` lists those that are kept"],
        )
    })
}

/// The stack of a generation: its text and files as they were kept, read as if they were where they were.
fn load_kept(generations: &Generations, generation: &Generation) -> Result<Loaded, Exit> {
    let contents = generations.contents(generation).map_err(|error| generation_failed(&error))?;
    let file = generation.source.file.clone();
    let text = contents.get(&file).and_then(|bytes| String::from_utf8(bytes.clone()).ok());
    let text = text.ok_or_else(|| failed("the kept stack file cannot be read", &[]))?;
    let variables = variables_then(generation, &variables());
    let files = Remembered { contents };
    let folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
    let name = generations.stack_file(generation.number).display().to_string();
    let profiles = generation.source.profiles.clone();
    let surroundings = Surroundings { variables: &variables, folder, files: &files, profiles: &profiles };
    let stack = told(examine_text(&name, &text, &surroundings))?;
    let config: Vec<&PathBuf> =
        stack.containers.values().flat_map(|container| container.files.iter().map(|file| &file.file)).collect();
    let read = files.contents.iter().filter(|(path, _)| !config.contains(path));
    let read = read.map(|(path, bytes)| (path.clone(), bytes.clone())).collect();
    Ok(Loaded { stack, file, read, variables, profiles })
}

/// The environment as it was; those that are called like secrets were not kept, and are as they are now.
fn variables_then(generation: &Generation, now: &HashMap<String, String>) -> HashMap<String, String> {
    let kept = generation.source.variables.iter().filter_map(|(name, kept)| match kept {
        KeptVariable::Value(value) => Some((name.clone(), value.clone())),
        KeptVariable::Hash(_) => Some((name.clone(), now.get(name)?.clone())),
    });
    kept.collect()
}

/// What could not be kept and is another now.
fn moved(host: &LinuxHost, generation: &Generation, looked: &Looked) -> Vec<String> {
    let number = generation.number;
    let secrets = generation.source.files.iter().filter(|(_, file)| file.kept.is_none());
    let secrets = secrets
        .filter(|(path, file)| host.hash_of(path).is_ok_and(|hash| hash != file.hash))
        .map(|(path, _)| format!("the secret `{}` is another one than in generation {number}", path.display()));
    let images = looked.desired.containers.values().filter_map(|container| {
        let now = &container.spec.image;
        let then = generation.source.images.get(&now.name)?;
        (then.id != now.id).then(|| format!("the image `{}` is another one than in generation {number}", now.name))
    });
    let mut notes: Vec<String> = secrets.chain(images).collect();
    notes.sort();
    notes.dedup();
    notes
}

/// Asks on a terminal; where there is none, the command line was the answer.
fn agreed() -> Result<bool, Exit> {
    if !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    anstream::eprint!("go back to this? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| failed(&error.to_string(), &[]))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
