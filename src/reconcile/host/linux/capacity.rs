//! What this host has, as the kernel tells it.

use std::path::Path;

use crate::model::CpuList;
use crate::plan::Capacity;

/// Reads it; `data` is the folder of images, or where it will be. `None`: the kernel does not tell.
pub fn capacity(data: &Path) -> Option<Capacity> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let number = |path: &str| read(path)?.trim().parse::<u64>().ok();
    let meminfo = read("/proc/meminfo")?;
    let online: CpuList = read("/sys/devices/system/cpu/online")?.parse().ok()?;
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let there = data.ancestors().find(|folder| folder.exists());
    let disk = there.and_then(|folder| rustix::fs::statvfs(folder).ok());
    Some(Capacity {
        memory: kib(&meminfo, "MemTotal")?,
        free_memory: kib(&meminfo, "MemAvailable")?,
        processors: online.count(),
        pids: limits.into_iter().filter_map(number).min()?,
        free_disk: disk.map(|found| found.f_bavail.saturating_mul(found.f_frsize)),
    })
}

/// A line of `/proc/meminfo` (proc_meminfo(5)), such as `MemTotal:  16265884 kB`, in bytes.
fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       16265884 kB\nMemFree:          100 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(
            [kib(text, "MemTotal"), kib(text, "MemAvailable"), kib(text, "Mem")],
            [Some(16_265_884 << 10), Some(2 << 20), None]
        );
    }

    #[test]
    fn this_host_has_something_of_everything() {
        let found = capacity(Path::new("/var/lib/no/such/folder")).unwrap();
        assert!(found.memory >= found.free_memory && found.processors > 0 && found.pids > 100, "{found:?}");
        assert!(found.free_disk.is_some());
    }
}
