//! Cuts a stream into lines, of which none may be too long.

use memchr::memchr;

/// Bytes that have come, of which the lines are taken one by one.
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Up to here the buffer has been taken.
    taken: usize,
    /// Up to here there is no end of a line after what was taken.
    searched: usize,
    longest: usize,
}

impl Lines {
    pub(super) fn new(longest: usize) -> Self {
        Lines { buffer: Vec::new(), taken: 0, searched: 0, longest }
    }

    /// Adds what has come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.searched -= self.taken;
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line that has come whole, without its end; what is left is a part of one, or nothing.
    ///
    /// # Errors
    /// The line is too long, whether it has come whole or not.
    pub(super) fn take(&mut self) -> Result<Option<&[u8]>, String> {
        let found = memchr(b'\n', &self.buffer[self.searched..]).map(|at| self.searched + at);
        let end = found.unwrap_or(self.buffer.len());
        if end - self.taken > self.longest {
            return Err(format!("a line is longer than {} MiB", self.longest >> 20));
        }
        self.searched = end;
        let Some(end) = found else { return Ok(None) };
        let start = std::mem::replace(&mut self.taken, end + 1);
        self.searched = self.taken;
        Ok(Some(&self.buffer[start..end]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(lines: &mut Lines) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        while let Some(line) = lines.take()? {
            found.push(String::from_utf8_lossy(line).into_owned());
        }
        Ok(found)
    }

    #[test]
    fn lines_are_the_same_wherever_the_stream_is_cut() {
        let text = b"one\n\nthree\nhalf";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let mut lines = Lines::new(5);
                let mut found = Vec::new();
                for part in [&text[..first], &text[first..second], &text[second..]] {
                    lines.push(part);
                    found.extend(all(&mut lines).expect("short"));
                }
                assert_eq!(found, ["one", "", "three"], "{first} {second}");
            }
        }
    }

    #[test]
    fn a_line_without_end_is_refused_before_it_fills_the_memory() {
        let mut lines = Lines::new(5);
        lines.push(b"ok\n12345");
        assert_eq!(all(&mut lines), Ok(vec!["ok".to_owned()]));
        lines.push(b"6");
        assert!(all(&mut lines).is_err());
        let mut whole = Lines::new(5);
        whole.push(b"123456\n");
        assert!(all(&mut whole).is_err());
    }
}
