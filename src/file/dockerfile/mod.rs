//! Dockerfiles: text to a [`Build`], or to diagnostics in the look of the stack file's own. What has no counterpart here
//! is refused by name.

mod instruction;
mod lines;

use std::path::PathBuf;

use super::code;
use super::diagnostic::{Diagnostics, Draft};
use super::source::Source;
use super::words::nearest;
use crate::model::build::{
    Base, BaseImage, Build, BuildNetwork, BuildStep, CopyFrom, Expansion, Instruction, Stage, expand,
};
use crate::model::{ImageReference, ImageSource, Pull};
use instruction::{KEYWORDS, Said, Site};
use lines::Line;

/// What is known of a build beside its Dockerfile.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub context: PathBuf,
    /// The lines of `.dockerignore`.
    pub ignored: Vec<String>,
    pub args: Vec<(String, String)>,
    /// The stage that becomes the image; `None`: the last.
    pub target: Option<String>,
    pub network: BuildNetwork,
}

/// Reads the Dockerfile that is called `name` in messages.
pub fn parse_dockerfile(name: &str, text: &str, wish: Wish) -> Result<Build, Diagnostics> {
    let source = Source::new(name, text);
    let lines = lines::read(text);
    let mut reading =
        Reading { wish: &wish, escape: lines.escape, drafts: lines.faults, globals: Vec::new(), stages: Vec::new() };
    for line in &lines.list {
        reading.line(line);
    }
    let target = reading.target(text);
    let Reading { drafts, globals, stages, escape, .. } = reading;
    match (drafts.is_empty(), target) {
        (true, Some(target)) => Ok(Build {
            file: name.to_owned(),
            context: wish.context,
            ignored: wish.ignored,
            globals,
            args: wish.args,
            stages,
            target,
            network: wish.network,
            escape: Some(escape),
        }),
        _ => Err(Diagnostics::new(source, drafts, &[])),
    }
}

/// What every build knows of the machine it is for, by docker's names.
pub fn platform_args() -> [(&'static str, String); 8] {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let platform = format!("linux/{arch}");
    [
        ("TARGETPLATFORM", platform.clone()),
        ("TARGETOS", "linux".into()),
        ("TARGETARCH", arch.into()),
        ("TARGETVARIANT", String::new()),
        ("BUILDPLATFORM", platform),
        ("BUILDOS", "linux".into()),
        ("BUILDARCH", arch.into()),
        ("BUILDVARIANT", String::new()),
    ]
}

struct Reading<'w> {
    wish: &'w Wish,
    escape: char,
    drafts: Vec<Draft>,
    globals: Vec<(String, String)>,
    stages: Vec<Stage>,
}

