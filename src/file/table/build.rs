//! `[image.NAME.build]`: how an image is made, by a Dockerfile or by keys of its own.

use std::path::PathBuf;

use indexmap::IndexMap;
use toml::de::DeValue;

use super::{Named, env, image};
use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::dockerfile::{Wish, parse_dockerfile};
use crate::file::keys::{BOOTSTRAP, BUILD, COPY, STAGE};
use crate::file::literal::Text;
use crate::file::source::{At, Span};
use crate::file::surroundings::FileKind;
use crate::file::walk::{Item, Reader, Section};
use crate::model::build::{
    Base, BaseImage, Bootstrap, Build, BuildNetwork, BuildStep, CommandForm, Copy, CopyFrom, Instruction, Stage,
};
use crate::model::{Image, ImageSource, Pull};

/// The most that a Dockerfile or a `.dockerignore` may hold.
const MAX_FILE: u64 = 4 << 20;
const NETWORKS: [(&str, BuildNetwork); 2] = [("host", BuildNetwork::Host), ("none", BuildNetwork::None)];
/// What says what goes into an image, and not how.
const CONTENT: [&str; 12] = [
    "from",
    "bootstrap",
    "stage",
    "env",
    "workdir",
    "copy",
    "run",
    "user",
    "entrypoint",
    "command",
    "expose",
    "labels",
];

pub(super) fn read(reader: &mut Reader, item: Item) -> Option<Build> {
    let section = reader.table(&BUILD, Some(item))?;
    let network = section.get("network");
    let given = network.is_some();
    let network = match (reader.choice(network, &NETWORKS), given) {
        (None, true) => return None,
        (network, _) => network.unwrap_or_default(),
    };
    match section.get("dockerfile") {
        Some(item) => dockerfile(reader, &section, item, network),
        None => keys(reader, &section, network),
    }
}

fn context(reader: &mut Reader, section: &Section, default: PathBuf) -> Option<PathBuf> {
    match section.get("context") {
        Some(item) => {
            let text = reader.text(Some(item))?;
            reader.host_file(&text.value, &text.span, &[FileKind::Folder])
        }
        None => Some(default),
    }
}

/// The lines of the first of these files that is there.
fn ignored(reader: &mut Reader, files: &[PathBuf], span: &Span) -> Vec<String> {
    for file in files {
        match reader.surroundings.files.read(file, MAX_FILE) {
            Ok(content) => return String::from_utf8_lossy(&content).lines().map(str::to_owned).collect(),
            Err(fault) if fault.kind() == std::io::ErrorKind::NotFound => {}
            Err(fault) => {
                let message = format!("`{}` cannot be read: {fault}", file.display());
                reader.push(Draft::error(code::BAD_FILE, span, message));
            }
        }
    }
    Vec::new()
}

fn dockerfile(reader: &mut Reader, section: &Section, item: Item, network: BuildNetwork) -> Option<Build> {
    let written = reader.text(Some(item))?;
    if let Some(other) = CONTENT.iter().find_map(|key| section.get(key)) {
        let message = format!("`{}` and `dockerfile` exclude each other", other.key.name);
        let draft = Draft::error(code::KEY_CHOICE, &other.key_span, message).other(&written.span, "the Dockerfile");
        reader.push(draft.help("write it into the Dockerfile, or leave the Dockerfile out"));
        return None;
    }
    let path = reader.host_file(&written.value, &written.span, &[FileKind::File])?;
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    let context = context(reader, section, folder)?;
    let bad = |message: String| Draft::error(code::BAD_FILE, &written.span, message);
    let text = match reader.surroundings.files.read(&path, MAX_FILE).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => {
            reader.push(bad(format!("`{}` is not UTF-8", written.value)));
            return None;
        }
        Err(fault) => {
            reader.push(bad(format!("`{}` cannot be read: {fault}", written.value)));
            return None;
        }
    };
    let args = section.get("args");
    let mut given = Vec::new();
    for entry in reader.entries(args.as_ref()) {
        let Some(item) = &args else { continue };
        if let Some(value) = reader.scalar(item, &entry) {
            given.push((entry.name, value));
        }
    }
    let target = reader.text(section.get("target")).map(|text| text.value);
    let own = PathBuf::from(format!("{}.dockerignore", path.display()));
    let ignored = ignored(reader, &[own, context.join(".dockerignore")], &written.span);
    match parse_dockerfile(&written.value, &text, Wish { context, ignored, args: given, target, network }) {
        Ok(build) => Some(build),
        Err(faults) => {
            reader.foreign.push(faults);
            None
        }
    }
}

