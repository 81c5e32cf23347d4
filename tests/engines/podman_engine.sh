cat >"$HERE/containers.conf" <<END
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
END
export CONTAINERS_CONF="$HERE/containers.conf"
# A program and not a function: `script` runs it too.
mkdir "$HERE/bin"
cat >"$HERE/bin/podman" <<END
#!/bin/sh
exec /usr/bin/podman --runtime "$HERE/stack-oci" --cgroup-manager cgroupfs --root "$HERE/root" --runroot "$HERE/run" \
    --tmpdir "$HERE/tmp" --storage-driver vfs "\$@"
END
chmod +x "$HERE/bin/podman"
PATH="$HERE/bin:$PATH"
trap 'podman rm -fa -t 0 >/dev/null 2>&1; podman rmi -fa >/dev/null 2>&1' EXIT
podman import -q "$HERE/image.tar" image >/dev/null
confined="--network none --cgroup-parent /$GROUP"
run="podman run --rm $confined"
