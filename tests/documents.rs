//! What the documents say is so: the README's stack files and commands, the stack files in `stacks/`, the examples.

#[path = "support/image.rs"]
mod image;
#[path = "support/sandbox.rs"]
mod sandbox;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use sandbox::{Outcome, Sandbox, outcome, until};
use stack::file::{FileKind, Files, Look, Surroundings, examine_text};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The README's stack files name images and files that are nowhere.
struct AllIsThere;

impl Files for AllIsThere {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        match path.extension() {
            Some(_) => Ok(FileKind::File),
            None => Ok(FileKind::Folder),
        }
    }

    fn read(&self, _: &Path, _: u64) -> io::Result<Vec<u8>> {
        Ok(vec![])
    }
}

#[test]
fn every_stack_file_of_the_readme_is_one() {
    let readme = readme();
    let files = blocks(&readme, "toml");
    assert!(!files.is_empty());
    for text in files {
        let variables = HashMap::new();
        let surroundings =
            Surroundings { variables: &variables, folder: "/srv".into(), files: &AllIsThere, profiles: &[] };
        let examined = examine_text("README.md", text, &surroundings);
        assert!(examined.diagnostics.is_empty(), "{}", examined.diagnostics.render(Look::Plain));
        assert!(examined.stack.is_some());
    }
}

#[test]
fn every_command_of_the_readme_does_what_it_says() {
    let readme = readme();
    let host = with_stacks();
    let mut tried = 0;
    for line in blocks(&readme, "sh").into_iter().flat_map(str::lines) {
        // The tests do not run themselves.
        if line == "tests/run" {
            let mode = fs::metadata(Path::new(ROOT).join(line)).map(|file| std::os::unix::fs::MetadataExt::mode(&file));
            assert!(mode.is_ok_and(|mode| mode & 0o111 != 0), "{line}");
            continue;
        }
        let Outcome { code, stdout, stderr } = shell(&host, &line.replace("cargo run --release --", "stack"));
        assert_eq!(code, 0, "{line}\n{stdout}\n{stderr}");
        let words = said_of(line);
        assert!(stdout.contains(words), "{line}: no `{words}` in\n{stdout}");
        tried += 1;
    }
    assert!(tried >= 7, "{tried} commands");
    assert_eq!(host.leftovers(), Vec::<String>::new());
}

/// What a command of the README has to print.
fn said_of(line: &str) -> &'static str {
    let said = [
        (" up ", "127.0.0.1:8080→80"),
        ("curl", "Hello from stack"),
        ("stack ps", "healthy"),
        ("stack logs", ""),
        ("stack exec", "counter"),
        ("stack diff", "in sync"),
        ("stack down", "nothing of hello runs"),
    ];
    let found = said.iter().find(|(part, _)| line.contains(part));
    found.unwrap_or_else(|| panic!("the README has a command that nobody tries: {line}")).1
}

#[test]
fn every_command_of_the_readme_s_table_is_there_and_no_other() {
    let readme = readme();
    let rows = readme.lines().filter(|line| line.starts_with("| `stack"));
    let names = rows.flat_map(|row| {
        let cell = row.split('|').nth(1).unwrap_or_default();
        cell.split(',')
            .map(|part| part.trim().trim_matches('`').trim_start_matches("stack ").to_owned())
            .collect::<Vec<_>>()
    });
    let names: BTreeSet<String> = names
        .map(|name| name.split(' ').next().unwrap_or_default().to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    let help = outcome(Command::new(env!("CARGO_BIN_EXE_stack")).arg("--help").output().expect("it is built")).stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: BTreeSet<String> = commands
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(String::from)
        .collect();
    assert_eq!(names, commands);
}

#[test]
fn every_stack_of_the_folder_goes_up_and_down() {
    let names = files_of("stacks", "toml");
    assert!(!names.is_empty());
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(move || goes_up_and_down(name));
        }
    });
}

fn goes_up_and_down(name: &str) {
    let host = with_stacks();
    let file = format!("stacks/{name}");
    host.ok(&["check", &file]);
    host.ok(&["up", "--wait", &file]);
    until(&format!("{file} is in sync"), || host.stack(&["diff", &file]).code == 0);
    host.ok(&["down", &file]);
    assert_eq!(host.leftovers(), Vec::<String>::new(), "{file}");
}

#[test]
fn every_example_runs() {
    let folder = Path::new(env!("CARGO_BIN_EXE_stack")).with_file_name("examples");
    for name in files_of("examples", "rs") {
        let name = name.trim_end_matches(".rs");
        let program = folder.join(name);
        if !program.exists() {
            // `cargo test --test documents` builds no examples; `cargo test` does.
            assert!(std::env::var_os("STACK_TESTS_MUST_RUN").is_none(), "{} was not built", program.display());
            eprintln!("not run, for it was not built: example {name}");
            continue;
        }
        let place = tempfile::Builder::new().prefix("stack-test-").tempdir_in("/var/tmp").expect("a folder");
        let (arguments, expected) = example(name, place.path());
        let Outcome { code, stdout, stderr } =
            outcome(Command::new(&program).args(arguments).output().expect("it was built"));
        assert_eq!(code, 0, "{name}\n{stdout}\n{stderr}");
        assert!(stdout.contains(expected), "{name}: no `{expected}` in\n{stdout}");
    }
}

/// How an example is tried, and what it has to print.
fn example(name: &str, place: &Path) -> (Vec<PathBuf>, &'static str) {
    let words = |words: &[&str]| words.iter().map(PathBuf::from).collect::<Vec<_>>();
    match name {
        "filter" => (words(&["default", "mount"]), "mount[0, 0, 0, 0, 0, 0]: "),
        "limits" => (words(&["echo", "limited"]), "limited"),
        "veth" => (vec![], "hello from 10.70.0.2"),
        "run" => {
            let root = busybox(place);
            let command = ["/bin/sh", "-c", "echo contained in $(hostname)"];
            ([root].into_iter().chain(words(&command)).collect(), "contained in example")
        }
        "layers" => {
            let (root, layout) = (busybox(place), place.join("layout"));
            image::oci_layout_of_folder(&layout, &root, &serde_json::json!({ "Cmd": ["/bin/sh"] }));
            (vec![layout, place.join("store")], "/bin/busybox")
        }
        other => panic!("an example that nobody tries: {other}"),
    }
}

/// A root filesystem with a shell.
fn busybox(place: &Path) -> PathBuf {
    let root = place.join("root");
    for folder in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("Debian's package busybox-static");
    for applet in ["sh", "hostname"] {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    root
}

fn readme() -> String {
    fs::read_to_string(Path::new(ROOT).join("README.md")).expect("it is there")
}

/// The fenced blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&*fence).skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect()
}

fn files_of(folder: &str, extension: &str) -> Vec<String> {
    let entries = fs::read_dir(Path::new(ROOT).join(folder)).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(&format!(".{extension}"))).collect();
    names.sort();
    names
}

/// A sandbox whose folder has a copy of `stacks`.
fn with_stacks() -> Sandbox {
    let host = Sandbox::new();
    host.sh(&format!("cp -r {ROOT}/stacks stacks"));
    host
}

/// A line of the README in a shell that finds the program as `stack`.
fn shell(host: &Sandbox, line: &str) -> Outcome {
    let folder = Path::new(env!("CARGO_BIN_EXE_stack")).parent().expect("a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    outcome(host.inside("sh").args(["-c", line]).env("PATH", path).output().expect("a shell"))
}
