//! TOML text to a checked `Stack`, or to diagnostics with the place, the cause and the cure.
//!
//! In order: `source` keeps the texts, `include` makes one tree of several files, `profile` lays overrides over it, `walk` reads tables by the lists in `keys`, `table` makes nouns of them, `check`
//! looks across tables. All faults of a file come out of one run. What is at the end of a path is looked at through
//! [`Surroundings`], so that a text can be judged anywhere.

mod check;
mod code;
mod compose;
mod diagnostic;
mod dockerfile;
mod include;
mod interpolate;
mod keys;
mod literal;
mod profile;
mod source;
mod surroundings;
mod syntax;
mod table;
mod tree;
mod walk;
mod words;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

pub use code::Code;
pub use diagnostic::{Diagnostic, Diagnostics, Look, Marked, Severity};
pub use dockerfile::{Wish, parse_dockerfile, platform_args};
pub use surroundings::{FileKind, Files, HostFiles, Recorded, Remembered, Surroundings};

use source::{Source, Texts};
use table::Document;
use walk::Reader;

use crate::model::{CgroupBranch, Line, Name, Origins, Stack};

/// The most that a stack file may hold: a hundred times what a thousand containers take.
const MAX_FILE: u64 = 16 << 20;

/// What a file came to: a stack unless there are errors, and all that is to be said about it.
#[derive(Debug)]
pub struct Examined {
    pub stack: Option<Stack>,
    pub diagnostics: Diagnostics,
    /// The files that it includes, be they there or not. Absolute.
    pub included: Vec<PathBuf>,
}

/// Reads the stack file at `path` with these profiles; relative paths of a file begin at its own folder. Warnings are dropped:
/// see [`examine`].
pub fn load(path: &Path, env: &HashMap<String, String>, profiles: &[String]) -> Result<Stack, Diagnostics> {
    into_result(examine(path, env, profiles))
}

/// Judges a text that is called `name`. Warnings are dropped: see [`examine_text`].
pub fn parse(name: &str, text: &str, surroundings: &Surroundings) -> Result<Stack, Diagnostics> {
    into_result(examine_text(name, text, surroundings))
}

/// As [`load`], with the warnings of a file that can be used.
pub fn examine(path: &Path, env: &HashMap<String, String>, profiles: &[String]) -> Examined {
    examine_in(path, env, (profiles, &HostFiles))
}

