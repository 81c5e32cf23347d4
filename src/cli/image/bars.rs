//! How far the layers of a pull are: a bar each on a terminal, a line each when done elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::style::{DIM, GOOD, paint};
use crate::reconcile::{ImageLayer, LayerDigest, PullProgress};

const WIDTH: u64 = 30;
/// Drawing more often is more than an eye sees, and takes time from the work.
const PAUSE: Duration = Duration::from_millis(60);

/// Layers in the order in which they were first heard of.
pub struct Bars {
    state: Mutex<State>,
    terminal: bool,
}

struct State {
    layers: Vec<Bar>,
    /// Lines that stand on the terminal.
    drawn: usize,
    last: Instant,
}

struct Bar {
    diff_id: LayerDigest,
    name: String,
    bytes: u64,
    size: u64,
    done: bool,
}

impl Bars {
    pub fn new() -> Self {
        let state = State { layers: Vec::new(), drawn: 0, last: Instant::now() };
        Self { state: Mutex::new(state), terminal: std::io::stderr().is_terminal() }
    }

    fn change(&self, layer: &ImageLayer, change: impl FnOnce(&mut Bar)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let index = state.layers.iter().position(|bar| bar.diff_id == layer.diff_id).unwrap_or_else(|| {
            let digest = layer.digest.unwrap_or(layer.diff_id);
            let name = digest.hex()[..12].to_owned();
            state.layers.push(Bar { diff_id: layer.diff_id, name, bytes: 0, size: layer.blob.size, done: false });
            state.layers.len() - 1
        });
        let bar = &mut state.layers[index];
        let was_done = bar.done;
        change(bar);
        let ended = bar.done && !was_done;
        match self.terminal {
            true if ended || state.last.elapsed() >= PAUSE => state.draw(),
            true => {}
            false if ended => {
                let bar = &state.layers[index];
                anstream::eprintln!("{} {} {}", paint(GOOD, "+"), bar.name, size(bar.size));
            }
            false => {}
        }
    }
}

impl PullProgress for Bars {
    fn received(&self, layer: &ImageLayer, bytes: u64) {
        self.change(layer, |bar| bar.bytes = bytes);
    }

    fn unpacked(&self, layer: &ImageLayer) {
        self.change(layer, |bar| bar.done = true);
    }
}

impl State {
    fn draw(&mut self) {
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for bar in &self.layers {
            text.push_str(&format!("\x1b[2K{}\n", bar.line()));
        }
        self.drawn = self.layers.len();
        self.last = Instant::now();
        let mut out = std::io::stderr().lock();
        // A terminal that went away takes nothing from the work.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl Bar {
    fn line(&self) -> String {
        if self.done {
            return format!("{} {}  {}", paint(GOOD, "+"), self.name, size(self.size));
        }
        let full = (self.bytes.min(self.size) * WIDTH).checked_div(self.size).unwrap_or(WIDTH) as usize;
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(WIDTH as usize - full));
        format!("{} {}  {bar}  {} of {}", paint(DIM, "·"), self.name, size(self.bytes), size(self.size))
    }
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
