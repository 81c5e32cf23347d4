//! The kernel's log, a record at a time (`Documentation/ABI/testing/dev-kmsg`).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

const KERNEL_LOG: &str = "/dev/kmsg";
/// No record is longer (`PRINTK_MESSAGE_MAX`).
const RECORD: usize = 2048;
/// Records read at most: the log holds some 20,000 of the shortest in its largest usual size.
const MOST_RECORDS: usize = 100_000;

/// Shows every record that the log still holds, the oldest first. Errors: the log may not be read.
pub fn each_record(mut show: impl FnMut(&str)) -> io::Result<()> {
    let mut log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(KERNEL_LOG)?;
    let mut record = [0; RECORD + 64];
    for _ in 0..MOST_RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => show(&String::from_utf8_lossy(&record[..length])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // Records went away while reading, or one is longer than promised.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::EINVAL)) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
