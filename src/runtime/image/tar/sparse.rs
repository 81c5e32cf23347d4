//! Sparse files as GNU tar writes them: the old format with its map in the header, and pax 0.0, 0.1 and 1.0
//! (GNU tar manual, "Storing Sparse Files").

use super::header::{BLOCK, number};

/// Pieces of one sparse file. Each costs 24 bytes of archive at least, and 16 bytes of memory.
pub(super) const MAX_PIECES: usize = 1 << 20;
/// Largest file that may be claimed; ext4 ends there.
const MAX_FILE: u64 = 16 << 40;

/// Where the stored bytes of a sparse file belong; what lies between is a hole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseMap {
    /// Offset in the file and number of bytes, in ascending order, without overlap.
    pub pieces: Vec<(u64, u64)>,
    /// Bytes of the file, holes included.
    pub size: u64,
}

impl SparseMap {
    /// The map, where its pieces are in order, do not overlap, end within the file and hold `stored` bytes in all.
    pub(super) fn checked(pieces: Vec<(u64, u64)>, size: u64, stored: u64) -> Option<Self> {
        let (mut end, mut sum) = (0, 0u64);
        for &(offset, bytes) in &pieces {
            if offset < end {
                return None;
            }
            end = offset.checked_add(bytes)?;
            sum = sum.checked_add(bytes)?;
        }
        (end <= size && size <= MAX_FILE && sum == stored).then_some(Self { pieces, size })
    }
}

/// What pax records say of a sparse file.
#[derive(Clone, Debug, Default)]
pub(super) struct PaxSparse {
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub major: Option<u64>,
    pub pieces: Vec<(u64, u64)>,
    /// An offset whose length has not come yet.
    offset: Option<u64>,
}

impl PaxSparse {
    /// Takes the record `GNU.sparse.<key>`; `None` where it is malformed.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let decimal = || super::pax::decimal(value);
        match key {
            b"name" => self.name = Some(super::pax::name(value)?),
            b"size" | b"realsize" => self.size = Some(decimal()?),
            b"major" => self.major = Some(decimal()?),
            b"offset" => self.offset = Some(decimal()?),
            b"numbytes" => self.push(decimal()?)?,
            b"map" => {
                for field in value.split(|&byte| byte == b',') {
                    self.number(super::pax::decimal(field)?)?;
                }
            }
            // The minor version and the number of pieces, which the pieces themselves tell.
            _ => {}
        }
        Some(())
    }

    /// One number of a map: offset and length in turn.
    pub(super) fn number(&mut self, value: u64) -> Option<()> {
        match self.offset {
            None => {
                self.offset = Some(value);
                Some(())
            }
            Some(_) => self.push(value),
        }
    }

    fn push(&mut self, bytes: u64) -> Option<()> {
        let offset = self.offset.take()?;
        if self.pieces.len() >= MAX_PIECES {
            return None;
        }
        self.pieces.push((offset, bytes));
        Some(())
    }
}

/// Where stored bytes lie in the file, and how many.
type Piece = (u64, u64);

/// The map of an old GNU header: four pieces in it, and whether blocks with more follow.
pub(super) fn old_header(header: &[u8; BLOCK]) -> Option<(Vec<Piece>, u64, bool)> {
    let size = u64::try_from(number(&header[483..495])?).ok()?;
    Some((pieces(&header[386..482])?, size, header[482] != 0))
}

/// The map of a block that follows an old GNU header: twenty-one pieces, and whether another follows.
pub(super) fn old_extension(block: &[u8; BLOCK]) -> Option<(Vec<Piece>, bool)> {
    Some((pieces(&block[..504])?, block[504] != 0))
}

fn pieces(fields: &[u8]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    for field in fields.chunks_exact(24) {
        if field[0] == 0 {
            break;
        }
        let value = |range: std::ops::Range<usize>| u64::try_from(number(&field[range])?).ok();
        pieces.push((value(0..12)?, value(12..24)?));
    }
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_must_be_in_order_and_hold_what_is_stored() {
        let check = |pieces: &[(u64, u64)], size, stored| SparseMap::checked(pieces.to_vec(), size, stored).is_some();
        assert!(check(&[], 0, 0));
        assert!(check(&[(0, 5), (5, 5), (100, 0)], 100, 10));
        for (pieces, size, stored) in [
            (&[(5, 5), (0, 5)][..], 100, 10),
            (&[(0, 5), (4, 5)], 100, 10),
            (&[(0, 5)], 4, 5),
            (&[(0, 5)], 5, 4),
            (&[(u64::MAX, 1)], u64::MAX, 1),
            (&[], u64::MAX, 0),
        ] {
            assert!(!check(pieces, size, stored), "{pieces:?}");
        }
    }
}
