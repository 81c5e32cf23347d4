//! Device rules of a configuration: lines for version 1 of cgroups, a BPF program for version 2. Rules work in listed order, the
//! last that fits decides. Pure.

use crate::runtime::oci::OciDeviceRule;
use crate::runtime::sys::BpfDeviceInstruction as Bpf;

/// What every container may use, after the rules of its configuration: making any node, the default devices and terminals.
const ALLOWED: [(&str, Option<i64>, Option<i64>, &str); 10] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(3), "rwm"),
    ("c", Some(1), Some(5), "rwm"),
    ("c", Some(1), Some(7), "rwm"),
    ("c", Some(1), Some(8), "rwm"),
    ("c", Some(1), Some(9), "rwm"),
    ("c", Some(5), Some(0), "rwm"),
    ("c", Some(5), Some(2), "rwm"),
    ("c", Some(136), None, "rwm"),
];

/// The rules with those that every container has. None at all: devices are not restricted.
pub fn complete(rules: &[OciDeviceRule]) -> Vec<OciDeviceRule> {
    if rules.is_empty() {
        return Vec::new();
    }
    let allowed = ALLOWED.into_iter().map(|(kind, major, minor, access)| OciDeviceRule {
        allow: true,
        kind: Some(kind.to_owned()),
        major,
        minor,
        access: Some(access.to_owned()),
    });
    rules.iter().cloned().chain(allowed).collect()
}

/// `devices.allow` or `devices.deny`, and the line for it.
pub fn lines(rules: &[OciDeviceRule]) -> Vec<(&'static str, String)> {
    rules
        .iter()
        .map(|rule| {
            let file = if rule.allow { "devices.allow" } else { "devices.deny" };
            let number = |number: Option<i64>| match number {
                Some(number) if number >= 0 => number.to_string(),
                _ => "*".to_owned(),
            };
            let access = access_of(rule);
            let line = match kind_of(rule) {
                // The kernel takes `a` for everything, whatever follows.
                Kind::All => "a".to_owned(),
                kind => format!("{} {}:{} {access}", kind.letter(), number(rule.major), number(rule.minor)),
            };
            (file, line)
        })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    All,
    Block,
    Character,
}

impl Kind {
    fn letter(self) -> char {
        match self {
            Self::All => 'a',
            Self::Block => 'b',
            Self::Character => 'c',
        }
    }
}

fn kind_of(rule: &OciDeviceRule) -> Kind {
    match rule.kind.as_deref() {
        Some("b") => Kind::Block,
        Some("c" | "u") => Kind::Character,
        _ => Kind::All,
    }
}

fn access_of(rule: &OciDeviceRule) -> &str {
    rule.access.as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm")
}

/// A program for BPF_CGROUP_DEVICE: `struct bpf_cgroup_dev_ctx` has the access wanted in the upper half of its first word and
/// the type in the lower, then major and minor. From the last rule to the first; what no rule fits is allowed, as version 1
/// starts out.
pub fn program(rules: &[OciDeviceRule]) -> Vec<Bpf> {
    const CONTEXT: u8 = 1;
    let (kind, access, major, minor, wanted) = (2, 3, 4, 5, 6);
    let mut program = vec![
        Bpf::load_word(kind, CONTEXT, 0),
        Bpf::move_register(access, kind),
        Bpf::and(kind, 0xffff),
        Bpf::shift_right(access, 16),
        Bpf::load_word(major, CONTEXT, 4),
        Bpf::load_word(minor, CONTEXT, 8),
    ];
    for rule in rules.iter().rev() {
        let mut tests = Vec::new();
        let number = |register, number: Option<i64>| {
            number.filter(|number| *number >= 0).map(|number| Bpf::jump_unless_equal(register, number as i32))
        };
        match kind_of(rule) {
            Kind::All => {}
            Kind::Block => tests.push(Bpf::jump_unless_equal(kind, 1)),
            Kind::Character => tests.push(Bpf::jump_unless_equal(kind, 2)),
        }
        tests.extend(number(major, rule.major));
        tests.extend(number(minor, rule.minor));
        let bits = access_of(rule).chars().fold(0, |bits, letter| {
            bits | match letter {
                'm' => 1,
                'r' => 2,
                'w' => 4,
                _ => 0,
            }
        });
        if bits != 7 {
            tests.push(Bpf::move_register(wanted, access));
            // Allowed is what asks for no more than that; denied what asks for any of it.
            match rule.allow {
                true => tests.extend([Bpf::and(wanted, !bits & 7), Bpf::jump_unless_equal(wanted, 0)]),
                false => tests.extend([Bpf::and(wanted, bits), Bpf::jump_if_equal(wanted, 0)]),
            }
        }
        let length = tests.len();
        let fits_all = tests.is_empty();
        for (index, test) in tests.into_iter().enumerate() {
            // Over the rest of the tests and the two that answer.
            program.push(test.to((length - index + 1) as i16));
        }
        program.extend([Bpf::answer(i32::from(rule.allow)), Bpf::exit()]);
        if fits_all {
            // The kernel refuses a program with instructions that are never reached.
            return program;
        }
    }
    program.extend([Bpf::answer(1), Bpf::exit()]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(allow: bool, kind: &str, numbers: (Option<i64>, Option<i64>), access: &str) -> OciDeviceRule {
        let (major, minor) = numbers;
        OciDeviceRule { allow, kind: Some(kind.into()), major, minor, access: Some(access.into()) }
    }

    #[test]
    fn rules_are_lines_in_order() {
        let rules = [rule(false, "a", (None, None), "rwm"), rule(true, "c", (Some(1), None), "r")];
        let expected = [("devices.deny", "a"), ("devices.allow", "c 1:* r")];
        let lines = lines(&rules);
        assert!(lines.iter().map(|(file, line)| (*file, line.as_str())).eq(expected), "{lines:?}");
    }

    #[test]
    fn nothing_comes_after_a_rule_that_fits_all() {
        let all = rule(false, "a", (None, None), "rwm");
        let one = rule(true, "c", (Some(1), Some(3)), "r");
        let ended = |rules: &[OciDeviceRule], answer: i32| {
            program(rules).ends_with(&[Bpf::answer(answer), Bpf::exit()])
                && program(rules).len() == program(&rules[1..]).len()
        };
        assert!(ended(&[one.clone(), all.clone()], 0), "the rule before it counts for nothing");
        assert_eq!(program(std::slice::from_ref(&all)).len(), 6 + 2);
        assert!(
            program(&[all, one]).ends_with(&[Bpf::answer(0), Bpf::exit()]),
            "as the first it is the last to decide"
        );
    }

    #[test]
    fn no_rules_restrict_nothing() {
        assert!(complete(&[]).is_empty());
        assert_eq!(complete(&[rule(false, "a", (None, None), "rwm")]).len(), 1 + ALLOWED.len());
    }
}
