//! The limits of a `[cgroup.NAME]` and of a container.

use std::path::PathBuf;
use std::time::Duration;

use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::keys::IO;
use crate::file::literal::Text;
use crate::file::source::{At, Span};
use crate::file::surroundings::FileKind;
use crate::file::walk::{Item, Reader, Section};
use crate::model::{ByteSize, CpuList, Cpus, IoLimit, Limits, UnitError};

pub(in crate::file) struct LimitsSheet {
    pub limits: Limits,
    pub memory_span: Option<Span>,
    pub cpu_span: Option<Span>,
}

/// Less than this no program starts in.
const MIN_MEMORY: ByteSize = ByteSize(1 << 20);
/// The kernel's own bound on process ids on 64-bit machines (proc(5), `pid_max`).
const MAX_PIDS: u64 = 4_194_304;
const MAX_IO: u64 = 1 << 53;

pub(super) fn read(reader: &mut Reader, section: &Section) -> LimitsSheet {
    let memory = size(reader, section.get("memory"), MIN_MEMORY);
    let memory_low = size(reader, section.get("memory_low"), ByteSize(0));
    let swap = size(reader, section.get("swap"), ByteSize(0));
    if let (Some(memory), Some(low)) = (&memory, &memory_low)
        && low.value > memory.value
    {
        let message = format!("`memory_low` is above `memory`: {} protected of {}", low.value, memory.value);
        let draft = Draft::error(code::LIMIT_CLASH, &low.span, message).label("more than can be used");
        reader.push(draft.other(&memory.span, "the hard limit"));
    }
    let memory_high = size(reader, section.get("memory_high"), MIN_MEMORY);
    if let (Some(memory), Some(high)) = (&memory, &memory_high)
        && high.value > memory.value
    {
        let message = format!("`memory_high` is above `memory`: {} of {}", high.value, memory.value);
        let draft = Draft::error(code::LIMIT_CLASH, &high.span, message).label("never reached");
        reader.push(draft.other(&memory.span, "the hard limit"));
    }
    let cpu = cpus(reader, section.get("cpu"));
    let cpu_burst_us = burst(reader, section.get("cpu_burst"), cpu.as_ref());
    let cpuset = list(reader, section.get("cpuset"));
    let cpuset_mems = list(reader, section.get("cpuset_mems"));
    let weight = reader.integer(section.get("cpu_weight"), 1..=10_000);
    let pids = reader.integer(section.get("pids"), 1..=MAX_PIDS);
    LimitsSheet {
        memory_span: memory.as_ref().map(|memory| memory.span.clone()),
        cpu_span: cpu.as_ref().map(|cpu| cpu.span.clone()),
        limits: Limits {
            memory: memory.map(|at| at.value),
            memory_low: memory_low.map(|at| at.value),
            memory_high: memory_high.map(|at| at.value),
            swap: swap.map(|at| at.value),
            cpu: cpu.map(|at| at.value),
            cpu_burst_us,
            cpuset,
            cpuset_mems,
            cpu_weight: weight.map(|at| at.value as u32),
            pids: pids.map(|at| at.value),
            io: io(reader, section),
        },
    }
}

/// What is saved up may not be more than one period's quota (`kernel/sched/core.c`).
fn burst(reader: &mut Reader, item: Option<Item>, cpu: Option<&At<Cpus>>) -> Option<u64> {
    let key_span = item.as_ref()?.key_span.clone();
    let burst = super::health::duration(reader, item, Duration::ZERO)?;
    let Some(cpu) = cpu else {
        let draft = Draft::error(code::LIMIT_CLASH, &key_span, "`cpu_burst` without `cpu` saves up nothing");
        reader.push(draft.help("add `cpu = 1.5`, or take `cpu_burst` out"));
        return None;
    };
    let quota = Duration::from_micros(u64::from(cpu.value.millis) * 100);
    if burst.value > quota {
        let message = format!("`cpu_burst` is above what `cpu` gives in 100 ms: {:?} of {quota:?}", burst.value);
        let draft = Draft::error(code::LIMIT_CLASH, &burst.span, message).label("more than can be saved up");
        reader.push(draft.other(&cpu.span, "the limit"));
        return None;
    }
    u64::try_from(burst.value.as_micros()).ok()
}

