//! The store as `stack image` keeps it: compared, pruned, checked and repaired, by one process or by several at once; and
//! images of other tools, read and written. Needs root, for owners; everything is in temporary folders.

#[path = "support/image.rs"]
mod image;
#[path = "support/tar.rs"]
mod tar;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use image::{Packing, add_to_oci_layout, docker_archive, pack, run};
use serde_json::{Value, json};
use tar::{Member, archive};

/// A store of its own, and the program that works with it.
struct Library {
    folder: tempfile::TempDir,
}

impl Library {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
        command.arg("--data-dir").arg(self.path("data")).arg("--run-dir").arg(self.path("run"));
        command.arg("image").args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        String::from_utf8(run(&mut self.command(args))).unwrap()
    }

    /// The JSON that a command prints, and its status.
    fn json(&self, args: &[&str]) -> (i32, Value) {
        let output = self.run(&[args, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}{told}"));
        (output.status.code().unwrap(), value)
    }

    /// An image of these layers under a name.
    fn import(&self, name: &str, layers: &[Vec<u8>], config: &Value) {
        let place = self.path("layout");
        let _ = fs::remove_dir_all(&place);
        add_to_oci_layout(&place, layers, Packing::Gzip, config, None);
        self.ok(&["import", &format!("oci:{}", place.display()), name]);
    }

    /// Says that an image was brought in so many days ago.
    fn age(&self, name: &str, days: u64) {
        let index = self.path("data/layout/index.json");
        let mut value: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        for manifest in value["manifests"].as_array_mut().unwrap() {
            let notes = &mut manifest["annotations"];
            if notes["org.opencontainers.image.ref.name"] == name {
                notes["dev.stack.pulled"] = json!((now - days * 86_400).to_string());
            }
        }
        fs::write(index, value.to_string()).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let (_, value) = self.json(&["ls"]);
        let images = value["images"].as_array().unwrap().iter();
        images.map(|image| image["reference"].as_str().unwrap().to_owned()).collect()
    }

    fn layers(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("data/layers/sha256")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    /// The unpacked layer that holds this file.
    fn layer_with(&self, file: &str) -> PathBuf {
        self.layers().into_iter().find(|layer| layer.join(file).symlink_metadata().is_ok()).expect(file)
    }
}

fn base() -> Vec<u8> {
    archive(&[
        Member::folder("etc"),
        Member::file("etc/conf", "one"),
        Member::file("etc/gone", "x"),
        Member::folder("old"),
        Member::file("old/a", "12345"),
        Member::symlink("link", "etc"),
    ])
}

fn upper() -> Vec<u8> {
    archive(&[
        Member::folder("etc"),
        Member::file("etc/conf", "two!"),
        Member::file("etc/.wh.gone", ""),
        Member::file(".wh.old", ""),
        Member { mode: 0o4755, ..Member::file("su", "s") },
        Member::symlink("link", "su"),
    ])
}

#[test]
fn two_images_are_compared_in_configuration_layers_and_files() {
    let library = Library::new();
    library.import("a.example/web:1", &[base()], &json!({"Cmd": ["run"], "Env": ["A=1", "API_TOKEN=x"]}));
    library.import(
        "a.example/web:2",
        &[base(), upper()],
        &json!({"Cmd": ["run", "it"], "Env": ["A=2", "API_TOKEN=y"]}),
    );
    let output = library.run(&["diff", "a.example/web:1", "a.example/web:2"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = "configuration\n  command        run → run it\n  env.API_TOKEN  (covered) → (covered)\n  env.A          1 → 2\n\
        files\n  ~ /etc/conf  content 3 B → 4 B\n  - /etc/gone  1 B\n  ~ /link  link link to etc → link to su\n  \
        - /old/  1 entry, 5 B\n  + /su  1 B\n1 added, 2 removed, 2 changed; 1 layer shared, 0 only before, 1 only after\n";
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&text), sorted(expected), "{text}");
    let (status, value) = library.json(&["diff", "a.example/web:1", "a.example/web:1"]);
    assert_eq!((status, &value["same"]), (0, &json!(true)));
    let (_, value) = library.json(&["diff", "a.example/web:1", "a.example/web:2"]);
    assert_eq!(value["files"][4]["after"]["mode"], "4755");
    assert_eq!(library.run(&["diff", "a.example/web:1", "a.example/web:3"]).status.code(), Some(1));
}

#[test]
fn a_docker_archive_is_taken_in_compressed_piped_or_as_it_is() {
    let library = Library::new();
    let file = library.path("saved.tar");
    docker_archive(&file, &[base(), upper(), base()], &json!({"Cmd": ["run"]}), "team/web:1");
    library.ok(&["import", &format!("docker-archive:{}:1", file.display()), "plain"]);
    fs::write(library.path("saved.tar.gz"), pack(&fs::read(&file).unwrap(), Packing::Gzip)).unwrap();
    library.ok(&["import", &format!("docker-archive:{}", library.path("saved.tar.gz").display()), "packed"]);
    let mut piped = library.command(&["import", "docker-archive:/dev/stdin", "piped"]);
    let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    std::io::copy(&mut fs::File::open(&file).unwrap(), &mut child.stdin.take().unwrap()).unwrap();
    assert!(child.wait().unwrap().success());
    let (_, value) = library.json(&["ls"]);
    let manifests: Vec<&Value> = value["images"].as_array().unwrap().iter().map(|image| &image["manifest"]).collect();
    assert_eq!(manifests.len(), 3);
    assert!(manifests.iter().all(|manifest| *manifest == manifests[0]), "{value}");
    assert_eq!(fs::read_dir(library.path("data/tmp")).unwrap().count(), 0);
    // The topmost layer shows again what the one below it hid.
    assert_eq!(library.run(&["diff", "plain", "piped"]).status.code(), Some(0));
}

#[test]
fn what_is_exported_comes_back_as_either_kind_of_archive() {
    let library = Library::new();
    library.import("a.example/web:1", &[base(), upper()], &json!({"Cmd": ["run"]}));
    let file = library.path("out.tar");
    library.ok(&["export", "a.example/web:1", file.to_str().unwrap()]);
    library.ok(&["import", &format!("oci-archive:{}", file.display()), "oci"]);
    library.ok(&["import", &format!("docker-archive:{}", file.display()), "docker"]);
    for name in ["oci", "docker"] {
        assert_eq!(library.run(&["diff", "a.example/web:1", name]).status.code(), Some(0), "{name}");
    }
}

#[test]
fn pruning_takes_what_age_count_and_space_let_go_and_nothing_that_is_used() {
    let library = Library::new();
    let layer = |text: &str| archive(&[Member::file("file", text)]);
    for (name, text, days) in [("web:1", "1", 50), ("web:2", "2", 40), ("web:3", "3", 3), ("db:1", "d", 60)] {
        let name = format!("a.example/{name}");
        library.import(&name, &[base(), layer(text)], &json!({"Cmd": [text]}));
        library.age(&name, days);
    }
    for name in ["a.example/web:1", "a.example/web:2", "a.example/web:3", "a.example/db:1"] {
        library.run(&["diff", name, name]);
    }
    assert_eq!(library.layers().len(), 5);
    // A container of the oldest one.
    let (_, value) = library.json(&["inspect", "a.example/db:1"]);
    let bundle = library.path("run/shop/db");
    fs::create_dir_all(&bundle).unwrap();
    fs::write(bundle.join("container.json"), json!({"image": {"id": value["id"]}}).to_string()).unwrap();
    fs::write(bundle.join("config.json"), format!("{:?}", library.layer_with("etc/conf"))).unwrap();
    let (_, value) = library.json(&["prune"]);
    assert_eq!((&value["images"], &value["blobs"], &value["layers"]), (&json!([]), &json!(0), &json!(0)));
    let (_, value) = library.json(&["prune", "--older-than", "30d", "--keep", "2", "--dry-run"]);
    assert_eq!(value["images"], json!(["a.example/web:1"]));
    assert!(value["bytes"].as_u64().unwrap() > 0);
    assert_eq!(library.names().len(), 4);
    library.ok(&["prune", "--older-than", "30d", "--keep", "2"]);
    assert_eq!(library.names(), ["a.example/db:1", "a.example/web:2", "a.example/web:3"]);
    assert_eq!(library.layers().len(), 4);
    // A floor that is met takes nothing, one that cannot be met takes all it may and says so.
    library.ok(&["prune", "--free", "1kB"]);
    assert_eq!(library.names().len(), 3);
    let output = library.run(&["prune", "--free", "8000TiB"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(library.names(), ["a.example/db:1"]);
    library.ok(&["prune", "--all"]);
    assert_eq!(library.names(), ["a.example/db:1"]);
    assert_eq!(library.layers().len(), 2);
    // Its container gone, so may it be; the layer that a bundle names stays.
    fs::remove_file(bundle.join("container.json")).unwrap();
    library.ok(&["prune", "--all"]);
    assert!(library.names().is_empty());
    assert_eq!(library.layers(), [library.layer_with("etc/conf")]);
    assert_eq!(fs::read_dir(library.path("data/layout/blobs/sha256")).unwrap().count(), 0);
    assert_eq!(library.run(&["prune", "--older-than", "soon"]).status.code(), Some(64));
}

#[test]
fn damaged_layers_and_blobs_are_found_and_made_whole() {
    type Damage = fn(&Library);
    let damages: [(&str, Damage); 7] = [
        ("another content", |library| fs::write(library.layer_with("su").join("etc/conf"), "TWO!").unwrap()),
        ("a missing file", |library| fs::remove_file(library.layer_with("su").join("su")).unwrap()),
        ("a missing whiteout", |library| fs::remove_file(library.layer_with("su").join("old")).unwrap()),
        ("a file too many", |library| fs::write(library.layer_with("su").join("more"), "").unwrap()),
        ("another mode", |library| {
            let place = library.layer_with("su").join("su");
            fs::set_permissions(place, fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("half a folder", |library| fs::remove_dir_all(library.layer_with("su").join("etc")).unwrap()),
        ("no layer at all", |library| fs::remove_dir_all(library.layer_with("su")).unwrap()),
    ];
    for (case, damage) in damages {
        let library = Library::new();
        library.import("web", &[base(), upper()], &json!({}));
        library.run(&["diff", "web", "web"]);
        let (status, value) = library.json(&["fsck"]);
        assert_eq!((status, &value["layers"]), (0, &json!(2)), "{case}: {value}");
        damage(&library);
        let (status, value) = library.json(&["fsck"]);
        assert_eq!(status, 0, "{case}: {value}");
        let repaired = value["repaired"].as_array().unwrap().len();
        assert_eq!(repaired, usize::from(case != "no layer at all"), "{case}: {value}");
        let layer = library.layer_with("su");
        assert_eq!(fs::read_to_string(layer.join("etc/conf")).unwrap(), "two!", "{case}");
        assert_eq!(fs::metadata(layer.join("su")).unwrap().mode() & 0o7777, 0o4755, "{case}");
        let (_, value) = library.json(&["fsck"]);
        assert_eq!((&value["repaired"], &value["layers"]), (&json!([]), &json!(2)), "{case}: {value}");
    }
}

#[test]
fn what_a_container_uses_is_told_and_left_and_what_cannot_be_mended_is_named() {
    let library = Library::new();
    library.import("web", &[base()], &json!({}));
    library.run(&["diff", "web", "web"]);
    let layer = library.layer_with("etc/conf");
    let bundle = library.path("run/shop/web");
    fs::create_dir_all(&bundle).unwrap();
    fs::write(bundle.join("config.json"), format!("{layer:?}")).unwrap();
    fs::write(layer.join("etc/conf"), "bad").unwrap();
    let (status, value) = library.json(&["fsck"]);
    assert_eq!((status, &value["left"][0]["users"]), (1, &json!(["shop/web"])), "{value}");
    assert_eq!(value["left"][0]["path"], "etc/conf");
    assert_eq!(fs::read_to_string(layer.join("etc/conf")).unwrap(), "bad");
    fs::remove_dir_all(library.path("run")).unwrap();
    // What interrupted runs left, and a blob that is not what it is called.
    fs::create_dir_all(library.path("data/tmp/half/etc")).unwrap();
    let blobs = fs::read_dir(library.path("data/layout/blobs/sha256")).unwrap().flatten().map(|entry| entry.path());
    let archive = blobs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = fs::read(&archive).unwrap();
    bytes[30] ^= 1;
    fs::write(&archive, bytes).unwrap();
    fs::remove_dir_all(&layer).unwrap();
    let (status, value) = library.json(&["fsck"]);
    assert_eq!(status, 1, "{value}");
    assert_eq!(value["damaged"].as_array().unwrap().len(), 1);
    assert_eq!((&value["incomplete"], &value["swept"]), (&json!(["docker.io/library/web:latest"]), &json!(1)));
    assert!(!archive.exists() && !library.path("data/tmp/half").exists());
}

/// Layers large enough that processes meet at them.
fn large(seed: u8) -> Vec<u8> {
    let content: String =
        (0..100_000u32).map(|at| char::from(b'a' + (at.wrapping_mul(seed.into()) >> 3) as u8 % 26)).collect();
    let names: Vec<String> = (0..30).map(|at| format!("file{seed}-{at}")).collect();
    let members: Vec<Member<'_>> = names.iter().map(|name| Member::file(name, &content)).collect();
    archive(&members)
}

#[test]
fn processes_that_unpack_the_same_image_at_once_make_each_layer_once() {
    let library = Library::new();
    library.import("web", &[large(3), large(5), large(7)], &json!({}));
    let spawn = || library.command(&["diff", "web", "web"]).stdout(Stdio::null()).spawn().unwrap();
    let children: Vec<_> = (0..6).map(|_| spawn()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(library.layers().len(), 3);
    let inodes = |library: &Library| -> Vec<u64> {
        library.layers().iter().map(|layer| fs::metadata(layer).unwrap().ino()).collect()
    };
    let before = inodes(&library);
    library.ok(&["diff", "web", "web"]);
    assert_eq!(inodes(&library), before);
    assert_eq!(fs::read_dir(library.path("data/tmp")).unwrap().count(), 0);
    let (status, value) = library.json(&["fsck"]);
    assert_eq!((status, &value["layers"]), (0, &json!(3)), "{value}");
}

#[test]
fn killed_processes_leave_nothing_that_counts_as_a_layer() {
    let library = Library::new();
    library.import("web", &[large(3), large(5), large(7)], &json!({}));
    for delay in [0, 3, 8, 15, 25, 40] {
        let mut child = library.command(&["diff", "web", "web"]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        for layer in library.layers() {
            assert_eq!(fs::read_dir(&layer).unwrap().count(), 30, "{delay} ms: {layer:?}");
        }
    }
    library.ok(&["diff", "web", "web"]);
    let (status, value) = library.json(&["fsck"]);
    assert_eq!((status, &value["repaired"]), (0, &json!([])), "{value}");
    assert_eq!(fs::read_dir(library.path("data/tmp")).unwrap().count(), 0);
}

#[test]
fn pruning_waits_for_nobody_and_takes_nothing_that_is_on_its_way() {
    let library = Library::new();
    library.import("web", &[large(3), large(5)], &json!({}));
    // Somebody takes in and takes away at the same time, many times over: what has a name is whole.
    let mut busy = 0;
    for round in 0..8 {
        let place = library.path("layout");
        let import = || library.command(&["import", &format!("oci:{}", place.display()), &format!("n{round}")]);
        let mut importing = import().stdout(Stdio::null()).spawn().unwrap();
        let output = library.run(&["prune"]);
        match output.status.code() {
            Some(0) => {}
            _ => {
                busy += 1;
                let told = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(told.contains("another command works with the image store"), "{told}");
            }
        }
        // One that came while the store was held alone waited.
        assert!(importing.wait().unwrap().success());
    }
    let (status, value) = library.json(&["fsck"]);
    assert_eq!(status, 0, "{busy} of 8 were busy: {value}");
    assert_eq!(library.names().len(), 9);
}

#[test]
fn images_of_podman_buildah_and_skopeo_are_taken_in_and_ours_are_read_by_them() {
    let library = Library::new();
    let storage = library.path("storage");
    let tool = |name: &str| {
        let mut command = Command::new(name);
        command.arg("--root").arg(&storage).arg("--runroot").arg(library.path("runroot"));
        command.args(["--storage-driver", "vfs"]);
        command.current_dir(library.folder.path());
        command
    };
    let place = |path: &Path| path.display().to_string();
    // Theirs: made by buildah, saved by podman in both forms.
    let root = library.path("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(root.join("bin/su"), "s").unwrap();
    std::os::unix::fs::chown(root.join("bin/su"), Some(1000), Some(7)).unwrap();
    fs::set_permissions(root.join("bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
    rustix::fs::setxattr(root.join("bin/su"), c"user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    fs::hard_link(root.join("bin/su"), root.join("bin/also")).unwrap();
    std::os::unix::fs::symlink("su", root.join("bin/link")).unwrap();
    let rootfs = image::archive_folder(&root);
    fs::write(library.path("root.tar"), &rootfs).unwrap();
    let container = String::from_utf8(run(tool("buildah").args(["from", "scratch"]))).unwrap();
    let container = container.trim();
    run(tool("buildah").args(["add", "-q", container, "root.tar", "/"]));
    run(tool("buildah").args(["config", "--cmd", "/bin/su", "--env", "A=1", container]));
    run(tool("buildah").args(["commit", "-q", container, "localhost/theirs:1"]));
    for (format, scheme) in [("oci-archive", "oci-archive"), ("docker-archive", "docker-archive")] {
        let file = library.path(format);
        run(tool("podman").args(["save", "-q", "--format", format, "-o", &place(&file), "localhost/theirs:1"]));
        library.ok(&["import", &format!("{scheme}:{}", file.display()), &format!("theirs-{format}")]);
    }
    let (oci, docker) = ("theirs-oci-archive", "theirs-docker-archive");
    let output = library.run(&["diff", oci, docker]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let layer = library.layer_with("bin/su");
    let is_theirs = |root: &Path| {
        let found = fs::metadata(root.join("bin/su")).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid(), found.nlink()), (0o4755, 1000, 7, 2), "{root:?}");
        assert_eq!(fs::read_link(root.join("bin/link")).unwrap(), Path::new("su"));
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(root.join("bin/su"), c"user.note", &mut value).unwrap();
        assert_eq!(&value[..length], b"kept", "{root:?}");
    };
    is_theirs(&layer);
    // Ours: loaded by podman and unpacked by it; copied by skopeo with the same digest.
    library.import("localhost/ours:1", &[rootfs.clone(), upper()], &json!({"Cmd": ["/bin/su"]}));
    let file = library.path("ours.tar");
    library.ok(&["export", "localhost/ours:1", &place(&file)]);
    run(tool("podman").args(["load", "-q", "-i", &place(&file)]));
    let mounted = String::from_utf8(run(tool("podman").args(["image", "mount", "localhost/ours:1"]))).unwrap();
    let mounted = Path::new(mounted.trim());
    is_theirs(mounted);
    assert_eq!(fs::read_to_string(mounted.join("etc/conf")).unwrap(), "two!");
    run(tool("podman").args(["image", "unmount", "localhost/ours:1"]));
    for (from, to) in [("oci-archive", "oci"), ("docker-archive", "dir")] {
        let (from, to) = (format!("{from}:{}", file.display()), format!("{to}:{}", library.path(to).display()));
        run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", &from, &to]));
    }
    let raw = run(Command::new("skopeo").args(["inspect", "--raw", &format!("oci:{}", library.path("oci").display())]));
    let (_, value) = library.json(&["inspect", "localhost/ours:1"]);
    assert_eq!(json!(stack::runtime::image::LayerDigest::of(&raw)), value["image"]["manifest"]);
}
