//! `update`: other limits for a container that is there.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

use crate::runtime::lifecycle::{Container, LifecycleError, Status, read_document};
use crate::runtime::oci::{OciBlockIo, OciCpu, OciMemory, OciPids, OciResources};

use super::flags::{Flag, Given, value};
use super::{Failure, Global, id_of, parse};

const FLAGS: [Flag; 20] = [
    value("resources", Some('r')),
    value("blkio-weight", None),
    value("cpu-period", None),
    value("cpu-quota", None),
    value("cpu-burst", None),
    value("cpu-share", None),
    value("cpu-shares", None),
    value("cpu-rt-period", None),
    value("cpu-rt-runtime", None),
    value("cpuset-cpus", None),
    value("cpuset-mems", None),
    value("cpu-idle", None),
    value("memory", None),
    value("memory-reservation", None),
    value("memory-swap", None),
    value("pids-limit", None),
    value("kernel-memory", None),
    value("kernel-memory-tcp", None),
    value("l3-cache-schema", None),
    value("mem-bw-schema", None),
];
/// Of the document on standard input.
const INPUT_LIMIT: u64 = 1 << 20;

pub fn run(global: &Global, arguments: &mut dyn Iterator<Item = OsString>) -> Result<u8, Failure> {
    let given = parse("update", arguments, &FLAGS)?;
    for refused in ["l3-cache-schema", "mem-bw-schema"] {
        if given.get(refused).is_some_and(|value| !value.is_empty()) {
            return Err(Failure::usage(format!("`--{refused}` is not supported")));
        }
    }
    let container = Container::find(&global.store, id_of(&given)?)?;
    if container.status == Status::Stopped {
        return Err(Failure::usage(format!(
            "container `{}` cannot be updated: container not running",
            container.record.id
        )));
    }
    let resources = match given.get("resources") {
        Some(path) => read(path)?,
        None => described(&given)?,
    };
    // Device rules would be appended to those that are there.
    let resources = OciResources { devices: Vec::new(), ..resources };
    container.update(&resources)?;
    Ok(0)
}

fn read(path: &str) -> Result<OciResources, Failure> {
    let json = if path == "-" {
        let mut json = Vec::new();
        let read = std::io::stdin().take(INPUT_LIMIT).read_to_end(&mut json);
        read.map_err(|error| Failure::usage(format!("cannot read standard input: {error}")))?;
        json
    } else {
        read_document(Path::new(path)).map_err(LifecycleError::from)?
    };
    serde_json::from_slice(&json).map_err(|error| Failure::usage(format!("cannot understand the resources: {error}")))
}

fn described(given: &Given) -> Result<OciResources, Failure> {
    let list = |name: &str| given.get(name).map(str::to_owned);
    let bytes = |name: &str| given.get(name).map(|text| size(name, text)).transpose();
    let shares = given.number("cpu-share")?;
    let cpu = OciCpu {
        shares: if shares.is_some() { shares } else { given.number("cpu-shares")? },
        quota: given.number("cpu-quota")?,
        burst: given.number("cpu-burst")?,
        period: given.number("cpu-period")?,
        realtime_runtime: given.number("cpu-rt-runtime")?,
        realtime_period: given.number("cpu-rt-period")?,
        cpus: list("cpuset-cpus"),
        mems: list("cpuset-mems"),
        idle: given.number("cpu-idle")?,
    };
    let memory = OciMemory {
        limit: bytes("memory")?,
        reservation: bytes("memory-reservation")?,
        swap: bytes("memory-swap")?,
        ..OciMemory::default()
    };
    Ok(OciResources {
        cpu: Some(cpu),
        memory: Some(memory),
        pids: Some(OciPids { limit: given.number("pids-limit")? }),
        block_io: Some(OciBlockIo { weight: given.number("blkio-weight")?, ..OciBlockIo::default() }),
        ..OciResources::default()
    })
}

/// A number of bytes, with `k`, `m`, `g` for 1024 and its powers; -1 is no limit.
fn size(name: &str, text: &str) -> Result<i64, Failure> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches('b');
    let (number, unit) = match digits.chars().last() {
        Some('k') => (&digits[..digits.len() - 1], 1 << 10),
        Some('m') => (&digits[..digits.len() - 1], 1 << 20),
        Some('g') => (&digits[..digits.len() - 1], 1 << 30),
        _ => (digits, 1),
    };
    let parsed = number.parse::<i64>().ok().and_then(|number| number.checked_mul(unit));
    parsed.ok_or_else(|| Failure::usage(format!("`--{name} {text}` is no number of bytes")))
}