impl Reading<'_> {
    fn bad(&mut self, line: &Line, message: impl Into<String>) {
        self.drafts.push(Draft::error(code::BAD_INSTRUCTION, &line.span, message));
    }

    fn line(&mut self, line: &Line) {
        match line.keyword.as_str() {
            "FROM" => self.from(line),
            "ARG" if self.stages.is_empty() => self.global(line),
            keyword if !KEYWORDS.contains(&keyword) => self.unknown(line),
            keyword if self.stages.is_empty() => {
                let message = format!("`{keyword}` stands before the first `FROM`");
                self.drafts.push(
                    Draft::error(code::BAD_INSTRUCTION, &line.span, message)
                        .help("only `ARG` may stand there; begin with `FROM IMAGE` or `FROM scratch`"),
                );
            }
            _ => self.step(line),
        }
    }

    fn unknown(&mut self, line: &Line) {
        let keyword = &line.keyword;
        let span = line.span.start..line.span.start + keyword.len();
        let draft = match keyword.as_str() {
            "ONBUILD" => Draft::error(code::REFUSED_INSTRUCTION, &span, "`ONBUILD` is not supported")
                .help("write the instruction into the Dockerfiles that build on this image"),
            "MAINTAINER" => Draft::error(code::REFUSED_INSTRUCTION, &span, "`MAINTAINER` is not supported")
                .help("write `LABEL org.opencontainers.image.authors=\"…\"`"),
            _ => {
                let draft = Draft::error(code::BAD_INSTRUCTION, &span, format!("unknown instruction `{keyword}`"));
                match nearest(keyword, KEYWORDS.into_iter().chain(["FROM"])) {
                    Some(near) => draft.label(format!("did you mean `{near}`?")),
                    None => draft,
                }
            }
        };
        self.drafts.push(draft);
    }

    /// The value of a variable outside of stages: what was given, what `ARG` declared, what is known of the machine.
    fn global_value(&self, name: &str) -> Option<String> {
        let listed = self.globals.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let platform = || platform_args().into_iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        listed.or_else(platform)
    }

    fn put(&mut self, line: &Line, text: &str) -> Option<String> {
        match expand(text, self.escape, Expansion::Words, &|name| self.global_value(name)) {
            Ok(text) => Some(text),
            Err(why) => {
                self.bad(line, format!("`{text}` {why}"));
                None
            }
        }
    }

    fn global(&mut self, line: &Line) {
        let words = lines::words(&line.rest, self.escape);
        if words.is_empty() {
            self.bad(line, "`ARG` names no argument");
        }
        for word in words {
            let (name, default) = word.split_once('=').map_or((word.as_str(), None), |(name, text)| (name, Some(text)));
            let given = self.wish.args.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            let value = match (given, default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => self.put(line, default),
                (None, None) => None,
            };
            self.globals.extend(value.map(|value| (name.to_owned(), value)));
        }
    }

    fn from(&mut self, line: &Line) {
        let words = lines::words(&line.rest, self.escape);
        let flags = words.iter().take_while(|word| word.starts_with("--")).count();
        for flag in &words[..flags] {
            let Some(platform) = flag.strip_prefix("--platform=") else {
                self.refuse(line, format!("`FROM {flag}` is not supported"), "leave it out");
                continue;
            };
            let Some(platform) = self.put(line, platform) else { continue };
            let own = self.global_value("TARGETPLATFORM").unwrap_or_default();
            if platform != own && Some(platform.as_str()) != own.strip_prefix("linux/") {
                self.refuse(
                    line,
                    format!("`--platform={platform}` is not this machine's"),
                    format!("images are built for {own}; leave `--platform` out"),
                );
            }
        }
        let (image, name) = match &words[flags..] {
            [image] => (image, None),
            [image, word, name] if word.eq_ignore_ascii_case("as") => (image, Some(name.to_ascii_lowercase())),
            _ => {
                self.bad(line, format!("`FROM {}` is not of the form `FROM IMAGE [AS NAME]`", line.rest));
                // What follows belongs to some stage.
                return self.stages.push(Stage { name: None, base: Base::Scratch, steps: vec![], line: line.number });
            }
        };
        let base = self.put(line, image).and_then(|image| self.base(line, &image)).unwrap_or(Base::Scratch);
        if let Some(name) = &name
            && self.stages.iter().any(|stage| stage.name.as_ref() == Some(name))
        {
            self.bad(line, format!("two stages are called `{name}`"));
        }
        self.stages.push(Stage { name, base, steps: Vec::new(), line: line.number });
    }

    fn refuse(&mut self, line: &Line, message: impl Into<String>, help: impl Into<String>) {
        self.drafts.push(Draft::error(code::REFUSED_INSTRUCTION, &line.span, message).help(help));
    }

    fn base(&mut self, line: &Line, image: &str) -> Option<Base> {
        if image == "scratch" {
            return Some(Base::Scratch);
        }
        if let Some(stage) = self.stage(image) {
            return Some(Base::Stage(stage));
        }
        self.image(line, image).map(Base::Image)
    }

    /// The latest earlier stage of a name.
    fn stage(&self, name: &str) -> Option<usize> {
        self.stages.iter().rposition(|stage| stage.name.as_deref() == Some(&name.to_ascii_lowercase()))
    }

    fn image(&mut self, line: &Line, image: &str) -> Option<BaseImage> {
        match ImageReference::parse(image) {
            Ok(reference) => Some(BaseImage {
                written: image.to_owned(),
                source: ImageSource::Registry(reference),
                pull: Pull::Missing,
            }),
            Err(why) => {
                let draft = Draft::error(code::BAD_INSTRUCTION, &line.span, format!("`{image}` names no image"));
                self.drafts.push(draft.label(why));
                None
            }
        }
    }

    fn step(&mut self, line: &Line) {
        let site = Site { line, escape: self.escape };
        let said = match instruction::read(&site) {
            Ok(said) => said,
            Err(draft) => return self.drafts.push(*draft),
        };
        let what = match said {
            Said::Whole(what) => what,
            Said::CopyFrom(mut copy, from) => {
                let number = from.parse::<usize>().ok();
                let earlier = self.stages.len() - 1;
                copy.from = match (
                    self.stages[..earlier]
                        .iter()
                        .rposition(|stage| stage.name.as_deref() == Some(&from.to_ascii_lowercase())),
                    number,
                ) {
                    (Some(stage), _) => CopyFrom::Stage(stage),
                    (None, Some(stage)) if stage < earlier => CopyFrom::Stage(stage),
                    (None, Some(stage)) => {
                        return self.bad(line, format!("there is no earlier stage {stage}"));
                    }
                    (None, None) => match self.image(line, &from) {
                        Some(image) => CopyFrom::Image(image),
                        None => return,
                    },
                };
                Instruction::Copy(copy)
            }
        };
        let text = format!("{} {}", line.keyword, line.rest.split_whitespace().collect::<Vec<_>>().join(" "));
        if let Some(stage) = self.stages.last_mut() {
            stage.steps.push(BuildStep { line: line.number, text, what });
        }
    }

    fn target(&mut self, text: &str) -> Option<usize> {
        let end = 0..text.lines().next().map_or(0, str::len);
        if self.stages.is_empty() {
            if self.drafts.is_empty() {
                let draft = Draft::error(code::BAD_INSTRUCTION, &end, "there is no `FROM` in this Dockerfile");
                self.drafts.push(draft.help("begin with `FROM IMAGE` or `FROM scratch`"));
            }
            return None;
        }
        let Some(name) = &self.wish.target else { return Some(self.stages.len() - 1) };
        let found = self.stage(name).or_else(|| name.parse().ok().filter(|stage| *stage < self.stages.len()));
        if found.is_none() {
            let names: Vec<&str> = self.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
            let draft = Draft::error(code::BAD_INSTRUCTION, &end, format!("there is no stage `{name}`"));
            self.drafts.push(draft.help(match names.is_empty() {
                true => "give a stage its name: `FROM IMAGE AS NAME`".to_owned(),
                false => format!("its stages are {}", names.join(", ")),
            }));
        }
        found
    }
}

#[cfg(test)]
mod tests;
