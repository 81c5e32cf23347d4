//! How an image is made: the nouns that a Dockerfile and the keys of `[image.NAME.build]` both become.

mod expand;

use std::path::PathBuf;

pub use expand::{Expansion, expand};

use super::{ImageSource, Pull};

/// One image to be built.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Build {
    /// The file that says it, as it is named in messages.
    pub file: String,
    /// The folder that files are copied from.
    pub context: PathBuf,
    /// The lines of `.dockerignore`.
    pub ignored: Vec<String>,
    /// What `ARG` before the first stage declared, with its value.
    pub globals: Vec<(String, String)>,
    /// Arguments that were given; they outrank defaults.
    pub args: Vec<(String, String)>,
    pub stages: Vec<Stage>,
    /// Which of the stages becomes the image.
    pub target: usize,
    pub network: BuildNetwork,
    /// Before what stands for itself in texts with variables. `None`: texts hold no variables.
    pub escape: Option<char>,
}

/// What the commands of a build reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BuildNetwork {
    /// What the host reaches.
    #[default]
    Host,
    /// Nothing but themselves.
    None,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stage {
    pub name: Option<String>,
    pub base: Base,
    pub steps: Vec<BuildStep>,
    pub line: u32,
}

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    Image(BaseImage),
    /// A system of Debian's packages.
    Bootstrap(Bootstrap),
}

/// An image as it was written, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseImage {
    pub written: String,
    pub source: ImageSource,
    pub pull: Pull,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bootstrap {
    pub suite: String,
    /// Beside what the variant has.
    pub packages: Vec<String>,
    pub variant: String,
    /// `None`: what mmdebstrap takes.
    pub mirror: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BuildStep {
    pub line: u32,
    /// As it is shown: the instruction on one line.
    pub text: String,
    pub what: Instruction,
}

/// Texts are as written; variables are put in when it is known what they hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    Run(CommandForm),
    Copy(Copy),
    Env(Vec<(String, String)>),
    Arg(Vec<(String, Option<String>)>),
    Workdir(String),
    User(String),
    Entrypoint(CommandForm),
    Cmd(CommandForm),
    Shell(Vec<String>),
    Label(Vec<(String, String)>),
    Expose(Vec<String>),
    Volume(Vec<String>),
    Healthcheck(Healthcheck),
    StopSignal(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CommandForm {
    /// For the shell.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
}

/// Files that are brought in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Copy {
    pub from: CopyFrom,
    /// Paths and patterns, relative to where they come from.
    pub sources: Vec<String>,
    /// Files that are written in the build file itself.
    pub inline: Vec<Heredoc>,
    pub to: String,
    /// `user[:group]`, by name or number.
    pub owner: Option<String>,
    /// Permission bits of all that is copied; `None`: as they are.
    pub mode: Option<u32>,
    /// Whether archives are unpacked.
    pub unpack: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CopyFrom {
    Context,
    Stage(usize),
    Image(BaseImage),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Heredoc {
    pub name: String,
    pub content: String,
    /// Whether variables are put in: its word was not in quotes.
    pub expands: bool,
}

/// Docker's `HEALTHCHECK`; times are nanoseconds, 0 where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Healthcheck {
    /// `None`: no probe, whatever the base image has.
    pub command: Option<CommandForm>,
    pub interval: u64,
    pub timeout: u64,
    pub start_period: u64,
    pub retries: u64,
}
