//! What a stack file promises, held against what the host has. Limits may promise more than there is, and often should;
//! who reads a plan is told by how much.

use crate::model::{ByteSize, Limits, Stack};

/// What a host has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes.
    pub memory: u64,
    /// Bytes that a program could have now without swapping.
    pub free_memory: u64,
    /// Processors that are online.
    pub processors: u32,
    /// Processes and threads.
    pub pids: u64,
    /// Bytes on the file system of images and writable layers; `None`: it cannot be told.
    pub free_disk: Option<u64>,
}

/// What the file promises beyond the host, a text each with its numbers.
pub fn promises(stack: &Stack, host: &Capacity) -> Vec<String> {
    let mut texts = Vec::new();
    for kind in [MEMORY, MEMORY_LOW, CPU, PIDS] {
        let all = promised(stack, &kind);
        let has = (kind.has)(host);
        if has == 0 {
            continue;
        }
        let beyond = all.single.iter().filter(|part| part.each > has);
        texts.extend(beyond.map(|part| {
            let (key, each, has) = (kind.key, (kind.shown)(part.each), (kind.shown)(has));
            format!("{}: `{key}` is {each}, this host has {has}: {}", part.name, kind.alone)
        }));
        let total = all.parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.total()));
        if total > has && all.parts.len() + all.parts.iter().filter(|part| part.count > 1).count() > 1 {
            let parts: Vec<String> = all.parts.iter().map(|part| part.text(&kind)).collect();
            let (key, total, has) = (kind.key, (kind.shown)(total), (kind.shown)(has));
            texts.push(format!(
                "`{key}` adds up to {total} ({}), this host has {has}: {}",
                parts.join(", "),
                kind.together
            ));
        }
    }
    texts
}

/// One kind of limit.
struct Limit {
    key: &'static str,
    /// What a set of limits says of it, in its unit.
    of: fn(&Limits) -> Option<u64>,
    /// What the host has of it.
    has: fn(&Capacity) -> u64,
    shown: fn(u64) -> String,
    /// Whether it counts only where the file itself gives it.
    written: bool,
    /// What follows where one limit is beyond the host.
    alone: &'static str,
    /// What follows where all of them together are.
    together: &'static str,
}

const MEMORY: Limit = Limit {
    key: "memory",
    of: |limits| limits.memory.map(|size| size.0),
    has: |host| host.memory,
    shown: bytes,
    written: false,
    alone: "the host runs out before the limit is reached",
    together: "not all can be used at once, and the kernel kills where it is tried",
};

const MEMORY_LOW: Limit = Limit {
    key: "memory_low",
    of: |limits| limits.memory_low.map(|size| size.0),
    has: |host| host.memory,
    shown: bytes,
    written: false,
    alone: "it cannot be protected",
    together: "not all of it can be protected",
};

const CPU: Limit = Limit {
    key: "cpu",
    of: |limits| limits.cpu.map(|cpus| u64::from(cpus.millis)),
    has: |host| u64::from(host.processors) * 1000,
    shown: |millis| match millis % 1000 {
        0 if millis == 1000 => "1 processor".into(),
        _ => format!("{} processors", millis as f64 / 1000.0),
    },
    written: false,
    alone: "the limit is never reached",
    together: "under load they share by their weights",
};

const PIDS: Limit = Limit {
    key: "pids",
    of: |limits| limits.pids,
    has: |host| host.pids,
    shown: |count| count.to_string(),
    written: true,
    alone: "the host runs out before the limit is reached",
    together: "not all can be used at once",
};

/// A container with all its replicas, or a branch.
struct Part {
    name: String,
    count: u64,
    each: u64,
}

impl Part {
    fn total(&self) -> u64 {
        self.count.saturating_mul(self.each)
    }

    fn text(&self, kind: &Limit) -> String {
        match self.count {
            1 => format!("{} {}", self.name, (kind.shown)(self.each)),
            count => format!("{} {count} × {}", self.name, (kind.shown)(self.each)),
        }
    }
}

struct Promised {
    /// Everything with a limit of its own.
    single: Vec<Part>,
    /// What adds up: in a branch its containers count for at most the branch's own limit, and for all of it where one of
    /// them has none.
    parts: Vec<Part>,
}

fn promised(stack: &Stack, kind: &Limit) -> Promised {
    let limit = |table: String, limits: &Limits| {
        let counts = !kind.written || stack.origins.lines.contains_key(&format!("{table}.{}", kind.key));
        (kind.of)(limits).filter(|_| counts)
    };
    let containers = |branch: Option<&crate::model::Name>| -> Vec<(String, u64, Option<u64>)> {
        let within = stack.containers.iter().filter(|(_, container)| container.cgroup.as_ref() == branch);
        let part = within.map(|(name, container)| {
            let each = limit(format!("container.{name}"), &container.limits);
            (name.to_string(), u64::from(container.replicas.max(1)), each)
        });
        part.collect()
    };
    let with_limit = |all: &[(String, u64, Option<u64>)]| -> Vec<Part> {
        let part = |(name, count, each): &(String, u64, Option<u64>)| {
            Some(Part { name: format!("container {name}"), count: *count, each: (*each)? })
        };
        all.iter().filter_map(part).collect()
    };
    let mut promised = Promised { single: vec![], parts: with_limit(&containers(None)) };
    promised.single.extend(with_limit(&containers(None)));
    for (name, branch) in &stack.cgroups {
        let inside = containers(Some(name));
        let own = limit(format!("cgroup.{name}"), &branch.limits);
        let of_branch = |each| Part { name: format!("cgroup {name}"), count: 1, each };
        promised.single.extend(own.map(of_branch));
        promised.single.extend(with_limit(&inside));
        let sum = with_limit(&inside).iter().fold(0u64, |sum, part| sum.saturating_add(part.total()));
        let all_limited = inside.iter().all(|(_, _, each)| each.is_some());
        match own {
            Some(own) if !inside.is_empty() && (!all_limited || sum > own) => promised.parts.push(of_branch(own)),
            _ => promised.parts.extend(with_limit(&inside)),
        }
    }
    promised
}

