//! `stack build`: builds the images of a stack; and how builds are shown, here and in `up`.

use std::process::ExitCode;

use serde_json::json;

use super::args::{BuildArgs, Global};
use super::context::{failed, file_path, host, load};
use super::exit::Exit;
use super::show::JSON_VERSION;
use super::style::{DIM, GOOD, paint};
use super::up::lock_failed;
use crate::model::ImageSource;
use crate::reconcile::{BuildEvent, Rebuild};

pub fn run(global: &Global, args: &BuildArgs) -> ExitCode {
    match build(global, args) {
        Ok(()) => Exit::Ok.into(),
        Err(exit) => exit.into(),
    }
}

fn build(global: &Global, args: &BuildArgs) -> Result<(), Exit> {
    let path = file_path(None, &args.file);
    let stack = load(&path, &args.file.profiles)?;
    let builds = |name: &str| {
        stack
            .images
            .iter()
            .any(|(known, image)| known.as_str() == name && matches!(image.source, ImageSource::Build(_)))
    };
    if let Some(name) = args.images.iter().find(|name| !builds(name)) {
        failed(
            &format!("there is no image `{name}` that is built"),
            &["name a table [image.NAME] with a `build` in it"],
        );
        return Err(Exit::Usage);
    }
    let rebuild = if args.no_cache { Rebuild::All } else { Rebuild::Changed };
    let host = host(global, &stack.name)?.with_rebuild(rebuild);
    let _lock = host.lock().map_err(|error| lock_failed(&error))?;
    let built = host.build_images(&stack, &args.images).map_err(|error| {
        let exit = failed(&error.chain(), &[]);
        super::progress::tail(&error);
        exit
    })?;
    host.write_image_lock(&path).map_err(|error| failed(&error.chain(), &[]))?;
    if args.json {
        let images: Vec<_> = built.iter().map(|(name, image)| json!({ "name": name, "image": image })).collect();
        anstream::println!("{:#}", json!({ "version": JSON_VERSION, "images": images }));
        return Ok(());
    }
    for (name, image) in &built {
        anstream::println!("{} {name} {} {}", paint(GOOD, "built"), image.reference, image.manifest);
    }
    Ok(())
}

/// A line of what a build does, with the image before it.
pub fn show(image: &str, event: BuildEvent<'_>) {
    let name = paint(DIM, format!("{image} |"));
    match event {
        BuildEvent::Step { number, total, text, kept } => {
            let kept = if kept { paint(DIM, " (kept)") } else { String::new() };
            anstream::eprintln!("{name} [{number}/{total}] {text}{kept}");
        }
        BuildEvent::Output(line) => anstream::eprintln!("{name} {line}"),
    }
}
