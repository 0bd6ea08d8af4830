//! The stream of changes that a watch brings, line by line.

use std::time::Duration;

use reqwest::Response;
use tokio::time::Instant;

use super::lines::Lines;

/// Limit on a change, which is a slice: 1,000 endpoints take about 400 KiB.
const LONGEST_LINE: usize = 4 * 1024 * 1024;
/// How much longer than its time a watch may be silent, at most.
const GRACE: Duration = Duration::from_secs(10);

/// A stream of changes.
pub(super) struct Changes {
    response: Response,
    lines: Lines,
    /// How long it may be without a line.
    silence: Duration,
    begun: Instant,
    heard: Instant,
}

impl Changes {
    /// Of a watch that the server is to end after `time`.
    pub(super) fn new(response: Response, time: Duration) -> Self {
        let (lines, begun) = (Lines::new(LONGEST_LINE), Instant::now());
        Changes { response, lines, silence: time + time.min(GRACE), begun, heard: begun }
    }

    /// Waits for more of the stream. Returns `false` if there is no more: it has ended, is broken, or has
    /// brought no line for too long. Which of them does not matter, the next watch goes on from the
    /// last version.
    pub(super) async fn wait(&mut self) -> bool {
        match tokio::time::timeout_at(self.heard + self.silence, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                self.lines.push(&chunk);
                true
            }
            Ok(Ok(None) | Err(_)) | Err(_) => false,
        }
    }

    /// The next line that is there.
    ///
    /// # Errors
    /// It is too long.
    pub(super) fn line(&mut self) -> Result<Option<&[u8]>, String> {
        let line = self.lines.take()?;
        if line.is_some() {
            self.heard = Instant::now();
        }
        Ok(line)
    }

    /// How long it has lasted.
    pub(super) fn age(&self) -> Duration {
        self.begun.elapsed()
    }
}
