//! Ring 5: containers from every kind of image, and what an image's configuration asks for.

#[path = "support/image.rs"]
mod image;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::fs;
use std::path::{Path, PathBuf};

use image::{Packing, add_to_oci_layout, archive_folder, docker_archive};
use sandbox::Sandbox;
use serde_json::{Value, json};
use shop::{apply, assert_says, output_of};

/// A root file system with busybox and a user of its own.
fn busybox(host: &Sandbox) -> PathBuf {
    let folder = host.path().join("rootfs");
    fs::create_dir_all(folder.join("bin")).unwrap();
    fs::create_dir_all(folder.join("etc")).unwrap();
    fs::create_dir_all(folder.join("srv/app")).unwrap();
    fs::copy("/usr/bin/busybox", folder.join("bin/busybox")).expect("busybox-static is installed");
    for program in ["sh", "echo", "id", "pwd", "env", "cat", "ls", "touch", "sleep"] {
        std::os::unix::fs::symlink("busybox", folder.join("bin").join(program)).unwrap();
    }
    fs::write(folder.join("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1234:1235::/srv/app:/bin/sh\n").unwrap();
    fs::write(folder.join("etc/group"), "root:x:0:\napp:x:1235:\nextra:x:77:app\n").unwrap();
    folder
}

fn config() -> Value {
    json!({
        "Env": ["PATH=/bin", "COLOUR=blue", "SIZE=small"],
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["echo user $(id -u):$(id -g) $(id -G) in $(pwd) colour $COLOUR size $SIZE"],
        "User": "app",
        "WorkingDir": "/srv/app",
    })
}

const SAID: &str = "user 1234:1235 1235 77 in /srv/app colour blue size small";

fn stack_of(image: &str, more: &str) -> String {
    format!("name = \"shop\"\n[image.tool]\nfrom = \"{image}\"\n[container.job]\nimage = \"tool\"\n{more}\n")
}

/// What a container of this image writes.
fn said(host: &Sandbox, image: &str, more: &str) -> String {
    host.write("stack.toml", &stack_of(image, more));
    host.ok(&["up"]);
    let output = output_of(host, "job");
    shop::assert_in_sync(host);
    host.ok(&["down"]);
    // Logs outlive containers.
    fs::remove_dir_all(host.data_dir().join("logs")).unwrap();
    output
}

fn layout(host: &Sandbox, packing: Packing) -> PathBuf {
    let place = host.path().join("layout");
    add_to_oci_layout(&place, &[archive_folder(&busybox(host))], packing, &config(), Some("v1"));
    place
}

#[test]
fn a_folder_is_an_image_and_is_never_written_to() {
    let host = Sandbox::new();
    let folder = busybox(&host);
    let command = "command = [\"/bin/sh\", \"-c\", \"touch /made; echo made > /etc/passwd; ls /\"]";
    assert_says(&said(&host, "dir:rootfs", command), &["made", "srv", "proc"]);
    assert!(!folder.join("made").exists());
    assert_says(&fs::read_to_string(folder.join("etc/passwd")).unwrap(), &["app"]);
}

#[test]
fn an_oci_layout_runs_as_its_configuration_says() {
    let host = Sandbox::new();
    layout(&host, Packing::Gzip);
    assert_eq!(said(&host, "oci:layout:v1", ""), SAID);
}

#[test]
fn layers_may_be_packed_with_zstd_or_not_at_all() {
    for packing in [Packing::Zstd, Packing::None] {
        let host = Sandbox::new();
        layout(&host, packing);
        assert_eq!(said(&host, "oci:layout", ""), SAID, "{packing:?}");
    }
}

#[test]
fn an_oci_archive_runs_as_its_configuration_says() {
    let host = Sandbox::new();
    fs::write(host.path().join("image.tar"), archive_folder(&layout(&host, Packing::Gzip))).unwrap();
    assert_eq!(said(&host, "oci-archive:image.tar:v1", ""), SAID);
}

#[test]
fn a_docker_archive_runs_as_its_configuration_says() {
    let host = Sandbox::new();
    let layer = archive_folder(&busybox(&host));
    docker_archive(&host.path().join("image.tar"), &[layer], &config(), "tool:v1");
    assert_eq!(said(&host, "docker-archive:image.tar:tool:v1", ""), SAID);
}

#[test]
fn the_stack_file_outranks_the_image() {
    let host = Sandbox::new();
    layout(&host, Packing::Gzip);
    let more = "env = { COLOUR = \"green\" }\nuser = \"0\"\nworkdir = \"/etc\"";
    let output = said(&host, "oci:layout", more);
    assert_says(&output, &["user 0:0", "in /etc", "colour green size small"]);
    // An entry point of the file clears the image's command.
    assert_eq!(said(&host, "oci:layout", "entrypoint = [\"/bin/echo\", \"mine\"]"), "mine");
    assert_eq!(said(&host, "oci:layout", "command = [\"echo theirs\"]"), "theirs");
}

#[test]
fn an_upper_layer_hides_what_it_deletes() {
    let host = Sandbox::new();
    let lower = archive_folder(&busybox(&host));
    let folder = host.path().join("second");
    fs::create_dir_all(folder.join("etc")).unwrap();
    fs::write(folder.join("etc/.wh.group"), "").unwrap();
    fs::write(folder.join("etc/added"), "").unwrap();
    let upper = archive_folder(&folder);
    let config = json!({"Cmd": ["/bin/ls", "/etc"], "Env": ["PATH=/bin"]});
    add_to_oci_layout(&host.path().join("layout"), &[lower, upper], Packing::Gzip, &config, None);
    let listed = said(&host, "oci:layout", "");
    assert_says(&listed, &["added", "passwd"]);
    assert!(!listed.contains("group") && !listed.contains(".wh."), "{listed}");
}

/// The only blob of a layout that is as large as busybox.
fn layer_blob(layout: &Path) -> PathBuf {
    let blobs = fs::read_dir(layout.join("blobs/sha256")).unwrap();
    blobs.map(|entry| entry.unwrap().path()).max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

/// Every path below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(below(&path));
        }
        found.push(path);
    }
    found
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused_and_leaves_nothing() {
    let host = Sandbox::new();
    let blob = layer_blob(&layout(&host, Packing::None));
    let mut bytes = fs::read(&blob).unwrap();
    let last = bytes.len() - 2000;
    bytes[last] ^= 1;
    fs::write(&blob, bytes).unwrap();
    host.write("stack.toml", &stack_of("oci:layout", ""));
    let outcome = host.stack(&["up"]);
    assert_eq!(outcome.code, 1, "{}\n{}", outcome.stdout, outcome.stderr);
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert_says(&said, &[blob.file_name().unwrap().to_str().unwrap(), "instead of sha256:"]);
    assert!(pids_of_job(&host).is_none());
    let left: Vec<PathBuf> = below(&host.data_dir())
        .into_iter()
        .filter(|path| path.ends_with("busybox") || path.ends_with("passwd"))
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    // With the layer as it should be the same command goes through.
    fs::remove_dir_all(host.path().join("layout")).unwrap();
    fs::remove_dir_all(host.path().join("rootfs")).unwrap();
    layout(&host, Packing::None);
    host.ok(&["up"]);
    assert_eq!(output_of(&host, "job"), SAID);
}

