//! Signals by name or number.

/// A number of 1 to 64, a name with or without `SIG`, or `RTMIN+n`, `RTMAX-n`.
pub fn parse(text: &str) -> Result<i32, String> {
    const NAMES: [(&str, i32); 33] = [
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("ILL", libc::SIGILL),
        ("TRAP", libc::SIGTRAP),
        ("ABRT", libc::SIGABRT),
        ("IOT", libc::SIGIOT),
        ("BUS", libc::SIGBUS),
        ("FPE", libc::SIGFPE),
        ("KILL", libc::SIGKILL),
        ("USR1", libc::SIGUSR1),
        ("SEGV", libc::SIGSEGV),
        ("USR2", libc::SIGUSR2),
        ("PIPE", libc::SIGPIPE),
        ("ALRM", libc::SIGALRM),
        ("TERM", libc::SIGTERM),
        ("STKFLT", libc::SIGSTKFLT),
        ("CHLD", libc::SIGCHLD),
        ("CLD", libc::SIGCHLD),
        ("CONT", libc::SIGCONT),
        ("STOP", libc::SIGSTOP),
        ("TSTP", libc::SIGTSTP),
        ("TTIN", libc::SIGTTIN),
        ("TTOU", libc::SIGTTOU),
        ("URG", libc::SIGURG),
        ("XCPU", libc::SIGXCPU),
        ("XFSZ", libc::SIGXFSZ),
        ("VTALRM", libc::SIGVTALRM),
        ("PROF", libc::SIGPROF),
        ("WINCH", libc::SIGWINCH),
        ("IO", libc::SIGIO),
        ("PWR", libc::SIGPWR),
        ("SYS", libc::SIGSYS),
    ];
    const FIRST_REAL_TIME: i32 = 34;
    const LAST: i32 = 64;
    let unknown = || format!("`{text}` is no signal");
    if let Ok(number) = text.parse::<i32>() {
        return Some(number).filter(|number| (0..=LAST).contains(number)).ok_or_else(unknown);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = || {
        let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(""), _) => FIRST_REAL_TIME,
            (Some(rest), _) => FIRST_REAL_TIME + rest.strip_prefix('+')?.parse::<i32>().ok()?,
            (_, Some("")) => LAST,
            (_, Some(rest)) => LAST - rest.strip_prefix('-')?.parse::<i32>().ok()?,
            _ => return None,
        };
        Some(number).filter(|number| (FIRST_REAL_TIME..=LAST).contains(number))
    };
    let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    named.or_else(real_time).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("9", 9), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
        {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for wrong in ["", "SIG", "NOPE", "65", "-1", "RTMIN+99", "9x"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
