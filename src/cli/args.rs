//! What can be typed.

mod tools;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use tools::{ImageArgs, ImageCommand, SeccompArgs, SeccompCommand, SeccompGiven};

/// Containers on one Linux host from a TOML file: no daemon, no other engine underneath.
#[derive(Debug, Parser)]
#[command(name = "stack", version, max_term_width = 100, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Global {
    /// Where images, volumes and logs are kept.
    #[arg(long, global = true, env = "STACK_DATA_DIR", default_value = "/var/lib/stack", hide = true)]
    pub data_dir: PathBuf,
    /// Where what belongs to running containers is kept; a tmpfs.
    #[arg(long, global = true, env = "STACK_RUN_DIR", default_value = "/run/stack", hide = true)]
    pub run_dir: PathBuf,
    /// The branch of the cgroup tree that holds all stacks.
    #[arg(long, global = true, env = "STACK_CGROUP", default_value = "stack", hide = true)]
    pub cgroup: String,
    /// Registries that may be spoken to without encryption; those of the loopback always may.
    #[arg(long, global = true, env = "STACK_INSECURE_REGISTRIES", value_delimiter = ',', hide = true)]
    pub insecure_registry: Vec<String>,
    /// Mirrors of registries, and which of them may be spoken to without encryption.
    #[arg(long, global = true, env = "STACK_REGISTRIES", default_value = "/etc/stack/registries.toml", hide = true)]
    pub registries: PathBuf,
    /// How many generations of a stack are kept to go back to.
    #[arg(long, global = true, env = "STACK_GENERATIONS", default_value_t = 10, hide = true)]
    pub generations: usize,
    /// Print how long each phase took, on standard error.
    #[arg(long, global = true)]
    pub timings: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the host what the stack file says, changing only what differs.
    Up(UpArgs),
    /// Build the images of a stack, and start nothing.
    Build(BuildArgs),
    /// Show what `up` would change, and change nothing.
    Diff(DiffArgs),
    /// Follow the stack file and all it hangs on; do at each change what is downstream of it.
    Watch(WatchArgs),
    /// Take a stack away; its volumes stay.
    Down(DownArgs),
    /// Show what was brought up when, and what of it runs.
    History(HistoryArgs),
    /// Go back to what was brought up before.
    Rollback(RollbackArgs),
    /// Have a stack come up at boot.
    Enable(EnableArgs),
    /// Have it no longer come up at boot.
    Disable(DisableArgs),
    /// Show what runs, where it listens and how it is.
    Ps(PsArgs),
    /// Say why a container, a bridge or an image is as it is.
    Why(WhyArgs),
    /// Show what containers use.
    Stats(StatsArgs),
    /// Show what containers use, again each second.
    Top(StatsArgs),
    /// Show what containers wrote.
    Logs(LogsArgs),
    /// Show what was done to a stack, when, by whom and why.
    Events(EventsArgs),
    /// Wait until containers have come to a state.
    Wait(WaitArgs),
    /// Run a command in a running container.
    Exec(ExecArgs),
    /// Check a stack file.
    Check(CheckArgs),
    /// Run containers as podman, docker and containerd ask a runtime to: `stack oci --help`.
    #[command(disable_help_flag = true)]
    Oci,
    /// Draw the graph of a stack.
    Graph(GraphArgs),
    /// Pull, push, list and clean up images.
    Image(ImageArgs),
    /// Ask a seccomp profile what it answers, and why.
    Seccomp(SeccompArgs),
}

/// The stack file of a command that works on one.
#[derive(Debug, Args)]
pub struct FileArg {
    /// The stack file [default: stack.toml in this folder].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub profiles: ProfileArg,
}

/// The profiles that a stack file is read with.
#[derive(Clone, Debug, Args)]
pub struct ProfileArg {
    /// Read the file with this profile; may be given several times.
    #[arg(
        long = "profile",
        value_name = "PROFILE",
        env = "STACK_PROFILE",
        value_delimiter = ',',
        hide_env_values = true
    )]
    profile: Vec<String>,
}

