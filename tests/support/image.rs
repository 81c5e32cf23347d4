//! Makes images for tests out of folders or of archives in memory: OCI layouts, OCI archives and docker archives.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use stack::runtime::image::LayerDigest;

/// How layers are stored in a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    None,
    Gzip,
    Zstd,
}

/// A tar archive (pax, with extended attributes, numeric owners) of all that is in `folder`.
pub fn archive_folder(folder: &Path) -> Vec<u8> {
    run(Command::new("tar")
        .args(["--create", "--format=pax", "--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*"])
        .arg("--directory")
        .arg(folder)
        .arg("."))
}

/// What a command writes to its standard output; it must succeed.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The architecture of this host in Go's names.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// An OCI layout at `place` with one layer made of `folder`; `config` is the inner object, such as
/// `{"Cmd": ["/bin/sh"]}`.
pub fn oci_layout_of_folder(place: &Path, folder: &Path, config: &Value) {
    add_to_oci_layout(place, &[archive_folder(folder)], Packing::Gzip, config, None);
}

/// Adds an image of uncompressed layer archives, lowest first, to the OCI layout at `place`, which is made where it is
/// not there. Gives the digest of the configuration.
pub fn add_to_oci_layout(
    place: &Path,
    layers: &[Vec<u8>],
    packing: Packing,
    config: &Value,
    tag: Option<&str>,
) -> LayerDigest {
    fs::create_dir_all(place.join("blobs/sha256")).unwrap();
    fs::write(place.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let suffix = match packing {
        Packing::None => "",
        Packing::Gzip => "+gzip",
        Packing::Zstd => "+zstd",
    };
    let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
    let descriptors: Vec<Value> =
        layers.iter().map(|layer| write_blob(place, &media_type, &pack(layer, packing))).collect();
    let config_file = serde_json::to_vec(&config_file(layers, config)).unwrap();
    let config = write_blob(place, "application/vnd.oci.image.config.v1+json", &config_file);
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": descriptors});
    let mut descriptor = write_blob(place, media_type, &serde_json::to_vec(&manifest).unwrap());
    if let Some(tag) = tag {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
    }
    add_to_index(place, descriptor);
    LayerDigest::of(&config_file)
}

/// Adds a descriptor to `index.json`.
pub fn add_to_index(place: &Path, descriptor: Value) {
    let file = place.join("index.json");
    let mut index: Value = match fs::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => json!({"schemaVersion": 2, "manifests": []}),
    };
    index["manifests"].as_array_mut().unwrap().push(descriptor);
    fs::write(&file, serde_json::to_vec(&index).unwrap()).unwrap();
}

/// Writes a blob into a layout and gives its descriptor.
pub fn write_blob(place: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = LayerDigest::of(bytes);
    fs::write(place.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

/// A docker archive at `file`, in the form of docker before version 25.
pub fn docker_archive(file: &Path, layers: &[Vec<u8>], config: &Value, tag: &str) -> LayerDigest {
    let folder = tempfile::tempdir().unwrap();
    let config_file = serde_json::to_vec(&config_file(layers, config)).unwrap();
    let id = LayerDigest::of(&config_file);
    fs::write(folder.path().join(format!("{}.json", id.hex())), config_file).unwrap();
    let mut names: Vec<String> = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let name = format!("layer{at}");
        fs::create_dir(folder.path().join(&name)).unwrap();
        let place = folder.path().join(&name).join("layer.tar");
        // A layer that occurs twice is a link to the first, as docker writes it.
        match layers[..at].iter().position(|earlier| earlier == layer) {
            Some(first) => std::os::unix::fs::symlink(format!("../layer{first}/layer.tar"), place).unwrap(),
            None => fs::write(place, layer).unwrap(),
        }
        names.push(format!("{name}/layer.tar"));
    }
    let manifest = json!([{"Config": format!("{}.json", id.hex()), "RepoTags": [tag], "Layers": names}]);
    fs::write(folder.path().join("manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    fs::write(file, archive_folder(folder.path())).unwrap();
    id
}

/// Bytes as a layout stores them.
pub fn pack(bytes: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::None => bytes.to_vec(),
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Packing::Zstd => zstd::encode_all(bytes, 1).unwrap(),
    }
}

fn config_file(layers: &[Vec<u8>], config: &Value) -> Value {
    let diff_ids: Vec<LayerDigest> = layers.iter().map(|layer| LayerDigest::of(layer)).collect();
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    json!({"os": "linux", "architecture": architecture(), "config": config, "rootfs": rootfs})
}
