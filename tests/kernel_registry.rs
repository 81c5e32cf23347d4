//! Images through a real registry: Debian's `docker-registry` on the loopback, with networks that break, and with other
//! tools (skopeo, umoci) at the other end. Needs root, for owners; everything is in temporary folders.

#[path = "support/image.rs"]
mod image;
#[path = "support/registry.rs"]
mod registry;
#[path = "support/tar.rs"]
mod tar;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{Packing, add_to_oci_layout, run};
use registry::{Fate, Proxy, Registry};
use serde_json::json;
use stack::runtime::image::registry::{
    RegistryBlobs, RegistryClient, RegistryError, RegistryOptions, Silent, fetch, push,
};
use stack::runtime::image::{ImageError, ImageOrigin, ImageStore, Reference, StoredImage};
use tar::{Member, archive};

struct Place {
    folder: tempfile::TempDir,
    store: ImageStore,
    client: RegistryClient,
}

impl Place {
    fn new(options: RegistryOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().join("store"));
        Self { folder, store, client: RegistryClient::new(options) }
    }

    fn pull(&self, reference: &Reference) -> Result<Vec<PathBuf>, Box<dyn std::error::Error>> {
        fetch(&self.client, &self.store, (reference, None))?;
        let image = self.store.resolve(&ImageOrigin::Registry { reference: reference.clone() })?;
        let blobs = RegistryBlobs { client: &self.client, store: &self.store, reference, progress: &Silent };
        blobs.unpack(&image)?;
        assert!(self.store.missing_layers(&image).is_empty());
        Ok(self.store.layer_dirs(&image))
    }

    /// Nothing half-made is left, and nothing is held.
    fn is_tidy(&self) {
        for folder in ["tmp", "locks"] {
            let left: Vec<_> = fs::read_dir(self.store.root().join(folder)).into_iter().flatten().flatten().collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, bytes: usize) -> String {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let step = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        char::from(33 + (state >> 33) as u8 % 90)
    };
    std::iter::repeat_with(step).take(bytes).collect()
}

/// Three layers, of which the last hides a file.
fn layout(folder: &Path, packing: Packing) -> PathBuf {
    let path = folder.join("made");
    let (big, other) = (noise(1, 300 << 10), noise(2, 200 << 10));
    let layers = [
        archive(&[Member::folder("bin"), Member::file("bin/big", &big), Member::file("bin/gone", "x")]),
        archive(&[Member::folder("etc"), Member::file("etc/other", &other), Member::symlink("etc/link", "other")]),
        archive(&[
            Member::folder("bin"),
            Member::file("bin/.wh.gone", ""),
            Member { mode: 0o4755, ..Member::file("bin/su", "s") },
        ]),
    ];
    add_to_oci_layout(&path, &layers, packing, &json!({"Cmd": ["/bin/big"]}), Some("made"));
    path
}

fn import(place: &Place, packing: Packing, reference: &Reference) -> StoredImage {
    let path = layout(place.folder.path(), packing);
    place.store.import(&ImageOrigin::OciLayout { path, tag: None }, reference).unwrap()
}

/// An image in a registry, and its digest.
fn published(registry: &Registry, packing: Packing) -> (Reference, StoredImage) {
    let place = Place::new(RegistryOptions::default());
    let reference: Reference = format!("{}/team/web:1", registry.address).parse().unwrap();
    let image = import(&place, packing, &reference);
    push(&place.client, &place.store, (&image, &reference), &|_| {}).unwrap();
    (reference, image)
}

fn at(proxy: &Proxy, reference: &Reference) -> Reference {
    reference.to_string().replace(reference.registry(), &proxy.address.to_string()).parse().unwrap()
}

