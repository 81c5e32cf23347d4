//! Where errors go: standard error, and the file of `--log` in the form that engines read.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;

#[derive(Debug, Default)]
pub struct Log {
    file: Option<PathBuf>,
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Format {
    #[default]
    Text,
    Json,
}

impl Log {
    pub fn new(file: Option<PathBuf>, format: Option<&str>) -> Self {
        Self { file, format: if format == Some("json") { Format::Json } else { Format::Text } }
    }

    pub fn fail(&self, failure: &Failure) -> ExitCode {
        self.write("error", &failure.text);
        eprintln!("{}: {}", super::PROGRAM, failure.text);
        ExitCode::from(failure.code)
    }

    pub fn warn(&self, text: &str) {
        self.write("warning", text);
        eprintln!("{}: warning: {text}", super::PROGRAM);
    }

    fn write(&self, level: &str, text: &str) {
        let Some(path) = &self.file else { return };
        let time = jiff::Timestamp::now().to_string();
        let line = match self.format {
            Format::Json => serde_json::json!({ "level": level, "msg": text, "time": time }).to_string(),
            Format::Text => format!("time=\"{time}\" level={level} msg={text:?}"),
        };
        // Standard error has it in any case.
        if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
            let _ = writeln!(file, "{line}");
        }
    }
}
