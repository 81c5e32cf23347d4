//! `stack image …`: images by name, outside of any stack.

mod bars;
mod diff;
mod fsck;
mod prune;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::{Global, ImageCommand};
use super::context::{failed, registries};
use super::exit::Exit;
use super::show::{JSON_VERSION, table};
use super::style::{GOOD, paint};
use crate::reconcile::{ImageError, ImageLibrary, ImageOrigin, LibraryError, Reference};
use bars::{Bars, size};

pub fn run(global: &Global, command: &ImageCommand) -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        return failed("stack must run as root", &["layers hold the owners that they were made with; try sudo"]).into();
    }
    let options = registries(global).map_err(|error| failed(&error.chain(), &[]));
    let library = options.map(|options| ImageLibrary::new(&global.data_dir, &global.run_dir, options));
    match library.and_then(|library| perform(&library, command)) {
        Ok(()) => Exit::Ok.into(),
        Err(exit) => exit.into(),
    }
}

fn perform(library: &ImageLibrary, command: &ImageCommand) -> Result<(), Exit> {
    match command {
        ImageCommand::Pull { references, json } => pull(library, references, Form::of(*json)),
        ImageCommand::Push { reference, to, json } => push(library, (reference, to.as_deref()), Form::of(*json)),
        ImageCommand::Ls { json } => list(library, Form::of(*json)),
        ImageCommand::Inspect { reference, .. } => inspect(library, reference),
        ImageCommand::Tree { reference, json } => tree(library, reference, Form::of(*json)),
        ImageCommand::Rm { references, json } => remove(library, references, Form::of(*json)),
        ImageCommand::Import { source, reference, json } => import(library, (source, reference), Form::of(*json)),
        ImageCommand::Export { reference, file, json } => export(library, (reference, file), Form::of(*json)),
        ImageCommand::Prune { all, older_than, keep, free, dry_run, json } => {
            let bounds = (older_than.as_deref(), *keep, free.as_deref());
            prune::run(library, &prune::wish(*all, bounds, *dry_run)?, Form::of(*json))
        }
        ImageCommand::Diff { before, after, json } => diff::run(library, (before, after), Form::of(*json)),
        ImageCommand::Fsck { json } => fsck::run(library, Form::of(*json)),
    }
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Json,
}

impl Form {
    fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }

    /// Prints a result in this form.
    fn say(self, text: &str, mut value: Value) {
        match self {
            Self::Text => anstream::println!("{text}"),
            Self::Json => {
                value["version"] = json!(JSON_VERSION);
                anstream::println!("{value:#}");
            }
        }
    }
}

fn pull(library: &ImageLibrary, references: &[String], form: Form) -> Result<(), Exit> {
    let mut pulled = Vec::new();
    for text in references {
        let reference = parse(text)?;
        let image = library.pull(&reference, &Bars::new()).map_err(told)?;
        if let Form::Text = form {
            anstream::println!("{} {} {}", paint(GOOD, "pulled"), image.reference, image.resolved);
        }
        pulled.push(image);
    }
    if let Form::Json = form {
        form.say("", json!({ "images": pulled }));
    }
    Ok(())
}

fn push(library: &ImageLibrary, (from, to): (&str, Option<&str>), form: Form) -> Result<(), Exit> {
    let from = parse(from)?;
    let to = to.map_or_else(|| Ok(from.clone()), parse)?;
    let sent = |digest: crate::reconcile::LayerDigest, bytes| {
        anstream::eprintln!("{} {} {}", paint(GOOD, "+"), &digest.hex()[..12], size(bytes));
    };
    let digest = library.push((&from, &to), &sent).map_err(told)?;
    form.say(&format!("{} {to} {digest}", paint(GOOD, "pushed")), json!({ "reference": to, "digest": digest }));
    Ok(())
}

fn list(library: &ImageLibrary, form: Form) -> Result<(), Exit> {
    let images = library.images().map_err(told)?;
    let mut rows = vec![["IMAGE", "DIGEST", "SIZE"].map(str::to_owned).to_vec()];
    for image in &images {
        rows.push(vec![image.reference.to_string(), image.resolved.hex()[..12].to_owned(), size(image.size)]);
    }
    form.say(table(&rows).trim_end(), json!({ "images": images }));
    Ok(())
}

