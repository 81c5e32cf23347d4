//! `stack stats` and `stack top`: what containers use, once or live.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{isatty, tcgetwinsize};

use super::args::{Global, StatsArgs};
use super::context::{failed, file_path, host, load, wait_for};
use super::exit::Exit;
use super::show::{self, JSON_VERSION};
use super::terminal::RawMode;
use crate::model::Name;
use crate::reconcile::{Host, LinuxHost, Usage};

/// Between the two looks whose difference is the use of processors, and between pictures of `top`.
const INTERVAL: Duration = Duration::from_secs(1);

pub fn run(global: &Global, args: &StatsArgs) -> ExitCode {
    stats(global, args).map_or_else(|exit| exit, |()| Exit::Ok).into()
}

/// Where there is no terminal, `top` is `stats`.
pub fn run_top(global: &Global, args: &StatsArgs) -> ExitCode {
    let is_terminal = isatty(rustix::stdio::stdin()) && isatty(rustix::stdio::stdout());
    let result = if is_terminal && !args.json { top(global, args) } else { stats(global, args) };
    result.map_or_else(|exit| exit, |()| Exit::Ok).into()
}

fn stats(global: &Global, args: &StatsArgs) -> Result<(), Exit> {
    let stacks = stacks(global, args)?;
    let before = look(global, &stacks)?;
    std::thread::sleep(INTERVAL);
    let now = look(global, &stacks)?;
    if args.json {
        let documents = now.iter().zip(&before).map(|((stack, containers), (_, before))| {
            let containers: Vec<_> = containers.iter().map(|usage| json(usage, before)).collect();
            serde_json::json!({ "stack": stack, "containers": containers })
        });
        let documents: Vec<_> = documents.collect();
        anstream::println!("{:#}", serde_json::json!({ "version": JSON_VERSION, "stacks": documents }));
    } else {
        anstream::print!("{}", show::table(&rows(&now, &before)));
    }
    Ok(())
}

/// The alternate screen, cleared; the cursor hidden. All of it is taken back in the end.
struct Screen {
    _raw: RawMode,
}

impl Screen {
    fn enter() -> Self {
        write("\x1b[?1049h\x1b[?25l");
        Self { _raw: RawMode::enter() }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write("\x1b[?25h\x1b[?1049l");
    }
}

/// Not through what takes colours out: moving the cursor is no colour. A terminal that went away ends `top` at its input.
fn write(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn top(global: &Global, args: &StatsArgs) -> Result<(), Exit> {
    let mut before = look(global, &stacks(global, args)?)?;
    let _screen = Screen::enter();
    loop {
        let now = look(global, &stacks(global, args)?)?;
        draw(&now, &before);
        before = now;
        if quits() {
            return Ok(());
        }
    }
}

/// One picture, cut to the terminal as it is now.
fn draw(now: &[Look], before: &[Look]) {
    let size = tcgetwinsize(rustix::stdio::stdout()).map_or((24, 80), |size| (size.ws_row, size.ws_col));
    let (height, width) = (usize::from(size.0).max(2), usize::from(size.1).max(1));
    // Without colours, so that characters can be counted.
    let plain = anstream::adapter::strip_str(&show::table(&rows(now, before))).to_string();
    let mut picture = String::from("\x1b[H");
    for line in plain.lines().take(height - 1) {
        picture += &format!("{}\x1b[K\r\n", line.chars().take(width).collect::<String>());
    }
    picture += &format!("{}\x1b[K\x1b[J", "q quits".chars().take(width).collect::<String>());
    write(&picture);
}

/// Waits for the next picture's time; true if `q`, Ctrl-C or Ctrl-D came first, or the terminal went away.
fn quits() -> bool {
    let timeout = Timespec { tv_sec: INTERVAL.as_secs() as i64, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(0) | Err(rustix::io::Errno::INTR) => false,
        Ok(_) => {
            let mut keys = [0; 64];
            let length = rustix::io::read(rustix::stdio::stdin(), &mut keys).unwrap_or(0);
            length == 0 || keys[..length].iter().any(|key| matches!(key, b'q' | b'Q' | 3 | 4))
        }
        Err(_) => true,
    }
}

/// A stack and what its containers use.
type Look = (Name, Vec<Usage>);

fn stacks(global: &Global, args: &StatsArgs) -> Result<Vec<Name>, Exit> {
    let path = file_path(None, &args.file);
    Ok(match args.all || (args.file.file.is_none() && !path.exists()) {
        true => LinuxHost::stacks(&global.run_dir),
        false => vec![load(&path, &args.file.profiles)?.name],
    })
}

fn look(global: &Global, stacks: &[Name]) -> Result<Vec<Look>, Exit> {
    let look = |stack: &Name| {
        let host = host(global, stack)?;
        let actual = wait_for(host.observe(stack))?.map_err(|error| failed(&error.chain(), &[]))?;
        Ok((stack.clone(), host.usage(&actual).map_err(|error| failed(&error.chain(), &[]))?))
    };
    stacks.iter().map(look).collect()
}

/// The same container's earlier look, if it is the same run.
fn earlier<'a>(usage: &Usage, before: &'a [Usage]) -> Option<&'a Usage> {
    before.iter().find(|one| one.name == usage.name && one.cpu_us <= usage.cpu_us)
}

