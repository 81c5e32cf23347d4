//! What of the store may go, and taking it away.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::in_use::{InUse, KeptBack};
use super::{ImageLibrary, LibraryError, store};
use crate::runtime::image::{LayerDigest, Reference, StoredImage};

/// Which named images may go too. What nobody holds always goes; what a container or a kept generation uses never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneWish {
    /// Every image that no container uses; the bounds below narrow it.
    pub all: bool,
    /// Only those that were pulled or imported so long ago.
    pub older_than: Option<Duration>,
    /// Not the so many newest of each repository.
    pub keep: Option<usize>,
    /// Oldest first, and no more than it takes until so many bytes are free on the store's file system.
    pub free: Option<u64>,
    /// Nothing is taken away.
    pub dry_run: bool,
}

/// What was taken away, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub images: Vec<Reference>,
    pub blobs: usize,
    pub layers: usize,
    /// Bytes of both.
    pub bytes: u64,
    /// Bytes that are free then; where a floor was asked for.
    pub free: Option<u64>,
}

/// What nobody holds.
#[derive(Default)]
struct Unheld {
    blobs: Vec<LayerDigest>,
    layers: Vec<LayerDigest>,
    bytes: u64,
}

impl ImageLibrary {
    /// Takes away blobs and unpacked layers that no named image, no container and no kept generation holds, after the named images that the
    /// wish lets go.
    pub fn prune(&self, wish: &PruneWish) -> Result<Pruned, LibraryError> {
        let failed = || store("prune the store");
        let _alone = self.store.hold_alone().map_err(failed())?;
        let used = InUse::read(&self.run)?;
        let kept = KeptBack::read(self.store.root())?;
        let images = self.images()?;
        let is_used = |image: &StoredImage| match self.resolve(&image.reference) {
            Ok(resolved) => {
                resolved.id.parse().is_ok_and(|id| used.images.contains(&id) || kept.documents.contains(&id))
            }
            // One that cannot be read runs nowhere.
            Err(_) => false,
        };
        let unused: Vec<&StoredImage> = images.iter().filter(|image| !is_used(image)).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut queue = candidates(&images, &unused, wish, now).into_iter();
        let mut gone = HashSet::new();
        let mut order = Vec::new();
        if wish.free.is_none() {
            order.extend(queue.by_ref());
            gone.extend(order.iter().cloned());
        }
        let mut sizes = HashMap::new();
        let available = self.available()?;
        let unheld = loop {
            let unheld = self.unheld(&gone, (&used, &kept), &mut sizes)?;
            let enough = wish.free.is_none_or(|floor| available + unheld.bytes >= floor);
            let Some(next) = (if enough { None } else { queue.next() }) else { break unheld };
            gone.insert(next.clone());
            order.push(next);
        };
        if !wish.dry_run {
            for reference in &order {
                self.store.forget(reference).map_err(failed())?;
            }
            for digest in &unheld.blobs {
                self.store.remove_blob(digest).map_err(failed())?;
            }
            for digest in &unheld.layers {
                self.store.remove_layer(digest).map_err(failed())?;
            }
        }
        Ok(Pruned {
            images: order,
            blobs: unheld.blobs.len(),
            layers: unheld.layers.len(),
            bytes: unheld.bytes,
            free: wish.free.map(|_| available + unheld.bytes),
        })
    }

    fn unheld(
        &self,
        gone: &HashSet<Reference>,
        (used, kept): (&InUse, &KeptBack),
        sizes: &mut HashMap<LayerDigest, u64>,
    ) -> Result<Unheld, LibraryError> {
        let failed = || store("look through the store");
        let mut cache = self.store.layers().map_err(failed())?;
        for image in self.images()?.iter().filter(|image| !gone.contains(&image.reference)) {
            // One that cannot be read holds nothing that could be used.
            if let Ok(image) = self.resolve(&image.reference) {
                cache.retain(&image);
            }
        }
        let mut unheld = Unheld::default();
        for (digest, size) in self.store.unheld_blobs(gone, &kept.documents).map_err(failed())? {
            unheld.blobs.push(digest);
            unheld.bytes += size;
        }
        let is_used = |layer: LayerDigest| used.layers.contains_key(&layer) || kept.layers.contains(&layer);
        for layer in cache.unreferenced().filter(|layer| !is_used(layer.digest)) {
            unheld.layers.push(layer.digest);
            unheld.bytes += *sizes.entry(layer.digest).or_insert_with(|| space_of(&layer.path));
        }
        Ok(unheld)
    }

