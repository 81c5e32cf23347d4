//! Layers as one tree: the computed view against what the kernel mounts, and mounts with awkward paths.
//!
//! Needs root. Every mount happens in a mount namespace of a thread, which takes it along when it ends.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mkfifoat, mknodat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use stack::runtime::overlay::{
    MemoryTree, OverlayEntry, OverlayEntryKind, OverlayFs, OverlayLayer, OverlayMount, OverlaySupport, WhiteoutForm,
};

/// Runs `test` in a mount namespace of its own.
fn in_mount_namespace(test: impl FnOnce() + Send + 'static) {
    let inside = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("this test needs root");
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        test();
    };
    if let Err(panic) = std::thread::spawn(inside).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Something in a layer.
#[derive(Clone, Copy, Debug)]
enum Thing {
    File,
    Folder,
    Opaque,
    Symlink,
    Fifo,
    Null,
    Whiteout,
}

/// Things by path; a later one that does not fit what is there already is left out.
type Layer = Vec<(Vec<usize>, Thing)>;

fn layer() -> impl Strategy<Value = Layer> {
    let path = proptest::collection::vec(0..3usize, 1..4);
    let thing = prop_oneof![
        3 => Just(Thing::File),
        3 => Just(Thing::Folder),
        2 => Just(Thing::Opaque),
        1 => Just(Thing::Symlink),
        1 => Just(Thing::Fifo),
        1 => Just(Thing::Null),
        3 => Just(Thing::Whiteout),
    ];
    proptest::collection::vec((path, thing), 0..9)
}

fn name(path: &[usize]) -> PathBuf {
    path.iter().map(|at| ["a", "b", "c"][*at]).collect()
}

/// The things of a layer that fit each other, with the folders that they lie in.
fn fitting(layer: &Layer) -> BTreeMap<PathBuf, Thing> {
    let mut things: BTreeMap<PathBuf, Thing> = BTreeMap::new();
    for (path, thing) in layer {
        let path = name(path);
        let is_folder = |path: &Path| matches!(things.get(path), None | Some(Thing::Folder | Thing::Opaque));
        let above = || path.ancestors().skip(1).filter(|above| *above != Path::new(""));
        if things.contains_key(&path) || !above().all(is_folder) {
            continue;
        }
        for folder in above().map(Path::to_owned).collect::<Vec<_>>() {
            things.entry(folder).or_insert(Thing::Folder);
        }
        things.insert(path, *thing);
    }
    things
}

/// Modes differ by layer, so that it shows whose a folder is.
fn mode(at: usize) -> u32 {
    0o700 + at as u32
}