fn pids_of_job(host: &Sandbox) -> Option<i64> {
    shop::pids(host).get("job").copied()
}

#[test]
fn a_manifest_that_is_not_what_its_digest_says_is_refused() {
    let host = Sandbox::new();
    let place = layout(&host, Packing::Gzip);
    let index: Value = serde_json::from_slice(&fs::read(place.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_string();
    let blob = place.join("blobs/sha256").join(&digest);
    let text = fs::read_to_string(&blob).unwrap();
    fs::write(&blob, text.replacen("schemaVersion\":2", "schemaVersion\":3", 1)).unwrap();
    host.write("stack.toml", &stack_of("oci:layout", ""));
    let outcome = host.stack(&["up"]);
    assert!(matches!(outcome.code, 1 | 3), "{outcome:?}");
    assert_says(&outcome.stderr, &[&digest, "instead of sha256:"]);
    assert!(
        !host.data_dir().join("layers").exists() || below(&host.data_dir()).iter().all(|p| !p.ends_with("busybox"))
    );
}

#[test]
fn a_layer_is_unpacked_once_for_all_images_that_have_it() {
    let host = Sandbox::new();
    let layer = archive_folder(&busybox(&host));
    for (place, command) in [("one", "echo one"), ("two", "echo two")] {
        let mut config = config();
        config["Cmd"] = json!([command]);
        add_to_oci_layout(&host.path().join(place), std::slice::from_ref(&layer), Packing::Gzip, &config, None);
    }
    apply(
        &host,
        "name = \"shop\"\n[container.a]\nimage = \"oci:one\"\n[container.b]\nimage = \"oci:two\"\n\
         [container.c]\nimage = \"oci:two\"\n",
    );
    assert_eq!([output_of(&host, "a"), output_of(&host, "b"), output_of(&host, "c")], ["one", "two", "two"]);
    let copies = below(&host.data_dir()).into_iter().filter(|path| path.ends_with("bin/busybox")).count();
    assert_eq!(copies, 1);
}

#[test]
fn another_image_under_the_same_name_makes_a_new_container() {
    let host = Sandbox::new();
    let layer = archive_folder(&busybox(&host));
    let place = host.path().join("layout");
    let write = |command: &str| {
        let _ = fs::remove_dir_all(&place);
        let config = json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": [command], "Env": ["PATH=/bin"]});
        add_to_oci_layout(&place, std::slice::from_ref(&layer), Packing::Gzip, &config, None);
    };
    write("echo first; exec sleep 1000");
    apply(&host, &stack_of("oci:layout", ""));
    let before = shop::pids(&host);
    write("echo second; exec sleep 1000");
    shop::assert_repaired(&host, &["container job", "replace", "image", "→"], &before, &["job"]);
    sandbox::until("the new one speaks", || host.ok(&["logs", "job"]).contains("second"));
}

#[test]
fn an_image_that_is_not_there_says_so() {
    let host = Sandbox::new();
    host.write("stack.toml", &stack_of("oci:nowhere", ""));
    let outcome = host.stack(&["up"]);
    assert!(matches!(outcome.code, 1 | 3), "{outcome:?}");
    assert_says(&outcome.stderr, &["nowhere"]);
    let place = layout(&host, Packing::Gzip);
    assert!(place.exists());
    host.write("stack.toml", &stack_of("oci:layout:v9", ""));
    let outcome = host.stack(&["up"]);
    assert_ne!(outcome.code, 0);
    assert_says(&outcome.stderr, &["v9"]);
}
