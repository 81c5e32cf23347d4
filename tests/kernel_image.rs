//! Layers on a real file system: what GNU tar writes, what attackers write, whole images, the skeleton of the host.
//!
//! Needs root, for owners, device nodes and `trusted.` attributes. Everything happens in temporary folders.

#[path = "support/image.rs"]
mod image;
#[path = "support/tar.rs"]
mod tar;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Packing, add_to_oci_layout, archive_folder, docker_archive, run};
use proptest::prelude::*;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use serde_json::json;
use stack::runtime::image::tar::{TarKind, TarReader};
use stack::runtime::image::{
    ImageConfig, ImageError, ImageOrigin, ImageStore, LayerDigest, LayerSource, LocalBlobs, ResolvedImage, UnpackError,
    UnpackLimits, Unpacked, unpack_layer, unpack_layer_over,
};
use stack::runtime::overlay::{OverlayMount, OverlaySupport};
use tar::{Member, archive, record};

/// Unpacks into a folder of its own inside a folder of which nothing else may change.
fn unpack(bytes: &[u8]) -> (tempfile::TempDir, PathBuf, Result<Unpacked, UnpackError>) {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("layer");
    fs::create_dir(&root).unwrap();
    let limits = UnpackLimits { members: 1000, bytes: 1 << 20, depth: 64 };
    let result = unpack_layer(&mut TarReader::new(bytes), File::open(&root).unwrap().into(), limits);
    (outer, root, result)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == 0)
}

/// Every path below `root` with what matters of it.
fn picture(root: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(root: &Path, folder: &Path, into: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let found = fs::symlink_metadata(&path).unwrap();
            let content = if found.is_symlink() {
                format!("{:?}", fs::read_link(&path).unwrap())
            } else if found.is_file() {
                LayerDigest::of(&fs::read(&path).unwrap()).to_string()
            } else {
                String::new()
            };
            let line = format!(
                "{:o} {}:{} links {} device {} time {}.{} {content}",
                found.mode(),
                found.uid(),
                found.gid(),
                if found.is_dir() { 0 } else { found.nlink() },
                found.rdev(),
                found.mtime(),
                found.mtime_nsec()
            );
            into.insert(path.strip_prefix(root).unwrap().to_owned(), line);
            if found.is_dir() {
                walk(root, &path, into);
            }
        }
    }
    let mut into = BTreeMap::new();
    walk(root, root, &mut into);
    into
}

/// A tree with one of each.
fn plant(root: &Path) {
    let long = format!("{}/{}", "d".repeat(90), "e".repeat(60));
    fs::create_dir_all(root.join(&long)).unwrap();
    fs::write(root.join(&long).join("deep"), "deep").unwrap();
    fs::write(root.join("plain"), vec![7; 700_000]).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::hard_link(root.join("plain"), root.join("zz-link")).unwrap();
    symlink("plain", root.join("soft")).unwrap();
    symlink("../../etc/passwd", root.join("out")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo"), rustix::fs::Mode::RUSR).unwrap();
    let device = rustix::fs::makedev(1, 3);
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, root.join("null"), rustix::fs::FileType::CharacterDevice, mode, device)
        .unwrap();
    std::os::unix::fs::chown(root.join("empty"), Some(1234), Some(4321)).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::set_permissions(root.join(&long), fs::Permissions::from_mode(0o1777)).unwrap();
    for path in ["plain", "empty", "d".repeat(90).as_str()] {
        run(Command::new("touch").args(["--date", "2001-02-03T04:05:06Z"]).arg(root.join(path)));
    }
}

#[test]
fn what_gnu_tar_writes_unpacks_to_the_same_tree() {
    for format in ["v7", "ustar", "gnu", "pax"] {
        let source = tempfile::tempdir().unwrap();
        plant(source.path());
        if format == "v7" {
            // It knows neither devices and fifos nor names of 100 bytes and more.
            fs::remove_file(source.path().join("null")).unwrap();
            fs::remove_file(source.path().join("fifo")).unwrap();
            fs::remove_dir_all(source.path().join("d".repeat(90))).unwrap();
        }
        run(Command::new("find").arg(source.path()).args(["-exec", "touch", "-hd", "2001-02-03T04:05:06Z", "{}", "+"]));
        let bytes = run(Command::new("tar")
            .args(["--create", "--numeric-owner", "--format", format, "--directory"])
            .arg(source.path())
            .arg("."));
        let (_outer, root, result) = unpack(&bytes);
        result.unwrap();
        assert_eq!(picture(&root), picture(source.path()), "{format}");
        let (of_root, of_source) = (fs::metadata(&root).unwrap(), fs::metadata(source.path()).unwrap());
        assert_eq!((of_root.mode(), of_root.mtime()), (of_source.mode(), of_source.mtime()));
    }
}

#[test]
fn pax_keeps_fractions_of_seconds_attributes_and_capabilities() {
    let source = tempfile::tempdir().unwrap();
    let file = source.path().join("file");
    fs::write(&file, "x").unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (name, value) in [("security.capability", &capability[..]), ("user.note", b"a\nb\0c")] {
        rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    let (_outer, root, result) = unpack(&archive_folder(source.path()));
    result.unwrap();
    assert_eq!(picture(&root), picture(source.path()));
    assert_eq!(xattr(&root.join("file"), "security.capability").unwrap(), capability);
    assert_eq!(xattr(&root.join("file"), "user.note").unwrap(), b"a\nb\0c");
}

#[test]
fn global_pax_headers_hold_for_all_members_after_them() {
    let global = [record("mtime", b"1000000000.25"), record("uid", b"77")].concat();
    let members =
        [Member { content: &global, ..Member::new(b'g', "g") }, Member::file("a", "1"), Member::file("b", "2")];
    let (_outer, root, result) = unpack(&archive(&members));
    result.unwrap();
    for name in ["a", "b"] {
        let found = fs::metadata(root.join(name)).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec(), found.uid()), (1_000_000_000, 250_000_000, 77));
    }
}