/// A list of numbers and ranges, in the kernel's form.
fn list(reader: &mut Reader, item: Option<Item>) -> Option<String> {
    let name = item.as_ref()?.key.name;
    let text = reader.text(item)?;
    match text.value.parse::<CpuList>() {
        Ok(list) => Some(list.to_string()),
        Err(fault) => {
            let message = format!("`{name}` is no list of numbers: {fault}");
            let draft = Draft::error(code::BAD_TEXT, &text.span, message);
            reader.push(draft.help("write numbers and ranges, such as \"0-3,8\""));
            None
        }
    }
}

/// A size of at least `least`.
pub(super) fn size(reader: &mut Reader, item: Option<Item>, least: ByteSize) -> Option<At<ByteSize>> {
    let name = item.as_ref()?.key.name;
    let text = reader.text(item)?;
    let size = quantity(reader, &text, text.value.parse())?;
    if size < least {
        let message = format!("`{name}` must be at least {least}, not {size}");
        reader.push(Draft::error(code::OUT_OF_RANGE, &text.span, message));
        return None;
    }
    Some(At::new(size, text.span))
}

/// Tells why a quantity cannot be read; the part of the words that says what to write goes below the text.
pub(super) fn quantity<T>(reader: &mut Reader, text: &Text, parsed: Result<T, UnitError>) -> Option<T> {
    let fault = match parsed {
        Ok(value) => return Some(value),
        Err(fault) => fault.to_string(),
    };
    let (message, help) = match fault.split_once("; ") {
        Some((message, help)) => (message, Some(help)),
        None => (fault.as_str(), None),
    };
    reader.push(Draft::error(code::BAD_QUANTITY, &text.span, message).maybe_help(help));
    None
}

fn cpus(reader: &mut Reader, item: Option<Item>) -> Option<At<Cpus>> {
    let number = reader.number(item)?;
    match Cpus::from_float(number.value) {
        Ok(cpus) => Some(At::new(cpus, number.span)),
        Err(_) => {
            let message = format!("`cpu` must be from 0.01 to 4096 processors, not {}", number.value);
            reader.push(Draft::error(code::OUT_OF_RANGE, &number.span, message));
            None
        }
    }
}

fn io(reader: &mut Reader, section: &Section) -> Vec<IoLimit> {
    let mut limits: Vec<At<IoLimit>> = Vec::new();
    for section in reader.tables(&IO, section.get("io")) {
        let bytes = |reader: &mut Reader, name| size(reader, section.get(name), ByteSize(1)).map(|at| at.value.0);
        let (read_bps, write_bps) = (bytes(reader, "read_bps"), bytes(reader, "write_bps"));
        let operations = |reader: &mut Reader, name| reader.integer(section.get(name), 1..=MAX_IO).map(|at| at.value);
        let (read_iops, write_iops) = (operations(reader, "read_iops"), operations(reader, "write_iops"));
        if !["read_bps", "write_bps", "read_iops", "write_iops"].iter().any(|name| section.has(name)) {
            let message = "a table of `io` limits nothing";
            let draft = Draft::error(code::KEY_CHOICE, &section.span, message);
            reader.push(draft.help("add one of `read_bps`, `write_bps`, `read_iops`, `write_iops`"));
        }
        let Some(device) = device(reader, &section) else { continue };
        if let Some(first) = limits.iter().find(|limit| limit.value.device == device.value) {
            let message = format!("`{}` is limited twice", device.value.display());
            let draft = Draft::error(code::LISTED_TWICE, &device.span, message).other(&first.span, "first here");
            reader.push(draft.help("write all limits of a device into one table"));
        }
        let limit = IoLimit { device: device.value, read_bps, write_bps, read_iops, write_iops };
        limits.push(At::new(limit, device.span));
    }
    limits.into_iter().map(|at| at.value).collect()
}

fn device(reader: &mut Reader, section: &Section) -> Option<At<PathBuf>> {
    let item = reader.required(section, "device");
    let text = reader.text(item)?;
    if !text.value.starts_with('/') {
        let message = format!("`device` must be an absolute path, not `{}`", text.value);
        let draft = Draft::error(code::BAD_TEXT, &text.span, message);
        reader.push(draft.help(format!("write \"/dev/{}\"", text.value)));
        return None;
    }
    let path = reader.host_file(&text.value, &text.span, &[FileKind::BlockDevice])?;
    Some(At::new(path, text.span))
}
