//! What a container gets unless told otherwise: capabilities, mounts, masked and read-only paths, devices. Data only; who
//! writes a `config.json` takes it from here.

use crate::runtime::oci::OciMount;

/// The set that the field's engines give, without `CAP_MKNOD`: nothing in a container needs to make a device.
pub const CAPABILITIES: [&str; 13] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What tells of the host or of other containers, or steers the hardware.
pub const MASKED_PATHS: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sysrq-trigger",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// What concerns the whole machine and is sometimes read.
pub const READONLY_PATHS: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

/// Used where the environment has no PATH.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Of processes that do not say otherwise.
pub const UMASK: u32 = 0o022;

/// A character device that every container has in `/dev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultDevice {
    /// Below `/dev`, in the container and on the host.
    pub name: &'static str,
    pub major: u32,
    pub minor: u32,
}

/// runtime-spec config-linux.md, "Default Devices"; `/dev/ptmx` is a link into devpts.
pub const DEVICES: [DefaultDevice; 6] = [
    DefaultDevice { name: "null", major: 1, minor: 3 },
    DefaultDevice { name: "zero", major: 1, minor: 5 },
    DefaultDevice { name: "full", major: 1, minor: 7 },
    DefaultDevice { name: "random", major: 1, minor: 8 },
    DefaultDevice { name: "urandom", major: 1, minor: 9 },
    DefaultDevice { name: "tty", major: 5, minor: 0 },
];

/// runtime-spec runtime-linux.md, "Dev symbolic links".
pub const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// The filesystems of a container, in the order in which they are mounted.
pub fn mounts() -> Vec<OciMount> {
    let mount = |destination: &str, kind: &str, options: &[&str]| OciMount {
        destination: destination.to_owned(),
        kind: Some(kind.to_owned()),
        source: Some(kind.to_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..OciMount::default()
    };
    vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}
