//! Variables in the texts of a build: `$NAME`, `${NAME}`, `${NAME:-word}`, `${NAME-word}`, `${NAME:+word}`,
//! `${NAME+word}`, `${NAME:?word}`, `${NAME?word}` (Dockerfile reference, "Environment replacement").

/// How texts are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expansion {
    /// Quotes go, as a shell takes them away.
    Words,
    /// Quotes stay what they are.
    Verbatim,
}

/// Deepest default within a default.
const MAX_DEPTH: usize = 32;

/// Puts variables into a text. Names that `value` does not know are empty. Errors: what is wrong, in words.
pub fn expand(
    text: &str,
    escape: char,
    how: Expansion,
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut expander = Expander { rest: text, escape, how, value };
    expander.until_end(None, 0)
}

struct Expander<'a> {
    rest: &'a str,
    escape: char,
    how: Expansion,
    value: &'a dyn Fn(&str) -> Option<String>,
}

impl Expander<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Up to `end`, which is taken, or to the end of the text.
    fn until_end(&mut self, end: Option<char>, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err("has too many defaults within defaults".into());
        }
        let mut out = String::new();
        let mut quote = None;
        while let Some(c) = self.next() {
            match c {
                c if quote.is_none() && Some(c) == end => return Ok(out),
                '\'' if self.how == Expansion::Words && quote != Some('"') => {
                    let Some(close) = self.rest.find('\'') else { return Err("has a quote that is not closed".into()) };
                    out.push_str(&self.rest[..close]);
                    self.rest = &self.rest[close + 1..];
                }
                '"' if self.how == Expansion::Words => {
                    quote = match quote {
                        Some(_) => None,
                        None => Some('"'),
                    };
                }
                c if c == self.escape => self.escaped(&mut out, quote),
                '$' => {
                    let put = self.variable(depth)?;
                    out.push_str(&put);
                }
                c => out.push(c),
            }
        }
        match (end, quote) {
            (Some(_), _) => Err("has a `${` without its `}`".into()),
            (_, Some(_)) => Err("has a quote that is not closed".into()),
            _ => Ok(out),
        }
    }

    fn escaped(&mut self, out: &mut String, quote: Option<char>) {
        match self.peek() {
            // Within double quotes only what is special there; in a verbatim text only the dollar.
            Some(c) if quote.is_some() && !matches!(c, '"' | '$') && c != self.escape => out.push(self.escape),
            Some(c) if self.how == Expansion::Verbatim && c != '$' => out.push(self.escape),
            Some(c) => {
                out.push(c);
                self.next();
            }
            None => out.push(self.escape),
        }
    }

    fn variable(&mut self, depth: usize) -> Result<String, String> {
        let braces = self.peek() == Some('{');
        if braces {
            self.next();
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        let name = &self.rest[..length];
        if !braces {
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Ok("$".into());
            }
            self.rest = &self.rest[length..];
            return Ok((self.value)(name).unwrap_or_default());
        }
        if name.is_empty() {
            return Err("has a `${` without a name".into());
        }
        self.rest = &self.rest[length..];
        let found = (self.value)(name);
        let (or_empty, operator) = match self.next() {
            Some('}') => return Ok(found.unwrap_or_default()),
            Some(':') => (true, self.next()),
            None => return Err("has a `${` without its `}`".into()),
            other => (false, other),
        };
        let Some(operator @ ('-' | '+' | '?')) = operator else {
            return Err(format!("has a modifier of `${{{name}}}` that is none of `:-`, `:+` and `:?`"));
        };
        let word = self.until_end(Some('}'), depth + 1)?;
        let is_set = found.as_ref().is_some_and(|value| !or_empty || !value.is_empty());
        match (operator, is_set) {
            ('-', true) | ('?', true) => Ok(found.unwrap_or_default()),
            ('-', false) | ('+', true) => Ok(word),
            ('+', false) => Ok(String::new()),
            _ if word.is_empty() => Err(format!("needs `{name}`, which is not set")),
            _ => Err(format!("needs `{name}`: {word}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &str, how: Expansion) -> Result<String, String> {
        let value = |name: &str| match name {
            "A" => Some("one".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expand(text, '\\', how, &value)
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(put(text, Expansion::Words).as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn variables_are_put_in_as_docker_puts_them() {
        check("$A/x", "one/x");
        check("${A}x", "onex");
        check("$Ax|$NO|${NO}", "||");
        check("${NO:-y} ${A:-y} ${EMPTY:-y} ${EMPTY-y}", "y one y ");
        check("${NO:+y}|${A:+y}|${EMPTY+y}", "|y|y");
        check("${NO:-${A}/z}", "one/z");
        check("\\$A", "$A");
        check("'$A' \"$A\"", "$A one");
        check("\"a\\\"b\" c\\ d", "a\"b c d");
        check("$ $1 100%", "$ $1 100%");
        check("${A:?never}", "one");
    }

    #[test]
    fn in_a_verbatim_text_quotes_stay() {
        assert_eq!(put("\"$A\" 'x' \\n \\$A", Expansion::Verbatim).as_deref(), Ok("\"one\" 'x' \\n $A"));
    }

    #[test]
    fn what_cannot_be_put_in_says_why() {
        for (text, why) in [
            ("${A", "without its `}`"),
            ("${}", "without a name"),
            ("${A/x/y}", "modifier"),
            ("${NO:?set it}", "`NO`: set it"),
            ("'x", "quote"),
            ("\"x", "quote"),
        ] {
            let error = put(text, Expansion::Words).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
