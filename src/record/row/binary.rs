//! A row in a compact binary form, as the journal holds it: half the size of JSON, and much faster.
//!
//! ```text
//! version │ n │ n bytes: a bit for each column that is present │ the values of these, in order
//! ```
//!
//! Nothing in it names the columns: their places in the list do. A reader whose list is shorter reads
//! the columns it knows; one whose list is longer finds the bits of its own columns unset.

use super::columns::{COLUMNS, Draft};
use super::earlier;
use crate::record::invocation::Invocation;

/// The first byte. No text begins with it.
const VERSION: u8 = 4;
/// Bytes that tell which columns are present.
const PRESENT: usize = COLUMNS.len().div_ceil(8);

/// Appends the row to `out`.
pub(crate) fn write(it: &Invocation, completed: bool, out: &mut Vec<u8>) {
    let mut present = [0; PRESENT];
    out.extend_from_slice(&[VERSION, PRESENT as u8]);
    let start = out.len();
    out.extend_from_slice(&present);
    for (index, column) in COLUMNS.iter().enumerate() {
        present[index / 8] |= u8::from(column.put(it, completed, out)) << (index % 8);
    }
    out[start..start + PRESENT].copy_from_slice(&present);
}

/// The row that [`write`] has written, and whether it was complete; `None` for any other bytes.
pub(crate) fn read(bytes: &[u8]) -> Option<(Invocation, bool)> {
    let (version, rest) = bytes.split_first()?;
    if *version != VERSION {
        return earlier::read(*version, rest);
    }
    let (length, rest) = rest.split_first()?;
    let (present, mut values) = rest.split_at_checked(usize::from(*length))?;
    let is_present =
        |index: &usize| present.get(index / 8).is_some_and(|bits| bits & (1 << (index % 8)) != 0);
    let mut draft = Draft::new();
    for index in (0..COLUMNS.len()).filter(is_present) {
        draft.take(index, &mut values)?;
    }
    let has_unknown = (COLUMNS.len()..8 * present.len()).any(|index| is_present(&index));
    if values.is_empty() || has_unknown { draft.finish() } else { None }
}
