//! Decides what a build does: every variable put in, every step with all that it needs and with its key. What is copied
//! from the context is read here, once, for its digest; nothing is written.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use super::ignore::Ignore;
use super::key::Key;
use super::tree::{Owners, Root, TreeError, open_folder};
use crate::model::build::{
    Base, BaseImage, Bootstrap, Build, BuildNetwork, BuildStep, CommandForm, Copy, CopyFrom, Expansion, Healthcheck,
    Instruction, Stage, expand,
};
use crate::runtime::image::{HistoryEntry, ImageConfig, ImageHealthcheck, LayerDigest};

/// What is known of an image that a build rests on, without its layers.
#[derive(Clone, Debug)]
pub struct BaseFacts {
    /// Changes whenever the image does.
    pub id: String,
    pub config: ImageConfig,
    pub history: Vec<HistoryEntry>,
}

/// The images that builds rest on.
pub trait Bases {
    /// What an image is. Changes nothing but documents of the store.
    fn facts(&self, image: &BaseImage) -> Result<BaseFacts, String>;
}

/// What a build does, stage by stage.
#[derive(Clone, Debug)]
pub struct BuildPlan {
    /// Stages that the target does not rest on are `None`.
    pub stages: Vec<Option<PlannedStage>>,
    pub target: usize,
    /// The address of the image: of its files, its configuration and its time.
    pub key: LayerDigest,
    pub network: BuildNetwork,
    /// Seconds since 1970: no file is younger.
    pub latest: i64,
    pub file: String,
}

#[derive(Clone, Debug)]
pub struct PlannedStage {
    pub base: Base,
    pub steps: Vec<Planned>,
    /// Of the stage's end.
    pub config: ImageConfig,
    pub(super) shell: Vec<String>,
    /// Of its files.
    pub key: LayerDigest,
    /// Of what it begins with.
    pub base_history: Vec<HistoryEntry>,
}

/// One step, ready to be carried out.
#[derive(Clone, Debug)]
pub struct Planned {
    pub line: u32,
    pub text: String,
    pub(super) doing: Doing,
    /// Of the files after it.
    pub key: LayerDigest,
}

#[derive(Clone, Debug)]
pub(super) enum Doing {
    /// It changes the configuration alone.
    Configure,
    Run(RunStep),
    Copy(CopyStep),
    /// Makes a folder where there is none.
    Folder(String),
    Bootstrap(Bootstrap),
}

#[derive(Clone, Debug)]
pub(super) struct RunStep {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    /// `user[:group]`; empty is root.
    pub user: String,
}

#[derive(Clone, Debug)]
pub(super) struct CopyStep {
    pub from: CopyOrigin,
    pub sources: Vec<String>,
    /// Names and contents.
    pub inline: Vec<(String, String)>,
    /// Absolute; with a slash at its end it is a folder.
    pub to: String,
    pub owner: Option<String>,
    pub mode: Option<u32>,
    pub unpack: bool,
}

#[derive(Clone, Debug)]
pub(super) enum CopyOrigin {
    /// The digest of what is taken.
    Context {
        folder: std::path::PathBuf,
        ignored: Vec<String>,
        digest: LayerDigest,
    },
    Stage(usize),
    Image(BaseImage),
}

/// Why a build cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("{file}:{line}: `{text}`: {why}")]
    Step { file: String, line: u32, text: String, why: String },
    #[error("{file}:{line}: `{text}`")]
    Content { file: String, line: u32, text: String, source: TreeError },
    #[error("{file}:{line}: cannot use image `{image}`: {why}")]
    Base { file: String, line: u32, image: String, why: String },
}

/// Plans a build for files that are no younger than `latest`. `platform` are variables that every build can ask for.
pub fn plan(
    build: &Build,
    bases: &dyn Bases,
    (latest, platform): (i64, &[(&'static str, String)]),
) -> Result<BuildPlan, PlanError> {
    let mut planner = Planner { build, bases, latest, platform, stages: vec![None; build.stages.len()] };
    planner.stage(build.target)?;
    let stages = planner.stages;
    let target = stages[build.target].as_ref();
    let config = target.map(|stage| format!("{:?}", stage.config)).unwrap_or_default();
    let files = target.map_or_else(|| LayerDigest::of(b""), |stage| stage.key);
    let key = Key::new("image").digest(&files).text(&config).finish();
    let (network, file) = (build.network, build.file.clone());
    Ok(BuildPlan { target: build.target, stages, key, network, latest, file })
}

struct Planner<'a> {
    build: &'a Build,
    bases: &'a dyn Bases,
    latest: i64,
    platform: &'a [(&'static str, String)],
    stages: Vec<Option<PlannedStage>>,
}