/// Bytes for people: exact where that is short, else with one digit after the point.
pub fn bytes(count: u64) -> String {
    let exact = ByteSize(count).to_string();
    if exact.len() <= 7 {
        return exact;
    }
    let (mut value, mut unit) = (count as f64 / 1024.0, "KiB");
    for next in ["MiB", "GiB", "TiB"] {
        if value >= 1024.0 {
            (value, unit) = (value / 1024.0, next);
        }
    }
    format!("{value:.1}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// What a file with these containers and branches promises beyond 8 GiB, 4 processors and 1000 processes.
    #[track_caller]
    fn check(tables: &str, expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stack.toml");
        let tables = tables.replace("}", "\nimage = 'host:'\ncommand = ['x']\n");
        std::fs::write(&path, format!("name = 'shop'\n{tables}")).unwrap();
        let examined = crate::file::examine(&path, &std::collections::HashMap::new(), &[]);
        let stack =
            examined.stack.unwrap_or_else(|| panic!("{}", examined.diagnostics.render(crate::file::Look::Plain)));
        let host = Capacity { memory: 8 * GIB, free_memory: GIB, processors: 4, pids: 1000, free_disk: None };
        assert_eq!(promises(&stack, &host), expected);
    }

    #[test]
    fn what_fits_is_not_spoken_of() {
        check("[container.a]\nmemory = '8GiB'\ncpu = 4\npids = 1000}[container.b]}", &[]);
        check("[container.a]\nreplicas = 4\nmemory = '2GiB'\ncpu = 1}", &[]);
    }

    #[test]
    fn replicas_count_each() {
        let text = "`memory` adds up to 10GiB (container a 5 × 2GiB), this host has 8GiB: not all can be used at once, and \
            the kernel kills where it is tried";
        check("[container.a]\nreplicas = 5\nmemory = '2GiB'}", &[text]);
    }

    #[test]
    fn a_branch_bounds_what_is_in_it() {
        let inside = "[container.a]\ncgroup = 'b'\nreplicas = 5\nmemory = '2GiB'}";
        check(&format!("[cgroup.b]\nmemory = '8GiB'\n{inside}"), &[]);
        let text = "`memory` adds up to 9GiB (container c 3GiB, cgroup b 6GiB), this host has 8GiB: not all can be used at \
            once, and the kernel kills where it is tried";
        check(&format!("[cgroup.b]\nmemory = '6GiB'\n{inside}[container.c]\nmemory = '3GiB'}}"), &[text]);
        // One without a limit of its own may use all of the branch.
        let free = "[container.a]\ncgroup = 'b'}[container.d]\ncgroup = 'b'\nmemory = '1GiB'}";
        check(&format!("[cgroup.b]\nmemory = '6GiB'\n{free}[container.c]\nmemory = '3GiB'}}"), &[text]);
        // A branch that holds nothing promises nothing.
        check("[cgroup.b]\nmemory = '6GiB'\n[container.c]\nmemory = '3GiB'}", &[]);
    }

    #[test]
    fn one_limit_beyond_the_host_is_named_alone() {
        let cpu = "container a: `cpu` is 8 processors, this host has 4 processors: the limit is never reached";
        check("[container.a]\ncpu = 8}", &[cpu]);
        let pids = "container a: `pids` is 2000, this host has 1000: the host runs out before the limit is reached";
        check("[container.a]\npids = 2000}", &[pids]);
        let low = "`memory_low` adds up to 10GiB (container a 5GiB, container b 5GiB), this host has 8GiB: not all of it \
            can be protected";
        check("[container.a]\nmemory_low = '5GiB'}[container.b]\nmemory_low = '5GiB'}", &[low]);
    }

    #[test]
    fn sums_of_processors_and_processes_are_told() {
        let cpu = "`cpu` adds up to 4.5 processors (container a 3 × 1.5 processors), this host has 4 processors: under load \
            they share by their weights";
        check("[container.a]\nreplicas = 3\ncpu = 1.5}", &[cpu]);
        let pids = "`pids` adds up to 1200 (container a 600, container b 600), this host has 1000: not all can be used at once";
        // What nobody wrote is no promise.
        check("[container.a]\npids = 600}[container.b]\npids = 600}[container.c]}", &[pids]);
    }

    #[test]
    fn bytes_are_short() {
        assert_eq!([0, 512 << 20, 3 << 29, 16_265_884 << 10].map(bytes), ["0B", "512MiB", "1536MiB", "15.5GiB"]);
    }
}
