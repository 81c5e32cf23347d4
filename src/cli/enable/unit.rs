//! The texts that have systemd bring a stack up at boot, and repair it at intervals. Pure. See systemd.unit(5),
//! systemd.service(5) and systemd.timer(5).

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Stands in each file of ours; one without it is somebody else's.
pub const MARK: &str = "# Written by `stack enable`; `stack disable` takes it away.";

/// What is to happen at boot.
pub struct Boot<'a> {
    pub stack: &'a str,
    /// This program, absolute.
    pub program: &'a Path,
    /// The stack file, absolute.
    pub file: &'a Path,
    /// With which it is read.
    pub profiles: &'a [String],
    pub data: &'a Path,
    /// What the environment of the commands must hold.
    pub environment: Vec<(String, String)>,
    /// The longest that `down` may take.
    pub stop: Duration,
    /// How often what others change is put back.
    pub repair: Option<Duration>,
}

/// Files and links to make, below `/etc/systemd/system`.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    File(PathBuf, String),
    /// A link to a file beside its folder, as `systemctl enable` makes it.
    Link(PathBuf, PathBuf),
}

impl Entry {
    pub fn path(&self) -> &Path {
        match self {
            Entry::File(path, _) | Entry::Link(path, _) => path,
        }
    }
}

/// The names of all that a stack can have, whether it has it or not: files after the links to them.
pub fn names(stack: &str) -> Vec<PathBuf> {
    let main = service(stack);
    let (timer, repair) = (format!("stack-{stack}.repair.timer"), format!("stack-{stack}.repair.service"));
    vec![
        format!("multi-user.target.wants/{main}").into(),
        format!("{main}.wants/{timer}").into(),
        main.into(),
        timer.into(),
        repair.into(),
    ]
}

/// The unit that is the stack.
pub fn service(stack: &str) -> String {
    format!("stack-{stack}.service")
}

/// Where a person can put secrets for the stack file's variables.
pub fn environment_file(stack: &str) -> String {
    format!("/etc/stack/{stack}.env")
}

impl Boot<'_> {
    pub fn entries(&self) -> Vec<Entry> {
        let [wanted, wanted_timer, main, timer, repair] = &names(self.stack)[..] else { return vec![] };
        let beside = |name: &Path| Path::new("..").join(name);
        let mut entries = vec![Entry::File(main.clone(), self.service()), Entry::Link(wanted.clone(), beside(main))];
        if let Some(interval) = self.repair {
            entries.push(Entry::File(repair.clone(), self.repair_service()));
            entries.push(Entry::File(timer.clone(), self.timer(interval)));
            entries.push(Entry::Link(wanted_timer.clone(), beside(timer)));
        }
        entries
    }

    fn service(&self) -> String {
        let Boot { stack, .. } = self;
        let up = self.command(&self.up(&[]));
        let down = self.command(&["down", "--name", stack].map(str::to_owned));
        let folder = self.file.parent().unwrap_or(Path::new("/")).display().to_string();
        let mounts = format!("{} {}", quoted(&folder), quoted(&self.data.display().to_string()));
        let stop = self.stop.as_secs();
        let environment = self.environment();
        format!(
            "{MARK}
[Unit]
Description=stack {stack}
Wants=network-online.target
After=network-online.target local-fs.target
RequiresMountsFor={mounts}

[Service]
Type=oneshot
RemainAfterExit=yes
{environment}ExecStart={up}
ExecReload={up}
# At shutdown containers stop in their order. `systemctl stop` takes the stack away too; its volumes stay.
ExecStop={down}
# Pulls, builds and waits for `after` have bounds of their own.
TimeoutStartSec=infinity
TimeoutStopSec={stop}s
# Containers and their monitors leave this unit's cgroup for those of the stack: systemd ends none of them.
KillMode=process

[Install]
WantedBy=multi-user.target
"
        )
    }

    fn repair_service(&self) -> String {
        let Boot { stack, .. } = self;
        let up = self.command(&self.up(&["--repair"]));
        let (main, environment) = (service(stack), self.environment());
        format!(
            "{MARK}
[Unit]
Description=repair of stack {stack}
Requisite={main}
After={main}

[Service]
Type=oneshot
{environment}ExecStart={up}
TimeoutStartSec=infinity
KillMode=process
"
        )
    }

    fn timer(&self, interval: Duration) -> String {
        let Boot { stack, .. } = self;
        let (main, seconds) = (service(stack), interval.as_secs().max(1));
        format!(
            "{MARK}
[Unit]
Description=repair of stack {stack} every {seconds} s
BindsTo={main}
After={main}

[Timer]
OnActiveSec={seconds}s
OnUnitInactiveSec={seconds}s
AccuracySec=1s

[Install]
WantedBy={main}
"
        )
    }

    fn environment(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.environment {
            let _ = writeln!(text, "Environment={}", quoted(&format!("{name}={value}")));
        }
        let _ = writeln!(text, "EnvironmentFile=-{}", environment_file(self.stack));
        text
    }

    /// The words that bring the stack up.
    fn up(&self, flags: &[&str]) -> Vec<String> {
        let profiles = self.profiles.iter().flat_map(|profile| ["--profile", profile]);
        let words = ["up"].into_iter().chain(flags.iter().copied()).chain(profiles).chain(["--file"]);
        words.map(str::to_owned).chain([self.file.display().to_string()]).collect()
    }

    /// A command line; `$` and `%` mean nothing in it.
    fn command(&self, arguments: &[String]) -> String {
        let program = quoted(&self.program.display().to_string());
        let words = arguments.iter().map(|word| quoted(word).replace('$', "$$"));
        [program].into_iter().chain(words).collect::<Vec<_>>().join(" ")
    }

    /// The command line for a host with another init.
    pub fn shell_line(&self) -> String {
        let word = |text: &str| match text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-=:".contains(&byte))
        {
            true => text.to_owned(),
            false => format!("'{}'", text.replace('\'', "'\\''")),
        };
        let environment = self.environment.iter().map(|(name, value)| format!("{name}={}", word(value)));
        let program = word(&self.program.display().to_string());
        let up = self.up(&[]).iter().map(|text| word(text)).collect::<Vec<_>>();
        environment.chain([program]).chain(up).collect::<Vec<_>>().join(" ")
    }
}