#[test]
fn the_size_of_pax_decides_where_the_next_member_begins() {
    // CVE-2025-62518: readers that go by the header find a member inside the content.
    let inner = archive(&[Member::file("smuggled", "x")]);
    let size = record("size", inner.len().to_string().as_bytes());
    let outer = Member { content: &inner, size: Some(0), ..Member::file("outer", "") };
    let bytes = archive(&[Member::pax(&size), outer, Member::file("after", "")]);
    let mut reader = TarReader::new(&bytes[..]);
    let mut names = Vec::new();
    while let Some(member) = reader.next_member().unwrap() {
        names.push(String::from_utf8(member.name).unwrap());
    }
    assert_eq!(names, ["outer", "after"]);
}

#[test]
fn whiteouts_take_the_form_of_overlayfs() {
    let members = [
        Member::folder("kept"),
        Member::file("kept/new", ""),
        Member::file(".wh.kept", ""),
        Member::file("dir/.wh.gone", ""),
        Member::folder("opaque"),
        Member::file("opaque/.wh..wh..opq", ""),
        Member::file("opaque/.wh..wh.plnk", ""),
        Member::file("here", "1"),
        Member::file(".wh.here", ""),
        Member::file(".wh.back", ""),
        Member::file("back/inside", ""),
        Member::file(".wh.again", ""),
        Member::folder("again"),
    ];
    let (_outer, root, result) = unpack(&archive(&members));
    result.unwrap();
    let opaque = |name: &str| xattr(&root.join(name), "trusted.overlay.opaque") == Some(b"y".to_vec());
    assert!(is_whiteout(&root.join("dir/gone")));
    assert!(opaque("opaque") && opaque("kept") && opaque("back") && opaque("again"));
    assert!(!opaque("dir"));
    assert!(root.join("kept/new").exists() && root.join("back/inside").exists());
    assert_eq!(fs::read_to_string(root.join("here")).unwrap(), "1");
    assert_eq!(fs::read_dir(root.join("opaque")).unwrap().count(), 0);
}

#[test]
fn the_later_member_of_a_name_replaces_the_earlier() {
    let members = [
        Member::folder("a"),
        Member::file("a/b", "1"),
        Member::file("a", "file now"),
        Member::file("c", "1"),
        Member::folder("c"),
        Member::file("c/d", "2"),
        Member::symlink("e", "c"),
        Member::folder("e"),
        Member::file("e/f", "3"),
        Member::file("g", "1"),
        Member::file("g", "longer"),
        Member::folder("h/i"),
        Member::file("h/i/j", "4"),
        Member::folder("h"),
    ];
    let (_outer, root, result) = unpack(&archive(&members));
    result.unwrap();
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    assert_eq!([read("a"), read("c/d"), read("e/f"), read("g"), read("h/i/j")], ["file now", "2", "3", "longer", "4"]);
    assert!(!root.join("c/f").exists());
}

#[test]
fn links_within_the_layer_are_followed() {
    let members = [Member::folder("usr/lib"), Member::symlink("lib", "usr/lib"), Member::file("lib/x/y", "1")];
    let (_outer, root, result) = unpack(&archive(&members));
    result.unwrap();
    assert!(root.join("usr/lib/x/y").is_file());
    assert!(root.join("lib").is_symlink());
}

