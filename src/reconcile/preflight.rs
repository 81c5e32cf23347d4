//! What a plan asks of the host now: memory for the containers that start, disk for the layers that are unpacked. Pure.

use super::actual::Actual;
use super::step::{Action, Step};
use crate::plan::{DesiredContainer, bytes};

/// What there may be too little of, a text each with its numbers.
pub fn preflight(steps: &[Step], actual: &Actual) -> Vec<String> {
    let Some(capacity) = actual.capacity else { return vec![] };
    [memory(steps, capacity.free_memory), disk(actual, capacity.free_disk)].into_iter().flatten().collect()
}

/// What starts may use what its limits allow; what is replaced gives its own back first, and does not count.
fn memory(steps: &[Step], free: u64) -> Option<String> {
    let starting = steps.iter().filter_map(|step| match &step.action {
        Action::CreateContainer(desired) => Some(&**desired),
        _ => None,
    });
    let limits: Vec<u64> = starting.filter_map(limit).collect();
    let sum = limits.iter().fold(0u64, |sum, limit| sum.saturating_add(*limit));
    let who = match limits.len() {
        1 => "the container that starts may use".to_string(),
        count => format!("the {count} containers with `memory` that start may together use"),
    };
    (sum > free).then(|| format!("{who} {}, {} are free now", bytes(sum), bytes(free)))
}

fn limit(desired: &DesiredContainer) -> Option<u64> {
    desired.live.limits.memory.map(|size| size.0)
}

fn disk(actual: &Actual, free: Option<u64>) -> Option<String> {
    let needed = actual.missing_bytes.values().fold(0u64, |sum, size| sum.saturating_add(*size));
    let free = free.filter(|free| needed > *free)?;
    let images: Vec<&str> = actual.missing_bytes.keys().map(String::as_str).collect();
    let (needed, free) = (bytes(needed), bytes(free));
    Some(format!(
        "layers of {} need {needed} of disk at least, {free} are free: see `stack image prune`",
        images.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Capacity;

    #[test]
    fn layers_that_do_not_fit_are_told_with_numbers() {
        let capacity = Capacity { free_disk: Some(1 << 30), ..Capacity::default() };
        let mut actual = Actual { capacity: Some(capacity), ..Actual::default() };
        actual.missing_bytes.insert("app".into(), 1 << 30);
        assert_eq!(preflight(&[], &actual), Vec::<String>::new());
        actual.missing_bytes.insert("db".into(), 1 << 30);
        let text = "layers of app, db need 2GiB of disk at least, 1GiB are free: see `stack image prune`";
        assert_eq!(preflight(&[], &actual), [text]);
        actual.capacity = Some(Capacity { free_disk: None, ..capacity });
        assert_eq!(preflight(&[], &actual), Vec::<String>::new(), "nothing is known");
    }
}
