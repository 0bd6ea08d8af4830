//! Rows as bytes that can be found again in whatever is left of a file.
//!
//! A frame is a mark, the length of its text, the text's CRC-32, and the text: one row as JSON. The
//! mark begins with a byte that UTF-8 never uses, so no text contains one; after damage the next mark
//! is where reading goes on.

use crate::record::invocation::{Row, Stage};
use crate::record::json;

const MARK: [u8; 4] = [0xf5, b'p', b'j', 1];
const HEAD: usize = MARK.len() + 8;
/// Longer than any row: what claims more is damaged.
const LONGEST: usize = 1 << 20;

/// Appends the row's frame.
pub(super) fn write(row: &Row, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&[0; 8]);
    json::write(&row.invocation, row.stage.is_complete(), out);
    let text = &out[start + HEAD..];
    let (length, sum) = (text.len() as u32, crc32fast::hash(text));
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    out[start + 8..start + HEAD].copy_from_slice(&sum.to_le_bytes());
}

/// What was found between other bytes.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) rows: Vec<Row>,
    /// Marks without a whole row behind them.
    pub(super) damaged: u64,
}

/// Every row in `bytes`, in order, whatever else is in there.
pub(super) fn find(bytes: &[u8]) -> Found {
    let mut found = Found::default();
    let mut rest = bytes;
    while let Some(start) = memchr::memmem::find(rest, &MARK) {
        rest = &rest[start..];
        match row(rest) {
            Some((row, length)) => {
                found.rows.push(row);
                rest = &rest[length..];
            }
            None => {
                found.damaged += 1;
                rest = &rest[MARK.len()..];
            }
        }
    }
    found
}

/// The row whose frame `bytes` begins with, and the frame's length.
fn row(bytes: &[u8]) -> Option<(Row, usize)> {
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (length, sum) = (number(4)? as usize, number(8)?);
    let text = bytes.get(HEAD..HEAD.checked_add(length.min(LONGEST))?)?;
    if text.len() != length || crc32fast::hash(text) != sum {
        return None;
    }
    let (invocation, completed) = json::read(text)?;
    let stage = if completed { Stage::Completion } else { Stage::Answered };
    Some((Row { invocation, stage }, HEAD + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::invocation::tests::invocation;

    fn three() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        for name in ["one", "two", "three"] {
            starts.push(bytes.len());
            write(&Row::new(invocation(name), Stage::Answered), &mut bytes);
        }
        (bytes, starts)
    }

    fn names(found: &Found) -> Vec<&str> {
        found.rows.iter().filter_map(|row| row.invocation.captured.name.as_deref()).collect()
    }

    #[test]
    fn rows_are_found_between_other_bytes() {
        let (bytes, _) = three();
        let found = find(&[&b"\xf5pj"[..], &bytes, b"\xf5p", &[0; 99], &bytes].concat());
        assert_eq!(names(&found), ["one", "two", "three", "one", "two", "three"]);
        assert_eq!(found.damaged, 0);
    }

    #[test]
    fn one_flipped_bit_costs_at_most_one_row() {
        let (bytes, _) = three();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = find(&flipped);
            assert_eq!(found.rows.len(), 2, "bit {bit}");
        }
    }

    #[test]
    fn a_torn_end_is_counted() {
        let (bytes, starts) = three();
        for end in starts[2] + MARK.len()..bytes.len() {
            let found = find(&bytes[..end]);
            assert_eq!((names(&found), found.damaged), (vec!["one", "two"], 1), "{end}");
        }
    }
}
