//! `stack graph`: the plan's graph as text, DOT, SVG or JSON.

use std::process::ExitCode;

use super::args::{GraphArgs, GraphFormat};
use super::context::{file_path, load};
use super::exit::Exit;
use crate::plan::graph;

pub fn run(args: &GraphArgs) -> ExitCode {
    let stack = match load(&file_path(args.path.as_ref(), &args.file), &args.file.profiles) {
        Ok(stack) => stack,
        Err(exit) => return exit.into(),
    };
    let graph = graph(&stack);
    if args.json {
        anstream::println!("{:#}", serde_json::json!(graph));
        return Exit::Ok.into();
    }
    let text = match args.format {
        GraphFormat::Text => graph.text(),
        GraphFormat::Dot => graph.dot(),
        GraphFormat::Svg => graph.svg(),
    };
    anstream::print!("{text}");
    Exit::Ok.into()
}
