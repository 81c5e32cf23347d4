//! `[image.NAME]`, and the image that a container names.

use super::Named;
use crate::file::code;
use crate::file::diagnostic::Draft;
use crate::file::literal::Text;
use crate::file::surroundings::FileKind;
use crate::file::walk::{Reader, Section};
use crate::file::words::nearest;
use crate::model::{Image, ImageSource, ImageUse};

const SCHEMES: [&str; 5] = ["host", "dir", "oci", "oci-archive", "docker-archive"];
const SOURCES: &str = "sources are `host:`, `dir:FOLDER`, `oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]` and \
                       `docker-archive:FILE[:TAG]`";

pub(super) fn read(reader: &mut Reader, section: &Section) -> Option<Image> {
    let item = reader.required(section, "from");
    let text = reader.text(item)?;
    let source = source(reader, &text)?;
    Some(Image { source })
}

/// What a container's `image` names: a table, or a source in place.
pub(super) fn used(reader: &mut Reader, text: &Text, images: &Named<Option<Image>>) -> Option<ImageUse> {
    let written = text.value.clone();
    if let Some(image) = images.tables.get(written.as_str()) {
        return image.value.clone().map(|image| ImageUse { written, source: image.source });
    }
    if images.faulty.contains(&written) {
        return None;
    }
    if written.contains([':', '/', '@']) {
        return source(reader, text).map(|source| ImageUse { written, source });
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

fn source(reader: &mut Reader, text: &Text) -> Option<ImageSource> {
    let Some((scheme, rest)) = text.value.split_once(':') else {
        reader.push(no_source(text, &text.value));
        return None;
    };
    if !SCHEMES.contains(&scheme) {
        reader.push(no_source(text, scheme));
        return None;
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

fn no_source(text: &Text, scheme: &str) -> Draft {
    if let Some(near) = nearest(scheme, SCHEMES.into_iter()) {
        let draft = Draft::error(code::BAD_IMAGE, &text.span, format!("`{}` is no image source", text.value));
        return draft.label(format!("did you mean `{near}:`?")).help(SOURCES);
    }
    if scheme.starts_with(['.', '/']) {
        let draft = Draft::error(code::BAD_IMAGE, &text.span, format!("`{}` is no image source", text.value));
        return draft
            .help(format!("write \"dir:{0}\" for a root file system, \"oci:{0}\" for an OCI layout", text.value));
    }
    let message = format!("an image from a registry (`{}`) is not supported yet", text.value);
    Draft::error(code::NOT_YET, &text.span, message).help(SOURCES)
}
