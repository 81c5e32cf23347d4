//! `up` with images of a registry: what is locked, renewed and never pulled, and what goes on meanwhile. The registry runs in
//! the sandbox's own network.

#[path = "support/image.rs"]
mod image;
#[path = "support/sandbox.rs"]
mod sandbox;
#[path = "support/shop.rs"]
mod shop;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use image::{Packing, add_to_oci_layout, archive_folder};
use sandbox::Sandbox;
use serde_json::json;
use shop::{assert_in_sync, assert_says};

const REGISTRY: &str = "127.0.0.1:5000";

/// A registry in the network of a sandbox; it ends with its value.
struct Registry<'a> {
    host: &'a Sandbox,
    child: Child,
}

impl<'a> Registry<'a> {
    fn start(host: &'a Sandbox) -> Self {
        let data = host.path().join("registry");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp:\n  addr: {REGISTRY}\n",
            data.display()
        );
        let file = host.write("registry.yml", &config);
        let mut command = host.inside("docker-registry");
        command.arg("serve").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("docker-registry, of the Debian package of that name");
        let registry = Self { host, child };
        sandbox::until("the registry answers", || {
            let mut curl = host.inside("curl");
            curl.args(["-sf", "-o", "/dev/null"]).arg(format!("http://{REGISTRY}/v2/")).status().unwrap().success()
        });
        registry
    }

    /// Puts an image that says `text` under a name, from a store that is not the host's.
    fn publish(&self, name: &str, text: &str) {
        let place = self.host.path().join("made");
        let _ = fs::remove_dir_all(&place);
        let root = self.host.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        if !root.join("bin/busybox").exists() {
            fs::copy("/usr/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
            std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
        }
        fs::write(root.join("text"), text).unwrap();
        let config = json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": [format!("echo {text}; exec busybox sleep 1000")], "Env": ["PATH=/bin"]});
        add_to_oci_layout(&place, &[archive_folder(&root)], Packing::Gzip, &config, None);
        let reference = format!("{REGISTRY}/{name}");
        let other = self.host.path().join("other").display().to_string();
        self.host.ok(&["--data-dir", &other, "image", "import", &format!("oci:{}", place.display()), &reference]);
        self.host.ok(&["--data-dir", &other, "image", "push", &reference]);
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stack_of(pull: &str) -> String {
    format!(
        "name = \"shop\"\n[image.web]\nfrom = \"{REGISTRY}/team/web:1\"\npull = \"{pull}\"\n[container.job]\nimage = \"web\"\n"
    )
}

fn lock(host: &Sandbox) -> String {
    fs::read_to_string(host.path().join("stack.lock")).unwrap()
}

fn says(host: &Sandbox, text: &str) {
    sandbox::until(text, || host.ok(&["logs", "job"]).lines().last().is_some_and(|line| line.ends_with(text)));
}

#[test]
fn one_goes_back_to_an_image_whose_tag_has_moved_also_when_its_registry_is_gone() {
    let host = Sandbox::new();
    let registry = Registry::start(&host);
    registry.publish("team/web:1", "first");
    host.write("stack.toml", &stack_of("missing"));
    host.ok(&["up"]);
    says(&host, "first");
    registry.publish("team/web:1", "second");
    host.ok(&["up", "--pull"]);
    says(&host, "second");
    drop(registry);
    host.ok(&["image", "prune", "--all"]);
    host.ok(&["rollback"]);
    says(&host, "first");
    host.ok(&["image", "prune", "--all"]);
    host.ok(&["up"]);
    says(&host, "second");
    assert_in_sync(&host);
}

#[test]
fn a_reference_is_locked_used_and_renewed() {
    let host = Sandbox::new();
    let registry = Registry::start(&host);
    registry.publish("team/web:1", "first");
    host.write("stack.toml", &stack_of("missing"));
    let shown = host.stack(&["diff"]);
    assert_eq!(shown.code, 2, "{shown:?}");
    assert_says(&shown.stdout, &["image web", "layer"]);
    assert!(!host.path().join("stack.lock").exists(), "`diff` writes no lock");
    host.ok(&["up"]);
    says(&host, "first");
    assert_in_sync(&host);
    let (first, before) = (lock(&host), shop::pids(&host));
    assert_says(&first, &[&format!("{REGISTRY}/team/web:1"), "sha256:"]);
    // The tag moves: what is locked stays.
    registry.publish("team/web:1", "second");
    host.ok(&["up"]);
    assert_in_sync(&host);
    assert_eq!((lock(&host), shop::pids(&host)), (first.clone(), before));
    host.ok(&["up", "--pull"]);
    says(&host, "second");
    assert_ne!(lock(&host), first);
    assert_in_sync(&host);
    // On a host that never saw the first one, the lock leads to it.
    host.ok(&["down"]);
    fs::remove_dir_all(host.data_dir()).unwrap();
    fs::write(host.path().join("stack.lock"), &first).unwrap();
    host.ok(&["up"]);
    says(&host, "first");
    assert_eq!(lock(&host), first);
    // With `always` the registry is asked each time, and `diff` shows what it would change.
    host.write("stack.toml", &stack_of("always"));
    let shown = host.stack(&["diff"]);
    assert_eq!(shown.code, 2, "{shown:?}");
    assert_says(&shown.stdout, &["container job", "replace", "image"]);
    host.ok(&["up"]);
    says(&host, "second");
    // With `never` nobody is asked: what is there is used, and what is not is told.
    drop(registry);
    host.write("stack.toml", &stack_of("never"));
    host.ok(&["up"]);
    host.ok(&["down"]);
    fs::remove_dir_all(host.data_dir()).unwrap();
    let refused = host.stack(&["up"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert_says(&refused.stderr, &["not in the store", "`pull` is \"never\""]);
}

/// The largest blob of the registry that holds this image's layer; damaged, it can be pulled by nobody.
fn newest_blob(host: &Sandbox) -> PathBuf {
    let mut found = Vec::new();
    let mut folders = vec![host.path().join("registry/docker/registry/v2/blobs")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    let large = |path: &Path| path.metadata().unwrap().len() > 100_000;
    found.retain(|path| large(path));
    found.into_iter().max_by_key(|path| path.metadata().unwrap().modified().unwrap()).unwrap()
}

#[test]
fn what_runs_goes_on_until_its_new_image_is_there_and_nobody_else_waits_for_it() {
    let host = Sandbox::new();
    let registry = Registry::start(&host);
    registry.publish("team/web:1", "first");
    host.write("stack.toml", &stack_of("missing"));
    host.ok(&["up"]);
    says(&host, "first");
    let before = shop::pids(&host);
    registry.publish("team/web:1", "second");
    let blob = newest_blob(&host);
    let whole = fs::read(&blob).unwrap();
    let mut damaged = whole.clone();
    damaged[50_000] ^= 1;
    fs::write(&blob, damaged).unwrap();
    let more = "[container.other]\nimage = \"host:\"\ncommand = [\"sleep\", \"1000\"]\n";
    host.write("stack.toml", &format!("{}{more}", stack_of("missing")));
    let outcome = host.stack(&["up", "--pull"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_says(&outcome.stderr, &["image web", "instead of sha256:"]);
    let after = shop::pids(&host);
    assert_eq!(after["job"], before["job"], "the old one runs as before");
    assert!(after.contains_key("other"), "{after:?}");
    fs::write(&blob, whole).unwrap();
    host.ok(&["up", "--pull"]);
    says(&host, "second");
    assert_eq!(shop::pids(&host)["other"], after["other"]);
    assert_in_sync(&host);
}