/// As [`examine`], among other files.
pub fn examine_in(path: &Path, env: &HashMap<String, String>, (profiles, files): (&[String], &dyn Files)) -> Examined {
    let name = path.display().to_string();
    let unreadable =
        |why: String| Examined { stack: None, diagnostics: Diagnostics::unreadable(&name, why), included: vec![] };
    let content = match files.kind(path) {
        Ok(FileKind::Folder) => return unreadable("it is a folder, not a stack file".into()),
        Ok(_) => files.read(path, MAX_FILE),
        Err(fault) => Err(fault),
    };
    let content = match content {
        Ok(content) => content,
        Err(fault) => return unreadable(format!("the stack file cannot be read: {fault}")),
    };
    let text = match String::from_utf8(content) {
        Ok(text) => text,
        Err(fault) => {
            let line =
                fault.as_bytes()[..fault.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
            return unreadable(format!("the stack file is not UTF-8 (line {})", line + 1));
        }
    };
    let folder = match std::path::absolute(path) {
        Ok(absolute) => absolute.parent().map(Path::to_path_buf).unwrap_or_default(),
        Err(fault) => return unreadable(format!("the folder of the stack file cannot be told: {fault}")),
    };
    examine_text(&name, &text, &Surroundings { variables: env, folder, files, profiles })
}

/// As [`parse`], with the warnings of a text that can be used.
pub fn examine_text(name: &str, text: &str, surroundings: &Surroundings) -> Examined {
    let written = Texts::new(name, &surroundings.folder, text);
    let mut reader = Reader { written, surroundings, drafts: Vec::new(), foreign: Vec::new(), bases: Vec::new() };
    let collected = include::collect(&mut reader, text);
    let (trees, faults) = collected.parse();
    let (mut root, overrides) = collected.join(&mut reader, trees);
    let mut profiles = profile::lay(&mut reader, &mut root, overrides);
    let mut document = table::read(&mut reader, &root);
    profiles.extend(document.profiles());
    profile::tell_unknown(&mut reader, &profiles);
    document.leave_out(surroundings.profiles);
    let Reader { written, mut drafts, foreign, .. } = reader;
    let source = Source::of(&written);
    match faults.is_empty() {
        true => drafts.extend(check::check(&document)),
        false => drafts = syntax::merge(&source, &faults, drafts),
    }
    let errors = !foreign.is_empty() || drafts.iter().any(|draft| draft.severity == Severity::Error);
    if errors {
        // A slip in a reference leaves its table unused: that is one fault, not two.
        drafts.retain(|draft| draft.code != code::UNUSED);
    }
    let stack = (!errors).then(|| origins(&source, &root)).and_then(|origins| stack(document, origins));
    let diagnostics = Diagnostics::new(source, drafts, &secrets(&written.text, surroundings.variables)).with(foreign);
    Examined { stack, diagnostics, included: collected.included.clone() }
}

/// The variables of the environment that texts of stack files use, each with whether it is called like a secret.
pub fn variables_used<'v>(
    texts: &[&str],
    variables: &'v HashMap<String, String>,
) -> impl Iterator<Item = (&'v str, &'v str, bool)> {
    let used = |name: &str| texts.iter().any(|text| names(text).any(|found| found == name));
    let found: Vec<_> = variables.iter().filter(|(name, _)| used(name)).collect();
    found.into_iter().map(|(name, value)| (name.as_str(), value.as_str(), source::names_a_secret(name)))
}

/// What stands after each `${`.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split("${").skip(1).map(move |rest| &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())])
}

/// Values shorter than this would be found in words that have nothing to do with them.
const MIN_SECRET: usize = 4;

/// The values of variables that the text uses and that are called like secrets.
fn secrets<'v>(text: &str, variables: &'v HashMap<String, String>) -> Vec<&'v str> {
    let used = |name: &str| source::names_a_secret(name) && text.contains(name);
    let values = variables.iter().filter(|(name, _)| used(name)).map(|(_, value)| value.as_str());
    values.filter(|value| value.len() >= MIN_SECRET).collect()
}

fn into_result(examined: Examined) -> Result<Stack, Diagnostics> {
    examined.stack.ok_or(examined.diagnostics)
}

/// The document as a stack; `None` only where a fault has been told.
fn stack(document: Document, origins: Origins) -> Option<Stack> {
    let images = document.images.tables.into_iter().map(|(name, at)| Some((name, at.value?)));
    Some(Stack {
        name: document.name?,
        images: images.collect::<Option<_>>()?,
        bridges: document.bridges.tables.into_iter().map(|(name, at)| (name, at.value.bridge)).collect(),
        cgroups: document.cgroups.tables.into_iter().map(branch).collect(),
        volumes: document.volumes.tables.into_iter().map(|(name, at)| (name, at.value)).collect(),
        containers: document.containers.tables.into_iter().map(|(name, at)| (name, at.value.container)).collect(),
        origins,
    })
}

fn branch((name, at): (Name, source::At<table::LimitsSheet>)) -> (Name, CgroupBranch) {
    (name, CgroupBranch { limits: at.value.limits })
}

/// The line of every key and of every item of a list, by its dotted path; `container.web.port.0` is the first port.
fn origins(source: &Source, root: &DeTable) -> Origins {
    let mut names = source.names().map(str::to_owned);
    let file = names.next().unwrap_or_default();
    let mut origins = Origins { file, included: names.collect(), lines: HashMap::new() };
    table_origins(source, root, "", &mut origins);
    origins
}