/// What a stage has come to at a step.
struct State {
    config: ImageConfig,
    args: BTreeMap<String, String>,
    shell: Vec<String>,
    key: LayerDigest,
    /// Whether this stage has an own `CMD`: another entry point clears that of the base image.
    own_command: bool,
}

impl Planner<'_> {
    fn stage(&mut self, index: usize) -> Result<(), PlanError> {
        if self.stages[index].is_some() {
            return Ok(());
        }
        let stage = &self.build.stages[index];
        let (mut state, base_history) = self.begin(stage)?;
        let mut steps = Vec::new();
        if let Base::Bootstrap(bootstrap) = &stage.base {
            let text = format!("bootstrap {} {}", bootstrap.suite, bootstrap.packages.join(" "));
            let doing = Doing::Bootstrap(bootstrap.clone());
            steps.push(Planned { line: stage.line, text: text.trim_end().to_owned(), doing, key: state.key });
        }
        for step in &stage.steps {
            let doing = self.step(&mut state, step)?;
            if let Some(key) = self.step_key(&state.key, &doing) {
                state.key = key;
            }
            steps.push(Planned { line: step.line, text: step.text.clone(), doing, key: state.key });
        }
        let State { config, shell, key, .. } = state;
        self.stages[index] = Some(PlannedStage { base: stage.base.clone(), steps, config, shell, key, base_history });
        Ok(())
    }

    fn begin(&mut self, stage: &Stage) -> Result<(State, Vec<HistoryEntry>), PlanError> {
        let start = Key::new("base").text(&self.latest.to_string());
        let default_shell = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
        let (config, shell, key, history) = match &stage.base {
            Base::Scratch => (ImageConfig::default(), default_shell(), start.text("scratch").finish(), vec![]),
            Base::Stage(earlier) => {
                self.stage(*earlier)?;
                match &self.stages[*earlier] {
                    Some(stage) => (stage.config.clone(), stage.shell.clone(), stage.key, vec![]),
                    None => (ImageConfig::default(), default_shell(), start.finish(), vec![]),
                }
            }
            Base::Image(image) => {
                let facts = self.facts(image, stage.line)?;
                let key = start.text("image").text(&facts.id).finish();
                (facts.config, default_shell(), key, facts.history)
            }
            Base::Bootstrap(bootstrap) => {
                let key = start.text("bootstrap").text(&format!("{bootstrap:?}")).finish();
                (
                    ImageConfig { env: vec![format!("PATH={PATH}")], ..ImageConfig::default() },
                    default_shell(),
                    key,
                    vec![],
                )
            }
        };
        Ok((State { config, args: BTreeMap::new(), shell, key, own_command: false }, history))
    }

    fn facts(&self, image: &BaseImage, line: u32) -> Result<BaseFacts, PlanError> {
        self.bases.facts(image).map_err(|why| PlanError::Base {
            file: self.build.file.clone(),
            line,
            image: image.written.clone(),
            why,
        })
    }

    fn fault(&self, step: &BuildStep, why: impl Into<String>) -> PlanError {
        PlanError::Step { file: self.build.file.clone(), line: step.line, text: step.text.clone(), why: why.into() }
    }

    /// A text with its variables put in: the environment outranks arguments.
    fn put(&self, state: &State, step: &BuildStep, text: &str, how: Expansion) -> Result<String, PlanError> {
        let Some(escape) = self.build.escape else { return Ok(text.to_owned()) };
        let value = |name: &str| env_value(&state.config.env, name).or_else(|| state.args.get(name).cloned());
        expand(text, escape, how, &value).map_err(|why| self.fault(step, why))
    }

    fn words(&self, state: &State, step: &BuildStep, text: &str) -> Result<String, PlanError> {
        self.put(state, step, text, Expansion::Words)
    }

    /// Applies a step to the configuration, and answers with what is to be done to the files.
    fn step(&mut self, state: &mut State, step: &BuildStep) -> Result<Doing, PlanError> {
        match &step.what {
            Instruction::Run(command) => Ok(Doing::Run(self.run(state, command))),
            Instruction::Copy(copy) => self.copy(state, step, copy).map(Doing::Copy),
            Instruction::Workdir(folder) => {
                let folder = absolute(&state.config.working_dir, &self.words(state, step, folder)?);
                let folder = Some(folder.trim_end_matches('/')).filter(|folder| !folder.is_empty()).unwrap_or("/");
                state.config.working_dir = folder.to_owned();
                Ok(Doing::Folder(folder.to_owned()))
            }
            _ => self.configure(state, step).map(|()| Doing::Configure),
        }
    }

    fn configure(&self, state: &mut State, step: &BuildStep) -> Result<(), PlanError> {
        match &step.what {
            Instruction::Run(_) | Instruction::Copy(_) | Instruction::Workdir(_) => {}
            Instruction::Env(pairs) => {
                // All see the environment as it was before the instruction.
                let mut put = Vec::new();
                for (name, value) in pairs {
                    put.push((self.words(state, step, name)?, self.words(state, step, value)?));
                }
                for (name, value) in put {
                    set_env(&mut state.config.env, &name, &value);
                }
            }
            Instruction::Label(pairs) => {
                for (key, value) in pairs {
                    let (key, value) = (self.words(state, step, key)?, self.words(state, step, value)?);
                    state.config.labels.insert(key, value);
                }
            }
            Instruction::Arg(args) => {
                for (name, default) in args {
                    let default = default.as_ref().map(|text| self.words(state, step, text)).transpose()?;
                    if let Some(value) = self.argument(name, default) {
                        state.args.insert(name.clone(), value);
                    }
                }
            }
            Instruction::User(user) => state.config.user = self.words(state, step, user)?,
            Instruction::Entrypoint(command) => {
                state.config.entrypoint = self.program(state, command);
                if !state.own_command {
                    state.config.cmd = Vec::new();
                }
            }
            Instruction::Cmd(command) => {
                state.own_command = true;
                state.config.cmd = self.program(state, command);
            }
            Instruction::Shell(shell) => state.shell.clone_from(shell),
            Instruction::Expose(ports) => {
                for port in ports {
                    self.expose(state, step, port)?;
                }
            }
            Instruction::Volume(paths) => {
                for path in paths {
                    let path = self.words(state, step, path)?;
                    if !state.config.volumes.contains(&path) {
                        state.config.volumes.push(path);
                    }
                }
            }
            Instruction::StopSignal(signal) => state.config.stop_signal = Some(self.words(state, step, signal)?),
            Instruction::Healthcheck(check) => state.config.healthcheck = Some(self.health(check)),
        }
        Ok(())
    }

    /// What was given outranks what is declared; declared without a value, it has that of before the first stage.
    fn argument(&self, name: &str, default: Option<String>) -> Option<String> {
        let find = |list: &[(String, String)]| {
            list.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone())
        };
        let platform = || self.platform.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
        find(&self.build.args).or(default).or_else(|| find(&self.build.globals)).or_else(platform)
    }

    /// For commands that are only kept: the shell form has the shell before it.
    fn program(&self, state: &State, command: &CommandForm) -> Vec<String> {
        match command {
            CommandForm::Exec(words) => words.clone(),
            CommandForm::Shell(text) => state.shell.iter().cloned().chain([text.clone()]).collect(),
        }
    }

    fn run(&self, state: &State, command: &CommandForm) -> RunStep {
        let mut env = state.config.env.clone();
        let proxies = self.build.args.iter().filter(|(name, _)| PROXIES.contains(&name.to_ascii_uppercase().as_str()));
        for (name, value) in state.args.iter().chain(proxies.map(|(name, value)| (name, value))) {
            if env_value(&env, name).is_none() {
                env.push(format!("{name}={value}"));
            }
        }
        if env_value(&env, "PATH").is_none() {
            env.push(format!("PATH={PATH}"));
        }
        let cwd = Some(state.config.working_dir.clone()).filter(|folder| !folder.is_empty());
        RunStep {
            args: self.program(state, command),
            env,
            cwd: cwd.unwrap_or_else(|| "/".into()),
            user: state.config.user.clone(),
        }
    }

    fn copy(&mut self, state: &State, step: &BuildStep, copy: &Copy) -> Result<CopyStep, PlanError> {
        let put = |text: &String| self.words(state, step, text);
        let sources = copy.sources.iter().map(put).collect::<Result<Vec<_>, _>>()?;
        if let Some(source) = sources.iter().find(|source| source.split('/').any(|part| part == "..")) {
            return Err(self.fault(step, format!("`{source}` leads out of what is copied from")));
        }
        let to = absolute(&state.config.working_dir, &self.words(state, step, &copy.to)?);
        let mut inline = Vec::new();
        for heredoc in &copy.inline {
            let content = match heredoc.expands {
                true => self.put(state, step, &heredoc.content, Expansion::Verbatim)?,
                false => heredoc.content.clone(),
            };
            inline.push((heredoc.name.clone(), content));
        }
        let owner = copy.owner.as_ref().map(put).transpose()?;
        let from = match &copy.from {
            CopyFrom::Context => self.context(step, &sources)?,
            CopyFrom::Stage(stage) => {
                self.stage(*stage)?;
                CopyOrigin::Stage(*stage)
            }
            CopyFrom::Image(image) => CopyOrigin::Image(image.clone()),
        };
        Ok(CopyStep { from, sources, inline, to, owner, mode: copy.mode, unpack: copy.unpack })
    }

    fn context(&self, step: &BuildStep, sources: &[String]) -> Result<CopyOrigin, PlanError> {
        let read = || -> Result<LayerDigest, TreeError> {
            if sources.is_empty() {
                return Ok(LayerDigest::of(b""));
            }
            let folder = open_folder(&self.build.context)?;
            let root = Root {
                folder: folder.as_fd(),
                called: format!("the context `{}`", self.build.context.display()),
                ignore: Ignore::new(&self.build.ignored),
            };
            let mut picked = Vec::new();
            for source in sources {
                picked.extend(root.pick(source)?);
            }
            root.digest(&picked, Owners::Root)
        };
        let digest = read().map_err(|source| PlanError::Content {
            file: self.build.file.clone(),
            line: step.line,
            text: step.text.clone(),
            source,
        })?;
        let (folder, ignored) = (self.build.context.clone(), self.build.ignored.clone());
        Ok(CopyOrigin::Context { folder, ignored, digest })
    }

    fn expose(&self, state: &mut State, step: &BuildStep, port: &str) -> Result<(), PlanError> {
        let port = self.words(state, step, port)?;
        let (range, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let (Some(first), Some(last), "tcp" | "udp" | "sctp") = (number(first), number(last), protocol) else {
            return Err(
                self.fault(step, format!("`{port}` is no port: a number from 1 to 65535, and `/tcp` or `/udp`"))
            );
        };
        for number in first..=last {
            let port = format!("{number}/{protocol}");
            if !state.config.exposed_ports.contains(&port) {
                state.config.exposed_ports.push(port);
            }
        }
        Ok(())
    }

    fn health(&self, check: &Healthcheck) -> ImageHealthcheck {
        let test = match &check.command {
            None => vec!["NONE".to_owned()],
            Some(CommandForm::Exec(words)) => ["CMD".to_owned()].into_iter().chain(words.iter().cloned()).collect(),
            Some(CommandForm::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
        };
        let Healthcheck { interval, timeout, start_period, retries, .. } = *check;
        ImageHealthcheck { test, interval, timeout, start_period, retries }
    }

    /// The address of the files after a step; `None`: they are as before.
    fn step_key(&self, before: &LayerDigest, doing: &Doing) -> Option<LayerDigest> {
        let key = |kind: &str| Key::new(kind).digest(before);
        Some(match doing {
            Doing::Configure | Doing::Bootstrap(_) => return None,
            Doing::Folder(path) => key("folder").text(path).finish(),
            Doing::Run(run) => {
                let network = format!("{:?}", self.build.network);
                key("run").list(&run.args).list(&run.env).text(&run.cwd).text(&run.user).text(&network).finish()
            }
            Doing::Copy(copy) => {
                let from = match &copy.from {
                    CopyOrigin::Context { digest, .. } => digest.to_string(),
                    CopyOrigin::Stage(stage) => {
                        self.stages[*stage].as_ref().map(|stage| stage.key.to_string()).unwrap_or_default()
                    }
                    // Asked again, and cheap: its documents are in the store by now.
                    CopyOrigin::Image(image) => self.bases.facts(image).map(|facts| facts.id).unwrap_or_default(),
                };
                let owner = copy.owner.clone().unwrap_or_default();
                let how = format!("{:?} {}", copy.mode, copy.unpack);
                let key = key("copy").text(&from).list(&copy.sources).text(&copy.to).text(&owner).text(&how);
                copy.inline.iter().fold(key, |key, (name, content)| key.text(name).text(content)).finish()
            }
        })
    }
}

const PATH: &str = crate::runtime::container::defaults::PATH;
/// What reaches commands without an `ARG`.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

fn env_value(env: &[String], name: &str) -> Option<String> {
    env.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let text = format!("{name}={value}");
    let known = |entry: &&mut String| entry.split_once('=').is_some_and(|(known, _)| known == name);
    match env.iter_mut().find(known) {
        Some(entry) => *entry = text,
        None => env.push(text),
    }
}

/// `path` as seen from `folder`, with its last slash kept.
fn absolute(folder: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{folder}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let is_folder = parts.is_empty() || path.ends_with('/') || path.ends_with("/.") || path == ".";
    format!("/{}{}", parts.join("/"), if is_folder && !parts.is_empty() { "/" } else { "" })
}

#[cfg(test)]
mod tests;