/// The build that the keys of a table say.
fn keys(reader: &mut Reader, section: &Section, network: BuildNetwork) -> Option<Build> {
    for key in ["args", "target"] {
        if let Some(item) = section.get(key) {
            let message = format!("`{key}` is for builds by a Dockerfile");
            reader.push(
                Draft::error(code::KEY_CHOICE, &item.key_span, message).help("leave it out, or add `dockerfile`"),
            );
        }
    }
    let mut stages = Vec::new();
    let item = section.get("stage");
    for entry in reader.entries(item.as_ref()) {
        let DeValue::Table(table) = entry.value.get_ref() else {
            let message = format!("stage `{}` must be a table", entry.name);
            reader.push(Draft::error(code::WRONG_TYPE, &entry.value.span(), message));
            continue;
        };
        let section = reader.section(&STAGE, format!("stage `{}`", entry.name), entry.name_span.clone(), table);
        let stage = stage(reader, &section, &stages)?;
        stages.push(Stage { name: Some(entry.name), ..stage });
    }
    let mut last = stage(reader, section, &stages)?;
    configuration(reader, section, &mut last);
    stages.push(last);
    let context = context(reader, section, reader.written.part(section.span.start).folder.clone())?;
    let ignored = ignored(reader, &[context.join(".dockerignore")], &section.span);
    Some(Build {
        file: reader.written.part(section.span.start).name.clone(),
        context,
        ignored,
        globals: vec![],
        args: vec![],
        target: stages.len() - 1,
        stages,
        network,
        escape: None,
    })
}

fn line(reader: &Reader, span: &Span) -> u32 {
    reader.written.line(span.start)
}

fn stage(reader: &mut Reader, section: &Section, earlier: &[Stage]) -> Option<Stage> {
    let base = base(reader, section, earlier)?;
    let mut stage = Stage { name: None, base, steps: Vec::new(), line: line(reader, &section.span) };
    let mut push = |reader: &Reader, span: &Span, text: String, what: Instruction| {
        stage.steps.push(BuildStep { line: line(reader, span), text, what });
    };
    if let Some(item) = section.get("env") {
        let span = item.key_span.clone();
        let variables: Vec<(String, String)> = env::variables(reader, section).into_iter().collect();
        let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
        let text = format!("env {}", names.join(" "));
        push(reader, &span, text, Instruction::Env(variables));
    }
    if let Some(text) = reader.text(section.get("workdir")) {
        let shown = format!("workdir {}", text.value);
        push(reader, &text.span, shown, Instruction::Workdir(text.value.clone()));
    }
    for table in reader.tables(&COPY, section.get("copy")) {
        let copy = copy(reader, &table, earlier)?;
        let shown = format!("copy {} to {}", copy.sources.join(" "), copy.to);
        push(reader, &table.span, shown, Instruction::Copy(copy));
    }
    for text in reader.texts(section.get("run")).unwrap_or_default() {
        let shown = format!("run {}", text.value.split_whitespace().collect::<Vec<_>>().join(" "));
        push(reader, &text.span, shown, Instruction::Run(CommandForm::Shell(text.value.clone())));
    }
    if let Some(text) = reader.text(section.get("user")) {
        push(reader, &text.span, format!("user {}", text.value), Instruction::User(text.value.clone()));
    }
    Some(stage)
}

