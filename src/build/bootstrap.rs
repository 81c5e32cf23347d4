//! A base image of Debian's packages, by mmdebstrap: the only program of the host that is run, and only where a stack
//! file asks for it (`docs/decisions/bootstrap.md`).

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::model::build::Bootstrap;

/// Makes the system in `folder`, which is empty.
pub(super) fn bootstrap(
    wanted: &Bootstrap,
    (folder, latest): (&Path, i64),
    said: &mut dyn FnMut(&str),
) -> Result<(), String> {
    let mut command = Command::new("mmdebstrap");
    command.arg("--format=directory").arg(format!("--variant={}", wanted.variant));
    if !wanted.packages.is_empty() {
        command.arg(format!("--include={}", wanted.packages.join(",")));
    }
    // Lists that every update of packages fetches anew.
    command.args(["--skip=cleanup/reproducible", "--aptopt=Acquire::Languages \"none\""]);
    command.arg(&wanted.suite).arg(folder).args(&wanted.mirror);
    command.env("SOURCE_DATE_EPOCH", latest.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            "mmdebstrap is not installed; `apt install mmdebstrap`, or write `from` with an image".to_owned()
        }
        _ => format!("cannot run mmdebstrap: {error}"),
    })?;
    if let Some(output) = child.stderr.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            said(&line);
        }
    }
    let status = child.wait().map_err(|error| format!("cannot wait for mmdebstrap: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => {
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            Err(format!("mmdebstrap ended with status {code}"))
        }
    }
}
