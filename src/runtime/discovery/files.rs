//! The small files that come with a source: tokens, authorities. They are read for each request, because
//! others exchange them.

use std::io::Read;
use std::path::Path;

use reqwest::Certificate;

use crate::files::pem;
use crate::files::text::text_of;

/// Limit on such a file; a token has about 1 KiB.
const LARGEST: u64 = 1024 * 1024;

/// The text of a file, without a byte order mark and without white space at its ends.
///
/// # Errors
/// Why it cannot be read.
pub(super) async fn text(path: &Path) -> Result<String, String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let unreadable = |error| format!("{} cannot be read: {error}", path.display());
        let file = std::fs::File::open(&path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes).map_err(unreadable)?;
        let text =
            text_of(&bytes).map_err(|error| format!("{} {}", path.display(), error.reason))?;
        Ok(text.trim().to_owned())
    });
    // A panic, which the runtime logs.
    read.await.unwrap_or_else(|_| Err("the file cannot be read".to_owned()))
}

/// The token in the file of the key `token_file`.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub(super) async fn token(path: &Path) -> Result<String, String> {
    let token = text(path).await.map_err(|error| format!("token_file: {error}"))?;
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(token),
        false => Err(format!("token_file: {} holds no token", path.display())),
    }
}

/// The certificates in the file of the key `ca`.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub(super) async fn authorities(path: &Path) -> Result<Vec<Certificate>, String> {
    let pem = text(path).await.map_err(|error| format!("ca: {error}"))?;
    certificates(path, &pem)
}

/// The certificates that `pem`, the text of the file `path`, holds.
///
/// # Errors
/// It holds something else.
pub(super) fn certificates(path: &Path, pem: &str) -> Result<Vec<Certificate>, String> {
    let file = path.display();
    let found = pem::certificates(pem.as_bytes()).map_err(|error| format!("ca: {file} {error}"))?;
    let found: reqwest::Result<Vec<_>> =
        found.iter().map(|one| Certificate::from_der(one)).collect();
    found.map_err(|error| format!("ca: {file}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_byte_order_mark_is_no_part_of_a_token() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "\u{feff}hunter2\r\n").expect("written");
        assert_eq!(token(&path).await, Ok("hunter2".to_owned()));
    }
}
