//! `stack image fsck`: what the store was found to be.

use serde_json::json;

use super::{Form, told};
use crate::cli::exit::Exit;
use crate::cli::style::{BAD, GOOD, WARN, paint};
use crate::reconcile::{Checked, ImageLibrary};

pub fn run(library: &ImageLibrary, form: Form) -> Result<(), Exit> {
    let found = library.check().map_err(told)?;
    let repaired: Vec<_> = found.repaired.iter().map(|(layer, path)| json!({ "layer": layer, "path": path })).collect();
    let left = found.left.iter().map(|(layer, path, users)| json!({ "layer": layer, "path": path, "users": users }));
    let value = json!({
        "blobs": found.blobs, "layers": found.layers, "unknown": found.unknown, "swept": found.swept,
        "damaged": found.damaged, "repaired": repaired, "left": left.collect::<Vec<_>>(), "incomplete": found.incomplete,
    });
    form.say(&text(&found), value);
    if found.is_sound() { Ok(()) } else { Err(Exit::Failed) }
}

fn text(found: &Checked) -> String {
    let mut lines: Vec<String> =
        found.damaged.iter().map(|digest| format!("{} blob {digest}, deleted", paint(WARN, "damaged"))).collect();
    for (layer, path) in &found.repaired {
        lines.push(format!("{} layer {layer}: /{} was not as in its archive", paint(WARN, "repaired"), path.display()));
    }
    for (layer, path, users) in &found.left {
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        lines.push(format!("{} layer {layer}: /{} is not as in its archive", paint(BAD, "damaged"), path.display()));
        lines.push(format!("  used by {}; take that down and check again", users.join(", ")));
    }
    for reference in &found.incomplete {
        lines.push(format!("{} {reference}; pull it again", paint(BAD, "incomplete")));
    }
    if found.swept > 0 {
        lines.push(format!("{} {} left by interrupted runs", paint(WARN, "removed"), found.swept));
    }
    let unknown = match found.unknown {
        0 => String::new(),
        n => format!("; {n} layers have no archive in the store to be held against"),
    };
    let sound = if found.is_sound() { paint(GOOD, "sound") } else { paint(BAD, "not sound") };
    lines.push(format!("{sound}: {} blobs and {} unpacked layers checked{unknown}", found.blobs, found.layers));
    lines.join("\n")
}
