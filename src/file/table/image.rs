//! `[image.NAME]`, and the image that a container names.

use super::Named;
use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::literal::Text;
use crate::file::surroundings::FileKind;
use crate::file::walk::{Reader, Section};
use crate::file::words::nearest;
use crate::model::{Image, ImageReference, ImageSource, ImageUse, Pull};

const SCHEMES: [&str; 5] = ["host", "dir", "oci", "oci-archive", "docker-archive"];
const SOURCES: &str = "sources are `host:`, `dir:FOLDER`, `oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]`, \
                       `docker-archive:FILE[:TAG]` and references such as `registry.example/team/web:1.9`";
const PULLS: [(&str, Pull); 3] = [("missing", Pull::Missing), ("always", Pull::Always), ("never", Pull::Never)];

pub(super) fn read(reader: &mut Reader, section: &Section) -> Option<Image> {
    if let Some(item) = section.get("build") {
        for key in ["from", "pull"] {
            if let Some(other) = section.get(key) {
                let message = format!("`{key}` and `build` exclude each other");
                let draft =
                    Draft::error(code::KEY_CHOICE, &other.key_span, message).other(&item.key_span, "it is built");
                reader.push(draft.help("what a build begins with is `from` in [image.NAME.build]"));
                return None;
            }
        }
        let build = super::build::read(reader, item)?;
        return Some(Image { source: ImageSource::Build(Box::new(build)), pull: Pull::Missing });
    }
    let item = reader.required(section, "from");
    let text = reader.text(item)?;
    let item = section.get("pull");
    let given = item.is_some();
    let span = item.as_ref().map(|item| item.span());
    let pull = reader.choice(item, &PULLS);
    let source = source(reader, &text)?;
    if let Some(span) = span.filter(|_| !matches!(source, ImageSource::Registry(_))) {
        let draft = Draft::error(code::BAD_IMAGE, &span, "`pull` is for images of registries");
        reader.push(draft.other(&text.span, "this is none").help("leave `pull` out"));
        return None;
    }
    match (given, pull) {
        (true, None) => None,
        (_, pull) => Some(Image { source, pull: pull.unwrap_or_default() }),
    }
}

/// What a container's `image` names: a table, or a source in place.
pub(super) fn used(reader: &mut Reader, text: &Text, images: &Named<Option<Image>>) -> Option<ImageUse> {
    let written = text.value.clone();
    if let Some(image) = images.tables.get(written.as_str()) {
        return image.value.clone().map(|image| ImageUse { written, source: image.source, pull: image.pull });
    }
    if images.faulty.contains(&written) {
        return None;
    }
    if written.contains([':', '/', '@']) {
        return source(reader, text).map(|source| ImageUse { written, source, pull: Pull::Missing });
    }
    let draft = Draft::error(code::UNKNOWN_REFERENCE, &text.span, format!("there is no [image.{written}]"));
    reader.push(match nearest(&written, images.names()) {
        Some(near) => draft.label(format!("did you mean `{near}`?")).other(&images.tables[near].span, "defined here"),
        None if SCHEMES.contains(&written.as_str()) => draft.label(format!("did you mean `{written}:`?")).help(SOURCES),
        None => draft
            .help(format!("add `[image.{written}]` with `from = \"oci:FOLDER\"`, or write a source in place"))
            .help(SOURCES),
    });
    None
}

pub(super) fn source(reader: &mut Reader, text: &Text) -> Option<ImageSource> {
    let (scheme, rest) = text.value.split_once(':').unwrap_or((&text.value, ""));
    if !SCHEMES.contains(&scheme) || !text.value.contains(':') {
        return registry(reader, text, scheme);
    }
    if scheme == "host" {
        if !rest.is_empty() {
            let message = "`host:` takes nothing after it";
            reader.push(Draft::error(code::BAD_IMAGE, &text.piece(rest), message).help("write \"host:\""));
            return None;
        }
        return Some(ImageSource::Host);
    }
    // As skopeo splits it: a path with a colon in it cannot be named.
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) if scheme != "dir" => (path, Some(tag)),
        _ => (rest, None),
    };
    if path.is_empty() || tag == Some("") {
        let what = if path.is_empty() { "path" } else { "tag" };
        let message = format!("`{}` has no {what} after its colon", text.value);
        reader.push(Draft::error(code::BAD_IMAGE, &text.span, message).help(SOURCES));
        return None;
    }
    let wanted = if matches!(scheme, "dir" | "oci") { FileKind::Folder } else { FileKind::File };
    let path = reader.host_file(path, &text.piece(path), &[wanted])?;
    let tag = tag.map(str::to_owned);
    match scheme {
        "dir" if path.parent().is_none() => {
            let message = "`dir:/` would show the whole host to the container";
            reader.push(
                Draft::error(code::BAD_IMAGE, &text.span, message).help("write \"host:\" for the host's /usr alone"),
            );
            None
        }
        "dir" => Some(ImageSource::Dir(path)),
        "oci" => Some(ImageSource::OciLayout { path, tag }),
        "oci-archive" => Some(ImageSource::OciArchive { path, tag }),
        _ => Some(ImageSource::DockerArchive { path, tag }),
    }
}

/// A reference; unless it looks more like one of the other sources with a slip in it.
fn registry(reader: &mut Reader, text: &Text, scheme: &str) -> Option<ImageSource> {
    let wrong = || Draft::error(code::BAD_IMAGE, &text.span, format!("`{}` is no image source", text.value));
    if scheme.starts_with(['.', '/']) {
        let help = format!("write \"dir:{0}\" for a root file system, \"oci:{0}\" for an OCI layout", text.value);
        reader.push(wrong().help(help));
        return None;
    }
    let reference = ImageReference::parse(&text.value);
    // `ghost:5` is an image; `dri:rootfs` is `dir:rootfs`.
    let tag = text.value.split_once(':').map_or("", |(_, tag)| tag);
    let is_version = tag == "latest" || tag.starts_with(|c: char| c.is_ascii_digit());
    let near = nearest(scheme, SCHEMES.into_iter()).filter(|_| reference.is_err() || !is_version);
    if let Some(near) = near {
        reader.push(wrong().label(format!("did you mean `{near}:`?")).help(SOURCES));
        return None;
    }
    match reference {
        Ok(reference) => Some(ImageSource::Registry(reference)),
        Err(why) => {
            reader.push(wrong().label(why).help(SOURCES));
            None
        }
    }
}
