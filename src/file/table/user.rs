//! `user`, `hostname` and the owner of a secret.

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::literal::Text;
use crate::file::walk::Reader;
use crate::model::UserSpec;

/// The highest user or group number; the one above it means "leave as it is" (chown(2)).
const MAX_ID: u32 = u32::MAX - 1;
/// useradd(8) makes no longer ones.
const MAX_NAME: usize = 32;
/// One less than the kernel's buffer (uname(2)), as docker has it.
const MAX_HOSTNAME: usize = 63;

/// `name`, `name:group`, `1000` or `1000:1000`.
pub(super) fn user(reader: &mut Reader, text: Option<Text>) -> Option<UserSpec> {
    let text = text?;
    let (user, group) = match text.value.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text.value.as_str(), None),
    };
    for (part, what) in [(Some(user), "user"), (group, "group")] {
        let Some(part) = part else { continue };
        if let Err(why) = check_account(part) {
            let message = match part {
                "" => format!("the {what} is missing in `{}`", text.value),
                _ => format!("`{part}` is no {what}: {why}"),
            };
            let draft = Draft::error(code::BAD_USER, &text.piece(part), message);
            reader.push(draft.help("write \"NAME\", \"NAME:GROUP\", \"1000\" or \"1000:1000\""));
            return None;
        }
    }
    Some(UserSpec { user: user.to_owned(), group: group.map(str::to_owned) })
}

fn check_account(text: &str) -> Result<(), String> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return match text.parse::<u32>() {
            Ok(id) if id <= MAX_ID => Ok(()),
            _ => Err(format!("a number is from 0 to {MAX_ID}")),
        };
    }
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let body = text.strip_suffix('$').unwrap_or(text);
    let rest = body.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    match (first && rest, text.len() <= MAX_NAME) {
        (true, true) => Ok(()),
        (true, false) => Err(format!("a name has at most {MAX_NAME} characters")),
        (false, _) => Err("a name is made of letters, digits, `_`, `-` and `.`".into()),
    }
}

/// `999:999`: numbers only, because the file is written before the image's names are known.
pub(super) fn owner(reader: &mut Reader, text: &Text) -> Option<(u32, u32)> {
    let id = |part: &str| part.parse::<u32>().ok().filter(|id| *id <= MAX_ID && !part.starts_with('+'));
    let ids = text.value.split_once(':').and_then(|(user, group)| id(user).zip(id(group)));
    if ids.is_none() {
        let draft = Draft::error(code::BAD_USER, &text.span, format!("`{}` is no owner", text.value));
        reader.push(draft.help("write the numbers of a user and a group, such as \"999:999\""));
    }
    ids
}

/// The numbers of a user that needs no looking up.
pub(super) fn numeric(user: &UserSpec) -> Option<(u32, u32)> {
    let uid = user.user.parse().ok()?;
    Some((uid, user.group.as_deref()?.parse().ok()?))
}

/// Labels of letters, digits and `-`, joined by dots (RFC 1123).
pub(super) fn hostname(reader: &mut Reader, text: Option<Text>) -> Option<String> {
    let text = text?;
    let label = |label: &str| {
        let inner = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.value.len() <= MAX_HOSTNAME && text.value.split('.').all(label) {
        return Some(text.value);
    }
    let draft = Draft::error(code::BAD_TEXT, &text.span, format!("`{}` is no host name", text.value));
    reader.push(draft.help(format!("a host name is at most {MAX_HOSTNAME} letters, digits, `-` and `.`")));
    None
}
