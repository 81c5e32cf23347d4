#!/bin/bash
# Pulls and unpacks an image of several hundred megabytes from a registry on the loopback, against the floor: `tar x` of
# the same layers, side by side. All on one loop-mounted ext4 with a journal, candidates alternating, medians.
#
#   benches/pull.sh STACK [ROUNDS]
#
# Needs root, and Debian's docker-registry, pigz and e2fsprogs. With podman installed it is measured too.
set -euo pipefail
if [ "${INSIDE:-}" != yes ]; then exec unshare --mount --propagation private env INSIDE=yes bash "$0" "$@"; fi
stack=$(realpath "$1"); rounds=${2:-3}
work=$(mktemp -d); port=5$((RANDOM % 900 + 100)); registry=
end() { [ -n "$registry" ] && kill "$registry" 2>/dev/null; umount "$work/disk" 2>/dev/null; rm -rf "$work"; }
trap end EXIT
mkdir "$work/disk" "$work/oci" && mkdir -p "$work/oci/blobs/sha256"
truncate -s 6G "$work/disk.img"; mkfs.ext4 -q "$work/disk.img"; mount -o loop "$work/disk.img" "$work/disk"

sum() { sha256sum "$1" | cut -d' ' -f1; }
add() { # FILE → its digest and size, with the file in the layout
    local digest; digest=$(sum "$1"); echo "$digest $(stat -c %s "$1")"; mv "$1" "$work/oci/blobs/sha256/$digest"
}
layers= diffs= archives=() plain=0
for tree in usr/include usr/lib/gcc usr/libexec usr/lib/python3 usr/sbin usr/share/locale usr/share/perl usr/share/doc; do
    [ -e "/$tree" ] || continue
    tar -C / -cf "$work/layer" --sort=name "$tree"
    plain=$((plain + $(stat -c %s "$work/layer")))
    diffs+="\"sha256:$(sum "$work/layer")\","
    pigz -6 -c "$work/layer" > "$work/layer.gz"
    read -r digest size < <(add "$work/layer.gz")
    archives+=("$work/oci/blobs/sha256/$digest")
    layers+="{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$digest\",\"size\":$size},"
done
arch=$(dpkg --print-architecture)
echo "{\"os\":\"linux\",\"architecture\":\"$arch\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[${diffs%,}]}}" > "$work/c"
read -r digest size < <(add "$work/c")
echo "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:$digest\",\"size\":$size},\"layers\":[${layers%,}]}" > "$work/m"
read -r digest size < <(add "$work/m")
echo '{"imageLayoutVersion":"1.0.0"}' > "$work/oci/oci-layout"
echo "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:$digest\",\"size\":$size}]}" > "$work/oci/index.json"

cat > "$work/registry.yml" <<Y
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:$port"}
Y
docker-registry serve "$work/registry.yml" > /dev/null 2>&1 & registry=$!
sleep 1
image=127.0.0.1:$port/bench:1
"$stack" --data-dir "$work/data" image import "oci:$work/oci" "$image" > /dev/null
"$stack" --data-dir "$work/data" image push "$image" > /dev/null 2>&1
rm -rf "$work/data"

measure() { # NAME COMMAND…: its wall time into $work/NAME
    local name=$1; shift
    sync
    local began; began=$(date +%s%N)
    "$@" > /dev/null 2> "$work/err" || { cat "$work/err"; exit 1; }
    echo $(( ($(date +%s%N) - began) / 1000000 )) >> "$work/$name.ms"
}
pull() { "$stack" --data-dir "$work/disk/data" image pull "$image"; }
floor() {
    local at=0 threads=()
    for archive in "${archives[@]}"; do
        at=$((at + 1)); mkdir -p "$work/disk/floor/$at"
        tar -C "$work/disk/floor/$at" -xzf "$archive" & threads+=($!)
    done
    wait "${threads[@]}"; sync -f "$work/disk"
}
podman_pull() { podman --root "$work/disk/podman" --runroot "$work/podman" --storage-driver overlay pull -q --tls-verify=false "$image"; }
for _ in $(seq "$rounds"); do
    measure stack pull; measure noop pull; rm -rf "$work/disk/data"
    measure floor floor; rm -rf "$work/disk/floor"
    if command -v podman > /dev/null; then measure podman podman_pull; rm -rf "$work/disk/podman"; fi
done
median() { sort -n "$work/$1.ms" | sed -n "$(( (rounds + 1) / 2 ))p"; }
echo "image: $((plain / 1000000)) MB in ${#archives[@]} gzip layers; ext4 with a journal; load $(cut -d' ' -f1 /proc/loadavg)"
for candidate in stack noop floor podman; do
    [ -f "$work/$candidate.ms" ] && echo "$candidate: $(median "$candidate") ms, $(( $(median "$candidate") * 100 / $(median floor) )) % of the floor"
done
true
