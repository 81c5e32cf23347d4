//! Stack files with what is said of them: each `faulty/NAME.toml` beside its `NAME.txt`, each `good/NAME.toml` silent.
//!
//! `UPDATE_EXPECTED=1 cargo test --test stack_files` writes the expected texts anew; look at the difference before you keep it.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use stack::file::{Code, Examined, FileKind, Files, HostFiles, Look, Severity, Surroundings, examine_text, parse};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stack_files");
const DOCUMENTATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/stack-file.md");

/// The files of `around/`, and a disk that every machine would call otherwise.
struct Around;

impl Files for Around {
    fn kind(&self, path: &Path) -> io::Result<FileKind> {
        match path.to_str() {
            Some("/dev/vda") => Ok(FileKind::BlockDevice),
            _ => HostFiles.kind(path),
        }
    }

    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        HostFiles.read(path, limit)
    }
}

fn variables() -> HashMap<String, String> {
    let pairs = [("VERSION", "1.9"), ("EMPTY", ""), ("PORT", "8080"), ("DB_PASSWORD", "hunter2")];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What a file's own first line `# --profile a,b` chooses.
fn profiles(text: &str) -> Vec<String> {
    let given = text.lines().next().and_then(|line| line.strip_prefix("# --profile "));
    given.map(|given| given.split(',').map(str::to_owned).collect()).unwrap_or_default()
}

fn examine(name: &str, text: &str) -> Examined {
    let variables = variables();
    let folder = PathBuf::from(FOLDER).join("around");
    let profiles = profiles(text);
    examine_text(name, text, &Surroundings { variables: &variables, folder, files: &Around, profiles: &profiles })
}

/// The TOML files of a folder by their names, in order.
fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let entries = fs::read_dir(Path::new(FOLDER).join(folder)).expect("the folder is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let text = |path: &Path| fs::read_to_string(path).expect("a readable file");
    paths.into_iter().map(|path| (path.clone(), text(&path))).collect()
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("a name")
}

#[test]
fn faulty_files_are_told_as_expected() {
    let update = std::env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for (path, text) in files("faulty") {
        let examined = examine(file_name(&path), &text);
        let said = examined.diagnostics.render(Look::Plain) + "\n" + &examined.diagnostics.summary() + "\n";
        let expected_path = path.with_extension("txt");
        if update {
            fs::write(&expected_path, &said).expect("the expected text can be written");
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{}\n--- expected\n{expected}\n--- said\n{said}", path.display()));
        }
        let silent = examined.diagnostics.is_empty();
        assert!(!silent, "{}: a faulty file about which nothing is said", path.display());
        assert_eq!(examined.stack.is_none(), examined.diagnostics.has_errors(), "{}", path.display());
    }
    assert!(wrong.is_empty(), "{} files are told otherwise:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn there_are_many_faulty_files_and_no_stray_texts() {
    let faulty = files("faulty");
    assert!(faulty.len() >= 70, "{} faulty files", faulty.len());
    for entry in fs::read_dir(Path::new(FOLDER).join("faulty")).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        assert!(path.with_extension("toml").exists(), "{} belongs to no file", path.display());
    }
}

#[test]
fn every_code_has_a_faulty_file() {
    let source = include_str!("../src/file/code.rs");
    let all = source.split('"').filter(|part| part.len() == 5 && part.starts_with(['E', 'W']));
    let all: Vec<&str> = all.filter(|code| code[1..].bytes().all(|byte| byte.is_ascii_digit())).collect();
    let told: Vec<Code> = files("faulty")
        .iter()
        .flat_map(|(path, text)| {
            let examined = examine(file_name(path), text);
            examined.diagnostics.iter().map(|diagnostic| diagnostic.code).collect::<Vec<_>>()
        })
        .collect();
    for code in all {
        // A file that cannot be read has no text to keep.
        assert!(code == "E0100" || told.contains(&code), "{code} is in no faulty file");
    }
}

#[test]
fn good_files_are_taken_in_silence() {
    for (path, text) in files("good") {
        let examined = examine(file_name(&path), &text);
        assert!(examined.diagnostics.is_empty(), "{}\n{}", path.display(), examined.diagnostics);
        let stack = examined.stack.expect("a stack");
        for line in stack.origins.lines.values() {
            assert!((1..=text.lines().count() as u32).contains(&line.line));
        }
    }
}

#[test]
fn diagnostics_are_data_too() {
    let text = "name = \"shop\"\n[container.web]\nimage = \"host:\"\nbridge = [\"frnt\"]\n[bridge.front]\n";
    let examined = examine("stack.toml", text);
    let json = serde_json::to_value(&examined.diagnostics).expect("JSON");
    let first = &json[0];
    assert_eq!(first["severity"], "error");
    assert_eq!(first["code"], "E0201");
    assert_eq!(first["message"], "there is no [bridge.frnt]");
    assert_eq!(first["place"]["file"], "stack.toml");
    assert_eq!((&first["place"]["line"], &first["place"]["column"]), (&4.into(), &11.into()));
    assert_eq!(first["place"]["label"], "did you mean `front`?");
    assert_eq!(first["others"][0]["line"], 5);
    assert_eq!(json.as_array().map(Vec::len), Some(1), "a bridge left unused by the slip is no second fault");
}

#[test]
fn coloured_text_says_the_same() {
    let examined = examine("stack.toml", "name = 1\n");
    let coloured = examined.diagnostics.render(Look::Coloured);
    assert!(coloured.contains("\u{1b}["));
    let stripped = anstream::adapter::strip_str(&coloured).to_string();
    assert_eq!(stripped, examined.diagnostics.render(Look::Plain));
}

#[test]
fn no_secret_is_ever_shown() {
    for (path, text) in files("faulty") {
        let examined = examine(file_name(&path), &text);
        let json = serde_json::to_string(&examined.diagnostics).expect("JSON");
        assert!(!examined.diagnostics.to_string().contains("hunter2"), "{}", path.display());
        assert!(!json.contains("hunter2"), "{}", path.display());
    }
}

/// The ```toml blocks of a text: each with the number of its first line.
fn toml_blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        match (&mut open, line.trim()) {
            (None, "```toml") => open = Some((index + 2, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, block)), _) => {
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn every_block_of_the_documentation_is_a_stack_file() {
    let text = fs::read_to_string(DOCUMENTATION).expect("the documentation");
    let blocks = toml_blocks(&text);
    assert!(blocks.len() > 10);
    for (line, block) in blocks {
        let examined = examine("stack.toml", &block);
        assert!(examined.diagnostics.is_empty(), "docs/stack-file.md:{line}\n{}", examined.diagnostics);
    }
}

#[test]
fn every_key_is_in_the_documentation() {
    let text = fs::read_to_string(DOCUMENTATION).expect("the documentation");
    let keys = include_str!("../src/file/keys.rs");
    let names: Vec<&str> =
        keys.split("key(").filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next()).collect();
    assert!(names.len() > 60, "{} keys", names.len());
    for name in names {
        assert!(text.contains(&format!("`{name}`")), "`{name}` is not in docs/stack-file.md");
    }
}

/// Pieces of good files, so that what is made up reaches past the first key.
fn good_texts() -> Vec<String> {
    files("good").into_iter().map(|(_, text)| text).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_judged(text in any::<String>()) {
        let _ = examine("stack.toml", &text).diagnostics.render(Look::Plain);
    }

    #[test]
    fn any_text_that_looks_like_toml_is_judged(text in "([a-z_]{1,9}|\\[|\\]|\\.|=|\"|'|\\{|\\}|\\$|,|:|\n| |[0-9]|#|é|\\\\){0,80}") {
        let _ = examine("stack.toml", &text).diagnostics.render(Look::Plain);
    }

    #[test]
    fn a_good_file_that_was_damaged_is_judged(
        pick in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        length in 0usize..40,
        put in "([a-z_]{1,9}|\\[|\\]|\\.|=|\"|'|\\{|\\}|\\$\\{|,|:|\n| |-?[0-9]{1,20}|#|é|\\\\|\u{0}){0,6}",
    ) {
        let texts = good_texts();
        let text = pick.get(&texts);
        let mut start = at.index(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = (start + length).min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        let damaged = format!("{}{put}{}", &text[..start], &text[end..]);
        let examined = examine("stack.toml", &damaged);
        let _ = examined.diagnostics.render(Look::Plain);
        prop_assert_eq!(examined.stack.is_none(), examined.diagnostics.has_errors());
        for diagnostic in examined.diagnostics.iter() {
            if let Some(place) = &diagnostic.place {
                prop_assert!((place.line, place.column) <= (place.end_line, place.end_column));
                prop_assert!(place.line as usize <= damaged.lines().count() + 1);
            }
        }
    }

    #[test]
    fn any_value_of_a_key_is_judged(value in any::<String>(), key in "(image|port|volume|user|subnet|memory|restart|seccomp)") {
        let quoted = serde_json::Value::String(value).to_string();
        let text = format!("name = \"x\"\n[container.a]\nimage = \"host:\"\n[container.b]\n{key} = {quoted}\nport = [{quoted}]\nvolume = [{quoted}]\n[bridge.b]\nsubnet = {quoted}\n");
        let _ = examine("stack.toml", &text).diagnostics.render(Look::Plain);
    }
}

#[test]
fn a_file_is_judged_by_its_errors_alone() {
    let variables = variables();
    let surroundings =
        Surroundings { variables: &variables, folder: PathBuf::from("/"), files: &HostFiles, profiles: &[] };
    let text = "name = \"shop\"\n[bridge.front]\n[container.web]\nimage = \"host:\"\n";
    assert!(parse("stack.toml", text, &surroundings).is_ok(), "an unused bridge is only warned of");
    let diagnostics = parse("stack.toml", "", &surroundings).expect_err("no name");
    assert_eq!(diagnostics.count(Severity::Error), 1);
}
