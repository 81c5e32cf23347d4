//! One 512-byte tar header: names, numbers, checksum (POSIX.1 `pax`, "ustar Interchange Format"; GNU tar manual,
//! "Basic Tar Format").

use super::TarError;

/// Bytes of a header, and the multiple to which content is padded.
pub const BLOCK: usize = 512;

/// Does `bytes` begin like a gzip member (RFC 1952, 2.3.1)?
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// The name in a header: with the `prefix` of ustar headers, without the trailing NULs. Pax records and GNU long
/// names, which override it, are in other blocks.
pub fn parse_tar_filename(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&header[0..100]);
    // GNU headers ("ustar  ") keep times where POSIX headers ("ustar\0") keep the prefix.
    let prefix = if &header[257..263] == b"ustar\0" { until_nul(&header[345..500]) } else { b"" };
    if prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

/// The size in a header, in bytes: octal, or base-256 where the first bit is set.
pub fn parse_tar_size(header: &[u8; BLOCK]) -> Result<u64, TarError> {
    let size = number(&header[124..136]).and_then(|size| u64::try_from(size).ok());
    size.ok_or(TarError::Field { offset: 0, field: "size" })
}

pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&byte| byte == 0).unwrap_or(field.len())]
}

/// A number field: octal digits between spaces and NULs, or big-endian two's complement after a set first bit.
/// Blank is zero, as every reader takes it.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        return base256(field);
    }
    let digits = field.trim_ascii();
    let digits = until_nul(digits).trim_ascii_end();
    let mut value: i64 = 0;
    for digit in digits {
        let digit = matches!(digit, b'0'..=b'7').then(|| i64::from(digit - b'0'))?;
        value = value.checked_mul(8)?.checked_add(digit)?;
    }
    Some(value)
}

fn base256(field: &[u8]) -> Option<i64> {
    // The bit after the marker is the sign.
    let negative = field[0] & 0x40 != 0;
    let mut value = if negative { -1i64 } else { 0 };
    for (at, byte) in field.iter().enumerate() {
        let byte = if at == 0 && !negative { byte & 0x7f } else { *byte };
        value = value.checked_mul(256)?.checked_add(i64::from(byte))?;
    }
    Some(value)
}

/// Is the stored checksum the sum of the header's bytes with its own field blank? Old tars summed signed bytes.
pub(super) fn checksum_is_right(header: &[u8; BLOCK]) -> bool {
    let Some(stored) = number(&header[148..156]) else { return false };
    let outside = || header[..148].iter().chain(&header[156..]);
    let blank = 8 * i64::from(b' ');
    let unsigned: i64 = outside().map(|&byte| i64::from(byte)).sum();
    let signed: i64 = outside().map(|&byte| i64::from(byte as i8)).sum();
    stored == unsigned + blank || stored == signed + blank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_every_spelling() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"00000000", Some(0)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777", Some(0o77777777)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\0", Some(-256)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"0000688\0", None),
            (b"-000001\0", None),
            (b"+000001\0", None),
            (b"12 34  \0", None),
        ] {
            assert_eq!(number(field), value, "{}", field.escape_ascii());
        }
    }

    #[test]
    fn the_prefix_belongs_to_posix_headers_alone() {
        let mut header = [0; BLOCK];
        header[..4].copy_from_slice(b"name");
        header[345..348].copy_from_slice(b"dir");
        assert_eq!(parse_tar_filename(&header), b"name");
        header[257..265].copy_from_slice(b"ustar  \0");
        assert_eq!(parse_tar_filename(&header), b"name");
        header[257..265].copy_from_slice(b"ustar\x0000");
        assert_eq!(parse_tar_filename(&header), b"dir/name");
        header[..100].fill(b'n');
        assert_eq!(parse_tar_filename(&header).len(), 104);
    }

    #[test]
    fn sizes_beyond_octal_and_below_zero() {
        let mut header = [0; BLOCK];
        header[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\x20\0\0\0\0");
        assert_eq!(parse_tar_size(&header).unwrap(), 0x20_0000_0000);
        header[124..136].fill(0xff);
        assert!(parse_tar_size(&header).is_err());
    }

    #[test]
    fn gzip_is_known_by_its_first_two_bytes() {
        assert!(is_gzip(&[0x1f, 0x8b, 8]));
        assert!(!is_gzip(&[0x1f]));
        assert!(!is_gzip(b"ustar"));
    }
}
