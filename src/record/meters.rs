//! What the recorder measures; counts are in [`super::stats`].
//!
//! Created and named by `observe`.

use std::time::Duration;

use prometheus::Histogram;

/// Histograms of what the recorder does.
#[derive(Debug, Clone)]
pub struct Meters {
    /// Rows in one transaction with the store.
    pub batch_rows: Histogram,
    /// Seconds from the begin of a transaction to its commit: in the store, in the journal.
    pub store_commit: Histogram,
    /// The same for the journal.
    pub journal_commit: Histogram,
}

impl Meters {
    pub(crate) fn store_commit(&self, rows: usize, took: Duration) {
        self.batch_rows.observe(rows as f64);
        self.store_commit.observe(took.as_secs_f64());
    }

    pub(crate) fn journal_commit(&self, took: Duration) {
        self.journal_commit.observe(took.as_secs_f64());
    }

    /// Meters that are not exported.
    #[cfg(test)]
    pub(crate) fn unseen() -> Self {
        let unseen = prometheus::HistogramOpts::new("unseen", "unseen");
        let unseen = Histogram::with_opts(unseen).expect("a valid name");
        Meters { batch_rows: unseen.clone(), store_commit: unseen.clone(), journal_commit: unseen }
    }
}
