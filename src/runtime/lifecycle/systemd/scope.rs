//! What systemd is told of a container: the unit's name and place, and its limits as the unit's properties, so that systemd does
//! not take them away when it looks at the unit again. Pure.

use std::collections::BTreeMap;

use crate::runtime::container::number_list;
use crate::runtime::lifecycle::cgroups::CgroupsError;
use crate::runtime::lifecycle::resources::{io_weight, swap_alone, weight_of_shares};
use crate::runtime::oci::OciResources;

use super::wire::Value;

/// A container's scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Such as `libpod-1234.scope`.
    pub unit: String,
    /// Such as `machine.slice`.
    pub slice: String,
}

impl Scope {
    /// From `slice:prefix:name`, the form of `cgroupsPath` that goes with systemd.
    pub fn parse(cgroups_path: Option<&str>, id: &str) -> Result<Self, CgroupsError> {
        let wanted = cgroups_path.unwrap_or_default();
        let wrong = || CgroupsError::ScopeForm { path: wanted.to_owned() };
        let (slice, prefix, name) = if wanted.is_empty() {
            ("", "stack", id)
        } else {
            let mut parts = wanted.split(':');
            match (parts.next(), parts.next(), parts.next(), parts.next()) {
                (Some(slice), Some(prefix), Some(name), None) => (slice, prefix, name),
                _ => return Err(wrong()),
            }
        };
        let slice = if slice.is_empty() { "system.slice" } else { slice };
        let fine = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        let stem = slice.strip_suffix(".slice").ok_or_else(wrong)?;
        let is_slice = slice == "-.slice" || stem.split('-').all(|part| !part.is_empty());
        if name.is_empty() || !is_slice || !format!("{unit}{slice}").chars().all(fine) {
            return Err(wrong());
        }
        Ok(Self { unit, slice: slice.to_owned() })
    }

    /// Below the root of the hierarchy: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
    pub fn path(&self) -> String {
        let mut path = String::new();
        if self.slice != "-.slice" {
            let stem = self.slice.trim_end_matches(".slice");
            for (index, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
                path.push_str(&format!("{}.slice/", stem.get(..index).unwrap_or_default()));
            }
        }
        path + &self.unit
    }

    pub fn properties(&self, id: &str, pid: i32) -> Vec<(String, Value)> {
        let yes = |name: &str| (name.to_owned(), Value::Bool(true));
        let text = |name: &str, value: String| (name.to_owned(), Value::Text(value));
        vec![
            text("Description", format!("stack container {id}")),
            text("Slice", self.slice.clone()),
            ("PIDs".to_owned(), Value::Numbers(vec![pid.unsigned_abs()])),
            yes("Delegate"),
            yes("CPUAccounting"),
            yes("IOAccounting"),
            yes("MemoryAccounting"),
            yes("TasksAccounting"),
            ("DefaultDependencies".to_owned(), Value::Bool(false)),
        ]
    }
}

/// systemd.resource-control(5), by their names on the bus.
pub fn limits(resources: &OciResources) -> Vec<(String, Value)> {
    let mut list = Vec::new();
    let mut add = |name: &str, value: Value| list.push((name.to_owned(), value));
    let or_infinity = |limit: i64| Value::Uint64(u64::try_from(limit).unwrap_or(u64::MAX));
    if let Some(memory) = &resources.memory {
        if let Some(limit) = memory.limit.filter(|limit| *limit != 0) {
            add("MemoryMax", or_infinity(limit));
        }
        if let Some(reservation) = memory.reservation.filter(|reservation| *reservation != 0) {
            add("MemoryLow", or_infinity(reservation));
        }
        // What is wrong with it is told where the files are written.
        if let Ok(Some(swap)) = swap_alone(memory) {
            add("MemorySwapMax", or_infinity(swap));
        }
    }
    if let Some(cpu) = &resources.cpu {
        const SECOND: u64 = 1_000_000;
        const PERIOD: u64 = 100_000;
        if let Some(shares) = cpu.shares.filter(|shares| *shares > 0) {
            add("CPUWeight", Value::Uint64(weight_of_shares(shares)));
        }
        let period = cpu.period.filter(|period| *period > 0);
        if let Some(period) = period {
            add("CPUQuotaPeriodUSec", Value::Uint64(period));
        }
        if let Some(quota) = cpu.quota.filter(|quota| *quota != 0) {
            // systemd reckons in hundredths of a processor, and must not give less than was asked for.
            let in_a_second = u64::try_from(quota).map_or(u64::MAX, |quota| {
                (quota.saturating_mul(SECOND) / period.unwrap_or(PERIOD)).next_multiple_of(SECOND / 100)
            });
            add("CPUQuotaPerSecUSec", Value::Uint64(in_a_second));
        }
        for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
            let bits = list.as_deref().filter(|list| !list.is_empty()).map(|list| number_list(name, list));
            if let Some(Ok(words)) = bits {
                let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                while bytes.last() == Some(&0) {
                    bytes.pop();
                }
                add(name, Value::Bytes(bytes));
            }
        }
    }
    if let Some(limit) = resources.pids.and_then(|pids| pids.limit) {
        // systemd takes no 0, and the process itself is one.
        add("TasksMax", or_infinity(if limit == 0 { 1 } else { limit }));
    }
    if let Some(weight) = resources.block_io.as_ref().and_then(|io| io.weight).filter(|weight| *weight > 0) {
        add("IOWeight", Value::Uint64(io_weight(weight)));
    }
    for (file, value) in &resources.unified {
        const NAMES: [(&str, &str); 7] = [
            ("cpu.weight", "CPUWeight"),
            ("memory.high", "MemoryHigh"),
            ("memory.low", "MemoryLow"),
            ("memory.max", "MemoryMax"),
            ("memory.min", "MemoryMin"),
            ("memory.swap.max", "MemorySwapMax"),
            ("pids.max", "TasksMax"),
        ];
        let known = NAMES.iter().find(|(known, _)| known == file);
        let number = if value == "max" { Some(u64::MAX) } else { value.parse().ok() };
        if let (Some((_, name)), Some(number)) = (known, number) {
            add(name, Value::Uint64(number));
        }
    }
    list
}

