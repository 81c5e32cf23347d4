//! Opens an OCI image layout, unpacks its layers and lists the tree that they make together:
//! `cargo run --example layers -- LAYOUT STORE`.

use std::error::Error;
use std::path::Path;

use stack::runtime::image::{ImageOrigin, ImageStore, LocalBlobs};
use stack::runtime::overlay::{OverlayEntryKind, OverlayFs, OverlayLayer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(layout), Some(store)) = (arguments.next(), arguments.next()) else {
        return Err("usage: layers LAYOUT STORE".into());
    };
    let store = ImageStore::open(store);
    let image = store.resolve(&ImageOrigin::OciLayout { path: layout.into(), tag: None })?;
    println!("{} runs {:?} {:?}", image.id, image.config.entrypoint, image.config.cmd);
    store.unpack(&image, &LocalBlobs)?;
    // Topmost first, as an overlay mount wants them too.
    let layers = store.layer_dirs(&image).into_iter().map(OverlayLayer::folder).collect();
    list(&OverlayFs::new(layers), Path::new("/"))
}

fn list(view: &OverlayFs, folder: &Path) -> Result<(), Box<dyn Error>> {
    for (name, entry) in view.list(folder)?.unwrap_or_default() {
        let path = folder.join(name);
        let what = match &entry.kind {
            OverlayEntryKind::Directory => "directory".to_owned(),
            OverlayEntryKind::File => format!("{} bytes", entry.size),
            OverlayEntryKind::Symlink { target } => format!("link to {}", target.display()),
            other => format!("{other:?}"),
        };
        println!(
            "{:04o} {:>5}:{:<5} {} ({what}, layer {})",
            entry.mode,
            entry.uid,
            entry.gid,
            path.display(),
            entry.layer
        );
        if entry.is_directory() {
            list(view, &path)?;
        }
    }
    Ok(())
}