/// A word as systemd reads it, in quotes only where it has to be.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-=:,@+".contains(&byte);
    let escaped = text.replace('%', "%%");
    if !text.is_empty() && text.bytes().all(|byte| plain(byte) || byte == b'%' || byte == b'$') {
        return escaped;
    }
    let escaped = escaped.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(repair: Option<Duration>) -> Boot<'static> {
        Boot {
            stack: "shop",
            program: Path::new("/usr/local/bin/stack"),
            file: Path::new("/srv/my shop/100%/stack.toml"),
            profiles: &[],
            data: Path::new("/var/lib/stack"),
            environment: vec![("TAG".into(), "a \"b\" $c".into())],
            stop: Duration::from_secs(90),
            repair,
        }
    }

    fn text<'e>(entries: &'e [Entry], name: &str) -> &'e str {
        let found = entries.iter().find_map(|entry| match entry {
            Entry::File(path, text) if path == Path::new(name) => Some(text),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no {name} in {entries:?}"))
    }

    #[test]
    fn the_unit_says_what_is_done_when() {
        let entries = boot(None).entries();
        assert_eq!(entries.len(), 2);
        let unit = text(&entries, "stack-shop.service");
        for line in [
            MARK,
            "After=network-online.target local-fs.target",
            "RequiresMountsFor=\"/srv/my shop/100%%\" /var/lib/stack",
            "Environment=\"TAG=a \\\"b\\\" $c\"",
            "EnvironmentFile=-/etc/stack/shop.env",
            "ExecStart=/usr/local/bin/stack up --file \"/srv/my shop/100%%/stack.toml\"",
            "ExecStop=/usr/local/bin/stack down --name shop",
            "TimeoutStopSec=90s",
            "WantedBy=multi-user.target",
        ] {
            assert!(unit.lines().any(|found| found == line), "no `{line}` in {unit}");
        }
        let link = Entry::Link("multi-user.target.wants/stack-shop.service".into(), "../stack-shop.service".into());
        assert_eq!(entries[1], link);
    }

    #[test]
    fn a_repair_runs_only_while_the_stack_does() {
        let entries = boot(Some(Duration::from_secs(300))).entries();
        let timer = text(&entries, "stack-shop.repair.timer");
        assert!(
            timer.contains("BindsTo=stack-shop.service\n") && timer.contains("OnUnitInactiveSec=300s\n"),
            "{timer}"
        );
        let service = text(&entries, "stack-shop.repair.service");
        assert!(
            service.contains("Requisite=stack-shop.service\n") && service.contains("up --repair --file"),
            "{service}"
        );
        // What is taken away is what can be made.
        let all = names("shop");
        assert!(entries.iter().all(|entry| all.contains(&entry.path().to_path_buf())));
        assert_eq!(all.len(), entries.len());
    }

    #[test]
    fn a_stack_with_profiles_comes_up_with_them() {
        let profiles = ["production".to_owned(), "tls".to_owned()];
        let entries = Boot { profiles: &profiles, ..boot(None) }.entries();
        let unit = text(&entries, "stack-shop.service");
        assert!(unit.contains("stack up --profile production --profile tls --file "), "{unit}");
    }

    #[test]
    fn a_line_for_other_inits_is_one_of_the_shell() {
        let line = "TAG='a \"b\" $c' /usr/local/bin/stack up --file '/srv/my shop/100%/stack.toml'";
        assert_eq!(boot(None).shell_line(), line);
    }
}
