//! A task that ends with its handle.

use tokio::task::JoinHandle;

/// Aborts the task when it is dropped.
#[must_use = "dropping it ends the task"]
#[derive(Debug)]
pub struct Task(JoinHandle<()>);

impl Task {
    /// Starts the task. Must be called within a Tokio runtime.
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Task(tokio::spawn(work))
    }

    /// Ends the task before its handle is dropped.
    pub(super) fn end(&self) {
        self.0.abort();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
