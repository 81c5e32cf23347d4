//! One instruction of a stage: its flags and its words become an [`Instruction`].

use super::lines::{Line, words};
use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::model::build::{CommandForm, Copy, CopyFrom, Healthcheck, Instruction};

/// Those of stages.
pub(super) const KEYWORDS: [&str; 16] = [
    "RUN",
    "COPY",
    "ADD",
    "ENV",
    "ARG",
    "WORKDIR",
    "USER",
    "ENTRYPOINT",
    "CMD",
    "SHELL",
    "LABEL",
    "EXPOSE",
    "VOLUME",
    "HEALTHCHECK",
    "STOPSIGNAL",
    "FROM",
];

pub(super) struct Site<'l> {
    pub line: &'l Line,
    pub escape: char,
}

/// An instruction, or one that names a stage or an image which the caller has to find.
pub(super) enum Said {
    Whole(Instruction),
    CopyFrom(Copy, String),
}

type Fault = Box<Draft>;

impl Site<'_> {
    fn bad(&self, message: impl Into<String>) -> Fault {
        Box::new(Draft::error(code::BAD_INSTRUCTION, &self.line.span, message))
    }

    fn refused(&self, message: impl Into<String>, help: impl Into<String>) -> Fault {
        Box::new(Draft::error(code::REFUSED_INSTRUCTION, &self.line.span, message).help(help))
    }

    fn form(&self, form: &str) -> Fault {
        let keyword = &self.line.keyword;
        Box::new(
            Draft::error(code::BAD_INSTRUCTION, &self.line.span, format!("this `{keyword}` cannot be read"))
                .help(format!("it is written `{keyword} {form}`")),
        )
    }

    /// `--name=value` at the beginning, and what comes after them.
    fn flags(&self) -> (Vec<(&str, &str)>, &str) {
        let mut rest = self.line.rest.as_str();
        let mut flags = Vec::new();
        while rest.starts_with("--") {
            let (flag, after) = rest.split_once(|c: char| c.is_whitespace()).unwrap_or((rest, ""));
            flags.push(flag.split_once('=').unwrap_or((flag, "")));
            rest = after.trim_start();
        }
        (flags, rest)
    }

    fn words(&self, text: &str) -> Vec<String> {
        words(text, self.escape)
    }
}

pub(super) fn read(site: &Site) -> Result<Said, Fault> {
    let rest = site.line.rest.as_str();
    let keyword = site.line.keyword.as_str();
    if rest.is_empty() {
        return Err(site.bad(format!("`{keyword}` says nothing")));
    }
    Ok(Said::Whole(match keyword {
        "RUN" => run(site)?,
        "COPY" | "ADD" => return copy(site),
        "ENV" => Instruction::Env(pairs(site)?),
        "LABEL" => Instruction::Label(pairs(site)?),
        "ARG" => Instruction::Arg(
            site.words(rest)
                .iter()
                .map(|word| match word.split_once('=') {
                    Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                    None => (word.clone(), None),
                })
                .collect(),
        ),
        "WORKDIR" => Instruction::Workdir(rest.to_owned()),
        "USER" => Instruction::User(one(site, "USER[:GROUP]")?),
        "STOPSIGNAL" => Instruction::StopSignal(one(site, "SIGNAL")?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)),
        "CMD" => Instruction::Cmd(command(rest)),
        "SHELL" => match list(rest).filter(|list| !list.is_empty()) {
            Some(list) => Instruction::Shell(list),
            None => return Err(site.form("[\"PROGRAM\", \"ARGUMENT\"]")),
        },
        "EXPOSE" => Instruction::Expose(site.words(rest)),
        "VOLUME" => Instruction::Volume(list(rest).unwrap_or_else(|| site.words(rest))),
        _ => healthcheck(site)?,
    }))
}