fn base(reader: &mut Reader, section: &Section, earlier: &[Stage]) -> Option<Base> {
    match (section.get("from"), section.get("bootstrap")) {
        (Some(from), Some(other)) => {
            let message = "`from` and `bootstrap` exclude each other";
            reader.push(Draft::error(code::KEY_CHOICE, &other.key_span, message).other(&from.key_span, "the other"));
            None
        }
        (None, Some(item)) => {
            let table = reader.table(&BOOTSTRAP, Some(item))?;
            let item = reader.required(&table, "suite");
            let suite = word(reader, item)?;
            let item = table.get("packages");
            let packages = reader.texts(item).unwrap_or_default();
            let packages = packages.into_iter().map(|text| checked(reader, text)).collect::<Option<Vec<_>>>()?;
            let item = table.get("variant");
            let variant = if item.is_some() { word(reader, item)? } else { "minbase".into() };
            let mirror = reader.text(table.get("mirror")).map(|text| text.value);
            Some(Base::Bootstrap(Bootstrap { suite, packages, variant, mirror }))
        }
        (from, None) => {
            let item = match from {
                Some(item) => item,
                None => return reader.required(section, "from").map(|_| Base::Scratch),
            };
            let text = reader.text(Some(item))?;
            if text.value == "scratch" {
                return Some(Base::Scratch);
            }
            if let Some(stage) = earlier.iter().position(|stage| stage.name.as_ref() == Some(&text.value)) {
                return Some(Base::Stage(stage));
            }
            base_image(reader, &text).map(Base::Image)
        }
    }
}

fn word(reader: &mut Reader, item: Option<Item>) -> Option<String> {
    let text = reader.text(item)?;
    checked(reader, text)
}

/// A word that becomes a part of mmdebstrap's command line.
fn checked(reader: &mut Reader, text: Text) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '+' | ':' | '=' | '~' | '/');
    if !text.value.is_empty() && !text.value.starts_with('-') && text.value.chars().all(good) {
        return Some(text.value);
    }
    let message = format!("`{}` is no name of a suite, variant or package", text.value);
    reader.push(Draft::error(code::BAD_TEXT, &text.span, message));
    None
}

/// A name without a scheme is that of a table, and is looked up when all are read.
fn base_image(reader: &mut Reader, text: &Text) -> Option<BaseImage> {
    let written = text.value.clone();
    if written.contains([':', '/', '@']) {
        return image::source(reader, text).map(|source| BaseImage { written, source, pull: Pull::Missing });
    }
    reader.bases.push(At::new(written.clone(), text.span.clone()));
    Some(BaseImage { written, source: ImageSource::Host, pull: Pull::Missing })
}

fn copy(reader: &mut Reader, table: &Section, earlier: &[Stage]) -> Option<Copy> {
    let item = reader.required(table, "src")?;
    let sources = reader.texts(Some(item))?;
    for text in &sources {
        if text.value.split('/').any(|part| part == "..") {
            let message = format!("`{}` leads out of what is copied from", text.value);
            let help = "paths begin at `context`; make it a folder that holds the file";
            reader.push(Draft::error(code::BAD_TEXT, &text.span, message).help(help));
            return None;
        }
    }
    let item = reader.required(table, "to")?;
    let to = reader.text(Some(item))?.value;
    let from = match (table.get("stage"), table.get("image")) {
        (None, None) => CopyFrom::Context,
        (Some(_), Some(item)) => {
            reader.push(Draft::error(code::KEY_CHOICE, &item.key_span, "`stage` and `image` exclude each other"));
            return None;
        }
        (None, item) => CopyFrom::Image(reader.text(item).and_then(|text| base_image(reader, &text))?),
        (item, None) => {
            let text = reader.text(item)?;
            match earlier.iter().position(|stage| stage.name.as_ref() == Some(&text.value)) {
                Some(stage) => CopyFrom::Stage(stage),
                None => {
                    let message = format!("there is no earlier stage `{}`", text.value);
                    reader.push(Draft::error(code::UNKNOWN_REFERENCE, &text.span, message));
                    return None;
                }
            }
        }
    };
    let owner = reader.text(table.get("owner")).map(|text| text.value);
    let mode = match reader.text(table.get("mode")) {
        None => None,
        Some(text) => match u32::from_str_radix(&text.value, 8).ok().filter(|mode| *mode <= 0o7777) {
            Some(mode) => Some(mode),
            None => {
                let message = format!("`{}` are no permission bits", text.value);
                reader.push(Draft::error(code::BAD_TEXT, &text.span, message).help("for example `mode = \"0755\"`"));
                return None;
            }
        },
    };
    let sources = sources.into_iter().map(|text| text.value).collect();
    Some(Copy { from, sources, inline: vec![], to, owner, mode, unpack: false })
}

