//! Watches a file that lists endpoints.
//!
//! It is looked at again and again, as the configuration's files are: notifications of the system do not
//! come from every file system. A file that is being written is left alone until it has stayed the same
//! from one look to the next.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Asked;
use crate::files::text::text_of;
use crate::upstream::config::Listed;
use crate::upstream::discovery::config::File;
use crate::upstream::discovery::file::read;
use crate::upstream::discovery::known::Said;

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// Limit on the file: 100,000 endpoints take about 10 MiB.
const LARGEST: u64 = 16 * 1024 * 1024;

/// What is known of the file.
pub(super) struct FileSource {
    path: PathBuf,
    /// What was said last.
    told: Option<Content>,
    /// Seen once, and not told: it may be about to change again.
    seen: Option<Content>,
    /// There is nothing else to use: the first content is told at once.
    is_needed: bool,
}

/// The file's text, or why it cannot be read.
type Content = Result<String, String>;

impl FileSource {
    /// `is_known`: what the file said before a reload is used meanwhile.
    pub(super) fn new(config: &File, is_known: bool) -> Self {
        FileSource { path: config.path.clone(), told: None, seen: None, is_needed: !is_known }
    }

    /// What is to be told, if anything is.
    fn judge(&mut self, content: Content) -> Option<&Content> {
        let is_first = self.told.is_none() && self.is_needed;
        let has_settled = self.seen.as_ref() == Some(&content);
        if self.told.as_ref() == Some(&content) {
            self.seen = None;
            return None;
        }
        if is_first || has_settled {
            self.seen = None;
            return Some(self.told.insert(content));
        }
        self.seen = Some(content);
        None
    }
}

impl Asked for FileSource {
    async fn next(&mut self) -> Said<Vec<Listed>> {
        loop {
            if self.told.is_some() || self.seen.is_some() {
                tokio::time::sleep(EVERY).await;
            }
            let path = self.path.clone();
            let content = tokio::task::spawn_blocking(move || content(&path)).await;
            // A panic, which the runtime logs: nothing is known of the file.
            let content = content.unwrap_or_else(|_| Err("cannot be read".to_owned()));
            match self.judge(content) {
                Some(Ok(text)) => {
                    // A large one takes a while.
                    let text = text.clone();
                    let read = tokio::task::spawn_blocking(move || read(&text)).await;
                    return read.unwrap_or_else(|_| Said::Failed("cannot be read".to_owned()));
                }
                Some(Err(error)) => return Said::Failed(error.clone()),
                None => {}
            }
        }
    }
}

fn content(path: &Path) -> Content {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("is larger than {} MiB", LARGEST / (1024 * 1024)));
    }
    text_of(&bytes).map(str::to_owned).map_err(|error| error.reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_endpoint() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("endpoints.yaml");
        let text = "- http://10.0.0.1:80\r\n- http://10.0.0.2:80\r\n";
        std::fs::write(&path, format!("\u{feff}{text}")).expect("written");
        let told = content(&path).expect("a text");
        assert_eq!(told, text);
        assert!(matches!(read(&told), Said::These(listed) if listed.len() == 2));
        std::fs::write(&path, b"\xff\xfe-\0").expect("written");
        assert_eq!(content(&path), Err("is in UTF-16".to_owned()));
    }

    #[test]
    fn a_file_is_told_once_it_has_stayed_the_same_from_one_look_to_the_next() {
        let mut source = FileSource::new(&File { path: "e.yaml".into() }, false);
        let mut look = |text: Result<&str, &str>| {
            let content = text.map(str::to_owned).map_err(str::to_owned);
            source.judge(content).is_some()
        };
        assert!(look(Ok("a")), "the first is told at once");
        assert!(!look(Ok("a")));
        assert!(!look(Ok("b")));
        assert!(!look(Ok("c")), "it has changed again");
        assert!(look(Ok("c")));
        assert!(!look(Err("gone")));
        assert!(!look(Ok("c")), "it is back before it was missed");
        assert!(!look(Err("gone")));
        assert!(look(Err("gone")));
        assert!(!look(Ok("c")));
        assert!(look(Ok("c")), "back, though it is what was told before it was gone");
        let mut after_reload = FileSource::new(&File { path: "e.yaml".into() }, true);
        let looks = [(); 2].map(|()| after_reload.judge(Ok("a".to_owned())).is_some());
        assert_eq!(looks, [false, true], "what was known serves until it has settled");
    }
}