fn check_tree(dirs: &[PathBuf]) {
    assert_eq!(dirs.len(), 3);
    assert_eq!(fs::read_to_string(dirs[2].join("bin/big")).unwrap(), noise(1, 300 << 10));
    assert_eq!(fs::read_to_string(dirs[1].join("etc/other")).unwrap(), noise(2, 200 << 10));
    assert_eq!(fs::metadata(dirs[0].join("bin/su")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(fs::symlink_metadata(dirs[0].join("bin/gone")).unwrap().rdev(), 0);
}

#[test]
fn what_is_pushed_is_pulled_and_a_second_pull_does_nothing() {
    let registry = Registry::start("");
    for packing in [Packing::Gzip, Packing::Zstd] {
        let (reference, image) = published(&registry, packing);
        let place = Place::new(RegistryOptions::default());
        check_tree(&place.pull(&reference).unwrap());
        let stored = place.store.stored(&reference).unwrap().unwrap();
        assert_eq!((stored.manifest, stored.resolved), (image.manifest, image.manifest));
        let before = fs::metadata(place.store.root().join("layout/index.json")).unwrap().ino();
        check_tree(&place.pull(&reference).unwrap());
        assert_eq!(fs::metadata(place.store.root().join("layout/index.json")).unwrap().ino(), before);
        place.is_tidy();
        // By its digest alone, and a name that is not there.
        let by_digest: Reference = format!("{}/team/web@{}", registry.address, image.manifest).parse().unwrap();
        check_tree(&place.pull(&by_digest).unwrap());
        let absent: Reference = format!("{}/team/none:1", registry.address).parse().unwrap();
        let error = fetch(&place.client, &place.store, (&absent, None)).unwrap_err();
        assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
    }
}

#[test]
fn a_transfer_that_breaks_twenty_times_at_any_byte_comes_through() {
    let registry = Registry::start("");
    let (reference, _) = published(&registry, Packing::Gzip);
    let mut state = 7u64;
    let mut places = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % 25_000
    });
    let cuts: Vec<usize> = places.by_ref().take(20).collect();
    let proxy = Proxy::before(registry.address, cuts.into_iter().map(Fate::Cut));
    let place = Place::new(RegistryOptions::default());
    check_tree(&place.pull(&at(&proxy, &reference)).unwrap());
    let broken = proxy.seen.lock().unwrap().iter().filter(|fate| matches!(fate, Fate::Cut(_))).count();
    assert_eq!(broken, 20);
    place.is_tidy();
}

#[test]
fn servers_that_are_busy_are_asked_again() {
    let registry = Registry::start("");
    let (reference, _) = published(&registry, Packing::Gzip);
    let answer = |status: &str, more: &str| {
        Fate::Answer(format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n"))
    };
    let fates = [
        answer("429 Too Many Requests", "Retry-After: 1\r\n"),
        answer("503 Service Unavailable", ""),
        answer("500 Internal Server Error", ""),
    ];
    let proxy = Proxy::before(registry.address, fates);
    let place = Place::new(RegistryOptions::default());
    let began = std::time::Instant::now();
    check_tree(&place.pull(&at(&proxy, &reference)).unwrap());
    assert!(began.elapsed() >= std::time::Duration::from_secs(1), "Retry-After was not waited for");
    // One that stays so is named, and what is refused is not asked for again.
    let forbidden = Proxy::before(registry.address, vec![answer("403 Forbidden", ""); 2]);
    let error = fetch(&place.client, &place.store, (&at(&forbidden, &reference), None)).unwrap_err();
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
}

#[test]
fn a_flipped_bit_is_noticed_and_fetched_again() {
    let registry = Registry::start("");
    let (reference, _) = published(&registry, Packing::Gzip);
    // In whichever of the answers it falls: documents are small and come first, layers are large.
    let proxy = Proxy::before(registry.address, (0..3).map(|_| Fate::Flip(50_000)));
    let place = Place::new(RegistryOptions::default());
    check_tree(&place.pull(&at(&proxy, &reference)).unwrap());
    place.is_tidy();
}

#[test]
fn blobs_that_stay_damaged_are_refused_by_name_and_leave_nothing() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 3] = [
        ("flipped", |bytes| bytes[20_000] ^= 1),
        ("cut", |bytes| bytes.truncate(20_000)),
        ("longer", |bytes| bytes.push(0)),
    ];
    for (case, damage) in damages {
        let registry = Registry::start("");
        let (reference, _) = published(&registry, Packing::Gzip);
        let place = Place::new(RegistryOptions::default());
        fetch(&place.client, &place.store, (&reference, None)).unwrap();
        let image = place.store.resolve(&ImageOrigin::Registry { reference: reference.clone() }).unwrap();
        let stack::runtime::image::LayerSource::Blob(layer) = &image.layers[0] else { panic!("a blob") };
        let digest = layer.digest.unwrap();
        let path = registry.blob(&digest.hex());
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let blobs =
            RegistryBlobs { client: &place.client, store: &place.store, reference: &reference, progress: &Silent };
        let error = blobs.unpack(&image).unwrap_err();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        let named = text.contains(&digest.hex());
        assert!(named, "{case}: {text}");
        assert!(matches!(error, ImageError::BlobDigest { .. } | ImageError::Read { .. }), "{case}: {text}");
        assert!(place.store.blob(&digest).is_none(), "{case}");
        assert_eq!(fs::read_dir(place.store.root().join("tmp")).unwrap().count(), 0, "{case}");
    }
}

