//! What is wished for against what the kernel holds: each missing, added or changed piece by its name.

use std::collections::BTreeMap;

use super::ruleset::{BaseChain, Chain, Rule, Ruleset, Set};
use super::{ObservedTable, TableState};

/// One piece of a table that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NatDifference {
    #[error("the table is dormant")]
    Dormant,
    #[error("chain `{chain}` is missing")]
    ChainMissing { chain: String },
    #[error("chain `{chain}` is not ours")]
    ChainExtra { chain: String },
    #[error("{field} of chain `{chain}` is {found} instead of {wanted}")]
    ChainChanged { chain: String, field: &'static str, wanted: String, found: String },
    #[error("rule `{rule}` is missing from chain `{chain}`")]
    RuleMissing { chain: String, rule: String },
    /// `rule` is the stranger's comment, or `without a name`.
    #[error("a rule {rule} in chain `{chain}` is not ours")]
    RuleExtra { chain: String, rule: String },
    #[error("rule `{rule}` in chain `{chain}` is not as it was written")]
    RuleChanged { chain: String, rule: String },
    #[error("the rules of chain `{chain}` are in another order")]
    RuleOrder { chain: String },
    #[error("set `{set}` is missing")]
    SetMissing { set: String },
    #[error("set `{set}` is not ours")]
    SetExtra { set: String },
    #[error("set `{set}` has other types")]
    SetChanged { set: String },
    #[error("`{key}`{} is missing from `{set}`", leads_to(.value))]
    ElementMissing { set: String, key: String, value: String },
    #[error("`{key}`{} in `{set}` is not ours", leads_to(.value))]
    ElementExtra { set: String, key: String, value: String },
    #[error("`{key}` in `{set}` leads to `{found}` instead of `{wanted}`")]
    ElementChanged { set: String, key: String, wanted: String, found: String },
}

fn leads_to(value: &str) -> String {
    if value.is_empty() { String::new() } else { format!(" → `{value}`") }
}

/// All differences, in the order of the table: chains, sets and their elements, rules. Empty right after
/// [`super::Nft::replace_table`]. The label is not compared; it is the caller's.
pub fn differences(wanted: &Ruleset, observed: &ObservedTable) -> Vec<NatDifference> {
    let found = &observed.ruleset;
    let mut differences = Vec::new();
    if observed.state == TableState::Dormant {
        differences.push(NatDifference::Dormant);
    }
    compare_chains(&wanted.chains, &found.chains, &mut differences);
    compare_sets(&wanted.sets, &found.sets, &mut differences);
    let mut chains: Vec<&str> = Vec::new();
    for rule in wanted.rules.iter().chain(&found.rules) {
        if !chains.contains(&rule.chain.as_str()) {
            chains.push(&rule.chain);
        }
    }
    for chain in chains {
        let of = |rules: &'_ [Rule]| rules.iter().filter(|rule| rule.chain == chain).cloned().collect::<Vec<_>>();
        compare_rules(chain, &of(&wanted.rules), &of(&found.rules), &mut differences);
    }
    differences
}

fn compare_chains(wanted: &[Chain], found: &[Chain], differences: &mut Vec<NatDifference>) {
    for chain in wanted {
        match found.iter().find(|other| other.name == chain.name) {
            None => differences.push(NatDifference::ChainMissing { chain: chain.name.clone() }),
            Some(other) => compare_chain(chain, other, differences),
        }
    }
    for chain in found {
        if !wanted.iter().any(|other| other.name == chain.name) {
            differences.push(NatDifference::ChainExtra { chain: chain.name.clone() });
        }
    }
}

fn compare_chain(wanted: &Chain, found: &Chain, differences: &mut Vec<NatDifference>) {
    let describe = |base: &Option<BaseChain>| match base {
        None => [(); 4].map(|()| "none".to_owned()),
        Some(base) => [base.kind.clone(), base.hook.to_string(), base.priority.to_string(), base.policy.to_string()],
    };
    let fields = ["the type", "the hook", "the priority", "the policy"];
    for ((field, wanted_value), found_value) in
        fields.into_iter().zip(describe(&wanted.base)).zip(describe(&found.base))
    {
        if wanted_value != found_value {
            let chain = wanted.name.clone();
            differences.push(NatDifference::ChainChanged { chain, field, wanted: wanted_value, found: found_value });
        }
    }
}