impl ProfileArg {
    /// In the order in which their overrides hold; an empty STACK_PROFILE chooses none.
    pub fn chosen(&self) -> Vec<String> {
        self.profile.iter().filter(|name| !name.is_empty()).cloned().collect()
    }
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// Stack files, or plans of `diff -o`, one after another [default: stack.toml in this folder].
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub file: FileArg,
    /// Ask the registries which images the references mean now, and lock those.
    #[arg(long)]
    pub pull: bool,
    /// Build every image anew, also where nothing changed.
    #[arg(long)]
    pub build: bool,
    /// Wait until every container with a health probe is healthy, and every job has completed.
    #[arg(long)]
    pub wait: bool,
    /// Only put back what others have changed: a stack that was taken down stays so, and an edited file waits.
    #[arg(long)]
    pub repair: bool,
    /// Go on watching: see `stack watch --help`.
    #[arg(long, conflicts_with_all = ["repair", "pull", "wait"])]
    pub watch: bool,
    /// Print what came of it as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct BuildArgs {
    /// Images, by the names of their tables [default: all that are built].
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,
    #[command(flatten)]
    pub file: FileArg,
    /// Carry out every step, also those that were kept of earlier builds.
    #[arg(long)]
    pub no_cache: bool,
    /// Print what came of it as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The stack file [default: stack.toml in this folder].
    #[arg(value_name = "FILE")]
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub file: FileArg,
    /// Put back what others change on the host, looked for so often [default: 30s].
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub repair: Option<String>,
    /// Print a JSON object a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The stack file [default: stack.toml in this folder].
    #[arg(value_name = "FILE")]
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub file: FileArg,
    /// Keep the plan in this file too: `stack up PLAN` carries it out while nothing has moved.
    #[arg(short, long, value_name = "PLAN")]
    pub output: Option<PathBuf>,
    /// End with 4 if other machines would reach something that they do not reach now.
    #[arg(long)]
    pub deny_exposure: bool,
    /// Print the plan as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DownArgs {
    /// The stack file [default: stack.toml in this folder].
    #[arg(value_name = "FILE")]
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub file: FileArg,
    /// A stack's name, when its file is no longer there.
    #[arg(long, conflicts_with_all = ["path", "file"])]
    pub name: Option<String>,
    /// Delete its volumes too. The stack's name is asked for, or given here.
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub volumes: Option<String>,
    /// Print what came of it as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The stack file [default: stack.toml in this folder].
    #[arg(value_name = "FILE")]
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub file: FileArg,
    /// A stack's name, when its file is no longer there or no longer right.
    #[arg(long, conflicts_with_all = ["path", "file"])]
    pub name: Option<String>,
    /// Print it as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The generation, as `stack history` numbers them [default: the one before what runs].
    #[arg(value_name = "NUMBER")]
    pub number: Option<u32>,
    #[command(flatten)]
    pub file: FileArg,
    /// A stack's name, when its file is no longer there or no longer right.
    #[arg(long, conflicts_with = "file")]
    pub name: Option<String>,
    /// Do not ask; without a terminal nothing is asked.
    #[arg(short, long)]
    pub yes: bool,
    /// Print what came of it as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct EnableArgs {
    /// The stack file [default: stack.toml in this folder].
    #[arg(value_name = "FILE")]
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub file: FileArg,
    /// Put back what others change on the host, looked for so often, as "5m".
    #[arg(long, value_name = "INTERVAL")]
    pub repair: Option<String>,
    /// Only show what would be written.
    #[arg(long)]
    pub dry_run: bool,
    /// Where the host's files are.
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    pub root: PathBuf,
}

