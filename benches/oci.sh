#!/bin/sh
# The whole life of a container of `true` with all namespaces, cgroup limits and a default seccomp profile: this runtime against
# Debian's crun and runc and against the floor, same bundle, alternating, in one run. Ratios count; the milliseconds do not. Then the
# peak memory of each: the largest resident set among its processes.
# usage: benches/oci.sh [ROUNDS] [BINARY]     needs root, busybox-static, gcc, python3, crun, runc
set -eu
here=$(cd "$(dirname "$0")" && pwd)
rounds=${1:-50}
binary=${2:-$(ls "$here"/../target/*/release/stack "$here"/../target/release/stack 2>/dev/null | head -1)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cc -O2 -static -o "$work/floor" "$here/floor.c"
cc -O2 -static -o "$work/peak" "$here/peak.c"
ln -s "$(readlink -f "$binary")" "$work/stack-oci"
mkdir -p "$work/rootfs/bin" "$work/rootfs/proc" "$work/rootfs/dev" "$work/rootfs/sys"
# crun sets standard streams' owner, which must be one in the root.
printf 'int main(void) { return 0; }\n' >"$work/true.c"
cc -O2 -static -o "$work/rootfs/bin/true" "$work/true.c"
python3 - "$work" <<'END'
import json, os, sys
seccomp = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": []}
profile = "/usr/share/containers/seccomp.json"
if os.path.exists(profile):
    for rule in json.load(open(profile))["syscalls"]:
        includes = rule.get("includes") or {}
        if includes.get("caps") or includes.get("minKernel") or rule.get("action") != "SCMP_ACT_ALLOW":
            continue
        if includes.get("arches") and "amd64" not in includes["arches"]:
            continue
        known = {"names": rule["names"], "action": rule["action"]}
        if rule.get("args"):
            known["args"] = [{k: v for k, v in a.items() if k in ("index", "value", "valueTwo", "op")} for a in rule["args"]]
        seccomp["syscalls"].append(known)
namespaces = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")]
sets = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"]
mount = lambda where, kind, *options: {"destination": where, "type": kind, "source": kind, "options": list(options)}
config = {
    "ociVersion": "1.0.2",
    "root": {"path": "rootfs", "readonly": True},
    "process": {"cwd": "/", "args": ["/bin/true"], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}, "noNewPrivileges": True,
                "capabilities": {"bounding": sets, "effective": sets, "permitted": sets}},
    "hostname": "bench",
    "mounts": [mount("/proc", "proc", "nosuid", "noexec", "nodev"),
               mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
               mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
               mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
               mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
               mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro")],
    "linux": {"namespaces": namespaces, "seccomp": seccomp,
              "resources": {"memory": {"limit": 67108864}, "pids": {"limit": 50}, "cpu": {"shares": 512},
                            "devices": [{"allow": False, "access": "rwm"}]},
              "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
              "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]},
}
json.dump(config, open(f"{sys.argv[1]}/config.json", "w"))
END
groups=""
for hierarchy in /sys/fs/cgroup/*/; do
    # A cpuset takes processors and memory first.
    [ "$(basename "$hierarchy")" = cpuset ] && continue
    [ "$(stat -f -c %T "$hierarchy")" = cgroupfs ] && groups="$groups $hierarchy"bench-floor
done
set -- "stack-oci=$work/stack-oci"
for peer in crun runc; do
    path=$(command -v "$peer") && set -- "$@" "$peer=$path"
done
# The peers refuse a host with both versions of cgroups: they see the first one only, as does this runtime.
unshare --mount sh -c 'mount --make-rprivate /; umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"' sh \
    python3 "$here/oci.py" "$rounds" "$work" "$work/floor $work/rootfs /bin/true$groups" "$@"
