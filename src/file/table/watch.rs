//! `[[container.NAME.watch]]`: what `stack watch` does when files of the host change.

use std::path::PathBuf;

use super::reaction;
use super::storage::check_target;
use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::keys::WATCH;
use crate::file::literal::Text;
use crate::file::surroundings::FileKind;
use crate::file::walk::{Reader, Section, bad_choice};
use crate::model::{OnChange, WatchAction, WatchRule};

const CHOICES: [&str; 5] = ["sync", "restart", "rebuild", "signal:HUP", "exec:PROGRAM ARGUMENT"];

pub(super) fn read(reader: &mut Reader, section: &Section) -> Vec<WatchRule> {
    let tables = reader.tables(&WATCH, section.get("watch"));
    tables.iter().filter_map(|table| rule(reader, table)).collect()
}

fn rule(reader: &mut Reader, section: &Section) -> Option<WatchRule> {
    let item = reader.required(section, "action");
    let action = reader.text(item).and_then(|text| action(reader, &text));
    let path = path(reader, section);
    let ignore = reader.texts(section.get("ignore")).unwrap_or_default();
    let target = target(reader, section, action.as_ref());
    let ignore = ignore.into_iter().map(|text| text.value).collect();
    Some(WatchRule { path: path?, ignore, target: target?, action: action? })
}

fn path(reader: &mut Reader, section: &Section) -> Option<PathBuf> {
    let item = reader.required(section, "path");
    let text = reader.text(item)?;
    reader.host_file(&text.value, &text.span, &[FileKind::Folder, FileKind::File])
}

fn action(reader: &mut Reader, text: &Text) -> Option<WatchAction> {
    match text.value.as_str() {
        "sync" => Some(WatchAction::Sync),
        "rebuild" => Some(WatchAction::Rebuild),
        "restart" => Some(WatchAction::Tell(OnChange::Restart)),
        value => match value.split_once(':') {
            Some(("signal", name)) => {
                reaction::signal(reader, text, name).map(|signal| WatchAction::Tell(OnChange::Signal(signal)))
            }
            Some(("exec", line)) => {
                reaction::command(reader, text, line).map(|command| WatchAction::Tell(OnChange::Exec(command)))
            }
            _ => {
                let draft = bad_choice("action", text, &CHOICES);
                reader.push(match value.split_once('+') {
                    Some(("sync", _)) => {
                        draft.help("write two rules with one path: files are there before anybody is told")
                    }
                    _ => draft,
                });
                None
            }
        },
    }
}

/// `Some(None)`: none is needed.
fn target(reader: &mut Reader, section: &Section, action: Option<&WatchAction>) -> Option<Option<String>> {
    let Some(item) = section.get("target") else {
        if action == Some(&WatchAction::Sync) {
            let draft = Draft::error(code::MISSING_KEY, &section.span, "`action = \"sync\"` needs a `target`");
            reader.push(draft.help("add `target = \"/app\"`, where the container sees the files"));
            return None;
        }
        return Some(None);
    };
    if action.is_some_and(|action| *action != WatchAction::Sync) {
        let draft = Draft::error(code::KEY_CHOICE, &item.key_span, "`target` goes with `action = \"sync\"`");
        reader.push(draft.help("leave it out"));
        return None;
    }
    let text = reader.text(Some(item))?;
    match check_target(&text.value, &text.span) {
        Ok(()) => Some(Some(text.value)),
        Err(draft) => {
            reader.push(*draft);
            None
        }
    }
}