#[test]
fn hostile_members_are_refused_or_contained() {
    let deep = "d/".repeat(49) + "d";
    let pax_deep = record("path", "d/".repeat(65).as_bytes());
    let sparse = [record("GNU.sparse.size", b"4"), record("GNU.sparse.map", b"0,4")].concat();
    let pax_nul = record("path", b"a\0b");
    let pax_escape = record("path", b"../escape");
    let pax_link = record("linkpath", b"../victim");
    let redirect = record("SCHILY.xattr.trusted.overlay.redirect", b"/../../victim");
    let selinux = record("SCHILY.xattr.security.selinux", b"x");
    let victim = "../victim";
    let cases: Vec<(&str, Vec<Member<'_>>, &str)> = vec![
        ("name upwards", vec![Member::file("../escape", "x")], "names `..`"),
        ("name upwards later", vec![Member::file("a/../../escape", "x")], "names `..`"),
        ("folder upwards", vec![Member::folder("..")], "names `..`"),
        ("pax name upwards", vec![Member::pax(&pax_escape), Member::file("a", "x")], "names `..`"),
        ("absolute", vec![Member::file("/absolute", "x")], ""),
        ("link then write", vec![Member::symlink("l", ".."), Member::file("l/escape", "x")], "leaves the layer"),
        ("link then write far", vec![Member::symlink("l", "/tmp"), Member::file("l/escape", "x")], "leaves the layer"),
        (
            "link chain",
            vec![Member::symlink("a", "b"), Member::symlink("b", ".."), Member::file("a/escape", "x")],
            "leaves the layer",
        ),
        (
            "link loop",
            vec![Member::symlink("a", "b"), Member::symlink("b", "a"), Member::file("a/escape", "x")],
            "leaves the layer",
        ),
        ("dangling link", vec![Member::symlink("a", "../new"), Member::file("a/escape", "x")], "leaves the layer"),
        ("link then folder", vec![Member::symlink("a", victim), Member::folder("a"), Member::file("a/x", "")], ""),
        ("link then file", vec![Member::symlink("a", victim), Member::file("a", "overwrite")], ""),
        (
            "link then mode",
            vec![Member::symlink("a", victim), Member { mode: 0o777, ..Member::symlink("a", victim) }],
            "",
        ),
        ("proc link", vec![Member::symlink("a", "/proc/self/cwd"), Member::file("a/escape", "x")], "leaves the layer"),
        ("hard link out", vec![Member::hard_link("a", "../victim")], "names `..`"),
        ("hard link out by pax", vec![Member::pax(&pax_link), Member::hard_link("a", "b")], "names `..`"),
        ("hard link absolute", vec![Member::hard_link("a", "/etc/passwd")], "does not hold"),
        (
            "hard link through link",
            vec![Member::symlink("l", ".."), Member::hard_link("a", "l/victim")],
            "leaves the layer",
        ),
        (
            "hard link to link, then write",
            vec![Member::symlink("l", victim), Member::hard_link("a", "l"), Member::file("a", "overwrite")],
            "",
        ),
        ("hard link to folder", vec![Member::folder("d"), Member::hard_link("a", "d")], "hard link to the directory"),
        ("hard link to itself", vec![Member::file("a", "x"), Member::hard_link("a", "a")], "does not hold"),
        ("hard link to whiteout", vec![Member::file(".wh.w", ""), Member::hard_link("a", "w")], "does not hold"),
        ("file as folder", vec![Member::file("a", "x"), Member::file("a/b", "x")], "is not a directory"),
        ("root as file", vec![Member::file("./", "x")], ""),
        ("root as link", vec![Member::symlink(".", "/etc")], "is the root"),
        ("whiteout upwards", vec![Member::file(".wh...", "")], "not a valid whiteout"),
        ("whiteout of nothing", vec![Member::file("a/.wh.", "")], "not a valid whiteout"),
        (
            "whiteout through link",
            vec![Member::symlink("l", ".."), Member::file("l/.wh.victim", "")],
            "leaves the layer",
        ),
        (
            "opaque through link",
            vec![Member::symlink("l", ".."), Member::file("l/.wh..wh..opq", "")],
            "leaves the layer",
        ),
        ("device", vec![Member::device("sda", 8, 0)], ""),
        ("overlay attribute", vec![Member::pax(&redirect), Member::folder("a")], ""),
        ("security attribute", vec![Member::pax(&selinux), Member::file("a", "x")], ""),
        ("too deep", vec![Member::pax(&pax_deep), Member::folder("d")], "components"),
        ("deep enough", vec![Member::folder(&deep)], ""),
        ("NUL in name", vec![Member::pax(&pax_nul), Member::file("a", "x")], "malformed"),
        ("huge size", vec![Member::file("a", "x").with_size(1 << 50)], "bytes of content"),
        ("size beyond sums", vec![Member::file("a", "x").with_size(u64::MAX >> 1)], "wrong `size`"),
        ("negative size", vec![Member::file("a", "x").with_size(u64::MAX)], "wrong `size`"),
        ("size beyond the end", vec![Member::file("a", "x").with_size(9000)], "middle of a member"),
        ("sparse map of nothing", vec![Member::pax(&sparse), Member::file("s", "too many bytes")], "sparse member"),
        ("unknown kind", vec![Member::new(b'M', "m")], "has the type `M`"),
        ("huge long name", vec![Member::new(b'L', "n").with_size(1 << 40)], "more than 4096"),
        ("huge pax", vec![Member::new(b'x', "n").with_size(1 << 40)], "more than 1048576"),
        ("many headers", vec![Member { content: b"n", ..Member::new(b'L', "n") }; 20], "too many extended"),
        ("many members", vec![Member::folder("d"); 1001], "more than 1000 members"),
        ("empty name", vec![Member::file("", "x")], "wrong `name`"),
        ("link to nothing", vec![Member::symlink("a", "")], "wrong `linkname`"),
    ];
    for (case, members, expected) in cases {
        let bytes = archive(&members);
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("layer");
        fs::create_dir(&root).unwrap();
        fs::write(outer.path().join("victim"), "untouched").unwrap();
        fs::set_permissions(outer.path().join("victim"), fs::Permissions::from_mode(0o600)).unwrap();
        let before = fs::metadata(outer.path()).unwrap();
        let limits = UnpackLimits { members: 1000, bytes: 1 << 20, depth: 64 };
        let result = unpack_layer(&mut TarReader::new(&bytes[..]), File::open(&root).unwrap().into(), limits);
        match result {
            Ok(_) => assert_eq!(expected, "", "{case}: was accepted"),
            Err(error) => {
                let text = chain(&error);
                assert!(!expected.is_empty() && text.contains(expected), "{case}: {text}");
            }
        }
        let names: Vec<_> = fs::read_dir(outer.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{case}: {names:?}");
        let victim = fs::metadata(outer.path().join("victim")).unwrap();
        assert_eq!((victim.mode() & 0o7777, victim.nlink()), (0o600, 1), "{case}");
        assert_eq!(fs::read_to_string(outer.path().join("victim")).unwrap(), "untouched", "{case}");
        let after = fs::metadata(outer.path()).unwrap();
        assert_eq!((after.mtime_nsec(), after.mode()), (before.mtime_nsec(), before.mode()), "{case}");
        assert!(xattr(outer.path(), "trusted.overlay.opaque").is_none(), "{case}");
        assert!(xattr(&root.join("a"), "trusted.overlay.redirect").is_none(), "{case}");
        assert!(!Path::new("/tmp/escape").exists(), "{case}");
    }
}

#[test]
fn an_archive_without_end_is_cut_off() {
    // The end of the archive, and then zeros for as long as somebody reads.
    struct Zeros;
    impl std::io::Read for Zeros {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            buf.fill(0);
            Ok(buf.len())
        }
    }
    impl stack::runtime::image::tar::TarInput for Zeros {}
    let mut reader = TarReader::new(Zeros);
    assert!(reader.next_member().unwrap().is_none());
    assert!(chain(&reader.drain().unwrap_err()).contains("follow the end"));
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to an archive, it is read or refused, and nothing outside is touched.
    #[test]
    fn mutated_archives_never_panic_and_never_escape(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let pax = [record("path", b"long/name"), record("SCHILY.xattr.user.a", b"v"), record("size", b"5")].concat();
        let mut bytes = archive(&[
            Member::folder("d"),
            Member::pax(&pax),
            Member::file("x", "12345"),
            Member::symlink("d/l", "../.."),
            Member { content: b"gnu/long\0", ..Member::new(b'L', "n") },
            Member::file("y", "content"),
            Member::hard_link("h", "gnu/long"),
            Member::device("z", 1, 3),
            Member::file("d/.wh.q", ""),
        ]);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
            // Most changes would only be caught by the checksum: make it right again.
            let header = at / 512 * 512;
            if value % 4 != 0 {
                bytes[header + 148..header + 156].fill(b' ');
                let sum: u32 = bytes[header..header + 512].iter().map(|&byte| u32::from(byte)).sum();
                bytes[header + 148..header + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        bytes.truncate(1 + cut.index(bytes.len() * 2).min(bytes.len() - 1));
        let mut reader = TarReader::new(&bytes[..]);
        while let Ok(Some(member)) = reader.next_member() {
            prop_assert!(!member.name.is_empty() && !member.name.contains(&0));
            prop_assert!(member.kind == TarKind::File || member.size == 0);
        }
        let (outer, _root, _result) = unpack(&bytes);
        prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }
}

fn store() -> (tempfile::TempDir, ImageStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = ImageStore::open(folder.path().join("store"));
    (folder, store)
}

/// An image of these layers that does nothing.
fn of_layers(layers: Vec<LayerSource>) -> ResolvedImage {
    ResolvedImage { id: "test".into(), config: ImageConfig::default(), layers, binds: Vec::new() }
}

fn bring_in(store: &ImageStore, origin: &ImageOrigin) -> Vec<PathBuf> {
    let image = store.resolve(origin).unwrap();
    store.unpack(&image, &LocalBlobs).unwrap();
    assert!(store.missing_layers(&image).is_empty());
    store.layer_dirs(&image)
}

#[test]
fn images_of_every_form_resolve_to_one_and_share_their_layers() {
    let (folder, store) = store();
    let layers = [archive(&[Member::file("a", "1")]), archive(&[Member::file("b", "2")])];
    let config = json!({"Env": ["A=1"], "Entrypoint": ["/a"], "Cmd": ["x"], "WorkingDir": "/w", "User": "5:6",
        "StopSignal": "SIGINT", "Labels": {"k": "v"}, "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}});
    let docker = folder.path().join("docker.tar");
    let id = docker_archive(&docker, &layers, &config, "example.org/web:1");
    let mut origins = vec![ImageOrigin::DockerArchive { path: docker, tag: Some("1".into()) }];
    for packing in [Packing::None, Packing::Gzip, Packing::Zstd] {
        let path = folder.path().join(format!("{packing:?}"));
        assert_eq!(add_to_oci_layout(&path, &layers, packing, &config, Some("1")), id);
        let file = folder.path().join(format!("{packing:?}.tar"));
        fs::write(&file, archive_folder(&path)).unwrap();
        origins.push(ImageOrigin::OciArchive { path: file, tag: None });
        origins.push(ImageOrigin::OciLayout { path, tag: Some("1".into()) });
    }
    for origin in origins {
        let (_folder, fresh) = self::store();
        let image = fresh.resolve(&origin).unwrap();
        assert_eq!(image.id, id.to_string(), "{origin:?}");
        assert_eq!(image.config.entrypoint, ["/a"]);
        assert_eq!((image.config.user.as_str(), image.config.stop_signal.as_deref()), ("5:6", Some("SIGINT")));
        assert_eq!(
            (&image.config.exposed_ports[..], &image.config.volumes[..]),
            (&["80/tcp".into()][..], &["/data".into()][..])
        );
        let dirs = bring_in(&fresh, &origin);
        assert!(dirs[0].join("b").is_file() && dirs[1].join("a").is_file(), "topmost first: {dirs:?}");
        bring_in(&store, &origin);
    }
    let mut cache = store.layers().unwrap();
    assert_eq!(cache.layers().count(), 2);
    let image = store.resolve(&ImageOrigin::OciLayout { path: folder.path().join("Gzip"), tag: None }).unwrap();
    cache.retain(&image);
    assert_eq!(cache.unreferenced().count(), 0);
    cache.release(&image);
    assert_eq!(cache.unreferenced().count(), 2);
    assert_eq!(fs::metadata(store.root()).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_layer_that_occurs_twice_is_mounted_once_at_its_topmost_place() {
    let (folder, store) = store();
    let (one, two) = (archive(&[Member::file("x", "1")]), archive(&[Member::file("x", "2")]));
    let file = folder.path().join("docker.tar");
    docker_archive(&file, &[one.clone(), two, one], &json!({}), "x:1");
    let dirs = bring_in(&store, &ImageOrigin::DockerArchive { path: file, tag: None });
    assert_eq!(dirs.len(), 2);
    assert_eq!(fs::read_to_string(dirs[0].join("x")).unwrap(), "1");
}

#[test]
fn damage_is_named_and_leaves_nothing_behind() {
    let layer = archive(&[Member::file("a", &"content ".repeat(4000))]);
    type Damage = (&'static str, fn(&mut Vec<u8>));
    let damages: [Damage; 4] = [
        ("instead of", |blob| *blob.last_mut().unwrap() ^= 1),
        ("instead of", |blob| blob[20] ^= 0xff),
        ("bytes instead of", |blob| blob.truncate(blob.len() / 2)),
        ("bytes instead of", |blob| blob.push(0)),
    ];
    for packing in [Packing::None, Packing::Gzip, Packing::Zstd] {
        for (expected, damage) in &damages {
            let (folder, store) = store();
            let path = folder.path().join("layout");
            add_to_oci_layout(&path, std::slice::from_ref(&layer), packing, &json!({}), None);
            let blob = path.join("blobs/sha256").join(LayerDigest::of(&image::pack(&layer, packing)).hex());
            let mut bytes = fs::read(&blob).unwrap();
            damage(&mut bytes);
            fs::write(&blob, bytes).unwrap();
            let origin = ImageOrigin::OciLayout { path, tag: None };
            let error = store.resolve(&origin).and_then(|image| store.unpack(&image, &LocalBlobs)).unwrap_err();
            let text = chain(&error);
            assert!(text.contains(expected) && text.contains(blob.to_str().unwrap()), "{packing:?}: {text}");
            assert!(picture(folder.path()).keys().all(|path| path.starts_with("layout") || !path.ends_with("a")));
            assert_eq!(store.layers().unwrap().layers().count(), 0);
        }
    }
}

#[test]
fn a_layer_that_is_not_its_diff_id_is_refused() {
    let (folder, store) = store();
    let path = folder.path().join("layout");
    let layer = archive(&[Member::file("a", "x")]);
    add_to_oci_layout(&path, &[layer], Packing::Gzip, &json!({}), None);
    let image = store.resolve(&ImageOrigin::OciLayout { path, tag: None }).unwrap();
    let LayerSource::Blob(mut layer) = image.layers[0].clone() else { panic!() };
    layer.diff_id = LayerDigest::of(b"another");
    let error = store.unpack(&of_layers(vec![LayerSource::Blob(layer)]), &LocalBlobs).unwrap_err();
    assert!(matches!(error, ImageError::DiffId { .. }), "{error}");
    assert_eq!(store.layers().unwrap().layers().count(), 0);
    for left in ["tmp", "locks"] {
        assert_eq!(fs::read_dir(store.root().join(left)).unwrap().count(), 0);
    }
}

#[test]
fn documents_that_are_not_what_their_digest_says_are_refused() {
    let (folder, store) = store();
    let path = folder.path().join("layout");
    let id = add_to_oci_layout(&path, &[], Packing::None, &json!({"Cmd": ["a"]}), None);
    let config = path.join("blobs/sha256").join(id.hex());
    let text = fs::read_to_string(&config).unwrap().replace("\"a\"", "\"b\"");
    fs::write(&config, text).unwrap();
    let error = store.resolve(&ImageOrigin::OciLayout { path, tag: None }).unwrap_err();
    assert!(matches!(error, ImageError::BlobDigest { .. }), "{error}");
}

#[test]
fn several_images_need_a_name() {
    let (folder, store) = store();
    let path = folder.path().join("layout");
    add_to_oci_layout(&path, &[], Packing::None, &json!({"Cmd": ["a"]}), Some("1.0"));
    add_to_oci_layout(&path, &[], Packing::None, &json!({"Cmd": ["b"]}), Some("example.org/x:2.0"));
    let resolve =
        |tag: Option<&str>| store.resolve(&ImageOrigin::OciLayout { path: path.clone(), tag: tag.map(str::to_owned) });
    assert_eq!(resolve(Some("2.0")).unwrap().config.cmd, ["b"]);
    assert_eq!(resolve(Some("1.0")).unwrap().config.cmd, ["a"]);
    for tag in [None, Some("3.0")] {
        let text = resolve(tag).unwrap_err().to_string();
        assert!(text.contains("it holds `1.0`, `example.org/x:2.0`"), "{text}");
    }
}

#[test]
fn an_index_gives_the_image_for_this_host() {
    let (folder, store) = store();
    let path = folder.path().join("layout");
    let id = add_to_oci_layout(&path, &[], Packing::None, &json!({"Cmd": ["right"]}), None);
    let index: serde_json::Value = serde_json::from_slice(&fs::read(path.join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0].clone();
    let on = |os: &str, architecture: &str| {
        let mut manifest = manifest.clone();
        manifest["platform"] = json!({"os": os, "architecture": architecture});
        manifest
    };
    fs::remove_file(path.join("index.json")).unwrap();
    let list = |manifests: serde_json::Value| {
        let bytes = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": manifests})).unwrap();
        image::write_blob(&path, "application/vnd.oci.image.index.v1+json", &bytes)
    };
    let mut both = list(json!([on("linux", "s390x"), on("linux", image::architecture())]));
    both["annotations"] = json!({"org.opencontainers.image.ref.name": "both"});
    let mut none = list(json!([on("windows", "amd64"), on("linux", "s390x")]));
    none["annotations"] = json!({"org.opencontainers.image.ref.name": "none"});
    image::add_to_index(&path, both);
    image::add_to_index(&path, none);
    let resolve = |tag: &str| store.resolve(&ImageOrigin::OciLayout { path: path.clone(), tag: Some(tag.to_owned()) });
    assert_eq!(resolve("both").unwrap().id, id.to_string());
    assert!(resolve("none").unwrap_err().to_string().contains("windows/amd64, linux/s390x"));
}

#[test]
fn what_is_not_an_image_is_refused_by_name() {
    let (folder, store) = store();
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let layout = |path: &Path| store.resolve(&ImageOrigin::OciLayout { path: path.into(), tag: None });
    assert!(matches!(layout(&empty), Err(ImageError::NotALayout { .. })));
    let path = folder.path().join("artifact");
    fs::create_dir_all(path.join("blobs/sha256")).unwrap();
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let config = image::write_blob(&path, "application/vnd.oci.empty.v1+json", b"{}");
    let manifest = json!({"schemaVersion": 2, "artifactType": "application/x-chart", "config": config, "layers": []});
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    image::add_to_index(&path, image::write_blob(&path, media_type, &serde_json::to_vec(&manifest).unwrap()));
    let text = layout(&path).unwrap_err().to_string();
    assert!(text.contains("`application/x-chart`, which is not a container image"), "{text}");

    let file = folder.path().join("archive.tar");
    let archive_at = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        store.resolve(&ImageOrigin::DockerArchive { path: file.clone(), tag: None }).unwrap_err()
    };
    assert!(matches!(archive_at(&archive(&[])), ImageError::NotADockerArchive { .. }));
    assert!(matches!(archive_at(b"no archive at all"), ImageError::Archive { .. }));
    assert!(matches!(archive_at(&image::pack(b"x", Packing::Gzip)), ImageError::CompressedArchive { .. }));
    let cut = Member::file("manifest.json", "").with_size(1 << 30);
    assert!(matches!(archive_at(&archive(&[cut])), ImageError::TruncatedArchive { .. }));
}

#[test]
fn an_archive_is_read_again_only_after_it_changed() {
    let (folder, store) = store();
    let file = folder.path().join("docker.tar");
    let origin = ImageOrigin::DockerArchive { path: file.clone(), tag: None };
    docker_archive(&file, &[archive(&[Member::file("a", "x")])], &json!({"Cmd": ["a"]}), "x:1");
    bring_in(&store, &origin);
    let cached = || fs::read_dir(store.root().join("cache")).map_or(0, |entries| entries.count());
    assert_eq!(cached(), 0, "a file that was just written is not trusted to stay");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    store.resolve(&origin).unwrap();
    assert_eq!(cached(), 1);
    // A copy takes the place: same size, another inode.
    let aside = folder.path().join("aside");
    docker_archive(&aside, &[archive(&[Member::file("a", "x")])], &json!({"Cmd": ["b"]}), "x:1");
    fs::rename(&aside, &file).unwrap();
    assert_eq!(store.resolve(&origin).unwrap().config.cmd, ["b"]);
}

#[test]
fn many_at_once_unpack_a_layer_once() {
    let (folder, store) = store();
    let path = folder.path().join("layout");
    let names: Vec<String> = (0..300).map(|n| format!("f{n}")).collect();
    let members: Vec<Member<'_>> = names.iter().map(|name| Member::file(name, "x")).collect();
    let layers: Vec<Vec<u8>> = (0..3).map(|n| archive(&members[n..])).collect();
    add_to_oci_layout(&path, &layers, Packing::Gzip, &json!({}), None);
    let image = store.resolve(&ImageOrigin::OciLayout { path, tag: None }).unwrap();
    let inodes: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let one = || {
            store.unpack(&image, &LocalBlobs).unwrap();
            store.layer_dirs(&image).iter().map(|dir| fs::metadata(dir.join("f10")).unwrap().ino()).collect()
        };
        let all: Vec<_> = (0..6).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(inodes.iter().all(|seen| *seen == inodes[0]));
    assert_eq!(fs::read_dir(store.layer_dirs(&image)[0].as_path()).unwrap().count(), 298);
    assert_eq!(fs::read_dir(store.root().join("locks")).unwrap().count(), 0);
}

#[test]
fn what_a_crash_left_is_taken_away_by_the_next() {
    let (folder, store) = store();
    let path = folder.path().join("layout");
    add_to_oci_layout(&path, &[archive(&[Member::file("a", "x")])], Packing::None, &json!({}), None);
    let origin = ImageOrigin::OciLayout { path, tag: None };
    let image = store.resolve(&origin).unwrap();
    let hex = image.layers[0].digest().unwrap().hex();
    let left = store.root().join("tmp").join(&hex);
    fs::create_dir_all(left.join("half")).unwrap();
    let dirs = bring_in(&store, &origin);
    assert!(dirs[0].join("a").exists() && !dirs[0].join("half").exists() && !left.exists());
}

#[test]
fn a_folder_is_a_layer_as_it_is() {
    let (folder, store) = store();
    let origin = ImageOrigin::Dir(folder.path().join("../").join(folder.path().file_name().unwrap()));
    let image = store.resolve(&origin).unwrap();
    assert_eq!(bring_in(&store, &origin), [folder.path().canonicalize().unwrap()]);
    assert!(image.id.starts_with("dir:") && image.id.ends_with(folder.path().to_str().unwrap()), "{}", image.id);
    assert_eq!(image.config.cmd, ["/bin/sh"]);
    assert!(!store.root().exists(), "reading writes nothing where there is no store");
    assert!(store.resolve(&ImageOrigin::Dir(folder.path().join("absent"))).is_err());
}

#[test]
fn the_skeleton_of_the_host_holds_what_programs_need_and_no_secret() {
    let (_folder, store) = store();
    let image = store.resolve(&ImageOrigin::Host).unwrap();
    let dirs = bring_in(&store, &ImageOrigin::Host);
    let root = &dirs[0];
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("root"), mode("proc"), mode("")), (0o1777, 0o700, 0o555, 0o755));
    for path in ["etc/passwd", "etc/group", "etc/nsswitch.conf", "etc/hosts", "etc/resolv.conf", "usr", "dev", "sys"] {
        assert!(root.join(path).exists(), "{path}");
    }
    assert!(image.binds.contains(&(PathBuf::from("/usr"), "/usr".to_owned())));
    assert!(image.config.env[0].starts_with("PATH="));
    let all = picture(root);
    for secret in ["etc/shadow", "etc/gshadow", "etc/shadow-", "etc/sudoers", "etc/ssl/private", "etc/machine-id"] {
        assert!(!all.contains_key(Path::new(secret)), "{secret}");
    }
    for path in all.keys() {
        let place = root.join(path);
        if fs::symlink_metadata(&place).unwrap().is_file() {
            let content = String::from_utf8_lossy(&fs::read(&place).unwrap()).into_owned();
            assert!(!content.contains("PRIVATE KEY"), "{}", path.display());
        }
        assert!(!path.components().any(|name| name.as_os_str().to_string_lossy().starts_with("ssh")));
    }
    assert_eq!(fs::read_dir(root.join("home")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.join("root")).unwrap().count(), 0);
    assert!(fs::read_to_string(root.join("etc/passwd")).unwrap().starts_with("root:*:0:0:"));
}

#[test]
fn programs_of_the_host_run_on_its_skeleton() {
    let (folder, store) = store();
    let image = store.resolve(&ImageOrigin::Host).unwrap();
    let lower = bring_in(&store, &ImageOrigin::Host);
    let [upper, work, target] = ["upper", "work", "target"].map(|name| folder.path().join(name));
    for folder in [&upper, &work, &target] {
        fs::create_dir(folder).unwrap();
    }
    let plan = OverlayMount { lower, upper, work }.compile(OverlaySupport::probe()).unwrap();
    // A mount namespace of the thread alone, which takes the mounts along when it ends.
    let inside = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("this test needs root");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        plan.mount(&CString::new(target.as_os_str().as_bytes()).unwrap()).unwrap();
        for (host, inside) in &image.binds {
            mount_bind(host, target.join(inside.trim_start_matches('/'))).unwrap();
        }
        let script = "id -un; id -un nobody; ls /home /root; cat /etc/shadow 2>&1 | tail -c 26; echo x > /tmp/x";
        let output =
            run(Command::new("chroot").arg(&target).args(["/bin/sh", "-c", script]).env("PATH", "/usr/bin:/usr/sbin"));
        assert_eq!(String::from_utf8(output).unwrap(), "root\nnobody\n/home:\n\n/root:\nNo such file or directory\n");
    };
    std::thread::spawn(inside).join().unwrap();
}

#[test]
fn secrets_planted_in_a_host_stay_in_it() {
    let (folder, _) = store();
    let host = folder.path().join("host");
    for path in
        ["usr/bin", "usr/lib", "bin", "etc/ssl/certs", "etc/alternatives", "etc/ld.so.conf.d", "home/alice/.ssh"]
    {
        fs::create_dir_all(host.join(path)).unwrap();
    }
    symlink("usr/lib", host.join("lib")).unwrap();
    let key = "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n";
    let certificate = "-----BEGIN CERTIFICATE-----\n";
    for (path, content) in [
        ("etc/passwd", "root:hash:0:0:r:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"),
        ("etc/shadow", "root:SECRET:"),
        ("etc/ssl/certs/both.pem", key),
        ("etc/ssl/certs/good.pem", certificate),
        ("etc/ssl/certs/hidden.pem", certificate),
        ("home/alice/.ssh/id", "SECRET"),
    ] {
        fs::write(host.join(path), content).unwrap();
    }
    fs::set_permissions(host.join("etc/ssl/certs/hidden.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("/etc/shadow", host.join("etc/alternatives/x")).unwrap();
    symlink("/usr/bin/vi", host.join("etc/alternatives/vi")).unwrap();
    let store = ImageStore::open(folder.path().join("store")).with_host_root(&host);
    let before = store.resolve(&ImageOrigin::Host).unwrap();
    let root = bring_in(&store, &ImageOrigin::Host).remove(0);
    for (path, there) in [
        ("etc/ssl/certs/both.pem", false),
        ("etc/ssl/certs/hidden.pem", false),
        ("etc/ssl/certs/good.pem", true),
        ("etc/shadow", false),
        ("home/alice", false),
        ("etc/alternatives/x", false),
        ("etc/alternatives/vi", true),
    ] {
        assert_eq!(fs::symlink_metadata(root.join(path)).is_ok(), there, "{path}");
    }
    assert_eq!(fs::read_to_string(root.join("etc/passwd")).unwrap(), "root:*:0:0::/root:/bin/sh\n");
    assert_eq!(fs::read_link(root.join("lib")).unwrap(), Path::new("usr/lib"));
    assert_eq!(before.binds, [(host.join("usr"), "/usr".to_owned()), (host.join("bin"), "/bin".to_owned())]);
    fs::write(host.join("etc/ssl/certs/good.pem"), format!("{certificate}more")).unwrap();
    assert_ne!(store.resolve(&ImageOrigin::Host).unwrap().id, before.id);
    let old = of_layers(vec![LayerSource::Skeleton(LayerDigest::of(b"old"))]);
    assert!(matches!(store.unpack(&old, &LocalBlobs), Err(ImageError::HostChanged)));
}

/// What `tar` itself makes of sparse files, in each of its formats.
#[test]
fn sparse_files_of_gnu_tar_come_out_as_they_went_in() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("holes");
    {
        use std::os::unix::fs::FileExt;
        let out = File::create(&file).unwrap();
        // More pieces than a header and one block after it hold.
        for piece in 0..40u64 {
            out.write_all_at(format!("piece {piece}").as_bytes(), piece * (64 << 10)).unwrap();
        }
        out.set_len(3 << 20).unwrap();
    }
    let whole = fs::read(&file).unwrap();
    for format in
        [&["--format=gnu"][..], &["--sparse-version=0.0"], &["--sparse-version=0.1"], &["--sparse-version=1.0"]]
    {
        let posix = if format[0].starts_with("--sparse") { "--format=posix" } else { format[0] };
        let mut tar = Command::new("tar");
        tar.arg("--sparse").arg(posix).args(format).arg("-C").arg(folder.path()).args(["-cf", "-", "holes"]);
        let bytes = run(&mut tar);
        assert!(bytes.len() < 1 << 20, "{format:?}: tar found no holes");
        let (_outer, root, result) = unpack(&bytes);
        result.unwrap_or_else(|error| panic!("{format:?}: {error:?}"));
        let found = fs::metadata(root.join("holes")).unwrap();
        assert!(fs::read(root.join("holes")).unwrap() == whole, "{format:?}");
        assert!(found.blocks() * 512 < 1 << 20, "{format:?}: the holes were filled");
    }
}

fn unpack_over(bytes: &[u8], lower: Vec<PathBuf>) -> (tempfile::TempDir, PathBuf, Result<Unpacked, UnpackError>) {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("layer");
    fs::create_dir(&root).unwrap();
    let limits = UnpackLimits { members: 1000, bytes: 1 << 20, depth: 64 };
    let target = File::open(&root).unwrap().into();
    let result = unpack_layer_over(&mut TarReader::new(bytes), target, limits, &lower);
    (outer, root, result)
}

#[test]
fn what_a_layer_only_implies_it_takes_from_below() {
    let base = archive(&[
        Member { mode: 0o1777, ..Member::folder("tmp") },
        Member { mode: 0o700, ..Member::folder("root") },
        Member::folder("etc"),
        Member { mode: 0o4755, ..Member::file("etc/a", "below") },
        Member::symlink("etc/out", "/etc/passwd"),
    ]);
    let (_below, below, result) = unpack(&base);
    result.unwrap();
    let middle = archive(&[Member::file(".wh.root", ""), Member::file("tmp/m", "")]);
    let (_middle, middle, result) = unpack_over(&middle, vec![below.clone()]);
    assert!(result.unwrap().depends_on_lower);
    let top = archive(&[
        Member::file("tmp/x", "x"),
        Member::file("root/x", "x"),
        Member::hard_link("etc/b", "etc/a"),
        Member::hard_link("c", "etc/a"),
    ]);
    let (_top, top, result) = unpack_over(&top, vec![middle, below.clone()]);
    assert!(result.unwrap().depends_on_lower);
    let mode = |path: &str| fs::metadata(top.join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("root"), mode("etc/b")), (0o1777, 0o755, 0o4755));
    assert_eq!(fs::read(top.join("c")).unwrap(), b"below");
    let inode = |path: &str| fs::metadata(top.join(path)).unwrap().ino();
    assert!(inode("etc/a") == inode("etc/b") && inode("etc/b") == inode("c"));
    // Links that only look like files below, and files that are hidden there, are refused.
    for target in ["etc/out", "etc/none", "root/x"] {
        let (_outer, _, result) = unpack_over(&archive(&[Member::hard_link("l", target)]), vec![below.clone()]);
        let error = result.unwrap_err();
        assert!(matches!(error, UnpackError::HardLink { .. }), "{target}: {error}");
    }
}

/// The poisoned image comes first, and has the same upper layer as the honest one.
#[test]
fn what_came_from_one_image_is_not_found_by_another() {
    let (folder, store) = store();
    let upper = archive(&[Member::hard_link("bin/sh", "bin/real")]);
    let image = |name: &str, content: &str| {
        let path = folder.path().join(name);
        let lower = archive(&[Member::folder("bin"), Member::file("bin/real", content)]);
        add_to_oci_layout(&path, &[lower, upper.clone()], Packing::Gzip, &json!({}), None);
        bring_in(&store, &ImageOrigin::OciLayout { path, tag: None })
    };
    let (bad, good) = (image("bad", "poison"), image("good", "honest"));
    assert_eq!(fs::read(bad[0].join("bin/sh")).unwrap(), b"poison");
    assert_eq!(fs::read(good[0].join("bin/sh")).unwrap(), b"honest");
}
