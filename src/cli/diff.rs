//! `stack diff`: the plan, and nothing of it done. The code that changes things is not on its way.

use std::process::ExitCode;

use super::args::{DiffArgs, Global};
use super::context::{failed, file_path, host, load, road_failed, timings, wait_for};
use super::exit::Exit;
use super::show::{Tense, plan};
use crate::reconcile::{Wish, look};

pub fn run(global: &Global, args: &DiffArgs) -> ExitCode {
    show(global, args).unwrap_or_else(|exit| exit).into()
}

fn show(global: &Global, args: &DiffArgs) -> Result<Exit, Exit> {
    let path = file_path(args.path.as_ref(), &args.file);
    let stack = load(&path, &args.file.profiles)?;
    let host = host(global, &stack.name)?;
    let looked = wait_for(look(&host, &Wish::Run(&stack)))?.map_err(|error| road_failed(&error))?;
    match args.json {
        true => anstream::println!("{:#}", super::show::plan_json(&looked.plan)),
        false => anstream::print!("{}", plan(&looked.plan, &path.display().to_string(), Tense::Would)),
    }
    timings(global, &looked.timings);
    Ok(match (looked.plan.is_empty(), &looked.plan.exposure) {
        (_, exposure) if args.deny_exposure && exposure.opens_to_others() => {
            failed(
                "other machines would reach what they do not reach now",
                &["`Exposure` in the plan says what, and who"],
            );
            Exit::Exposed
        }
        (true, _) => Exit::Ok,
        (false, _) => Exit::Differs,
    })
}
