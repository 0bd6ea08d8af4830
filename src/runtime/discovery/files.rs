//! The small files that come with a source: tokens, authorities. They are read for each request, because
//! others exchange them.

use std::io::Read;
use std::path::Path;

use reqwest::Certificate;

/// Limit on such a file; a token has about 1 KiB.
const LARGEST: u64 = 1024 * 1024;

/// The text of a file, without white space at its ends.
///
/// # Errors
/// Why it cannot be read.
pub(super) async fn text(path: &Path) -> Result<String, String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let unreadable = |error| format!("{} cannot be read: {error}", path.display());
        let file = std::fs::File::open(&path).map_err(unreadable)?;
        let mut text = String::new();
        file.take(LARGEST).read_to_string(&mut text).map_err(unreadable)?;
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
    let found = Certificate::from_pem_bundle(pem.as_bytes())
        .map_err(|error| format!("ca: {}: {error}", path.display()))?;
    match found.is_empty() {
        true => Err(format!("ca: {} holds no certificate", path.display())),
        false => Ok(found),
    }
}