fn table_origins(source: &Source, table: &DeTable, path: &str, origins: &mut Origins) {
    for (key, value) in table {
        let path = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        origins.lines.insert(path.clone(), line(source, key.span().start));
        value_origins(source, value.get_ref(), &path, origins);
    }
}

fn line(source: &Source, byte: usize) -> Line {
    Line { file: source.file(byte) as u16, line: source.position(byte).0 }
}

fn value_origins(source: &Source, value: &DeValue, path: &str, origins: &mut Origins) {
    match value {
        DeValue::Table(table) => table_origins(source, table, path, origins),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                let path = format!("{path}.{index}");
                origins.lines.insert(path.clone(), line(source, item.span().start));
                value_origins(source, item.get_ref(), &path, origins);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::model::{ByteSize, Condition, ImageSource, MountSource, Restart, Seccomp};

    /// A host where every path is a folder, but those that end in `.env`.
    struct OneEnvFile;

    impl Files for OneEnvFile {
        fn kind(&self, path: &Path) -> io::Result<FileKind> {
            Ok(if path.extension().is_some() { FileKind::File } else { FileKind::Folder })
        }

        fn read(&self, _: &Path, _: u64) -> io::Result<Vec<u8>> {
            Ok(b"A=file\nB=$NOT_REPLACED\n".to_vec())
        }
    }

    fn stack(text: &str) -> Stack {
        let variables = HashMap::from([("TAG".to_owned(), "1.9".to_owned())]);
        let surroundings = Surroundings {
            variables: &variables,
            folder: PathBuf::from("/srv/shop"),
            files: &OneEnvFile,
            profiles: &[],
        };
        parse("stack.toml", text, &surroundings).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
    }

    #[test]
    fn a_container_is_safe_and_bounded_unless_told() {
        let stack = stack("name = 'a'\n[container.web]\nimage = 'host:'\n");
        let web = &stack.containers["web"];
        assert_eq!(web.image.source, ImageSource::Host);
        assert_eq!(web.limits.pids, Some(4096));
        assert_eq!(web.restart, Restart::No);
        assert_eq!(web.stop_timeout, Duration::from_secs(10));
        assert_eq!(web.seccomp, Seccomp::Default);
        assert_eq!((web.log.size, web.log.files), (ByteSize(10 << 20), 3));
        assert_eq!((web.replicas, web.init, web.read_only), (1, true, false));
        assert!(web.cap_add.is_empty() && web.cap_drop.is_empty() && web.bridges.is_empty());
    }

    #[test]
    fn paths_begin_at_the_folder_of_the_file() {
        let text = "name = 'a'\n[container.web]\nimage = 'oci:./images/web:${TAG}'\n\
                    mount = [{ bind = '/abs/x', target = '/x' }, { bind = '../y', target = '/y' }]\n";
        let web = &stack(text).containers["web"];
        let path = PathBuf::from("/srv/shop/images/web");
        assert_eq!(web.image.source, ImageSource::OciLayout { path, tag: Some("1.9".into()) });
        assert_eq!(web.mounts[0].source, MountSource::Bind("/abs/x".into()));
        assert_eq!(web.mounts[1].source, MountSource::Bind("/srv/shop/../y".into()));
    }

    #[test]
    fn env_wins_over_env_file_and_files_are_not_replaced() {
        let text =
            "name = 'a'\n[container.web]\nimage = 'host:'\nenv_file = ['x.env']\nenv = { A = 1, C = '${TAG}' }\n";
        let env = &stack(text).containers["web"].env;
        let pairs: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("A", "1"), ("B", "$NOT_REPLACED"), ("C", "1.9")]);
    }

    #[test]
    fn the_variables_that_a_text_uses_are_told_from_others() {
        let variables = ["TAG", "TAGS", "DB_PASSWORD", "HOME"].map(|name| (name.to_owned(), "x".to_owned()));
        let variables = HashMap::from(variables);
        let mut used: Vec<_> =
            variables_used(&["a = '${TAG:-1}' # $HOME", "b = '${DB_PASSWORD}${UNSET}'"], &variables).collect();
        used.sort_unstable();
        assert_eq!(used, [("DB_PASSWORD", "x", true), ("TAG", "x", false)]);
    }

    #[test]
    fn what_was_read_once_can_be_read_again_when_it_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stack.toml");
        let text = "name = 'a'\n[container.web]\nimage = 'host:'\nenv_file = ['x.env']\n";
        std::fs::write(&path, text).expect("written");
        std::fs::write(folder.path().join("x.env"), "A=1\n").expect("written");
        let recorded = Recorded::of(&HostFiles);
        examine_in(&path, &HashMap::new(), (&[], &recorded)).stack.expect("a stack");
        let contents = recorded.into_read();
        assert_eq!(contents.keys().collect::<Vec<_>>(), [&path, &folder.path().join("x.env")]);
        std::fs::remove_file(folder.path().join("x.env")).expect("removed");
        let stack = examine_in(&path, &HashMap::new(), (&[], &Remembered { contents })).stack.expect("a stack");
        assert_eq!(stack.containers["web"].env["A"], "1");
    }

    #[test]
    fn a_secret_belongs_to_the_user_that_is_written_in_numbers() {
        let text = "name = 'a'\n[container.web]\nimage = 'host:'\nuser = '7:8'\nsecret = [{ file = 'a/pg.key' }]\n";
        let secret = &stack(text).containers["web"].secrets[0];
        assert_eq!((secret.uid, secret.gid, secret.mode), (7, 8, 0o400));
        assert_eq!(secret.target, "/run/secrets/pg.key");
    }

    #[test]
    fn capabilities_are_written_out() {
        let text = "name = 'a'\n[container.web]\nimage = 'host:'\ncap_add = ['CAP_NET_RAW']\ncap_drop = ['ALL']\n";
        let web = &stack(text).containers["web"];
        assert_eq!(web.cap_add, ["NET_RAW"]);
        assert_eq!(web.cap_drop.len(), 41);
    }

    #[test]
    fn every_key_and_item_has_its_line() {
        let text = "name = 'a'\n[bridge.front]\n[container.web]\nimage = 'host:'\nbridge = ['front']\nport = [\n  '80:80',\n  \
                    '81:81',\n]\nafter.db = 'started'\n[container.db]\nimage = 'host:'\n";
        let stack = stack(text);
        let line = |path: &str| stack.origins.place(path).map(|place| place.line);
        assert_eq!(line("name"), Some(1));
        assert_eq!(line("container.web"), Some(3));
        assert_eq!(line("container.web.port"), Some(6));
        assert_eq!(line("container.web.port.1"), Some(8));
        assert_eq!(line("container.web.after.db"), Some(10));
        assert_eq!(line("container.web.memory"), Some(3), "the table, where the key is not written");
        assert_eq!(stack.containers["web"].after["db"], Condition::Started);
    }

    /// A stack of several files in a folder; `stack.toml` is the one that is named.
    fn of_files(files: &[(&str, &str)], profiles: &[&str]) -> Examined {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, text).expect("written");
        }
        let profiles: Vec<String> = profiles.iter().map(|name| (*name).to_owned()).collect();
        examine(&folder.path().join("stack.toml"), &HashMap::new(), &profiles)
    }

    #[test]
    fn included_files_are_one_stack_with_places_and_paths_of_their_own() {
        let main =
            "name = 'shop'\ninclude = ['db/db.toml']\n[container.web]\nimage = 'host:'\nafter = { db = 'started' }\n";
        let db = "name = 'db-alone'\ninclude = ['../net.toml']\n[container.db]\nimage = 'host:'\nbridge = ['back']\n\
                  mount = [{ bind = 'conf', target = '/conf' }]\n";
        let net = "include = ['stack.toml', 'db/../net.toml']\n[bridge.back]\nmtu = 1400\n";
        let examined = of_files(&[("stack.toml", main), ("db/db.toml", db), ("net.toml", net), ("db/conf/x", "")], &[]);
        let stack = examined.stack.unwrap_or_else(|| panic!("{}", examined.diagnostics));
        assert_eq!(stack.name.as_str(), "shop");
        let place = |path: &str| stack.origins.place(path).expect("a place");
        assert!(place("container.web").to_string().ends_with("/stack.toml:3"));
        assert!(place("container.db.image").to_string().ends_with("/db/db.toml:4"));
        assert!(place("bridge.back.mtu").to_string().ends_with("/db/../net.toml:3"));
        let MountSource::Bind(path) = &stack.containers["db"].mounts[0].source else { panic!("no bind") };
        assert!(path.ends_with("db/conf"), "{path:?}");
        assert_eq!(examined.included.len(), 2, "what is watched: {:?}", examined.included);
    }

    #[test]
    fn a_profile_brings_its_containers_and_its_overrides() {
        let main = "name = 'shop'\ninclude = ['base.toml']\n[override.dev.container.web]\nenv = { LEVEL = 'debug' }\n\
                    command = { append = ['-v'] }\n[container.mail]\nimage = 'host:'\nprofile = ['dev', 'test']\n";
        let base = "[container.web]\nimage = 'host:'\ncommand = ['serve']\nenv = { LEVEL = 'info', PORT = 80 }\n\
                    [override.dev.container.web]\nenv.PORT = 8080\nenv.LEVEL = 'trace'\n";
        let files = [("stack.toml", main), ("base.toml", base)];
        let names = |stack: &Stack| stack.containers.keys().map(Name::to_string).collect::<Vec<_>>().join(" ");
        let plain = of_files(&files, &[]).stack.expect("a stack");
        assert_eq!(names(&plain), "web");
        assert_eq!(plain.containers["web"].command.as_deref(), Some(&["serve".to_owned()][..]));
        let dev = of_files(&files, &["dev"]).stack.expect("a stack");
        assert_eq!(names(&dev), "mail web");
        let web = &dev.containers["web"];
        assert_eq!((web.env["LEVEL"].as_str(), web.env["PORT"].as_str()), ("debug", "8080"));
        assert_eq!(web.command.as_deref(), Some(&["serve".to_owned(), "-v".to_owned()][..]));
        let place = |path: &str| dev.origins.place(path).expect("a place").to_string();
        assert!(place("container.web.env.LEVEL").ends_with("/stack.toml:4"));
        assert!(place("container.web.env.PORT").ends_with("/base.toml:6"));
        let slip = of_files(&files, &["dve"]);
        assert!(slip.stack.is_none() && slip.diagnostics.to_string().contains("did you mean `dev`?"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_diagnostic() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stack.toml");
        let code = |path: &Path| {
            let diagnostics = load(path, &HashMap::new(), &[]).expect_err("no stack");
            assert!(diagnostics.render(Look::Plain).contains("error[E0100]"), "{diagnostics}");
            diagnostics.iter().next().expect("one").message.clone()
        };
        assert!(code(&path).contains("cannot be read"));
        assert!(code(folder.path()).contains("is a folder"));
        std::fs::write(&path, b"name = 'a'\n# \xff\n").expect("written");
        assert!(code(&path).contains("not UTF-8 (line 2)"));
        std::fs::write(&path, "name = 'a'\n").expect("written");
        assert_eq!(load(&path, &HashMap::new(), &[]).expect("a stack").name.as_str(), "a");
    }

    #[test]
    fn five_hundred_containers_are_taken() {
        let mut text = String::from("name = 'big'\n[bridge.b]\n");
        for index in 0..500 {
            text +=
                &format!("[container.c{index}]\nimage = 'host:'\nbridge = ['b']\nport = ['{}:80']\n", 10_000 + index);
        }
        assert_eq!(stack(&text).containers.len(), 500);
    }
}
