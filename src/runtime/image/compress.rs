//! Compression of layers: which one it is, told by the first bytes, and the reader that undoes it.

use std::io::{self, BufRead, Read};

use super::tar::{TarInput, is_gzip};

/// How a blob is compressed. The media type only promises; the first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    /// One or more members (RFC 1952).
    Gzip,
    /// One or more frames, skippable frames among them (RFC 8878).
    Zstd,
    /// Known and not supported: its name.
    Other(&'static str),
}

impl Compression {
    /// Told from the first bytes of a blob; six are enough.
    pub fn of(start: &[u8]) -> Self {
        let skippable = start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == [0x2a, 0x4d, 0x18];
        if is_gzip(start) {
            Self::Gzip
        } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || skippable {
            Self::Zstd
        } else if start.starts_with(b"BZh") {
            Self::Other("bzip2")
        } else if start.starts_with(b"\xfd7zXZ\0") {
            Self::Other("xz")
        } else {
            Self::None
        }
    }
}

/// Undoes the compression that the first bytes of `input` tell.
pub enum Inflater<R: BufRead> {
    None(R),
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    Zstd(zstd::stream::read::Decoder<'static, R>),
}

impl<R: BufRead> Inflater<R> {
    /// Errors: kind `Unsupported`, with the name of the compression as text.
    pub fn new(mut input: R) -> io::Result<Self> {
        Ok(match Compression::of(input.fill_buf()?) {
            Compression::None => Self::None(input),
            Compression::Gzip => Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
            Compression::Zstd => Self::Zstd(zstd::stream::read::Decoder::with_buffer(input)?),
            Compression::Other(name) => return Err(io::Error::new(io::ErrorKind::Unsupported, name)),
        })
    }

    pub fn into_inner(self) -> R {
        match self {
            Self::None(input) => input,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        }
    }
}

impl<R: BufRead> Read for Inflater<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(input) => input.read(buf),
            Self::Gzip(decoder) => decoder.read(buf),
            Self::Zstd(decoder) => decoder.read(buf),
        }
    }
}

impl<R: Read> TarInput for super::digest::HashingReader<R> {}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn check(compressed: &[u8], expected: &[u8]) {
        let mut plain = Vec::new();
        Inflater::new(compressed).unwrap().read_to_end(&mut plain).unwrap();
        assert_eq!(plain, expected);
    }

    #[test]
    fn several_members_and_frames_are_one_stream() {
        check(b"plain", b"plain");
        check(b"", b"");
        check(&[gzip(b"one "), gzip(b"two")].concat(), b"one two");
        let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
        check(&[skippable.clone(), frame(b"one "), skippable, frame(b"two")].concat(), b"one two");
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        for whole in [gzip(b"some content"), zstd::encode_all(&b"some content"[..], 1).unwrap()] {
            let mut plain = Vec::new();
            assert!(Inflater::new(&whole[..whole.len() - 3]).unwrap().read_to_end(&mut plain).is_err());
        }
    }

    #[test]
    fn other_compressions_are_refused_by_name() {
        let error = Inflater::new(&b"BZh91AY"[..]).err().unwrap();
        assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::Unsupported, "bzip2".to_owned()));
    }
}