fn compare_sets(wanted: &[Set], found: &[Set], differences: &mut Vec<NatDifference>) {
    for set in wanted {
        let Some(other) = found.iter().find(|other| other.name == set.name) else {
            differences.push(NatDifference::SetMissing { set: set.name.clone() });
            continue;
        };
        if (set.key, set.value, set.flags) != (other.key, other.value, other.flags) {
            differences.push(NatDifference::SetChanged { set: set.name.clone() });
            continue;
        }
        compare_elements(set, &other.elements, differences);
    }
    for set in found {
        if !wanted.iter().any(|other| other.name == set.name) {
            differences.push(NatDifference::SetExtra { set: set.name.clone() });
        }
    }
}

fn compare_elements(set: &Set, found: &BTreeMap<Vec<u8>, Vec<u8>>, differences: &mut Vec<NatDifference>) {
    let name = || set.name.clone();
    let in_words = |value: &[u8]| set.value.map(|types| types.describe(value)).unwrap_or_default();
    for (key, value) in &set.elements {
        let key_in_words = set.key.describe(key);
        match found.get(key) {
            None => differences.push(NatDifference::ElementMissing {
                set: name(),
                key: key_in_words,
                value: in_words(value),
            }),
            Some(other) if other != value => differences.push(NatDifference::ElementChanged {
                set: name(),
                key: key_in_words,
                wanted: in_words(value),
                found: in_words(other),
            }),
            Some(_) => {}
        }
    }
    for (key, value) in found {
        if !set.elements.contains_key(key) {
            let key = set.key.describe(key);
            differences.push(NatDifference::ElementExtra { set: name(), key, value: in_words(value) });
        }
    }
}

/// Rules have no identity but what they say; the name is part of it. A rule is changed if one of its name is left over
/// on both sides.
fn compare_rules(chain: &str, wanted: &[Rule], found: &[Rule], differences: &mut Vec<NatDifference>) {
    if wanted == found {
        return;
    }
    let mut unmatched: Vec<&Rule> = found.iter().collect();
    let mut missing: Vec<&Rule> = Vec::new();
    for rule in wanted {
        match unmatched.iter().position(|other| *other == rule) {
            Some(place) => drop(unmatched.remove(place)),
            None => missing.push(rule),
        }
    }
    if missing.is_empty() && unmatched.is_empty() {
        differences.push(NatDifference::RuleOrder { chain: chain.to_owned() });
    }
    for rule in missing {
        let (chain, name) = (chain.to_owned(), rule.name.clone());
        match unmatched.iter().position(|other| other.name == rule.name) {
            Some(place) => {
                unmatched.remove(place);
                differences.push(NatDifference::RuleChanged { chain, rule: name });
            }
            None => differences.push(NatDifference::RuleMissing { chain, rule: name }),
        }
    }
    for rule in unmatched {
        let name = if rule.name.is_empty() { "without a name".to_owned() } else { format!("`{}`", rule.name) };
        differences.push(NatDifference::RuleExtra { chain: chain.to_owned(), rule: name });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::net::nft::{Expression, Hook, Policy};

    fn rule(name: &str, code: u32) -> Rule {
        Rule { chain: "c".into(), name: name.into(), expressions: vec![Expression::Verdict { code, chain: None }] }
    }

    /// The differences of the rules `found` from `wanted`, in words.
    fn check(wanted: &[Rule], found: &[Rule], expected: &[&str]) {
        let ruleset = |rules: &[Rule]| Ruleset { rules: rules.to_vec(), ..Ruleset::default() };
        let observed = ObservedTable { label: None, state: TableState::Active, ruleset: ruleset(found) };
        let texts: Vec<_> = differences(&ruleset(wanted), &observed).iter().map(ToString::to_string).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn rules_are_matched_by_what_they_say() {
        let (a, b) = (rule("a", 0), rule("b", 1));
        let both = [a.clone(), b.clone()];
        check(&both, &both, &[]);
        check(&both, &both[1..], &["rule `a` is missing from chain `c`"]);
        check(&both[..1], &both, &["a rule `b` in chain `c` is not ours"]);
        check(&both[..1], &[rule("a", 1)], &["rule `a` in chain `c` is not as it was written"]);
        check(&both, &[b, a.clone()], &["the rules of chain `c` are in another order"]);
        check(&both[..1], &[a.clone(), a], &["a rule `a` in chain `c` is not ours"]);
    }

    #[test]
    fn a_chain_in_another_place_is_another_chain() {
        let chain = |hook, priority| Chain {
            name: "c".into(),
            base: Some(BaseChain { kind: "filter".into(), hook, priority, policy: Policy::Accept }),
        };
        let mut found = Vec::new();
        compare_chains(&[chain(Hook::Input, 0)], &[chain(Hook::Forward, 5)], &mut found);
        let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["the hook of chain `c` is forward instead of input", "the priority of chain `c` is 5 instead of 0"]
        );
    }
}
