//! `stack enable` and `stack disable`: have the host bring a stack up at boot, or no longer. What goes into the files is
//! `unit`'s.

mod unit;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::args::{DisableArgs, EnableArgs, Global};
use super::context::{Loaded, failed, file_path, load_all, require_root};
use super::exit::Exit;
use super::history::named;
use super::style::{BOLD, DIM, WARN, paint};
use super::up::ok;
use crate::model::parse_duration;
use unit::{Boot, Entry, MARK, environment_file, names, service};

/// Below the root.
const UNITS: &str = "etc/systemd/system";
/// Beyond all `stop_timeout`s, for what `down` has to do besides.
const STOP_BESIDES: Duration = Duration::from_secs(60);

pub fn enable(global: &Global, args: &EnableArgs) -> ExitCode {
    try_enable(global, args).map_or_else(|exit| exit, |()| Exit::Ok).into()
}

pub fn disable(args: &DisableArgs) -> ExitCode {
    try_disable(args).map_or_else(|exit| exit, |()| Exit::Ok).into()
}

fn try_enable(global: &Global, args: &EnableArgs) -> Result<(), Exit> {
    let repair = match args.repair.as_deref().map(parse_duration).transpose() {
        Ok(repair) => repair,
        Err(error) => {
            failed(&format!("--repair: {error}"), &["for example `--repair 5m`"]);
            return Err(Exit::Usage);
        }
    };
    let loaded = load_all(&file_path(args.path.as_ref(), &args.file), args.file.profiles.chosen())?;
    let stack = &loaded.stack;
    let program =
        std::env::current_exe().map_err(|error| failed(&format!("cannot tell where this program is: {error}"), &[]))?;
    let (environment, secrets) = environment(global, &loaded);
    let boot = Boot {
        stack: stack.name.as_str(),
        program: &program,
        file: &loaded.file,
        profiles: &loaded.profiles,
        data: &global.data_dir,
        environment,
        stop: stack.containers.values().map(|container| container.stop_timeout).sum::<Duration>() + STOP_BESIDES,
        repair,
    };
    if args.dry_run {
        show(&boot.entries());
        return Ok(());
    }
    if !has_systemd(&args.root) {
        let line = format!("`{}`", boot.shell_line());
        let hints = [
            &*format!("with /etc/rc.local: put {line} in it"),
            "with cron: `@reboot` and that line in the crontab of root",
            "with OpenRC: the same line in a file /etc/local.d/stack.start that may be executed, and `rc-update add local`",
        ];
        return Err(failed("this host has no systemd; nothing was written", &hints));
    }
    require_root()?;
    let units = args.root.join(UNITS);
    let entries = boot.entries();
    // What an earlier `enable` made and this one does not, goes.
    for name in names(boot.stack).iter().filter(|name| !entries.iter().any(|entry| entry.path() == **name)) {
        remove(&units.join(name))?;
    }
    for entry in &entries {
        make(&units, entry)?;
    }
    let unit = service(boot.stack);
    anstream::println!("{} {} comes up at boot: {}", ok(), paint(BOLD, boot.stack), units.join(&unit).display());
    anstream::println!(
        "   at this shutdown it stops in order too after: systemctl daemon-reload && systemctl start {unit}"
    );
    for name in secrets {
        let file = environment_file(boot.stack);
        anstream::eprintln!(
            "{} the stack file uses {name}: put `{name}=…` into {file}, for root alone",
            paint(WARN, "note:")
        );
    }
    Ok(())
}

fn try_disable(args: &DisableArgs) -> Result<(), Exit> {
    let stack = named(args.name.as_ref(), (args.path.as_ref(), &args.file))?;
    require_root()?;
    let units = args.root.join(UNITS);
    let mut removed = 0;
    for name in names(stack.as_str()) {
        removed += usize::from(remove(&units.join(name))?);
    }
    // Only where nobody else has put anything there.
    let _ = fs::remove_dir(units.join(format!("{}.wants", service(stack.as_str()))));
    match removed {
        0 => anstream::println!("{}", paint(DIM, format!("{stack} did not come up at boot"))),
        _ => anstream::println!("{} {stack} no longer comes up at boot; what runs goes on", ok()),
    }
    Ok(())
}

/// What the commands need of this environment; and the variables that are called like secrets, which go nowhere.
fn environment(global: &Global, loaded: &Loaded) -> (Vec<(String, String)>, Vec<String>) {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    let settings = [
        ("STACK_DATA_DIR", absolute(&global.data_dir), "/var/lib/stack"),
        ("STACK_RUN_DIR", absolute(&global.run_dir), "/run/stack"),
        ("STACK_CGROUP", global.cgroup.clone(), "stack"),
        ("STACK_INSECURE_REGISTRIES", global.insecure_registry.join(","), ""),
        ("STACK_REGISTRIES", absolute(&global.registries), "/etc/stack/registries.toml"),
        ("STACK_GENERATIONS", global.generations.to_string(), "10"),
    ];
    let settings = settings.into_iter().filter(|(_, value, default)| value != default);
    let mut environment: Vec<(String, String)> = settings.map(|(name, value, _)| (name.into(), value)).collect();
    let mut used = loaded.given().variables;
    used.sort_unstable();
    let mut secrets = Vec::new();
    for (name, value, secret) in used {
        match secret {
            true => secrets.push(name.to_owned()),
            false => environment.push((name.to_owned(), value.to_owned())),
        }
    }
    (environment, secrets)
}

/// Whether it runs there (sd_booted(3)), or will.
fn has_systemd(root: &Path) -> bool {
    ["run/systemd/system", "usr/lib/systemd/systemd", "lib/systemd/systemd"].iter().any(|path| root.join(path).exists())
}

fn show(entries: &[Entry]) {
    for entry in entries {
        let path = Path::new("/").join(UNITS).join(entry.path());
        match entry {
            Entry::File(_, text) => anstream::println!("{}\n{text}", paint(BOLD, path.display())),
            Entry::Link(_, target) => {
                anstream::println!("{} {} {}\n", paint(BOLD, path.display()), paint(DIM, "→"), target.display());
            }
        }
    }
}

fn make(units: &Path, entry: &Entry) -> Result<(), Exit> {
    let path = units.join(entry.path());
    let cannot = |error: io::Error| failed(&format!("cannot write `{}`: {error}", path.display()), &[]);
    if !is_ours(&path) {
        return Err(failed(&format!("`{}` is not of `stack enable`", path.display()), &["move it away, if it can go"]));
    }
    let aside = aside(&path);
    let _ = fs::remove_file(&aside);
    fs::create_dir_all(path.parent().unwrap_or(units)).map_err(cannot)?;
    match entry {
        Entry::File(_, text) => fs::write(&aside, text),
        Entry::Link(_, target) => symlink(target, &aside),
    }
    .and_then(|()| fs::rename(&aside, &path))
    .map_err(cannot)
}

/// Beside it, under a name that systemd passes over.
fn aside(path: &Path) -> PathBuf {
    path.with_added_extension("new")
}

/// Whether there is nothing, or a link or a file of ours.
fn is_ours(path: &Path) -> bool {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => fs::read_to_string(path).is_ok_and(|text| text.contains(MARK)),
        // Not the link to /dev/null by which somebody has masked it.
        Ok(_) => fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("../stack-")),
        Err(_) => true,
    }
}

/// Was there anything?
fn remove(path: &Path) -> Result<bool, Exit> {
    if !is_ours(path) {
        return Err(failed(&format!("`{}` is not of `stack enable`, and stays", path.display()), &[]));
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(&format!("cannot remove `{}`: {error}", path.display()), &[])),
    }
}
