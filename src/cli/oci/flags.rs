//! Arguments in the form of the field's runtimes: `--name value`, `--name=value`, `-n value`, switches; what follows the first
//! plain argument of `exec` belongs to the program.

use std::ffi::OsString;
use std::path::PathBuf;

/// A flag that a command knows.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    pub kind: FlagKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagKind {
    Switch,
    Value,
}

pub const fn switch(name: &'static str, short: Option<char>) -> Flag {
    Flag { name, short, kind: FlagKind::Switch }
}

pub const fn value(name: &'static str, short: Option<char>) -> Flag {
    Flag { name, short, kind: FlagKind::Value }
}

/// What was given.
#[derive(Clone, Debug, Default)]
pub struct Given {
    flags: Vec<(&'static str, String)>,
    pub plain: Vec<String>,
}

/// Where flags end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagsEnd {
    AtFirstPlain,
    Never,
}

impl Given {
    /// `what` names the command, for messages.
    pub fn parse(
        what: &str,
        arguments: &mut dyn Iterator<Item = OsString>,
        known: &[Flag],
        end: FlagsEnd,
    ) -> Result<Self, String> {
        let mut given = Self::default();
        while let Some(argument) = arguments.next() {
            let argument = text(argument)?;
            let Some(dashed) = argument.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
                given.plain.push(argument);
                if end == FlagsEnd::AtFirstPlain {
                    break;
                }
                continue;
            };
            if argument == "--" {
                break;
            }
            let dashed = dashed.strip_prefix('-').unwrap_or(dashed);
            let (name, inline) = match dashed.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (dashed, None),
            };
            let is_it = |flag: &&Flag| flag.name == name || flag.short.is_some_and(|short| name == short.to_string());
            let flag = known.iter().find(is_it).ok_or_else(|| format!("{what} has no flag `{argument}`"))?;
            let value = match (flag.kind, inline) {
                (FlagKind::Switch, inline) => inline.unwrap_or_else(|| "true".to_owned()),
                (FlagKind::Value, Some(value)) => value,
                (FlagKind::Value, None) => {
                    let next = arguments.next().ok_or_else(|| format!("`--{}` wants a value", flag.name))?;
                    text(next)?
                }
            };
            given.flags.push((flag.name, value));
        }
        if end == FlagsEnd::Never || given.plain.is_empty() {
            for rest in arguments {
                given.plain.push(text(rest)?);
            }
        }
        Ok(given)
    }

    /// The last one counts.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(flag, _)| *flag == name).map(|(_, value)| value.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.flags.iter().filter(|(flag, _)| *flag == name).map(|(_, value)| value.as_str()).collect()
    }

    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !matches!(value, "false" | "0"))
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let parse = |value: &str| value.parse().map_err(|_| format!("`--{name} {value}` is no fitting number"));
        self.get(name).map(parse).transpose()
    }
}

fn text(argument: OsString) -> Result<String, String> {
    argument.into_string().map_err(|argument| format!("`{}` is not UTF-8", argument.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [Flag; 3] = [switch("detach", Some('d')), value("bundle", Some('b')), value("env", Some('e'))];

    fn parse(line: &str, end: FlagsEnd) -> Result<Given, String> {
        Given::parse("it", &mut line.split(' ').map(OsString::from), &KNOWN, end)
    }

    #[test]
    fn every_form_of_a_flag_is_known() {
        for line in ["--bundle /b -d id", "-b /b --detach id", "-bundle=/b --detach=true id"] {
            let given = parse(line, FlagsEnd::Never).unwrap();
            assert_eq!((given.get("bundle"), given.is_set("detach")), (Some("/b"), true), "{line}");
            assert_eq!(given.plain, ["id"]);
        }
        assert!(!parse("--detach=false id", FlagsEnd::Never).unwrap().is_set("detach"));
    }

    #[test]
    fn flags_behind_the_end_are_the_programs() {
        let mut line = "-e A=1 -e B=2 id ls -d".split(' ').map(OsString::from);
        let given = Given::parse("exec", &mut line, &KNOWN, FlagsEnd::AtFirstPlain).unwrap();
        assert_eq!(given.all("env"), ["A=1", "B=2"]);
        assert_eq!((given.plain, line.next()), (vec!["id".to_owned()], Some("ls".into())));
    }

    #[test]
    fn what_is_not_known_or_incomplete_is_an_error() {
        assert!(parse("--nope id", FlagsEnd::Never).unwrap_err().contains("--nope"));
        assert!(parse("--bundle", FlagsEnd::Never).unwrap_err().contains("wants a value"));
    }
}
