//! Limits on a group: makes one, sets limits, shows what the kernel holds, runs a command in it, and removes it.
//!
//! `cargo run --example limits -- COMMAND…` as root.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use stack::runtime::cgroup::{Cgroup, CgroupLimits, CgroupPath, CpuBandwidth, Hierarchies};

fn main() -> Result<(), Box<dyn Error>> {
    let hierarchies = Hierarchies::probe(Path::new("/sys/fs/cgroup"))?;
    for hierarchy in hierarchies.list() {
        println!("{:?} at {}: {:?}", hierarchy.version, hierarchy.mount_point.display(), hierarchy.controllers);
    }

    let path = CgroupPath::new(format!("stack-example-{}", std::process::id()))?;
    let group = Cgroup::create(&hierarchies, &path)?;
    let result = run_limited(&group);
    group.kill()?;
    group.remove()?;
    result
}

fn run_limited(group: &Cgroup) -> Result<(), Box<dyn Error>> {
    group.set_limits(&CgroupLimits {
        memory_max: Some(64 * 1024 * 1024),
        cpu: Some(CpuBandwidth::from_processors(0.5)),
        pids_max: Some(20),
        ..CgroupLimits::default()
    })?;
    println!("the kernel holds {:?}", group.limits()?);

    // The shell joins the group, so that the command is born in it.
    let files: Vec<String> = group.procs_files().iter().map(|file| file.display().to_string()).collect();
    let join_and_run = format!("for file in {}; do echo 0 > $file; done; exec \"$@\"", files.join(" "));
    let words: Vec<String> = std::env::args().skip(1).collect();
    let status = Command::new("sh").args(["-c", &join_and_run, "limits"]).args(words).status()?;

    println!("{}", status);
    println!("peak {:?} bytes, {:?}", group.memory().peak()?, group.memory().oom()?);
    println!("used {:?}, {:?}", group.cpu().usage()?.unwrap_or(Duration::ZERO), group.cpu().bandwidth()?);
    Ok(())
}
