//! `stack image prune`: what of the store may go, and what it gave back.

use serde_json::json;

use super::{Form, size, told};
use crate::cli::context::failed;
use crate::cli::exit::Exit;
use crate::model::{ByteSize, parse_age};
use crate::reconcile::{ImageLibrary, PruneWish};

/// What was typed, and what it means.
pub fn wish(
    all: bool,
    (older_than, keep, free): (Option<&str>, Option<usize>, Option<&str>),
    dry_run: bool,
) -> Result<PruneWish, Exit> {
    let usage = |error: crate::model::UnitError| {
        failed(&error.to_string(), &[]);
        Exit::Usage
    };
    Ok(PruneWish {
        all,
        older_than: older_than.map(parse_age).transpose().map_err(usage)?,
        keep,
        free: free.map(str::parse::<ByteSize>).transpose().map_err(usage)?.map(|size| size.0),
        dry_run,
    })
}

pub fn run(library: &ImageLibrary, wish: &PruneWish, form: Form) -> Result<(), Exit> {
    let pruned = library.prune(wish).map_err(told)?;
    let (would, deleted) = if wish.dry_run { ("would delete", "would delete") } else { ("deleted", "deleted") };
    let mut lines: Vec<String> = pruned.images.iter().map(|reference| format!("{would} {reference}")).collect();
    let count = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let (blobs, layers) = (count(pruned.blobs, "blob"), count(pruned.layers, "unpacked layer"));
    lines.push(format!("{deleted} {blobs} and {layers}, {}", size(pruned.bytes)));
    let short = pruned.free.zip(wish.free).is_some_and(|(free, floor)| free < floor);
    if let Some(free) = pruned.free {
        let rest = if short { "; what is left is in use or was to be kept" } else { "" };
        lines.push(format!("{} free{rest}", size(free)));
    }
    let value = json!({
        "images": pruned.images, "blobs": pruned.blobs, "layers": pruned.layers, "bytes": pruned.bytes,
        "free": pruned.free, "dry_run": wish.dry_run,
    });
    form.say(&lines.join("\n"), value);
    // A floor that could not be reached is something that a timer's log should show.
    if short { Err(Exit::Failed) } else { Ok(()) }
}