#[test]
fn passwords_are_asked_for_and_found_in_each_kind_of_file() {
    let folder = tempfile::tempdir().unwrap();
    let htpasswd = folder.path().join("htpasswd");
    // `htpasswd -Bbn user secret`
    let Ok(made) = Command::new("htpasswd").args(["-Bbn", "user", "secret"]).output() else {
        panic!("htpasswd, of the Debian package apache2-utils");
    };
    fs::write(&htpasswd, made.stdout).unwrap();
    let registry = Registry::start(&format!("auth:\n  htpasswd: {{realm: test, path: {}}}\n", htpasswd.display()));
    let reference: Reference = format!("{}/team/web:1", registry.address).parse().unwrap();
    let auth = json!({"auths": {registry.address.to_string(): {"auth": "dXNlcjpzZWNyZXQ="}}});
    let wrong = json!({"auths": {registry.address.to_string(): {"auth": "dXNlcjp3cm9uZw=="}}});
    let with = |text: &serde_json::Value| {
        let file = folder.path().join("auth.json");
        fs::write(&file, text.to_string()).unwrap();
        Place::new(RegistryOptions { credentials: vec![file], ..RegistryOptions::default() })
    };
    let place = with(&wrong);
    let image = import(&place, Packing::Gzip, &reference);
    for place in [&place, &Place::new(RegistryOptions::default())] {
        let error = push(&place.client, &place.store, (&image, &reference), &|_| {});
        assert!(error.is_err());
        let error = fetch(&place.client, &place.store, (&reference, None)).unwrap_err();
        assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    }
    let place = with(&auth);
    let image = import(&place, Packing::Gzip, &reference);
    push(&place.client, &place.store, (&image, &reference), &|_| {}).unwrap();
    check_tree(&with(&auth).pull(&reference).unwrap());
}

#[test]
fn a_credential_helper_is_asked_and_tls_carries_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = certificate(folder.path());
    let htpasswd = folder.path().join("htpasswd");
    fs::write(&htpasswd, run(Command::new("htpasswd").args(["-Bbn", "user", "secret"]))).unwrap();
    let registry = Registry::start(&format!(
        "  tls: {{certificate: {}, key: {}}}\nauth:\n  htpasswd: {{realm: test, path: {}}}\n",
        certificate.display(),
        key.display(),
        htpasswd.display()
    ));
    // The helper answers for this registry alone.
    let helper = folder.path().join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread -r name\n[ \"$1 $name\" = \"get {}\" ] || exit 1\necho '{{\"Username\":\"user\",\"Secret\":\"secret\"}}'\n",
        registry.address
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let auth = folder.path().join("config.json");
    fs::write(&auth, json!({"credHelpers": {registry.address.to_string(): "test"}}).to_string()).unwrap();
    let layout = layout(folder.path(), Packing::Gzip);
    let reference = format!("{}/team/web:1", registry.address);
    let settings = folder.path().join("registries.toml");
    let ca = format!("[registry.\"{}\"]\nca = \"{}\"\n", registry.address, certificate.display());
    fs::write(&settings, &ca).unwrap();
    let stack = |data: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stack"));
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        command.env("PATH", path).env("REGISTRY_AUTH_FILE", &auth).env("STACK_REGISTRIES", &settings);
        command.env("STACK_DATA_DIR", folder.path().join(data)).arg("image").args(args).output().unwrap()
    };
    assert!(stack("a", &["import", &format!("oci:{}", layout.display()), &reference]).status.success());
    let pushed = stack("a", &["push", &reference]);
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    assert!(stack("b", &["pull", &reference]).status.success());
    // Without its certificate it is not spoken to, and without a helper that knows it, it refuses.
    fs::write(&settings, "").unwrap();
    let refused = stack("c", &["pull", &reference]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot reach"), "{refused:?}");
    fs::write(&settings, &ca).unwrap();
    fs::write(&helper, "#!/bin/sh\nexit 1\n").unwrap();
    let refused = stack("c", &["pull", &reference]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("refuses access to `team/web`"), "{refused:?}");
    fs::write(&settings, "[registry.x]\n").unwrap();
    assert!(String::from_utf8_lossy(&stack("c", &["ls"]).stderr).contains("names the registry `x`"));
}

