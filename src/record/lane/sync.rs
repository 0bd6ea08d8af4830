//! Group commit: rows that must be in the store before their responses leave.
//!
//! While one transaction is under way the next rows gather, and all of them go into the following
//! one. So a commit waits for at most two transactions, and no timer is needed. A row whose request
//! has stopped waiting before its transaction began is not written.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::record::invocation::Row;
use crate::record::lane::answers::{Answer, Answers};
use crate::record::lane::closing::Closing;
use crate::record::outcome::Unavailable;
use crate::record::patience::{Patience, Progress};
use crate::record::stats::Counters;
use crate::record::store::error::Refusal;
use crate::record::store::link::Link;
use crate::record::store::safety::Safety;

/// The sending side of the lane to one store.
pub(crate) struct Lane {
    link: Arc<Link>,
    waiting: mpsc::Sender<Waiting>,
    progress: Arc<Progress>,
}

struct Waiting {
    row: Row,
    answer: Answer,
}

impl Lane {
    /// Makes the lane and starts the task that serves it. It holds at most `most` rows; further
    /// requests wait for a place.
    pub(crate) fn new(
        link: Arc<Link>,
        counters: Arc<Counters>,
        (max_rows, most): (usize, usize),
        safety: Safety,
        closing: Closing,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (waiting, inbox) = mpsc::channel(most);
        let progress = Arc::<Progress>::default();
        let committer = Committer {
            inbox,
            link: Arc::clone(&link),
            counters,
            progress: Arc::clone(&progress),
            max_rows,
            safety,
            closing,
        };
        (Lane { link, waiting, progress }, committer.run())
    }

    /// Resolves when the row is committed, or when `patience` runs out. A store that has been down
    /// for longer than that is not waited for.
    pub(crate) async fn commit(&self, row: Row, patience: Patience) -> Result<(), Unavailable> {
        if self.link.down_for().is_some_and(|away| away >= patience.stalled) {
            return Err(Unavailable::Down(self.link.error()));
        }
        let (answer, outcome) = Answer::channel();
        let committed = async {
            self.waiting.send(Waiting { row, answer }).await.map_err(|_| Unavailable::Closing)?;
            outcome.await.unwrap_or(Err(Unavailable::Closing))
        };
        match patience.wait(&self.progress, committed).await {
            Ok(outcome) => outcome,
            Err(waited) if self.link.is_ready() => Err(Unavailable::Late(waited)),
            Err(_) => Err(Unavailable::Down(self.link.error())),
        }
    }
}

struct Committer {
    inbox: mpsc::Receiver<Waiting>,
    link: Arc<Link>,
    counters: Arc<Counters>,
    progress: Arc<Progress>,
    max_rows: usize,
    safety: Safety,
    closing: Closing,
}

impl Committer {
    /// Runs until the recorder closes and no request waits any more.
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

    /// Writes the group until the store has it or no request waits for it.
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
                self.progress.advance();
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
