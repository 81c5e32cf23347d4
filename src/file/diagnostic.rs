//! What is wrong with a stack file, as data and as text with the place underlined.
//!
//! The rendering is rustc's own; this is the only file that knows the crate it comes from.

use std::fmt;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::{Serialize, Serializer};

use super::code::Code;
use super::source::{Source, Span};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, and probably does not say what was meant.
    Warning,
}

/// A stretch of a file, with what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Marked {
    pub file: String,
    /// Lines and columns count from 1; columns count characters.
    pub line: u32,
    pub column: u32,
    /// The first position after the stretch.
    pub end_line: u32,
    pub end_column: u32,
    /// Empty where the message says it all.
    pub label: String,
    #[serde(skip)]
    span: Span,
}

/// One fault, its cause and its cure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// Stable, such as `E0110`.
    pub code: Code,
    /// One line, lower case, no full stop.
    pub message: String,
    /// `None` where the fault is the file itself.
    pub place: Option<Marked>,
    /// What the fault is in conflict with.
    pub others: Vec<Marked>,
    /// What to write instead.
    pub help: Vec<String>,
}

/// All diagnostics of a stack's files, in the order of their lines, then those of files that they name.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    source: Source,
    list: Vec<Diagnostic>,
    foreign: Vec<Diagnostics>,
}

/// How a rendering looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    Plain,
    /// With ANSI escape sequences.
    Coloured,
}

impl Diagnostics {
    /// `secrets` are texts that no message may show.
    pub(super) fn new(source: Source, drafts: Vec<Draft>, secrets: &[&str]) -> Self {
        let mut list: Vec<Diagnostic> =
            drafts.into_iter().map(|draft| draft.cleaned(secrets).finish(&source)).collect();
        list.sort_by_key(|diagnostic| diagnostic.place.as_ref().map(|place| place.span.start));
        list.dedup();
        Self { source, list, foreign: Vec::new() }
    }

    /// Of a file whose text could not be had.
    pub(super) fn unreadable(name: &str, message: String) -> Self {
        Self::without_place(name, super::code::UNREADABLE, message, Vec::new())
    }

    /// What no line of a file is to blame for.
    pub(super) fn without_place(name: &str, code: Code, message: String, help: Vec<String>) -> Self {
        let diagnostic = Diagnostic { severity: Severity::Error, code, message, place: None, others: Vec::new(), help };
        Self { source: Source::new(name, ""), list: vec![diagnostic], foreign: Vec::new() }
    }

    /// With what is wrong with other files.
    pub(super) fn with(self, foreign: Vec<Diagnostics>) -> Self {
        Self { foreign, ..self }
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter().chain(self.foreign.iter().flat_map(|file| &file.list))
    }

