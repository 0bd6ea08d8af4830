//! A tar archive, compressed with gzip: the ustar form of POSIX.1-2001, as far as a few small files need it.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

/// Headers and contents fill whole blocks.
const BLOCK: usize = 512;

/// An archive that is being written, in memory.
pub(super) struct Archive {
    compressed: GzEncoder<Vec<u8>>,
    /// All files are in it.
    folder: String,
    /// Seconds since 1970.
    modified: u64,
}

impl Archive {
    pub(super) fn new(folder: &str, modified: SystemTime) -> Self {
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let compressed = GzEncoder::new(Vec::new(), Compression::default());
        Archive { compressed, folder: folder.to_owned(), modified }
    }

    /// Adds a file. With the folder, `name` has at most 100 bytes.
    pub(super) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = format!("{}/{name}", self.folder);
        self.compressed.write_all(&header(&path, content.len(), self.modified)?)?;
        self.compressed.write_all(content)?;
        let rest = content.len().next_multiple_of(BLOCK) - content.len();
        self.compressed.write_all(&[0; BLOCK][..rest])
    }

    /// The bytes of the whole archive.
    pub(super) fn finish(mut self) -> io::Result<Vec<u8>> {
        self.compressed.write_all(&[0; 2 * BLOCK])?;
        self.compressed.finish()
    }
}

/// A regular file that only its owner may read.
fn header(path: &str, size: usize, modified: u64) -> io::Result<[u8; BLOCK]> {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| -> io::Result<()> {
        let room = header.get_mut(at..at + text.len());
        let room = room.ok_or_else(|| io::Error::other("a header has no more room"))?;
        room.copy_from_slice(text.as_bytes());
        Ok(())
    };
    if path.len() > 100 {
        return Err(io::Error::other(format!("the name is too long for an archive: {path}")));
    }
    put(0, path)?;
    put(100, "0000600\0")?;
    // Owner and group become those of the user who unpacks it.
    put(108, "0000000\0")?;
    put(116, "0000000\0")?;
    put(124, &format!("{size:011o}\0"))?;
    put(136, &format!("{modified:011o}\0"))?;
    // The checksum is that of the header with blanks in its place.
    put(148, "        ")?;
    put(156, "0")?;
    put(257, "ustar\x0000")?;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    fn unpacked(archive: Archive) -> Vec<u8> {
        let mut bytes = Vec::new();
        let compressed = archive.finish().expect("an archive");
        GzDecoder::new(&compressed[..]).read_to_end(&mut bytes).expect("gzip");
        bytes
    }

    #[test]
    fn an_archive_is_whole_blocks_with_two_empty_ones_at_the_end() {
        let mut archive = Archive::new("top", SystemTime::UNIX_EPOCH);
        archive.add("a", b"").expect("added");
        archive.add("b", &[7; BLOCK]).expect("added");
        archive.add("c", &[8; BLOCK + 1]).expect("added");
        let bytes = unpacked(archive);
        // A header each, and 0, 1 and 2 blocks of content.
        assert_eq!(bytes.len(), BLOCK * (3 + 3 + 2));
        assert!(bytes[BLOCK * 6..].iter().all(|byte| *byte == 0));
        assert_eq!(bytes[2 * BLOCK], 7);
    }

    #[test]
    fn a_header_adds_up_and_a_name_that_does_not_fit_is_refused() {
        let header = header("top/name", 0o1234, 0).expect("a header");
        assert_eq!(&header[..9], b"top/name\0");
        assert_eq!(&header[124..136], b"00000001234\0");
        let told = std::str::from_utf8(&header[148..154]).expect("text");
        let told = u32::from_str_radix(told, 8).expect("a number");
        let blank = header.iter().enumerate().map(|(at, byte)| match at {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        });
        assert_eq!(blank.sum::<u32>(), told);
        assert!(super::header(&"n".repeat(101), 0, 0).is_err());
    }
}
