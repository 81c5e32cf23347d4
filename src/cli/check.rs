//! `stack check`: every error of a stack file in one run, and nothing else.

use std::process::ExitCode;

use super::args::CheckArgs;
use super::context::{file_paths, load, variables};
use super::exit::Exit;
use super::style::{GOOD, paint};
use crate::file;

pub fn run(args: &CheckArgs) -> ExitCode {
    let mut exit = Exit::Ok;
    let mut documents = Vec::new();
    for path in file_paths(&args.files, &args.file) {
        if args.json {
            let examined = file::examine(&path, &variables(), &args.file.profiles.chosen());
            let valid = examined.stack.is_some();
            if !valid {
                exit = Exit::File;
            }
            documents.push(serde_json::json!({ "file": path, "valid": valid, "diagnostics": examined.diagnostics }));
            continue;
        }
        match load(&path, &args.file.profiles) {
            Ok(stack) => {
                let containers = match stack.containers.len() {
                    1 => "1 container".to_string(),
                    n => format!("{n} containers"),
                };
                let counts = format!("stack {}, {containers}", stack.name);
                anstream::println!("{} {} ({counts})", paint(GOOD, "ok"), path.display());
            }
            Err(wrong) => exit = wrong,
        }
    }
    if args.json {
        anstream::println!("{:#}", serde_json::json!(documents));
    }
    exit.into()
}
