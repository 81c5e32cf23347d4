//! What every command needs: the stack file, the host, the lock, and a runtime to wait in.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::args::{FileArg, Global, ProfileArg};
use super::exit::Exit;
use super::style::{BAD, DIM, paint};
use crate::file;
use crate::model::{Name, Stack};
use crate::reconcile::{Given, HostError, LinuxHost, RegistryOptions, RoadError, Roots};

/// The file that a command reads where none is named.
pub const DEFAULT_FILE: &str = "stack.toml";

/// The stack file that was named, by whichever of the two ways.
pub fn file_path(positional: Option<&PathBuf>, flag: &FileArg) -> PathBuf {
    positional.or(flag.file.as_ref()).cloned().unwrap_or_else(|| DEFAULT_FILE.into())
}

/// Several stack files, by either way.
pub fn file_paths(positional: &[PathBuf], flag: &FileArg) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = flag.file.iter().chain(positional).cloned().collect();
    if files.is_empty() {
        files.push(DEFAULT_FILE.into());
    }
    files
}

/// Reads and checks a stack file; prints what is wrong with it.
pub fn load(path: &Path, profiles: &ProfileArg) -> Result<Stack, Exit> {
    told(file::examine(path, &variables(), &profiles.chosen()))
}

/// A stack, and what was read for it.
pub struct Loaded {
    pub stack: Stack,
    /// The stack file, absolute.
    pub file: PathBuf,
    /// The contents of the stack file and of those it names for its own meaning, by absolute path.
    pub read: BTreeMap<PathBuf, Vec<u8>>,
    pub variables: HashMap<String, String>,
    pub profiles: Vec<String>,
}

impl Loaded {
    /// What the stack is made from.
    pub fn given(&self) -> Given<'_> {
        let texts: Vec<&str> = self.read.values().filter_map(|bytes| std::str::from_utf8(bytes).ok()).collect();
        let variables = file::variables_used(&texts, &self.variables).collect();
        Given { stack: &self.stack, file: self.file.clone(), read: &self.read, variables, profiles: &self.profiles }
    }
}

/// As [`load`], with what was read.
pub fn load_all(path: &Path, profiles: Vec<String>) -> Result<Loaded, Exit> {
    let variables = variables();
    let recorded = file::Recorded::of(&file::HostFiles);
    let stack = told(file::examine_in(path, &variables, (&profiles, &recorded)))?;
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let read = recorded.into_read().into_iter().map(|(path, content)| (absolute(&path), content)).collect();
    Ok(Loaded { stack, file: absolute(path), read, variables, profiles })
}

/// The stack; prints what is to be said about its file.
pub fn told(examined: file::Examined) -> Result<Stack, Exit> {
    if !examined.diagnostics.is_empty() {
        anstream::eprint!("{}", examined.diagnostics.render(look_of_stderr()));
    }
    examined.stack.ok_or(Exit::File)
}

/// The environment, for `${NAME}`. What is not UTF-8 cannot stand in a stack file, and counts as not set.
pub fn variables() -> HashMap<String, String> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}

pub fn look_of_stderr() -> file::Look {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    match std::io::stderr().is_terminal() && !plain {
        true => file::Look::Coloured,
        false => file::Look::Plain,
    }
}

/// The host of this machine, for one stack.
pub fn host(global: &Global, stack: &Name) -> Result<LinuxHost, Exit> {
    require_root()?;
    host_of(global, stack).map_err(|error| failed(&error.chain(), &[]))
}

pub fn require_root() -> Result<(), Exit> {
    match nix::unistd::geteuid().is_root() {
        true => Ok(()),
        false => Err(failed("stack must run as root", &["it makes namespaces, links, mounts and cgroups; try sudo"])),
    }
}

/// As [`host`], with nothing said.
pub fn host_of(global: &Global, stack: &Name) -> Result<LinuxHost, HostError> {
    let roots = Roots {
        data: global.data_dir.clone(),
        run: global.run_dir.clone(),
        cgroup: global.cgroup.clone(),
        registry: registries(global)?,
        source_date: source_date(),
        ..Roots::default()
    };
    Ok(LinuxHost::new(roots, stack.clone())?.with_build_watch(Arc::new(super::build::show)))
}

/// `SOURCE_DATE_EPOCH`, as builds of all tools take it (reproducible-builds.org).
fn source_date() -> i64 {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| Roots::default().source_date)
}

/// How registries are reached: with docker's and podman's credentials, in the order in which podman looks.
pub fn registries(global: &Global) -> Result<RegistryOptions, HostError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = variable("HOME").unwrap_or_else(|| PathBuf::from("/root"));
    let credentials = [
        variable("REGISTRY_AUTH_FILE"),
        variable("XDG_RUNTIME_DIR").map(|run| run.join("containers/auth.json")),
        Some("/run/containers/0/auth.json".into()),
        Some(home.join(".config/containers/auth.json")),
        Some(variable("DOCKER_CONFIG").unwrap_or_else(|| home.join(".docker")).join("config.json")),
    ];
    let options = RegistryOptions {
        insecure: global.insecure_registry.iter().cloned().collect(),
        credentials: credentials.into_iter().flatten().collect(),
        certificates: variable("SSL_CERT_FILE").into_iter().collect(),
        ..RegistryOptions::default()
    };
    options.with_settings(&global.registries).map_err(|error| HostError::Said(error.to_string()))
}

/// Runs a future to its end on this thread; blocking steps get threads of their own.
pub fn wait_for<T>(future: impl Future<Output = T>) -> Result<T, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_THREADS)
        .build()
        .map_err(|error| failed(&format!("cannot start: {error}"), &[]))?;
    let value = runtime.block_on(future);
    // Nothing is waited for any more: a probe that hangs must not hold up the exit.
    runtime.shutdown_background();
    Ok(value)
}

/// As many as there are steps under way at once.
const MAX_THREADS: usize = 32;

/// Says what failed and what to do next.
pub fn failed(message: &str, hints: &[&str]) -> Exit {
    anstream::eprintln!("{} {message}", paint(BAD, "error:"));
    for hint in hints {
        anstream::eprintln!("  hint: {hint}");
    }
    Exit::Failed
}

/// Says why the road ended early.
pub fn road_failed(error: &RoadError) -> Exit {
    match error {
        RoadError::Host(error) => failed(&error.chain(), &[]),
        RoadError::Desire(error) => failed(&error.to_string(), &["nothing was changed"]),
    }
}

/// Prints how long each phase took, where that was asked for.
pub fn timings(global: &Global, timings: &[(&'static str, Duration)]) {
    if global.timings {
        for (phase, took) in timings {
            anstream::eprintln!("{}", paint(DIM, format!("{phase:>9} {:8.2} ms", took.as_secs_f64() * 1000.0)));
        }
    }
}
