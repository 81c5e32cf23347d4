//! `stack seccomp …`: what a profile answers, why, and the program that it becomes.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::{SeccompCommand, SeccompGiven};
use super::context::failed;
use super::exit::Exit;
use super::show::{JSON_VERSION, table};
use super::style::{BAD, DIM, GOOD, WARN, paint};
use crate::runtime::container::defaults;
use crate::runtime::seccomp::{
    Architecture, Circumstances, Compiled, Decision, Explanation, Profile, SeccompAction, SeccompData, compile,
    disassemble, explain, lines_of_rules,
};

/// The name that stands for the project's own profile.
const DEFAULT: &str = "default";

pub fn run(command: &SeccompCommand) -> ExitCode {
    let result = match command {
        SeccompCommand::Check { profiles, calls, given, json } => check(profiles, calls, given, *json),
        SeccompCommand::Explain { profile, calls, given, json } => explain_calls(profile, calls, given, *json),
        SeccompCommand::Disasm { profile, given } => disasm(profile, given),
    };
    result.map_or_else(ExitCode::from, |()| Exit::Ok.into())
}

/// A profile with its text, and for whom its conditions are decided.
struct Asked {
    written: String,
    text: String,
    profile: Profile,
    caps: Vec<String>,
    kernel: (u32, u32),
    architecture: Architecture,
}

impl Asked {
    fn read(written: &str, given: &SeccompGiven) -> Result<Self, Exit> {
        let text = match written {
            DEFAULT => Profile::DEFAULT_TEXT.to_owned(),
            path => std::fs::read_to_string(path)
                .map_err(|error| failed(&format!("cannot read seccomp profile `{path}`: {error}"), &[]))?,
        };
        let profile = Profile::parse(&text).map_err(|error| wrong_profile(written, &error))?;
        let caps = match given.cap.is_empty() {
            true => defaults::CAPABILITIES.iter().map(ToString::to_string).collect(),
            false => {
                given.cap.iter().map(|cap| format!("CAP_{}", cap.to_uppercase().trim_start_matches("CAP_"))).collect()
            }
        };
        let kernel = match &given.kernel {
            None => running_kernel(),
            Some(text) => version(text).ok_or_else(|| usage(&format!("`{text}` is no kernel version, such as 6.1")))?,
        };
        let architecture = match &given.arch {
            None => Architecture::native(),
            Some(name) => Architecture::from_name(name),
        };
        let architecture = architecture.ok_or_else(|| {
            usage(&format!(
                "`{}` is none of x86_64, x86, x32, aarch64",
                given.arch.as_deref().unwrap_or("this machine")
            ))
        })?;
        Ok(Self { written: written.into(), text, profile, caps, kernel, architecture })
    }

    fn compile(&self) -> Result<Compiled, Exit> {
        let caps: Vec<&str> = self.caps.iter().map(String::as_str).collect();
        compile(&self.profile.to_oci(&caps, self.kernel)).map_err(|error| wrong_profile(&self.written, &error))
    }

    fn explain(&self, data: &SeccompData) -> Result<Explanation, Exit> {
        let caps: Vec<&str> = self.caps.iter().map(String::as_str).collect();
        let given = Circumstances { caps: &caps, kernel: self.kernel };
        explain(&self.profile, given, data).map_err(|error| wrong_profile(&self.written, &error))
    }

    /// `NAME`, `NAME(ARG, …)` or a number.
    fn call(&self, written: &str) -> Result<SeccompData, Exit> {
        let (name, rest) = written.split_once('(').unwrap_or((written, ")"));
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => text.parse::<u64>().ok().or_else(|| text.parse::<i64>().ok().map(i64::cast_unsigned)),
        };
        let nr = number(name).and_then(|nr| u32::try_from(nr).ok()).or_else(|| self.architecture.number(name));
        let nr = nr.ok_or_else(|| usage(&format!("`{name}` is no system call of {}", self.architecture.name())))?;
        let inside = rest.strip_suffix(')').ok_or_else(|| usage(&format!("`{written}` misses its `)`")))?;
        let mut args = [0; 6];
        for (place, text) in inside.split(',').map(str::trim).filter(|text| !text.is_empty()).enumerate() {
            let arg = args.get_mut(place).ok_or_else(|| usage("a system call has at most six arguments"))?;
            *arg = number(text).ok_or_else(|| usage(&format!("`{text}` is no number")))?;
        }
        Ok(SeccompData { nr, arch: self.architecture.audit(), instruction_pointer: 0, args })
    }
}