/// Annotations `org.systemd.property.NAME` with a value as `busctl` shows it: `'text'`, `true`, `uint64 5`, `5`.
pub fn annotated(annotations: &BTreeMap<String, String>) -> Result<Vec<(String, Value)>, CgroupsError> {
    let mut list = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix("org.systemd.property.") else { continue };
        let value = parse_value(text.trim())
            .ok_or_else(|| CgroupsError::Property { name: name.to_owned(), value: text.clone() })?;
        // The bus knows times in microseconds only.
        list.push(match (name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')), value) {
            (Some(stem), Value::Int32(seconds)) => {
                (format!("{stem}USec"), Value::Uint64(u64::try_from(seconds).unwrap_or(0) * 1_000_000))
            }
            (Some(stem), Value::Uint64(seconds)) => {
                (format!("{stem}USec"), Value::Uint64(seconds.saturating_mul(1_000_000)))
            }
            (_, value) => (name.to_owned(), value),
        });
    }
    Ok(list)
}

fn parse_value(text: &str) -> Option<Value> {
    for quote in ['\'', '"'] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote)) {
            return Some(Value::Text(inner.to_owned()));
        }
    }
    Some(match text.split_once(' ') {
        None if text == "true" => Value::Bool(true),
        None if text == "false" => Value::Bool(false),
        None => Value::Int32(text.parse().ok()?),
        Some(("uint64", number)) => Value::Uint64(number.trim().parse().ok()?),
        Some(("uint32", number)) => Value::Uint32(number.trim().parse().ok()?),
        Some(("int32", number)) => Value::Int32(number.trim().parse().ok()?),
        Some(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_lies_in_its_slice_and_that_in_its_own() {
        let check = |path: &str, unit: &str, expected: &str| {
            let scope = Scope::parse(Some(path), "id").unwrap();
            assert_eq!((scope.unit.as_str(), scope.path().as_str()), (unit, expected));
        };
        check("machine.slice:libpod:12", "libpod-12.scope", "machine.slice/libpod-12.scope");
        check(":p:n", "p-n.scope", "system.slice/p-n.scope");
        check("a-b-c.slice::n", "n.scope", "a.slice/a-b.slice/a-b-c.slice/n.scope");
        check("-.slice:p:n", "p-n.scope", "p-n.scope");
        check("", "stack-id.scope", "system.slice/stack-id.scope");
        for wrong in
            ["/a/b", "a", "a:b", "x:p:n", "a--b.slice:p:n", "-a.slice:p:n", "a.slice:p:", "a.slice:p:n/..", "a:b:c:d"]
        {
            assert!(Scope::parse(Some(wrong), "id").is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_are_properties() {
        let resources: OciResources = serde_json::from_str(
            r#"{"memory":{"limit":100,"swap":150},"pids":{"limit":-1},
                "cpu":{"quota":50000,"period":100000,"cpus":"0-3,9"},
                "blockIO":{"weight":10},"unified":{"memory.high":"max","io.max":"x"}}"#,
        )
        .unwrap();
        let expected = [
            ("MemoryMax", Value::Uint64(100)),
            ("MemorySwapMax", Value::Uint64(50)),
            ("CPUQuotaPeriodUSec", Value::Uint64(100_000)),
            ("CPUQuotaPerSecUSec", Value::Uint64(500_000)),
            ("AllowedCPUs", Value::Bytes(vec![0b1111, 0b10])),
            ("TasksMax", Value::Uint64(u64::MAX)),
            ("IOWeight", Value::Uint64(1)),
            ("MemoryHigh", Value::Uint64(u64::MAX)),
        ];
        assert_eq!(limits(&resources), expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn annotations_are_properties() {
        let check = |name: &str, text: &str, expected: Option<(&str, Value)>| {
            let annotations = [(format!("org.systemd.property.{name}"), text.to_owned())].into();
            let got = annotated(&annotations).ok().map(|mut list| list.remove(0));
            assert_eq!(got, expected.map(|(name, value)| (name.to_owned(), value)));
        };
        check(
            "CollectMode",
            "'inactive-or-failed'",
            Some(("CollectMode", Value::Text("inactive-or-failed".to_owned()))),
        );
        check("TimeoutStopSec", "uint64 5", Some(("TimeoutStopUSec", Value::Uint64(5_000_000))));
        check("TimeoutStopUSec", "uint64 5", Some(("TimeoutStopUSec", Value::Uint64(5))));
        check("SendSIGHUP", "true", Some(("SendSIGHUP", Value::Bool(true))));
        check("X", "[1, 2]", None);
        assert_eq!(annotated(&[("a".to_owned(), "b".to_owned())].into()).unwrap(), []);
    }
}
