//! Rows as bytes that can be found again in what is left of a damaged file.
//!
//! A frame is a mark, the length of its body, the body's CRC-32, and the body: one row. A mark
//! never occurs inside a body, so after damage reading resumes at the next mark.

use crate::record::invocation::{Row, Stage};
use crate::record::row::{binary, json};

const MARK: [u8; 4] = [0xf5, b'p', b'j', 1];
const HEAD: usize = MARK.len() + 8;
/// Longer than any row; a larger length means a damaged frame.
const LONGEST: usize = 1 << 20;

/// Appends the row's frame.
pub(super) fn write(row: &Row, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&[0; 8]);
    binary::write(&row.invocation, row.stage.is_complete(), out);
    if memchr::memmem::find(&out[start + HEAD..], &MARK).is_some() {
        // Text cannot contain a mark: the mark's first byte never occurs in UTF-8.
        out.truncate(start + HEAD);
        json::write(&row.invocation, row.stage.is_complete(), out);
    }
    let body = &out[start + HEAD..];
    let (length, sum) = (body.len() as u32, crc32fast::hash(body));
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    out[start + 8..start + HEAD].copy_from_slice(&sum.to_le_bytes());
}

/// The length and checksum in a frame's head. They identify a frame even if its body is damaged.
pub(super) type Head = [u8; 8];

/// What was found among arbitrary bytes.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) rows: Vec<Row>,
    /// The heads of the intact rows, in order.
    pub(super) good: Vec<Head>,
    /// The heads of damaged frames.
    pub(super) damaged: Vec<Head>,
    /// How many of these are intact, but in a form that this build does not know.
    pub(super) unknown: usize,
    /// Bytes that belong to a row.
    pub(super) covered: usize,
}

/// Every row in `bytes`, in order, whatever else is in there. A row with a single wrong bit in its
/// frame, but not in its body, counts as intact.
pub(super) fn find(bytes: &[u8]) -> Found {
    let mut found = Found::default();
    let mut rest = bytes;
    loop {
        // Another frame may begin right after the last one, even if its mark is damaged.
        if let Some((row, length)) = row(rest) {
            found.take(row, &rest[..length]);
            rest = &rest[length..];
            continue;
        }
        let Some(start) = memchr::memmem::find(rest, &MARK) else { return found };
        if start > 0 {
            rest = &rest[start..];
            continue;
        }
        let next = memchr::memmem::find(&rest[MARK.len()..], &MARK);
        let end = next.map_or(rest.len(), |next| MARK.len() + next);
        match mended(&rest[..end]) {
            Some(row) => found.take(row, &rest[..end]),
            None => {
                found.unknown += usize::from(intact(rest).is_some());
                found.damaged.push(head(rest));
            }
        }
        rest = &rest[end..];
    }
}

/// Whether a row's frame begins here, apart from its mark.
pub(super) fn begins(bytes: &[u8]) -> bool {
    row(bytes).is_some()
}

impl Found {
    fn take(&mut self, row: Row, frame: &[u8]) {
        self.rows.push(row);
        self.good.push(head(frame));
        self.covered += frame.len();
    }

    /// Adds what was found elsewhere.
    pub(super) fn extend(&mut self, other: Found) {
        self.rows.extend(other.rows);
        self.good.extend(other.good);
        self.damaged.extend(other.damaged);
        self.unknown += other.unknown;
        self.covered += other.covered;
    }
}

/// The head, as much of it as is there.
fn head(frame: &[u8]) -> Head {
    let mut head = Head::default();
    let there = frame.get(MARK.len()..).unwrap_or_default();
    let there = &there[..there.len().min(head.len())];
    head[..there.len()].copy_from_slice(there);
    head
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The row whose frame `bytes` begins with, and the frame's length.
fn row(bytes: &[u8]) -> Option<(Row, usize)> {
    let body = intact(bytes)?;
    Some((read(body)?, HEAD + body.len()))
}

/// The body of the frame that `bytes` begins with, whatever it holds.
fn intact(bytes: &[u8]) -> Option<&[u8]> {
    let (length, sum) = (number(bytes, 4)? as usize, number(bytes, 8)?);
    let body = bytes.get(HEAD..HEAD.checked_add(length.min(LONGEST))?)?;
    let is_intact = !body.is_empty() && body.len() == length && crc32fast::hash(body) == sum;
    is_intact.then_some(body)
}

/// The row of a frame that is known to end here, but whose length or checksum is wrong. One wrong
/// bit in a body would change many bits of its checksum.
fn mended(frame: &[u8]) -> Option<Row> {
    let sum = number(frame, 8)?;
    let wrong = crc32fast::hash(&frame[HEAD..]) ^ sum;
    (wrong.count_ones() <= 1).then(|| read(&frame[HEAD..])).flatten()
}

/// Reads a body.
fn read(body: &[u8]) -> Option<Row> {
    let (invocation, completed) = match body.first()? {
        b'{' => json::read(body)?,
        _ => binary::read(body)?,
    };
    let stage = if completed { Stage::Completion } else { Stage::Answered };
    Some(Row::new(invocation, stage))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::invocation::tests::invocation;

    /// The row's frame as a build would write it that has another form of rows.
    pub(in crate::record::journal) fn of_another_build(row: &Row) -> Vec<u8> {
        let mut frame = Vec::new();
        write(row, &mut frame);
        frame[HEAD] = u8::MAX;
        let sum = crc32fast::hash(&frame[HEAD..]);
        frame[8..HEAD].copy_from_slice(&sum.to_le_bytes());
        frame
    }

    #[test]
    fn a_row_of_an_unknown_form_is_told_from_a_damaged_one() {
        let (bytes, starts) = three();
        let unknown = of_another_build(&Row::new(invocation("four"), Stage::Answered));
        let mut damaged = bytes.clone();
        damaged[starts[1] + HEAD + 5] ^= 0xff;
        let found = find(&[&damaged[..], &unknown, &bytes[..starts[1]]].concat());
        assert_eq!(names(&found), ["one", "three", "one"]);
        assert_eq!((found.damaged.len(), found.unknown), (2, 1));
    }

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
        assert_eq!(found.damaged.len(), 0);
    }

    #[test]
    fn one_flipped_bit_costs_a_row_only_in_its_body() {
        let (bytes, starts) = three();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = find(&flipped);
            let (rows, damaged) = (found.rows.len(), found.damaged.len());
            assert_eq!(rows + damaged, 3, "bit {bit}");
            let in_body = starts.iter().all(|start| !(*start..start + HEAD).contains(&(bit / 8)));
            assert_eq!(damaged, usize::from(in_body), "bit {bit}");
        }
    }

    #[test]
    fn a_body_that_would_hold_a_mark_is_text() {
        let mut marked = invocation("one");
        marked.trace_id = u128::from(u32::from_be_bytes(MARK));
        let row = Row::new(marked, Stage::Answered);
        let mut bytes = Vec::new();
        write(&row, &mut bytes);
        assert_eq!(bytes[HEAD], b'{');
        assert_eq!(memchr::memmem::find_iter(&bytes, &MARK).count(), 1);
        assert_eq!(find(&bytes).rows, [row]);
    }

    #[test]
    fn a_torn_end_is_counted() {
        let (bytes, starts) = three();
        for end in starts[2] + MARK.len()..bytes.len() {
            let found = find(&bytes[..end]);
            assert_eq!((names(&found), found.damaged.len()), (vec!["one", "two"], 1), "{end}");
        }
    }
}