fn check(profiles: &[String], calls: &[String], given: &SeccompGiven, json: bool) -> Result<(), Exit> {
    let mut documents = Vec::new();
    for written in profiles {
        let asked = Asked::read(written, given)?;
        let compiled = asked.compile()?;
        let answers = calls
            .iter()
            .map(|call| Ok((call.as_str(), compiled.filter.evaluate(&asked.call(call)?))))
            .collect::<Result<Vec<(&str, SeccompAction)>, Exit>>()?;
        if json {
            let answers: Vec<Value> =
                answers.iter().map(|(call, action)| json!({ "call": call, "answer": action.to_string() })).collect();
            documents.push(json!({
                "profile": written,
                "instructions": compiled.filter.instructions.len(),
                "unknownCalls": compiled.unknown_calls,
                "unsupportedArchitectures": compiled.unsupported_architectures,
                "answers": answers,
            }));
            continue;
        }
        let length = compiled.filter.instructions.len();
        anstream::println!("{} {written} ({length} instructions of at most 4096)", paint(GOOD, "ok"));
        for name in &compiled.unknown_calls {
            anstream::println!("  {} `{name}` is no call known here: misspelt, or newer", paint(WARN, "warning:"));
        }
        for name in &compiled.unsupported_architectures {
            anstream::println!("  {} programs of `{name}` are killed on this machine", paint(WARN, "warning:"));
        }
        let rows: Vec<Vec<String>> =
            answers.iter().map(|(call, action)| vec![format!("  {call}"), coloured(*action)]).collect();
        anstream::print!("{}", table(&rows));
    }
    if json {
        anstream::println!("{:#}", json!({ "version": JSON_VERSION, "profiles": documents }));
    }
    Ok(())
}

fn explain_calls(written: &str, calls: &[String], given: &SeccompGiven, json: bool) -> Result<(), Exit> {
    let asked = Asked::read(written, given)?;
    let lines = lines_of_rules(&asked.text);
    let place = |rule: usize| match lines.get(rule) {
        Some(line) => format!("syscalls[{rule}], line {line}"),
        None => format!("syscalls[{rule}]"),
    };
    let mut documents = Vec::new();
    for call in calls {
        let explained = asked.explain(&asked.call(call)?)?;
        let reason = match explained.decided_by {
            Decision::Rule(rule) => place(rule),
            Decision::Default => "defaultAction, as no rule holds".to_owned(),
            Decision::UnknownCall => "no call known here has this number".to_owned(),
            Decision::Architecture => "the profile does not list this architecture".to_owned(),
        };
        if json {
            let rule = |number: usize| json!({ "rule": number, "line": lines.get(number) });
            let passed: Vec<Value> = explained
                .passed_over
                .iter()
                .map(|(number, why)| {
                    let mut one = rule(*number);
                    one["why"] = json!(why);
                    one
                })
                .collect();
            let decided = if let Decision::Rule(number) = explained.decided_by { rule(number) } else { Value::Null };
            documents.push(json!({
                "call": call, "answer": explained.action.to_string(), "reason": reason, "decidedBy": decided, "passedOver": passed,
            }));
            continue;
        }
        anstream::println!("{call}: {}   {}", coloured(explained.action), paint(DIM, reason));
        for (rule, why) in &explained.passed_over {
            anstream::println!("  {} {}: {why}", paint(DIM, "passed over"), place(*rule));
        }
    }
    if json {
        anstream::println!("{:#}", json!({ "version": JSON_VERSION, "profile": written, "calls": documents }));
    }
    Ok(())
}

fn disasm(written: &str, given: &SeccompGiven) -> Result<(), Exit> {
    for line in disassemble(&Asked::read(written, given)?.compile()?.filter.instructions) {
        anstream::println!("{line}");
    }
    Ok(())
}

fn coloured(action: SeccompAction) -> String {
    let style = match action {
        SeccompAction::Allow => GOOD,
        SeccompAction::Log | SeccompAction::UserNotify | SeccompAction::Trace(_) => WARN,
        _ => BAD,
    };
    paint(style, action)
}

fn wrong_profile(written: &str, error: &dyn std::error::Error) -> Exit {
    let mut message = format!("`{written}`: {error}");
    let mut source = error.source();
    while let Some(one) = source {
        message += &format!(": {one}");
        source = one.source();
    }
    failed(&message, &[]);
    Exit::File
}

fn usage(message: &str) -> Exit {
    failed(message, &[]);
    Exit::Usage
}

fn running_kernel() -> (u32, u32) {
    let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    release.ok().as_deref().and_then(version).unwrap_or((0, 0))
}

/// Major and minor of `6.1`, `6.1.0-38-amd64`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
