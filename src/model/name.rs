//! Names of stacks and of the resources in them: checked once at the door, then carried as proof.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A name: 1 to 40 of `a-z`, `0-9` and `-`, beginning with a letter, not ending in `-`.
///
/// Narrow on purpose: it becomes a host name, a cgroup directory, part of a link's alias and of a table's name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name cannot be empty")]
    Empty,
    #[error("`{0}` is longer than {max} characters", max = Name::MAX)]
    TooLong(String),
    #[error("`{0}` does not begin with a letter from a to z")]
    FirstCharacter(String),
    #[error("`{name}` holds `{found}`; a name is made of a-z, 0-9 and `-`")]
    Character { name: String, found: char },
    #[error("`{0}` ends in `-`")]
    LastCharacter(String),
}

impl Name {
    /// The longest name, in characters.
    pub const MAX: usize = 40;

    /// Checks `text` and keeps it.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let Some(first) = text.chars().next() else { return Err(NameError::Empty) };
        if let Some(found) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(NameError::Character { name: text, found });
        }
        if !first.is_ascii_lowercase() {
            return Err(NameError::FirstCharacter(text));
        }
        if text.len() > Self::MAX {
            return Err(NameError::TooLong(text));
        }
        if text.ends_with('-') {
            return Err(NameError::LastCharacter(text));
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_host_name() {
        for good in ["a", "web", "web-1", "x2", &"a".repeat(40)] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "Web", "1web", "-web", "web-", "we_b", "we.b", "wéb", "a/b", "..", &"a".repeat(41)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }
}