/// A list of strings as JSON has it; what is none is a text for the shell.
fn list(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

fn command(text: &str) -> CommandForm {
    list(text).filter(|list| !list.is_empty()).map_or_else(|| CommandForm::Shell(text.to_owned()), CommandForm::Exec)
}

fn one(site: &Site, form: &str) -> Result<String, Fault> {
    match site.words(&site.line.rest).as_slice() {
        [one] => Ok(one.clone()),
        _ => Err(site.form(form)),
    }
}

fn run(site: &Site) -> Result<Instruction, Fault> {
    let (flags, rest) = site.flags();
    for (flag, value) in flags {
        match (flag, value) {
            ("--network", "default") | ("--security", "sandbox") => {}
            ("--mount", _) => {
                let help =
                    "copy what the command needs with `COPY`, and remove what it need not keep in the same `RUN`";
                return Err(site.refused("`RUN --mount` is not supported", help));
            }
            _ => return Err(site.refused(format!("`RUN {flag}` is not supported"), "leave it out")),
        }
    }
    if rest.is_empty() {
        return Err(site.bad("`RUN` says nothing"));
    }
    let Some(first) = site.line.heredocs.first() else { return Ok(Instruction::Run(command(rest))) };
    // `RUN <<EOF` alone: the heredoc is the script. Else the shell reads the heredocs that its command names.
    let alone = site.line.heredocs.len() == 1 && rest.split_whitespace().count() == 1 && rest.starts_with("<<");
    if alone {
        if first.content.starts_with("#!") {
            let help = "give the script to its interpreter: `RUN python3 <<EOF`";
            return Err(site.refused("a heredoc that begins with `#!` is not supported", help));
        }
        return Ok(Instruction::Run(CommandForm::Shell(first.content.clone())));
    }
    let mut text = rest.to_owned();
    for heredoc in &site.line.heredocs {
        text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
    }
    text.push('\n');
    Ok(Instruction::Run(CommandForm::Shell(text)))
}

fn copy(site: &Site) -> Result<Said, Fault> {
    let keyword = site.line.keyword.as_str();
    let (flags, rest) = site.flags();
    let (mut owner, mut mode, mut from) = (None, None, None);
    for (flag, value) in flags {
        match (flag, keyword) {
            ("--chown", _) => owner = Some(value.to_owned()),
            ("--chmod", _) => {
                mode = Some(u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(|| {
                    site.refused(format!("`--chmod={value}` is not octal"), "for example `--chmod=0755`")
                })?);
            }
            ("--from", "COPY") => from = Some(value.to_owned()),
            // The same files come of it; docker stores them in another way.
            ("--link", _) => {}
            _ => return Err(site.refused(format!("`{keyword} {flag}` is not supported"), "leave it out")),
        }
    }
    let mut paths = list(rest).unwrap_or_else(|| site.words(rest));
    let form = "SOURCE… TARGET";
    let to = paths.pop().ok_or_else(|| site.form(form))?;
    let sources: Vec<String> = match site.line.heredocs.is_empty() {
        true => paths,
        false => paths.into_iter().filter(|path| !path.starts_with("<<")).collect(),
    };
    if sources.is_empty() && site.line.heredocs.is_empty() {
        return Err(site.form(form));
    }
    if (sources.len() + site.line.heredocs.len() > 1) && !to.ends_with('/') && to != "." {
        let message = format!("`{keyword}` of several files needs a folder as its target");
        return Err(Box::new(
            Draft::error(code::BAD_INSTRUCTION, &site.line.span, message).help(format!("write `{to}/`")),
        ));
    }
    for source in &sources {
        let is_url = ["http://", "https://", "git@", "git://", "ssh://"].iter().any(|start| source.starts_with(start));
        if keyword == "ADD" && is_url {
            let help = "fetch it in a `RUN` with curl or wget, or put the file into the context";
            return Err(site.refused(format!("`ADD` of the URL `{source}` is not supported"), help));
        }
        if source.split('/').any(|part| part == "..") {
            let message = format!("`{source}` leads out of what is copied from");
            let help = "paths begin at the context; make it a folder that holds the file";
            return Err(Box::new(Draft::error(code::BAD_INSTRUCTION, &site.line.span, message).help(help)));
        }
    }
    let unpack = keyword == "ADD";
    let inline = site.line.heredocs.clone();
    let copy = Copy { from: CopyFrom::Context, sources, inline, to, owner, mode, unpack };
    Ok(match from {
        Some(from) => Said::CopyFrom(copy, from),
        None => Said::Whole(Instruction::Copy(copy)),
    })
}

/// `KEY=VALUE …`, or the old `KEY VALUE`.
fn pairs(site: &Site) -> Result<Vec<(String, String)>, Fault> {
    let rest = &site.line.rest;
    let words = site.words(rest);
    if !words.first().is_some_and(|word| word.contains('=')) {
        let (key, value) = rest.split_once(|c: char| c.is_whitespace()).ok_or_else(|| site.form("NAME=VALUE"))?;
        return Ok(vec![(key.to_owned(), value.trim_start().to_owned())]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(site.form("NAME=VALUE …")),
    };
    words.iter().map(pair).collect()
}

fn healthcheck(site: &Site) -> Result<Instruction, Fault> {
    let (flags, rest) = site.flags();
    let mut check = Healthcheck::default();
    for (flag, value) in flags {
        let time = || nanoseconds(value).ok_or_else(|| site.bad(format!("`{flag}={value}` is no duration")));
        match flag {
            "--interval" => check.interval = time()?,
            "--timeout" => check.timeout = time()?,
            "--start-period" => check.start_period = time()?,
            "--retries" => {
                check.retries = value.parse().map_err(|_| site.bad(format!("`{flag}={value}` is no number")))?;
            }
            _ => return Err(site.refused(format!("`HEALTHCHECK {flag}` is not supported"), "leave it out")),
        }
    }
    let (word, text) = rest.split_once(|c: char| c.is_whitespace()).unwrap_or((rest, ""));
    match word.to_ascii_uppercase().as_str() {
        "NONE" if text.trim().is_empty() => {}
        "CMD" if !text.trim().is_empty() => check.command = Some(command(text.trim())),
        _ => return Err(site.form("CMD COMMAND` or `HEALTHCHECK NONE")),
    }
    Ok(Instruction::Healthcheck(check))
}

/// Go's durations: `1m30s`, `1.5s`, `500ms`.
fn nanoseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        sum += number
            * match &rest[..unit] {
                "h" => 3600e9,
                "m" => 60e9,
                "s" => 1e9,
                "ms" => 1e6,
                "us" | "µs" => 1e3,
                "ns" => 1.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(sum as u64)
}