#[test]
fn a_token_service_is_asked_for_what_is_to_be_done() {
    let registry = Registry::start("");
    let (reference, image) = published(&registry, Packing::Gzip);
    let gate = registry::TokenGate::before(registry.address, "dXNlcjpzZWNyZXQ=");
    let reference: Reference =
        reference.to_string().replace(reference.registry(), &gate.address.to_string()).parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let auth = folder.path().join("auth.json");
    let entry = json!({"auths": {gate.address.to_string(): {"auth": "dXNlcjpzZWNyZXQ="}}});
    fs::write(&auth, entry.to_string()).unwrap();
    let place = Place::new(RegistryOptions { credentials: vec![auth], ..RegistryOptions::default() });
    check_tree(&place.pull(&reference).unwrap());
    let image = StoredImage { reference: reference.clone(), ..image };
    push(&place.client, &place.store, (&image, &reference), &|_| {}).unwrap();
    let asked = gate.asked.lock().unwrap().clone();
    assert!(asked.iter().any(|query| query.contains("pull") && !query.contains("push")), "{asked:?}");
    assert!(asked.iter().any(|query| query.contains("push")), "{asked:?}");
    // Who has no password gets no token.
    let error = fetch(&Place::new(RegistryOptions::default()).client, &place.store, (&reference, None)).unwrap_err();
    assert!(matches!(error, RegistryError::Status { status: 401, .. } | RegistryError::Denied { .. }), "{error}");
}

#[test]
fn mirrors_are_asked_in_order_and_the_registry_where_they_fail() {
    let (origin, mirror) = (Registry::start(""), Registry::start(""));
    let (reference, image) = published(&origin, Packing::Gzip);
    // Nobody listens at the first; the second has it below a prefix.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let prefix = format!("{}/cache", mirror.address);
    let copy = reference.at_mirror(&prefix).unwrap();
    let place = Place::new(RegistryOptions::default());
    import(&place, Packing::Gzip, &reference);
    push(&place.client, &place.store, (&image, &copy), &|_| {}).unwrap();
    let mirrors = [(reference.registry().to_owned(), vec![gone.to_string(), prefix])];
    let mirrored = || Place::new(RegistryOptions { mirrors: mirrors.clone().into(), ..RegistryOptions::default() });
    // The registry itself has lost a layer: only the mirror can have given it.
    let blobs = |registry: &Registry| -> Vec<PathBuf> {
        let mut found = Vec::new();
        let image = place.store.resolve(&ImageOrigin::Registry { reference: reference.clone() }).unwrap();
        for layer in &image.layers {
            let stack::runtime::image::LayerSource::Blob(layer) = layer else { panic!("a blob") };
            found.push(registry.blob(&layer.digest.unwrap().hex()));
        }
        found
    };
    let lost = blobs(&origin)[0].clone();
    fs::rename(&lost, lost.with_extension("away")).unwrap();
    let first = mirrored();
    check_tree(&first.pull(&reference).unwrap());
    assert_eq!(first.store.stored(&reference).unwrap().unwrap().resolved, image.manifest);
    fs::rename(lost.with_extension("away"), &lost).unwrap();
    // A mirror that lacks a layer, has it damaged, or has nothing at all.
    let damaged = blobs(&mirror);
    fs::remove_file(&damaged[0]).unwrap();
    let mut bytes = fs::read(&damaged[1]).unwrap();
    bytes[10_000] ^= 1;
    fs::write(&damaged[1], bytes).unwrap();
    let second = mirrored();
    check_tree(&second.pull(&reference).unwrap());
    second.is_tidy();
    drop(mirror);
    check_tree(&mirrored().pull(&reference).unwrap());
}