/// How the image wants to be run.
fn configuration(reader: &mut Reader, section: &Section, stage: &mut Stage) {
    let mut push = |reader: &Reader, item: &Item, what: Instruction| {
        let text = item.key.name.to_owned();
        stage.steps.push(BuildStep { line: line(reader, &item.key_span), text, what });
    };
    let words = |texts: Vec<Text>| texts.into_iter().map(|text| text.value).collect::<Vec<_>>();
    for (key, make) in
        [("entrypoint", Instruction::Entrypoint as fn(CommandForm) -> Instruction), ("command", Instruction::Cmd)]
    {
        if let Some(item) = section.get(key)
            && let Some(list) = reader.texts(Some(item.clone()))
        {
            push(reader, &item, make(CommandForm::Exec(words(list))));
        }
    }
    if let Some(item) = section.get("expose")
        && let Some(list) = reader.texts(Some(item.clone()))
    {
        push(reader, &item, Instruction::Expose(words(list)));
    }
    if let Some(item) = section.get("labels") {
        let labels = env::labels(reader, section).into_iter().collect();
        push(reader, &item, Instruction::Label(labels));
    }
}

/// The images that a build names.
pub(in crate::file) fn named_in(build: &Build) -> impl Iterator<Item = &str> {
    let bases = build.stages.iter().filter_map(|stage| match &stage.base {
        Base::Image(image) => Some(image.written.as_str()),
        _ => None,
    });
    let copies = build.stages.iter().flat_map(|stage| &stage.steps);
    let copies = copies.filter_map(|step| match &step.what {
        Instruction::Copy(Copy { from: CopyFrom::Image(image), .. }) => Some(image.written.as_str()),
        _ => None,
    });
    bases.chain(copies)
}

fn images_of(build: &mut Build) -> impl Iterator<Item = &mut BaseImage> {
    build.stages.iter_mut().flat_map(|stage| {
        let base = match &mut stage.base {
            Base::Image(image) => Some(image),
            _ => None,
        };
        let copies = stage.steps.iter_mut().filter_map(|step| match &mut step.what {
            Instruction::Copy(Copy { from: CopyFrom::Image(image), .. }) => Some(image),
            _ => None,
        });
        base.into_iter().chain(copies)
    })
}

/// Puts the images of tables in the place of their names in builds; tells names that lead nowhere, and circles.
pub(super) fn link(reader: &mut Reader, images: &mut Named<Option<Image>>) {
    for name in std::mem::take(&mut reader.bases) {
        if !images.knows(&name.value) {
            let message = format!("there is no [image.{}], and no earlier stage of that name", name.value);
            let help = "name a table or a stage, or write a source in place such as \"docker.io/library/debian:12\"";
            reader.push(Draft::error(code::UNKNOWN_REFERENCE, &name.span, message).help(help));
        }
    }
    let known: IndexMap<String, Option<Image>> =
        images.tables.iter().map(|(name, at)| (name.to_string(), at.value.clone())).collect();
    for (name, at) in &mut images.tables {
        let Some(Image { source: ImageSource::Build(build), .. }) = &mut at.value else { continue };
        if put_in(build, &known, &mut vec![name.to_string()]).is_err() {
            let message = format!("image `{name}` is built from itself");
            reader.push(Draft::error(code::CYCLE, &at.span, message));
            at.value = None;
        }
    }
}

fn put_in(build: &mut Build, known: &IndexMap<String, Option<Image>>, path: &mut Vec<String>) -> Result<(), ()> {
    for image in images_of(build) {
        let Some(Some(found)) = known.get(&image.written) else { continue };
        if path.contains(&image.written) {
            return Err(());
        }
        path.push(image.written.clone());
        let mut found = found.clone();
        if let ImageSource::Build(inner) = &mut found.source {
            put_in(inner, known, path)?;
        }
        path.pop();
        (image.source, image.pull) = (found.source, found.pull);
    }
    Ok(())
}
