//! The label that every object of ours carries in the kernel: `v1 <stack> <kind>/<name> <digest>`.

use std::fmt;
use std::str::FromStr;

use super::Kind;
use crate::model::Name;

/// What an object of the kernel says of itself: whose it is, what it is, and the digest of the spec it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    pub stack: Name,
    pub kind: Kind,
    /// The resource's name; for a link of a container, `instance:bridge`.
    pub name: String,
    pub digest: String,
}

/// Why a text is no label of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no label of stack")]
pub struct LabelError(pub String);

/// The version of the text's form; a later program still reads it.
const VERSION: &str = "v1";

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION} {} {}/{} {}", self.stack, self.kind, self.name, self.digest)
    }
}

impl FromStr for Label {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let wrong = || LabelError(text.into());
        let mut words = text.split(' ');
        let (Some(VERSION), Some(stack), Some(resource), Some(digest), None) =
            (words.next(), words.next(), words.next(), words.next(), words.next())
        else {
            return Err(wrong());
        };
        let (kind, name) = resource.split_once('/').ok_or_else(wrong)?;
        Ok(Label {
            stack: Name::new(stack).map_err(|_| wrong())?,
            kind: kind.parse().map_err(|_| wrong())?,
            name: name.into(),
            digest: digest.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_reads_back_as_it_was_written() {
        let label = Label {
            stack: Name::new("shop").unwrap(),
            kind: Kind::Container,
            name: "web-1".into(),
            digest: "00ff".into(),
        };
        assert_eq!(label.to_string(), "v1 shop container/web-1 00ff");
        assert_eq!(label.to_string().parse(), Ok(label));
    }

    #[test]
    fn a_stranger_s_text_is_no_label() {
        for text in
            ["", "uplink", "v2 shop container/web 0", "v1 shop container 0", "v1 shop ship/web 0", "v1 a b/c d e"]
        {
            assert!(text.parse::<Label>().is_err(), "{text}");
        }
    }
}
