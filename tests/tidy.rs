//! The rules of the house, held against every source file: who may know whom, where `unsafe` and printing live, how long
//! a file may be, and that each says what it is for.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms, and what each may use of the house. `runtime` uses nothing but itself.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("cli", &["watch", "reconcile", "build", "monitor", "plan", "file", "model", "runtime"]),
    ("watch", &["reconcile", "plan", "file", "model"]),
    ("reconcile", &["build", "monitor", "plan", "file", "model", "runtime"]),
    ("plan", &["file", "model"]),
    ("file", &["model"]),
    ("model", &[]),
    ("build", &["model", "runtime"]),
    ("monitor", &["model", "runtime"]),
    ("runtime", &[]),
];

/// Lines of a file before its tests.
const LONGEST: usize = 500;

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn room(&self) -> Option<&str> {
        self.path.strip_prefix("src").ok()?.iter().next()?.to_str().filter(|room| !room.ends_with(".rs"))
    }

    /// The lines before the file's tests, with their numbers.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("\n#[cfg(test)]\nmod ").map_or(self.text.len(), |at| at + 1);
        self.text[..end].lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

fn sources(root: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(root)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a readable folder").path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|end| end == "rs") => {
                    let text = fs::read_to_string(&path).expect("a readable file");
                    found.push(Source { path, text });
                }
                false => {}
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn check(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[test]
fn rooms_use_only_those_to_their_right() {
    let mut faults = Vec::new();
    for source in sources("src") {
        let Some(room) = source.room() else { continue };
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else {
            faults.push(format!("{}: `{room}` is no room of the house", source.name()));
            continue;
        };
        for (number, line) in source.code().filter(|(_, line)| !is_comment(line)) {
            for part in line.split("crate::").skip(1) {
                let used: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !used.is_empty() && used != room && !allowed.contains(&used.as_str()) {
                    faults.push(format!("{}:{number}: `{room}` may not use `{used}`", source.name()));
                }
            }
        }
    }
    check(faults);
}

#[test]
fn unsafe_stays_in_runtime_sys() {
    let outside = |source: &Source| !source.path.starts_with(Path::new("src/runtime/sys"));
    let mut faults = Vec::new();
    for source in sources("src").into_iter().chain(sources("examples")).filter(outside) {
        for (number, line) in source.text.lines().enumerate().filter(|(_, line)| !is_comment(line)) {
            if line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl") {
                faults.push(format!("{}:{}: `unsafe` outside runtime/sys", source.name(), number + 1));
            }
        }
    }
    check(faults);
}

#[test]
fn every_unsafe_block_says_why_it_is_sound() {
    let mut faults = Vec::new();
    for source in sources("src/runtime/sys") {
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, line) in lines.iter().enumerate().filter(|(_, line)| !is_comment(line)) {
            let said = lines[index.saturating_sub(6)..=index].iter().any(|line| line.contains("SAFETY:"));
            if line.contains("unsafe {") && !said {
                faults.push(format!("{}:{}: no `SAFETY:` above", source.name(), index + 1));
            }
        }
    }
    check(faults);
}

#[test]
fn only_the_command_line_prints() {
    let mut faults = Vec::new();
    for source in sources("src").iter().filter(|source| source.room() != Some("cli")) {
        for (number, line) in source.code().filter(|(_, line)| !is_comment(line)) {
            if ["println!", "eprintln!", "print!(", "eprint!(", "dbg!"].iter().any(|word| line.contains(word)) {
                faults.push(format!("{}:{number}: prints", source.name()));
            }
        }
    }
    check(faults);
}

#[test]
fn a_file_is_short_enough_to_read() {
    let too_long = sources("src").into_iter().filter_map(|source| {
        let lines = source.code().count();
        (lines > LONGEST).then(|| format!("{}: {lines} lines before its tests", source.name()))
    });
    check(too_long.collect());
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = sources("src").into_iter().chain(sources("tests")).filter(|source| !source.text.starts_with("//! "));
    check(silent.map(|source| format!("{}: no `//!` at its top", source.name())).collect());
}

#[test]
fn nothing_is_left_to_be_done_later() {
    let mut faults = Vec::new();
    for source in sources("src") {
        for (number, line) in source.code() {
            if ["todo!(", "unimplemented!(", "TODO", "FIXME"].iter().any(|word| line.contains(word)) {
                faults.push(format!("{}:{number}: {}", source.name(), line.trim()));
            }
        }
    }
    check(faults);
}