#[derive(Debug, Args)]
pub struct DisableArgs {
    /// The stack file [default: stack.toml in this folder].
    #[arg(value_name = "FILE")]
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub file: FileArg,
    /// A stack's name, when its file is no longer there.
    #[arg(long, conflicts_with_all = ["path", "file"])]
    pub name: Option<String>,
    /// Where the host's files are.
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    pub root: PathBuf,
}

#[derive(Debug, Args)]
pub struct PsArgs {
    #[command(flatten)]
    pub file: FileArg,
    /// Every stack of this host.
    #[arg(short, long)]
    pub all: bool,
    /// Only say whether all that should run runs and is healthy: status 0, or 1 and a line that names what is not.
    #[arg(long)]
    pub check: bool,
    /// Print it as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct WhyArgs {
    /// What to explain: `web` is whatever has that name, a container with its replicas first; `bridge.web` is one kind.
    #[arg(value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    pub file: FileArg,
    /// Print it as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct StatsArgs {
    #[command(flatten)]
    pub file: FileArg,
    /// Every stack of this host.
    #[arg(short, long)]
    pub all: bool,
    /// Print it as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Containers [default: all of the stack].
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// The stack file [default: stack.toml in this folder]. `-f` follows, as everywhere in the field.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub profiles: ProfileArg,
    /// Go on as more is written.
    #[arg(short, long)]
    pub follow: bool,
    /// At most so many of the last lines of each container.
    #[arg(short = 'n', long, value_name = "LINES")]
    pub tail: Option<usize>,
    /// Put the time before each line.
    #[arg(short, long)]
    pub timestamps: bool,
    /// Print a JSON object a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// The stack file [default: stack.toml in this folder]. `-f` follows, as everywhere in the field.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub profiles: ProfileArg,
    /// A stack's name, when its file is no longer there.
    #[arg(long, conflicts_with = "file")]
    pub name: Option<String>,
    /// Go on as more happens.
    #[arg(short, long)]
    pub follow: bool,
    /// At most so many of the last events.
    #[arg(short = 'n', long, value_name = "EVENTS")]
    pub tail: Option<usize>,
    /// Print a JSON object a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 all have come there, 1 one of them cannot any more, 124 not in time.")]
pub struct WaitArgs {
    /// Containers or instances, such as `web` or `web-2`.
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub file: FileArg,
    /// What to wait for [default: healthy where there is a probe, else started].
    #[arg(long = "for", value_enum, value_name = "STATE")]
    pub state: Option<WaitState>,
    /// Wait no longer, as "30s" or "5m" [default: for ever].
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Print a JSON object a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaitState {
    /// Its health probe passes.
    Healthy,
    /// Its program runs.
    Started,
    /// Its program has ended with status 0, and is not started again.
    Completed,
    /// It does not run: it has ended for good, or is not there.
    Stopped,
}

#[derive(Debug, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    pub file: FileArg,
    /// Give the command a terminal [default: when standard input and output are one].
    #[arg(short, long)]
    pub tty: bool,
    /// Give it no terminal.
    #[arg(short = 'T', long, conflicts_with = "tty")]
    pub no_tty: bool,
    /// `user[:group]`, by name or number [default: the container's].
    #[arg(short, long)]
    pub user: Option<String>,
    /// `KEY=value`, may be given several times.
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// The folder that it runs in [default: the container's].
    #[arg(short, long, value_name = "FOLDER")]
    pub workdir: Option<String>,
    /// An instance, such as `web` or `web-2`.
    pub container: String,
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Stack files [default: stack.toml in this folder].
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub file: FileArg,
    /// Print the diagnostics as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct GraphArgs {
    /// The stack file [default: stack.toml in this folder].
    #[arg(value_name = "FILE")]
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub file: FileArg,
    /// How it is drawn.
    #[arg(long, value_enum, default_value_t = GraphFormat::Text)]
    pub format: GraphFormat,
    /// Print its nodes and edges as JSON.
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    Text,
    Dot,
    Svg,
}