/// Always JSON: it is for programs, and people read it too.
fn inspect(library: &ImageLibrary, reference: &str) -> Result<(), Exit> {
    let reference = parse(reference)?;
    let (stored, image) = (library.image(&reference).map_err(told)?, library.resolve(&reference).map_err(told)?);
    let layers: Vec<_> = image.layers.iter().filter_map(|layer| layer.digest()).collect();
    let missing = library.missing(&image);
    let value =
        json!({ "image": stored, "id": image.id, "config": image.config, "layers": layers, "missing": missing });
    Form::Json.say("", value);
    Ok(())
}

fn tree(library: &ImageLibrary, reference: &str, form: Form) -> Result<(), Exit> {
    let reference = parse(reference)?;
    let stored = library.image(&reference).map_err(told)?;
    let image = library.resolve(&reference).map_err(told)?;
    let mut lines =
        vec![format!("{reference}"), format!("└─ manifest {}", stored.manifest), format!("   ├─ config {}", image.id)];
    let last = image.layers.len().saturating_sub(1);
    for (index, layer) in image.layers.iter().enumerate() {
        let branch = if index == last { "└─" } else { "├─" };
        let digest = layer.digest().map_or_else(|| "folder".to_owned(), |digest| digest.to_string());
        lines.push(format!("   {branch} layer {digest}"));
    }
    let layers: Vec<_> = image.layers.iter().filter_map(|layer| layer.digest()).collect();
    form.say(
        &lines.join("\n"),
        json!({ "reference": reference, "manifest": stored.manifest, "config": image.id, "layers": layers }),
    );
    Ok(())
}

fn remove(library: &ImageLibrary, references: &[String], form: Form) -> Result<(), Exit> {
    for text in references {
        let reference = parse(text)?;
        library.remove(&reference).map_err(told)?;
        if let Form::Text = form {
            anstream::println!("removed {reference}");
        }
    }
    if let Form::Json = form {
        form.say("", json!({ "removed": references }));
    }
    Ok(())
}

fn import(library: &ImageLibrary, (source, reference): (&str, &str), form: Form) -> Result<(), Exit> {
    let reference = parse(reference)?;
    let unknown = || {
        let hint = "write oci:FOLDER[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:TAG]";
        failed(&format!("`{source}` cannot be imported"), &[hint]);
        Exit::Usage
    };
    let (scheme, rest) = source.split_once(':').ok_or_else(unknown)?;
    let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag.to_owned())));
    let path = PathBuf::from(path);
    let origin = match scheme {
        "oci" => ImageOrigin::OciLayout { path, tag },
        "oci-archive" => ImageOrigin::OciArchive { path, tag },
        "docker-archive" => ImageOrigin::DockerArchive { path, tag },
        _ => return Err(unknown()),
    };
    let image = library.import(&origin, &reference).map_err(told)?;
    form.say(&format!("{} {reference} {}", paint(GOOD, "imported"), image.manifest), json!({ "image": image }));
    Ok(())
}

fn export(library: &ImageLibrary, (reference, file): (&str, &Path), form: Form) -> Result<(), Exit> {
    let reference = parse(reference)?;
    library.export(&reference, file).map_err(told)?;
    form.say(&format!("wrote {}", file.display()), json!({ "reference": reference, "file": file }));
    Ok(())
}

fn parse(text: &str) -> Result<Reference, Exit> {
    text.parse().map_err(|error: <Reference as std::str::FromStr>::Err| {
        failed(&error.to_string(), &[]);
        Exit::Usage
    })
}

/// The chain of causes in one line, and what to do about it.
fn told(error: LibraryError) -> Exit {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    let hints: &[&str] = match &error {
        LibraryError::NotStored { .. } => &["`stack image ls` lists the images that are there"],
        LibraryError::Store { source: ImageError::StoreBusy { .. }, .. } => {
            &["it may be taking in or using what would be taken away; try again when it is done"]
        }
        _ => &[],
    };
    failed(&text, hints)
}