    /// Bytes that are free on the store's file system.
    fn available(&self) -> Result<u64, LibraryError> {
        let path = self.store.root();
        let failed = |errno: rustix::io::Errno| LibraryError::Space { path: path.to_owned(), source: errno.into() };
        let found = rustix::fs::statvfs(path).map_err(failed)?;
        Ok(found.f_bavail * found.f_frsize)
    }
}

/// The named images that may go, oldest first. `now` and the images' times are seconds since 1970.
fn candidates(images: &[StoredImage], unused: &[&StoredImage], wish: &PruneWish, now: u64) -> Vec<Reference> {
    if *wish == (PruneWish { dry_run: wish.dry_run, ..PruneWish::default() }) {
        return Vec::new();
    }
    let is_kept = |image: &StoredImage| {
        let repository =
            |one: &StoredImage| (one.reference.registry().to_owned(), one.reference.repository().to_owned());
        let of_it = repository(image);
        // Of two at the same second the one with the greater name counts as newer.
        let rank = |one: &StoredImage| (one.pulled, one.reference.clone());
        let newer = images.iter().filter(|other| repository(other) == of_it && rank(other) > rank(image));
        wish.keep.is_some_and(|keep| newer.count() < keep)
    };
    let is_old =
        |image: &StoredImage| wish.older_than.is_none_or(|age| now.saturating_sub(image.pulled) >= age.as_secs());
    let mut chosen: Vec<&StoredImage> =
        unused.iter().copied().filter(|image| is_old(image) && !is_kept(image)).collect();
    chosen.sort_by_key(|image| (image.pulled, image.reference.clone()));
    chosen.into_iter().map(|image| image.reference.clone()).collect()
}

/// Bytes that a tree takes on the disk; what has several names counts once. What cannot be read takes none.
fn space_of(path: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut folders = vec![path.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                folders.push(entry.path());
            }
            if found.is_dir() || found.nlink() == 1 || seen.insert((found.dev(), found.ino())) {
                bytes += found.blocks() * 512;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60;

    fn image(name: &str, days_ago: u64) -> StoredImage {
        let digest = LayerDigest::of(name.as_bytes());
        let pulled = (1000 - days_ago) * DAY;
        StoredImage { reference: name.parse().unwrap(), manifest: digest, resolved: digest, pulled, size: 1 }
    }

    /// Which of these go; all but `used` are unused.
    fn check(wish: PruneWish, used: &[&str], expected: &[&str]) {
        let images =
            [image("a.example/web:1", 50), image("a.example/web:2", 40), image("a.example/web:3", 3), image("b:1", 60)];
        let used: Vec<Reference> = used.iter().map(|name| name.parse().unwrap()).collect();
        let unused: Vec<&StoredImage> = images.iter().filter(|image| !used.contains(&image.reference)).collect();
        let expected: Vec<Reference> = expected.iter().map(|name| name.parse().unwrap()).collect();
        assert_eq!(candidates(&images, &unused, &wish, 1000 * DAY), expected, "{wish:?}");
    }

    #[test]
    fn age_and_count_choose_among_the_unused_oldest_first() {
        let (web1, web2, web3, b) = ("a.example/web:1", "a.example/web:2", "a.example/web:3", "b:1");
        let none = PruneWish::default();
        check(none, &[], &[]);
        check(PruneWish { dry_run: true, ..none }, &[], &[]);
        check(PruneWish { all: true, ..none }, &[], &[b, web1, web2, web3]);
        check(PruneWish { all: true, ..none }, &[web1], &[b, web2, web3]);
        let month = Some(Duration::from_secs(45 * DAY));
        check(PruneWish { older_than: month, ..none }, &[], &[b, web1]);
        check(PruneWish { keep: Some(1), ..none }, &[], &[web1, web2]);
        // A used one is among those that are kept, not beside them.
        check(PruneWish { keep: Some(1), ..none }, &[web3], &[web1, web2]);
        check(PruneWish { keep: Some(0), ..none }, &[b], &[web1, web2, web3]);
        check(PruneWish { keep: Some(1), older_than: month, ..none }, &[], &[web1]);
        check(PruneWish { free: Some(1), ..none }, &[], &[b, web1, web2, web3]);
    }
}
