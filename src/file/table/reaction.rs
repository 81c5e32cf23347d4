//! What is done when a file changes: `on_change` of files and secrets.

use super::kernel::signal_named;
use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::literal::Text;
use crate::file::walk::{Item, Reader, bad_choice};
use crate::model::OnChange;

const CHOICES: [&str; 4] = ["restart", "signal:HUP", "exec:PROGRAM ARGUMENT", "none"];

pub(super) fn on_change(reader: &mut Reader, item: Option<Item>) -> Option<OnChange> {
    let text = reader.text(item)?;
    match text.value.as_str() {
        "none" => Some(OnChange::None),
        "restart" => Some(OnChange::Restart),
        value => match value.split_once(':') {
            Some(("signal", name)) => signal(reader, &text, name).map(OnChange::Signal),
            Some(("exec", line)) => command(reader, &text, line).map(OnChange::Exec),
            _ => {
                reader.push(bad_choice("on_change", &text, &CHOICES));
                None
            }
        },
    }
}

/// By name or by number.
pub(super) fn signal(reader: &mut Reader, text: &Text, name: &str) -> Option<i32> {
    match name.parse::<i32>() {
        Ok(number) if (1..=64).contains(&number) => Some(number),
        _ => signal_named(reader, text, name),
    }
}

/// Words apart by blanks. There is no shell and there are no quotes: what needs them is a program of the image.
pub(super) fn command(reader: &mut Reader, text: &Text, line: &str) -> Option<Vec<String>> {
    let words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
    if words.is_empty() {
        let draft = Draft::error(code::BAD_TEXT, &text.span, "`exec:` names no program");
        reader.push(draft.help("for example \"exec:nginx -s reload\""));
        return None;
    }
    Some(words)
}