#[test]
fn skopeo_and_umoci_read_ours_and_we_read_theirs() {
    let registry = Registry::start("");
    let (reference, image) = published(&registry, Packing::Gzip);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // Ours, from the registry and from an exported archive.
    let from_registry = format!("oci:{}:a", path("theirs"));
    run(Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--src-tls-verify=false"])
        .args([&format!("docker://{reference}"), &from_registry]));
    let place = Place::new(RegistryOptions::default());
    place.pull(&reference).unwrap();
    let stored = place.store.stored(&reference).unwrap().unwrap();
    place.store.export(&stored, Path::new(&path("out.tar"))).unwrap();
    let archive = format!("oci-archive:{}", path("out.tar"));
    let from_archive = format!("oci:{}:b", path("theirs"));
    run(Command::new("skopeo").args(["--insecure-policy", "copy", &archive, &from_archive]));
    for tag in ["a", "b"] {
        let bundle = path(&format!("bundle-{tag}"));
        run(Command::new("umoci").args(["unpack", "--image", &format!("{}:{tag}", path("theirs")), &bundle]));
        let root = Path::new(&bundle).join("rootfs");
        assert_eq!(fs::read_to_string(root.join("bin/big")).unwrap(), noise(1, 300 << 10));
        assert_eq!(fs::metadata(root.join("bin/su")).unwrap().mode() & 0o7777, 0o4755);
        assert!(!root.join("bin/gone").exists());
    }
    // The store's layout is one that others read in place.
    let in_place = format!("oci:{}/layout:{reference}", place.store.root().display());
    let told = run(Command::new("skopeo").args(["inspect", "--raw", &in_place]));
    assert_eq!(stack::runtime::image::LayerDigest::of(&told), image.manifest);
    // Theirs: docker's own media types, pushed by skopeo.
    let other: Reference = format!("{}/theirs/web:2", registry.address).parse().unwrap();
    let target = format!("docker://{other}");
    run(Command::new("skopeo").args([
        "--insecure-policy",
        "copy",
        "--dest-tls-verify=false",
        "--format",
        "v2s2",
        &from_registry,
        &target,
    ]));
    check_tree(&Place::new(RegistryOptions::default()).pull(&other).unwrap());
}

#[test]
fn a_list_is_followed_to_this_host_and_artifacts_are_refused() {
    let registry = Registry::start("");
    let (reference, image) = published(&registry, Packing::Gzip);
    let place = Place::new(RegistryOptions::default());
    let stored = place.store.stored(&reference).unwrap();
    assert!(stored.is_none());
    let url = |name: &str| format!("http://{}/v2/team/web/manifests/{name}", registry.address);
    let put = |name: &str, media_type: &str, body: &serde_json::Value| {
        let agent = ureq::agent();
        let answer = agent.put(url(name)).header("content-type", media_type).send(body.to_string()).unwrap();
        assert_eq!(answer.status(), 201);
    };
    let size = fs::metadata(registry.blob(&image.manifest.hex())).unwrap().len();
    let entry = |architecture: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.manifest, "size": size,
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let list = |entries: Vec<serde_json::Value>| {
        json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
        })
    };
    let index = "application/vnd.oci.image.index.v1+json";
    put("list", index, &list(vec![entry("s390x"), entry(image::architecture())]));
    put("other", index, &list(vec![entry("s390x")]));
    let named = |tag: &str| -> Reference { format!("{}/team/web:{tag}", registry.address).parse().unwrap() };
    check_tree(&place.pull(&named("list")).unwrap());
    let stored = place.store.stored(&named("list")).unwrap().unwrap();
    assert_eq!(stored.manifest, image.manifest);
    assert_ne!(stored.resolved, image.manifest);
    let error = fetch(&place.client, &place.store, (&named("other"), None)).unwrap_err();
    assert!(matches!(&error, RegistryError::Platform { found, .. } if found == "linux/s390x"), "{error}");
    let raw: serde_json::Value =
        serde_json::from_slice(&fs::read(registry.blob(&image.manifest.hex())).unwrap()).unwrap();
    let mut artifact = raw;
    artifact["config"]["mediaType"] = json!("application/vnd.example.chart");
    artifact["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
    put("chart", "application/vnd.oci.image.manifest.v1+json", &artifact);
    let error = fetch(&place.client, &place.store, (&named("chart"), None)).unwrap_err();
    assert!(matches!(&error, RegistryError::NotAnImage { media_type, .. } if media_type.ends_with("chart")), "{error}");
}

/// A key, and a certificate for the loopback that it signed itself.
fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let (key, certificate) = (folder.join("key.pem"), folder.join("cert.pem"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate));
    (key, certificate)
}

#[test]
fn https_needs_a_certificate_that_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (key, certificate) = certificate(folder.path());
    let registry =
        Registry::start(&format!("  tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display()));
    let reference: Reference = format!("{}/team/web:1", registry.address).parse().unwrap();
    let trusting = || Place::new(RegistryOptions { certificates: vec![certificate.clone()], ..Default::default() });
    let place = trusting();
    let image = import(&place, Packing::Gzip, &reference);
    push(&place.client, &place.store, (&image, &reference), &|_| {}).unwrap();
    check_tree(&trusting().pull(&reference).unwrap());
    let place = Place::new(RegistryOptions::default());
    let error = fetch(&place.client, &place.store, (&reference, None)).unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
}
