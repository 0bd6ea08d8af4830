//! What a request learns that waits for its row to be committed.
//!
//! A group of rows is committed on another thread than its requests wait on, and waking that thread
//! costs a system call. So all outcomes of a group are sent over together.

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::record::outcome::Unavailable;

pub(crate) type Outcome = Result<(), Unavailable>;

/// The way back to one request.
pub(crate) struct Answer {
    sender: oneshot::Sender<Outcome>,
    /// The runtime the request waits on.
    runtime: Handle,
}

impl Answer {
    /// For a request on the runtime that this is called on.
    pub(crate) fn channel() -> (Self, oneshot::Receiver<Outcome>) {
        let (sender, outcome) = oneshot::channel();
        (Answer { sender, runtime: Handle::current() }, outcome)
    }

    /// Whether the request has stopped waiting. Its own timer told it.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.sender.is_closed()
    }
}

/// The outcomes of one group, sent when this is dropped.
#[derive(Default)]
pub(crate) struct Answers(Vec<(oneshot::Sender<Outcome>, Outcome)>);

impl Answers {
    /// Sends every outcome, from a runtime that one of the requests waits on: most share it.
    pub(crate) fn give(answers: impl IntoIterator<Item = (Answer, Outcome)>) {
        let mut answers = answers.into_iter();
        let Some((first, outcome)) = answers.next() else { return };
        let runtime = first.runtime;
        let mut all = Answers(vec![(first.sender, outcome)]);
        all.0.extend(answers.map(|(answer, outcome)| (answer.sender, outcome)));
        if all.0.len() > 1 {
            // A runtime that is shutting down drops the task at once, which sends them, too.
            runtime.spawn(async move { drop(all) });
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        for (sender, outcome) in self.0.drain(..) {
            // A request that has stopped waiting was told by its own timer.
            sender.send(outcome).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::outcome::Unavailable::Closing;

    #[tokio::test]
    async fn each_gets_its_own() {
        let (answers, outcomes): (Vec<_>, Vec<_>) = (0..3).map(|_| Answer::channel()).unzip();
        Answers::give(answers.into_iter().zip([Ok(()), Err(Closing), Ok(())]));
        let mut heard = Vec::new();
        for outcome in outcomes {
            heard.push(outcome.await);
        }
        assert_eq!(heard, [Ok(Ok(())), Ok(Err(Closing)), Ok(Ok(()))]);
    }

    #[tokio::test]
    async fn a_runtime_that_has_ended_keeps_nobody_elses_answer() {
        let ended = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async { Answer::channel().0 })
        });
        let (other, outcome) = Answer::channel();
        let ended = ended.join().expect("no panic");
        Answers::give([(ended, Ok(())), (other, Ok(()))]);
        assert_eq!(outcome.await, Ok(Ok(())));
    }
}
