//! System calls that filters denied, as the kernel's log tells them.
//!
//! A kernel with audit and no audit daemon writes such a record to its log for each call that a filter kills for, and for
//! other answers where the filter asked for that (`SECCOMP_FILTER_FLAG_LOG`, `kernel.seccomp.actions_logged`).

use std::io;

use super::{Architecture, SeccompAction};
use crate::runtime::kernel_log::each_record;

/// One denied call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeniedCall {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Of the process, in the initial pid namespace.
    pub pid: u32,
    /// The thread's name, at most 15 bytes.
    pub process: String,
    /// An `AUDIT_ARCH_*` number.
    pub arch: u32,
    pub nr: u32,
    pub action: SeccompAction,
}

impl DeniedCall {
    /// Reads one record (`audit_seccomp` in `kernel/auditsc.c`): `6,1234,5678,-;audit: type=1326 audit(1700000000.123:45):
    /// auid=… pid=77 comm="mount" exe="/usr/bin/mount" sig=31 arch=c000003e syscall=165 compat=0 ip=… code=0x80000000`.
    /// `None`: it tells of something else, or of a call that was made.
    pub fn parse(record: &str) -> Option<Self> {
        let text = record.lines().next()?.split_once("type=1326 audit(")?.1;
        let (time, text) = text.split_once(':')?;
        let (seconds, millis) = time.split_once('.')?;
        // A name may hold anything; the fields before it and after it do not.
        let (head, tail) = text.split_once(" comm=")?;
        let (name, tail) = tail.rsplit_once(" exe=")?;
        let field = |text: &str, key: &str| {
            let word = text.split(' ').rev().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            word.map(|word| word.trim().to_owned())
        };
        let action = field(tail, "code")?;
        let call = Self {
            at_ms: seconds.parse::<i64>().ok()?.checked_mul(1000)?.checked_add(millis.parse().ok()?)?,
            pid: field(head, "pid")?.parse().ok()?,
            process: unquoted(name),
            arch: u32::from_str_radix(&field(tail, "arch")?, 16).ok()?,
            nr: field(tail, "syscall")?.parse().ok()?,
            action: SeccompAction::from_raw(u32::from_str_radix(action.strip_prefix("0x")?, 16).ok()?),
        };
        (!matches!(call.action, SeccompAction::Allow | SeccompAction::Log)).then_some(call)
    }

    /// The call's name, or its number.
    pub fn name(&self) -> String {
        match Architecture::call(self.arch, self.nr) {
            (_, Some(name)) => name.into(),
            (_, None) => format!("call {}", self.nr),
        }
    }

    /// In words, such as "`mount` by `sh` (process 77): kill the process".
    pub fn text(&self) -> String {
        format!("`{}` by `{}` (process {}): {}", self.name(), self.process, self.pid, self.action)
    }
}

/// Audit writes a name in quotes, or in hexadecimal digits where it holds what could be misread.
fn unquoted(text: &str) -> String {
    if let Some(text) = text.strip_prefix('"') {
        return text.trim_end_matches('"').into();
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    bytes.map_or_else(|| text.into(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The denied calls that the kernel's log still holds and `is_meant` takes, the oldest first. Errors: the log may not be
/// read.
pub fn logged_denials(is_meant: impl Fn(&DeniedCall) -> bool) -> io::Result<Vec<DeniedCall>> {
    let mut calls = Vec::new();
    each_record(|record| calls.extend(DeniedCall::parse(record).filter(|call| is_meant(call))))?;
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "5,812,90817263,-;audit: type=1326 audit(1700000000.123:45): auid=4294967295 uid=0 gid=0 \
        ses=4294967295 pid=77 comm=\"a pid=9 b\" exe=\"/usr/bin/mount\" sig=31 arch=c000003e syscall=165 compat=0 \
        ip=0x7f2ad9 code=0x80000000\n SUBSYSTEM=x\n";

    #[test]
    fn a_record_tells_the_call_by_name_and_who_made_it() {
        let call = DeniedCall::parse(RECORD).unwrap();
        assert_eq!((call.at_ms, call.pid, call.process.as_str()), (1_700_000_000_123, 77, "a pid=9 b"));
        assert_eq!(call.text(), "`mount` by `a pid=9 b` (process 77): kill the process");
        let of_i386 = DeniedCall::parse(&RECORD.replace("c000003e syscall=165", "40000003 syscall=21")).unwrap();
        assert_eq!(of_i386.name(), "mount");
        assert_eq!(DeniedCall::parse(&RECORD.replace("=165", "=9999")).unwrap().name(), "call 9999");
    }

    #[test]
    fn names_in_digits_are_read_and_calls_that_were_made_are_passed_over() {
        let coded = RECORD.replace("\"a pid=9 b\"", "612062");
        assert_eq!(DeniedCall::parse(&coded).unwrap().process, "a b");
        let refused = DeniedCall::parse(&RECORD.replace("0x80000000", "0x50001")).unwrap();
        assert_eq!(refused.action, SeccompAction::Errno(1));
        assert_eq!(DeniedCall::parse(&RECORD.replace("0x80000000", "0x7ffc0000")), None);
        assert_eq!(DeniedCall::parse(&RECORD.replace("1326", "1400")), None);
    }
}
