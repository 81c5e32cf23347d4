//! `stack diff`: the plan, and nothing of it done. The code that changes things is not on its way.

use std::process::ExitCode;

use super::args::{DiffArgs, Global};
use super::context::{failed, file_path, host, load_all, road_failed, timings, wait_for};
use super::exit::Exit;
use super::show::{Tense, plan, plan_json};
use crate::reconcile::{PlanFile, Wish, look, seen};

pub fn run(global: &Global, args: &DiffArgs) -> ExitCode {
    show(global, args).unwrap_or_else(|exit| exit).into()
}

fn show(global: &Global, args: &DiffArgs) -> Result<Exit, Exit> {
    let path = file_path(args.path.as_ref(), &args.file);
    let loaded = load_all(&path, args.file.profiles.chosen())?;
    let host = host(global, &loaded.stack.name)?;
    let looked = wait_for(look(&host, &Wish::Run(&loaded.stack)))?.map_err(|error| road_failed(&error))?;
    if let Some(place) = &args.output {
        let source = host.source_of(&loaded.given()).map_err(|error| failed(&error.chain(), &[]))?;
        let plan = PlanFile::new(&loaded.given(), seen(&source, &looked), plan_json(&looked.plan));
        plan.write(place).map_err(|error| failed(&error.to_string(), &[]))?;
    }
    match args.json {
        true => anstream::println!("{:#}", plan_json(&looked.plan)),
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
