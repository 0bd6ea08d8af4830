//! Group commit: rows that must be in the store before their responses leave.
//!
//! While one transaction is under way the next rows gather, and all of them go into the following
//! one; so a commit waits for at most two, and no timer is needed. A row whose request has stopped
//! waiting before its transaction began is not written.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::answer::{Answer, Answers};
use super::invocation::Row;
use super::link::Link;
use super::recorder::{Closing, Unavailable};
use super::stats::Counters;
use super::store::{Refusal, Safety};

/// The entrance to one store.
pub(crate) struct Lane {
    link: Arc<Link>,
    waiting: mpsc::Sender<Waiting>,
}

struct Waiting {
    row: Row,
    answer: Answer,
}

impl Lane {
    /// The lane, and the task that serves it. At most `most` commits wait.
    pub(crate) fn new(
        link: Arc<Link>,
        counters: Arc<Counters>,
        (max_rows, most): (usize, usize),
        safety: Safety,
        closing: Closing,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (waiting, inbox) = mpsc::channel(most);
        let committer =
            Committer { inbox, link: Arc::clone(&link), counters, max_rows, safety, closing };
        (Lane { link, waiting }, committer.run())
    }

    /// Resolves when the row is committed, or when it is not going to be within `within`. A store
    /// that has been away for longer than that is not waited for.
    pub(crate) async fn commit(&self, row: Row, within: Duration) -> Result<(), Unavailable> {
        if self.link.down_for().is_some_and(|away| away >= within) {
            return Err(Unavailable::Down(self.link.error()));
        }
        let (answer, outcome) = Answer::channel();
        self.waiting.try_send(Waiting { row, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unavailable::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Unavailable::Closing,
        })?;
        match timeout(within, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Unavailable::Closing),
            Err(_) if self.link.is_ready() => Err(Unavailable::Late(within)),
            Err(_) => Err(Unavailable::Down(self.link.error())),
        }
    }
}

struct Committer {
    inbox: mpsc::Receiver<Waiting>,
    link: Arc<Link>,
    counters: Arc<Counters>,
    max_rows: usize,
    safety: Safety,
    closing: Closing,
}

impl Committer {
    /// Ends when the recorder closes and nobody waits any more.
    async fn run(mut self) {
        loop {
            let mut group = Vec::new();
            tokio::select! {
                _ = self.inbox.recv_many(&mut group, self.max_rows) => {}
                () = self.closing.begun(), if !self.inbox.is_closed() => {
                    self.inbox.close();
                    continue;
                }
            }
            if group.is_empty() {
                return;
            }
            let mut closing = self.closing.clone();
            tokio::select! {
                () = self.deliver(group) => {}
                () = closing.expired() => return,
            }
        }
    }

    /// Writes the group until the store has it or nobody waits for it.
    async fn deliver(&self, group: Vec<Waiting>) {
        let (mut rows, mut answers): (Vec<Row>, Vec<Answer>) =
            group.into_iter().map(|waiting| (waiting.row, waiting.answer)).unzip();
        loop {
            self.link.ready().await;
            (rows, answers) =
                rows.into_iter().zip(answers).filter(|(_, answer)| !answer.is_unwanted()).unzip();
            if rows.is_empty() {
                return;
            }
            let batch = Arc::new(rows);
            if let Ok(refusals) = self.link.write(&batch, self.safety).await {
                self.counters.batches.add(1);
                return answer(answers, refusals);
            }
            rows = Arc::unwrap_or_clone(batch);
        }
    }
}

fn answer(answers: Vec<Answer>, refusals: Vec<Refusal>) {
    let mut outcomes: Vec<_> = answers.iter().map(|_| Ok(())).collect();
    for refusal in refusals {
        if let Some(outcome) = outcomes.get_mut(refusal.index) {
            *outcome = Err(Unavailable::Refused(refusal.reason));
        }
    }
    Answers::give(answers.into_iter().zip(outcomes));
}
