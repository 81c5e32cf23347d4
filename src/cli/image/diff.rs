//! `stack image diff`: in what two images differ.

use serde_json::{Value, json};

use super::bars::Bars;
use super::{Form, parse, size, told};
use crate::cli::exit::Exit;
use crate::cli::show::change_line;
use crate::cli::style::{BAD, BOLD, DIM, GOOD, WARN, paint};
use crate::reconcile::{
    ImageDifference, ImageLibrary, OverlayEntry, OverlayEntryKind, TreeAspect, TreeDifference, TreeSize,
};

pub fn run(library: &ImageLibrary, (before, after): (&str, &str), form: Form) -> Result<(), Exit> {
    let (before, after) = (parse(before)?, parse(after)?);
    let found = library.compare((&before, &after), &Bars::new()).map_err(told)?;
    let value = json!({
        "before": before, "after": after, "same": found.is_empty(), "config": found.config,
        "layers": { "shared": found.shared, "before": found.layers.0, "after": found.layers.1 },
        "files": found.files.iter().map(file_json).collect::<Vec<_>>(),
    });
    form.say(&text(&found), value);
    if found.is_empty() { Ok(()) } else { Err(Exit::Differs) }
}

fn text(found: &ImageDifference) -> String {
    let mut lines = Vec::new();
    if !found.config.is_empty() {
        lines.push(paint(BOLD, "configuration"));
        let width = found.config.iter().map(|change| change.field.chars().count()).max().unwrap_or(0);
        lines.extend(found.config.iter().map(|change| format!("  {}", change_line(change, width))));
    }
    if !found.files.is_empty() {
        lines.push(paint(BOLD, "files"));
        lines.extend(found.files.iter().map(|file| format!("  {}", line(file))));
    }
    let (before, after) = (found.layers.0.len(), found.layers.1.len());
    let shared = count(found.shared as u64, "layer", "layers");
    let layers = format!("{shared} shared, {before} only before, {after} only after");
    let count = |of: fn(&TreeDifference) -> bool| found.files.iter().filter(|file| of(file)).count();
    let (added, removed) = (count(|file| file.before.is_none()), count(|file| file.after.is_none()));
    let changed = found.files.len() - added - removed;
    lines.push(match found.is_empty() {
        true => format!("{}; {layers}", paint(GOOD, "the same")),
        false => format!("{added} added, {removed} removed, {changed} changed; {layers}"),
    });
    lines.join("\n")
}

fn count(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

fn line(file: &TreeDifference) -> String {
    let path = shown(file);
    match (&file.before, &file.after) {
        (None, Some(entry)) => format!("{} {path}  {}", paint(GOOD, "+"), whole(entry, file.whole)),
        (Some(entry), None) => format!("{} {path}  {}", paint(BAD, "-"), whole(entry, file.whole)),
        (Some(before), Some(after)) => {
            let aspects: Vec<String> =
                file.aspects.iter().map(|aspect| aspect_text(*aspect, (before, after))).collect();
            format!("{} {path}  {}", paint(WARN, "~"), aspects.join(", "))
        }
        (None, None) => path,
    }
}

/// From the archive of a stranger: what is not printable must not reach a terminal.
fn shown(file: &TreeDifference) -> String {
    let is_folder = [&file.before, &file.after].into_iter().flatten().any(OverlayEntry::is_directory);
    let mut text = printable(&format!("/{}", file.path.display()));
    if is_folder && !text.ends_with('/') {
        text.push('/');
    }
    text
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn whole(entry: &OverlayEntry, whole: TreeSize) -> String {
    let text = match &entry.kind {
        OverlayEntryKind::Directory if whole.entries == 1 => "empty".to_owned(),
        OverlayEntryKind::Directory => {
            format!("{}, {}", count(whole.entries - 1, "entry", "entries"), size(whole.bytes))
        }
        OverlayEntryKind::File => size(entry.size),
        other => kind(other),
    };
    paint(DIM, text)
}

fn aspect_text(aspect: TreeAspect, (before, after): (&OverlayEntry, &OverlayEntry)) -> String {
    let arrow = |from: String, to: String| format!("{from} {} {to}", paint(DIM, "→"));
    match aspect {
        TreeAspect::Kind => arrow(kind(&before.kind), kind(&after.kind)),
        TreeAspect::Content if before.size != after.size => {
            format!("content {}", arrow(size(before.size), size(after.size)))
        }
        TreeAspect::Content => "content".to_owned(),
        TreeAspect::Target => format!("link {}", arrow(kind(&before.kind), kind(&after.kind))),
        TreeAspect::Device => format!("device {}", arrow(kind(&before.kind), kind(&after.kind))),
        TreeAspect::Mode => {
            format!("mode {}", arrow(format!("{:04o}", before.mode), format!("{:04o}", after.mode)))
        }
        TreeAspect::Owner => {
            let owner = |entry: &OverlayEntry| format!("{}:{}", entry.uid, entry.gid);
            format!("owner {}", arrow(owner(before), owner(after)))
        }
        TreeAspect::Attributes => "extended attributes".to_owned(),
        TreeAspect::Inode => "time or names".to_owned(),
    }
}

fn kind(kind: &OverlayEntryKind) -> String {
    let device = |device: &u64| format!("{}:{}", rustix::fs::major(*device), rustix::fs::minor(*device));
    match kind {
        OverlayEntryKind::File => "file".to_owned(),
        OverlayEntryKind::Directory => "directory".to_owned(),
        OverlayEntryKind::Symlink { target } => format!("link to {}", printable(&target.to_string_lossy())),
        OverlayEntryKind::CharDevice { device: of } => format!("character device {}", device(of)),
        OverlayEntryKind::BlockDevice { device: of } => format!("block device {}", device(of)),
        OverlayEntryKind::Fifo => "fifo".to_owned(),
        OverlayEntryKind::Socket => "socket".to_owned(),
    }
}

fn file_json(file: &TreeDifference) -> Value {
    let entry = |entry: &OverlayEntry| {
        let (kind, target) = match &entry.kind {
            OverlayEntryKind::Symlink { target } => ("symlink", Some(target.to_string_lossy().into_owned())),
            OverlayEntryKind::File => ("file", None),
            OverlayEntryKind::Directory => ("directory", None),
            OverlayEntryKind::CharDevice { .. } => ("char", None),
            OverlayEntryKind::BlockDevice { .. } => ("block", None),
            OverlayEntryKind::Fifo => ("fifo", None),
            OverlayEntryKind::Socket => ("socket", None),
        };
        let mode = format!("{:04o}", entry.mode);
        json!({
            "kind": kind, "mode": mode, "uid": entry.uid, "gid": entry.gid, "size": entry.size, "target": target,
        })
    };
    json!({
        "path": format!("/{}", file.path.display()),
        "before": file.before.as_ref().map(entry),
        "after": file.after.as_ref().map(entry),
        "aspects": file.aspects,
        "entries": file.whole.entries,
        "bytes": file.whole.bytes,
    })
}