fn write(root: &Path, things: &BTreeMap<PathBuf, Thing>, at: usize) {
    fs::create_dir(root).unwrap();
    for (path, thing) in things {
        let place = root.join(path);
        let node = |kind, device| mknodat(CWD, &place, kind, Mode::from_raw_mode(0o600), device).unwrap();
        match thing {
            Thing::File => fs::write(&place, format!("layer {at}")).unwrap(),
            Thing::Folder | Thing::Opaque => fs::create_dir(&place).unwrap(),
            Thing::Symlink => symlink(format!("target{at}"), &place).unwrap(),
            Thing::Fifo => mkfifoat(CWD, &place, Mode::from_raw_mode(0o600)).unwrap(),
            Thing::Null => node(FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
            Thing::Whiteout => node(FileType::CharacterDevice, 0),
        }
        if matches!(thing, Thing::Opaque) {
            lsetxattr(&place, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        }
        if !matches!(thing, Thing::Symlink | Thing::Whiteout) {
            fs::set_permissions(&place, fs::Permissions::from_mode(mode(at))).unwrap();
        }
    }
}

fn in_memory(things: &BTreeMap<PathBuf, Thing>, at: usize, form: WhiteoutForm) -> OverlayLayer {
    let mut tree = MemoryTree::default();
    let entry = |kind, size| OverlayEntry { kind, mode: mode(at), uid: 0, gid: 0, size, layer: 0 };
    for (path, thing) in things {
        let kind = match thing {
            Thing::File => OverlayEntryKind::File,
            Thing::Folder | Thing::Opaque => OverlayEntryKind::Directory,
            Thing::Symlink => OverlayEntryKind::Symlink { target: format!("target{at}").into() },
            Thing::Fifo => OverlayEntryKind::Fifo,
            Thing::Null => OverlayEntryKind::CharDevice { device: rustix::fs::makedev(1, 3) },
            Thing::Whiteout if form == WhiteoutForm::Kernel => {
                tree.hide(path);
                continue;
            }
            Thing::Whiteout => {
                let mark = format!(".wh.{}", path.file_name().unwrap().to_str().unwrap());
                tree.insert(path.with_file_name(mark), entry(OverlayEntryKind::File, 0));
                continue;
            }
        };
        let size = if kind == OverlayEntryKind::File { format!("layer {at}").len() as u64 } else { 0 };
        let mode = if matches!(thing, Thing::Symlink) { 0o777 } else { mode(at) };
        tree.insert(path, OverlayEntry { mode, ..entry(kind, size) });
        match (thing, form) {
            (Thing::Opaque, WhiteoutForm::Kernel) => tree.make_opaque(path),
            (Thing::Opaque, WhiteoutForm::Oci) => {
                tree.insert(path.join(".wh..wh..opq"), entry(OverlayEntryKind::File, 0));
            }
            _ => {}
        }
    }
    OverlayLayer::memory(tree).with_form(form)
}

/// What the kernel shows below `root`: one line for each path.
fn of_kernel(root: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(root: &Path, folder: &Path, into: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let place = entry.unwrap().path();
            // Where a single layer has a directory, the kernel lists its whiteouts too, as names that are not there.
            let Ok(found) = fs::symlink_metadata(&place) else { continue };
            let kind = match () {
                () if found.is_dir() => "folder".to_owned(),
                () if found.is_symlink() => format!("link {}", fs::read_link(&place).unwrap().display()),
                () if found.is_file() => fs::read_to_string(&place).unwrap(),
                () => format!("node {:o} {}", found.mode() & 0o170000, found.rdev()),
            };
            let line = format!("{kind} {:o} {}:{}", found.mode() & 0o7777, found.uid(), found.gid());
            into.insert(place.strip_prefix(root).unwrap().to_owned(), line);
            if found.is_dir() {
                walk(root, &place, into);
            }
        }
    }
    let mut into = BTreeMap::new();
    walk(root, root, &mut into);
    into
}

/// The same of the computed view.
fn of_view(view: &OverlayFs) -> BTreeMap<PathBuf, String> {
    fn walk(view: &OverlayFs, folder: &Path, into: &mut BTreeMap<PathBuf, String>) {
        for (name, entry) in view.list(folder).unwrap().unwrap() {
            let path = folder.join(name);
            assert_eq!(view.lookup(&path).unwrap().as_ref(), Some(&entry), "lookup and list agree");
            let kind = match &entry.kind {
                OverlayEntryKind::Directory => "folder".to_owned(),
                OverlayEntryKind::Symlink { target } => format!("link {}", target.display()),
                OverlayEntryKind::File => format!("layer {}", entry.layer),
                OverlayEntryKind::CharDevice { device } => format!("node 20000 {device}"),
                OverlayEntryKind::BlockDevice { device } => format!("node 60000 {device}"),
                OverlayEntryKind::Fifo => "node 10000 0".to_owned(),
                OverlayEntryKind::Socket => "node 140000 0".to_owned(),
            };
            into.insert(path.clone(), format!("{kind} {:o} {}:{}", entry.mode, entry.uid, entry.gid));
            if entry.is_directory() {
                walk(view, &path, into);
            }
        }
    }
    let mut into = BTreeMap::new();
    walk(view, Path::new(""), &mut into);
    into
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

#[test]
fn the_view_agrees_with_the_kernel_entry_by_entry() {
    in_mount_namespace(|| {
        let config = ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() };
        let stacks = proptest::collection::vec(layer(), 2..6);
        let mut runner = TestRunner::new(config);
        let compare = |layers: Vec<Layer>| {
            let folder = tempfile::tempdir().unwrap();
            let things: Vec<_> = layers.iter().map(fitting).collect();
            let roots: Vec<PathBuf> = (0..things.len()).map(|at| folder.path().join(format!("layer{at}"))).collect();
            for (at, things) in things.iter().enumerate() {
                write(&roots[at], things, at);
            }
            let (work, target) = (folder.path().join("work"), folder.path().join("target"));
            fs::create_dir(&work).unwrap();
            fs::create_dir(&target).unwrap();
            // The topmost is the upper directory.
            let overlay = OverlayMount { lower: roots[1..].to_vec(), upper: roots[0].clone(), work };
            let plan = overlay.compile(OverlaySupport::probe()).unwrap();
            plan.mount(&c_path(&target)).unwrap();
            let kernel = of_kernel(&target);
            unmount(&target, UnmountFlags::DETACH).unwrap();
            let view = |layers| of_view(&OverlayFs::new(layers));
            let folders = view(roots.iter().map(OverlayLayer::folder).collect());
            prop_assert_eq!(&folders, &kernel);
            for form in [WhiteoutForm::Kernel, WhiteoutForm::Oci] {
                let memory = things.iter().enumerate().map(|(at, things)| in_memory(things, at, form)).collect();
                prop_assert_eq!(&view(memory), &kernel, "{:?}", form);
            }
            Ok(())
        };
        if let Err(failure) = runner.run(&stacks, compare) {
            panic!("{failure}");
        }
    });
}

/// Lower layers `count` times, each with a file of its own, under a folder with an awkward name.
fn awkward(folder: &Path, inner: &str, count: usize) -> (OverlayMount, PathBuf) {
    let place = folder.join(inner);
    fs::create_dir(&place).unwrap();
    let lower: Vec<PathBuf> = (0..count).map(|at| place.join(format!("l,{at}:x\\y"))).collect();
    for (at, root) in lower.iter().enumerate() {
        fs::create_dir(root).unwrap();
        fs::write(root.join(format!("f{at}")), "").unwrap();
    }
    let [upper, work, target] = ["up,p:e\\r", "wo,r:k\\", "target"].map(|name| place.join(name));
    for folder in [&upper, &work, &target] {
        fs::create_dir(folder).unwrap();
    }
    (OverlayMount { lower, upper, work }, target)
}

#[test]
fn paths_with_commas_colons_and_backslashes_are_mounted() {
    in_mount_namespace(|| {
        for (inner, support) in
            [("a, b:c\\d", OverlaySupport::probe()), ("e, f:g\\h", OverlaySupport { lower_one_by_one: false })]
        {
            let folder = tempfile::tempdir().unwrap();
            let (overlay, target) = awkward(folder.path(), inner, 3);
            overlay.compile(support).unwrap().mount(&c_path(&target)).unwrap();
            for file in ["f0", "f1", "f2"] {
                assert!(target.join(file).exists(), "{support:?}: {file}");
            }
            fs::write(target.join("new"), "").unwrap();
            assert!(overlay.upper.join("new").exists());
            let flags = rustix::fs::statvfs(&target).unwrap().f_flag;
            assert!(flags.contains(rustix::fs::StatVfsMountFlags::NODEV), "{support:?}");
            assert!(!flags.contains(rustix::fs::StatVfsMountFlags::NOSUID), "{support:?}");
            unmount(&target, UnmountFlags::DETACH).unwrap();
        }
    });
}

#[test]
fn hundreds_of_layers_are_mounted_where_the_kernel_takes_them_one_by_one() {
    let support = OverlaySupport::probe();
    if !support.lower_one_by_one {
        eprintln!("skipped: this kernel has no `lowerdir+` (Linux 6.7)");
        return;
    }
    in_mount_namespace(move || {
        let folder = tempfile::tempdir().unwrap();
        let (overlay, target) = awkward(folder.path(), "many", 300);
        overlay.compile(support).unwrap().mount(&c_path(&target)).unwrap();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 300);
        unmount(&target, UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn a_mount_that_fails_says_at_which_step() {
    in_mount_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let (mut overlay, target) = awkward(folder.path(), "x", 1);
        overlay.lower.push(folder.path().join("absent"));
        let stopped = overlay.compile(OverlaySupport::probe()).unwrap().mount(&c_path(&target)).unwrap_err();
        assert_eq!(stopped.errno, rustix::io::Errno::NOENT, "{stopped:?}");
    });
}