    pub fn count(&self, severity: Severity) -> usize {
        self.iter().filter(|diagnostic| diagnostic.severity == severity).count()
    }

    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Such as `2 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let part = |count: usize, noun: &str| match count {
            0 => None,
            1 => Some(format!("1 {noun}")),
            _ => Some(format!("{count} {noun}s")),
        };
        let parts = [part(self.count(Severity::Error), "error"), part(self.count(Severity::Warning), "warning")];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Every diagnostic with its lines of the file, separated by empty lines; ends in a newline unless empty.
    pub fn render(&self, look: Look) -> String {
        let renderer = match look {
            Look::Plain => Renderer::plain(),
            Look::Coloured => Renderer::styled(),
        };
        let one = |diagnostic: &Diagnostic| renderer.render(&[self.group(diagnostic)]) + "\n";
        let own = self.list.iter().map(one);
        own.chain(self.foreign.iter().map(|file| file.render(look))).collect::<Vec<_>>().join("\n")
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> annotate_snippets::Group<'a> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group =
            annotate_snippets::Group::with_title(level.primary_title(diagnostic.message.as_str()).id(diagnostic.code));
        match &diagnostic.place {
            Some(place) => {
                let own = self.source.file(place.span.start);
                let mut files = vec![own];
                for other in &diagnostic.others {
                    let file = self.source.file(other.span.start);
                    if !files.contains(&file) {
                        files.push(file);
                    }
                }
                for file in files {
                    group = group.element(self.snippet(file, Some(place).filter(|_| file == own), &diagnostic.others));
                }
            }
            None => group = group.element(annotate_snippets::Origin::path(self.source.name(0))),
        }
        group.elements(diagnostic.help.iter().map(|help| Level::HELP.message(help.as_str())))
    }

    /// The lines of one file, with what is marked in it.
    fn snippet<'a>(
        &'a self,
        file: usize,
        primary: Option<&'a Marked>,
        others: &'a [Marked],
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let range = self.source.range(file);
        let marked = |kind: AnnotationKind, place: &'a Marked| {
            let within = |byte: usize| byte.min(range.end) - range.start;
            kind.span(within(place.span.start)..within(place.span.end)).label(label(place))
        };
        let here = others.iter().filter(|other| self.source.file(other.span.start) == file);
        let snippet = Snippet::source(&self.source.shown[range.clone()]).path(self.source.name(file));
        let snippet = snippet.annotations(primary.map(|place| marked(AnnotationKind::Primary, place)));
        snippet.annotations(here.map(|other| marked(AnnotationKind::Context, other)))
    }
}

fn label(marked: &Marked) -> Option<&str> {
    Some(marked.label.as_str()).filter(|label| !label.is_empty())
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Look::Plain))
    }
}

impl std::error::Error for Diagnostics {}

/// As the list of its diagnostics.
impl Serialize for Diagnostics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// A diagnostic that is being put together.
#[derive(Debug)]
pub(super) struct Draft {
    pub severity: Severity,
    pub code: Code,
    pub span: Span,
    message: String,
    label: String,
    others: Vec<(Span, String)>,
    help: Vec<String>,
}

impl Draft {
    pub fn error(code: Code, span: &Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            span: span.clone(),
            message: message.into(),
            label: String::new(),
            others: Vec::new(),
            help: Vec::new(),
        }
    }

    pub fn warning(code: Code, span: &Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, span, message) }
    }

    /// What stands beside the underlining.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// A second place that the fault has to do with.
    pub fn other(mut self, span: &Span, label: impl Into<String>) -> Self {
        self.others.push((span.clone(), label.into()));
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    pub fn maybe_help(mut self, help: Option<impl Into<String>>) -> Self {
        self.help.extend(help.map(Into::into));
        self
    }

    /// Without secrets, and without control characters that a value may have brought in.
    fn cleaned(mut self, secrets: &[&str]) -> Self {
        let labels = self.others.iter_mut().map(|(_, label)| label);
        for text in [&mut self.message, &mut self.label].into_iter().chain(labels).chain(&mut self.help) {
            for secret in secrets {
                *text = text.replace(secret, "***");
            }
            if text.contains(is_control) {
                *text =
                    text.chars().map(|c| if is_control(c) { c.escape_debug().to_string() } else { c.into() }).collect();
            }
        }
        self
    }

    fn finish(self, source: &Source) -> Diagnostic {
        Diagnostic {
            severity: self.severity,
            code: self.code,
            message: self.message,
            place: Some(marked(source, &self.span, self.label)),
            others: self.others.into_iter().map(|(span, label)| marked(source, &span, label)).collect(),
            help: self.help,
        }
    }
}

/// Help texts have line ends of their own.
fn is_control(c: char) -> bool {
    c.is_control() && c != '\n'
}

fn marked(source: &Source, span: &Span, label: String) -> Marked {
    let span = source.clamp(span);
    let (line, column) = source.position(span.start);
    let (end_line, end_column) = source.position(span.end);
    Marked { file: source.name(source.file(span.start)).to_owned(), line, column, end_line, end_column, label, span }
}
