//! Colours, by what they mean. They are stripped where there is no terminal or NO_COLOR is set, and nothing rests on them.

use anstyle::{AnsiColor, Style};

use crate::reconcile::Verb;

pub const BOLD: Style = Style::new().bold();
pub const DIM: Style = Style::new().dimmed();
pub const GOOD: Style = AnsiColor::Green.on_default();
pub const BAD: Style = AnsiColor::Red.on_default();
pub const WARN: Style = AnsiColor::Yellow.on_default();
pub const LIVE: Style = AnsiColor::Cyan.on_default();

pub fn of_verb(verb: Verb) -> Style {
    match verb {
        Verb::Create => GOOD,
        Verb::Live | Verb::Reload => LIVE,
        Verb::Repair | Verb::Restart | Verb::Replace => WARN,
        Verb::Destroy => BAD,
    }
}

/// `text` in `style`.
pub fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}