/// Processors in use between two looks.
fn processors(usage: &Usage, before: &[Usage]) -> Option<f64> {
    let before = earlier(usage, before)?;
    let used = usage.cpu_us?.checked_sub(before.cpu_us?)?;
    let passed = usage.at.duration_since(before.at).as_micros();
    (passed > 0).then(|| used as f64 / passed as f64)
}

fn json(usage: &Usage, before: &[Usage]) -> serde_json::Value {
    let mut value = serde_json::json!(usage);
    let rounded = processors(usage, before).map(|used| (used * 1000.0).round() / 1000.0);
    value["cpu"] = serde_json::json!(rounded);
    value
}

fn rows(now: &[Look], before: &[Look]) -> Vec<Vec<String>> {
    let head = [
        "STACK",
        "NAME",
        "CPU",
        "OF",
        "THROTTLED",
        "MEMORY",
        "OF",
        "PEAK",
        "PIDS",
        "PRESSURE cpu/mem/io",
        "RECEIVED",
        "SENT",
        "RESTARTS",
        "OOM",
    ];
    let mut rows = vec![head.map(str::to_string).to_vec()];
    for (stack, containers) in now {
        let before = before.iter().find(|(name, _)| name == stack).map_or(&[][..], |(_, containers)| containers);
        rows.extend(containers.iter().map(|usage| row(stack, usage, before)));
    }
    rows
}

fn row(stack: &Name, usage: &Usage, before: &[Usage]) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let bytes = |bytes: Option<u64>| or_dash(bytes.map(short));
    let pressure = [usage.cpu_pressure, usage.memory_pressure, usage.io_pressure];
    let pressure = match pressure {
        [None, None, None] => "-".into(),
        all => all.map(|percent| or_dash(percent.map(|percent| format!("{percent:.0}")))).join("/") + " %",
    };
    let memory = usage.memory.zip(usage.memory_limit).filter(|(_, limit)| *limit > 0);
    let share = memory.map(|(used, limit)| format!(" ({:.0} %)", used as f64 * 100.0 / limit as f64));
    vec![
        stack.to_string(),
        usage.name.clone(),
        or_dash(processors(usage, before).map(|used| format!("{used:.2}"))),
        or_dash(usage.cpu_limit.map(|limit| format!("{limit:.2}"))),
        throttled(usage, before),
        bytes(usage.memory) + &share.unwrap_or_default(),
        bytes(usage.memory_limit),
        bytes(usage.memory_peak),
        or_dash(usage.pids.map(|pids| pids.to_string())),
        pressure,
        short(usage.net_received),
        short(usage.net_sent),
        usage.restarts.to_string(),
        usage.oom_kills.to_string(),
    ]
}

/// The part of the periods between the looks in which the quota ran out.
fn throttled(usage: &Usage, before: &[Usage]) -> String {
    let (periods, throttled) = earlier(usage, before).map_or((0, 0), |before| {
        let since = |now: u64, then: u64| now.saturating_sub(then);
        let throttled = since(usage.cpu_throttled_periods, before.cpu_throttled_periods);
        (since(usage.cpu_periods, before.cpu_periods), throttled)
    });
    if periods == 0 { "-".into() } else { format!("{} %", throttled * 100 / periods) }
}

/// Bytes with one digit after the point, in powers of 1024.
fn short(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes}B") } else { format!("{value:.1}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1}TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_short() {
        assert_eq!([0, 1023, 1024, 1_572_864, 5 << 40].map(short), ["0B", "1023B", "1.0KiB", "1.5MiB", "5.0TiB"]);
    }
}
