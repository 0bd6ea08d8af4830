//! Asks the API server of Kubernetes for the EndpointSlices of a service, and follows their changes.
//!
//! ```text
//! list: slices and their version ──> watch from that version ──> a change, a bookmark: a later version
//!   ^                                   ^  │                        │
//!   │                                   │  └── it ends, or breaks ──┘
//!   │                                   └────── a pause ────┘
//!   └── the version is too old (410), the answer nonsense, or the third failure in a row
//! ```
//!
//! What was said last is said again when a watch takes over from the one before: so it is known not to
//! be older than a watch.

mod account;
mod api;
mod changes;
mod lines;
mod pace;

use std::net::SocketAddr;

use api::{Api, Failure};
use changes::Changes;
use pace::Pace;

use super::Asked;
use crate::upstream::config::{Listed, Url};
use crate::upstream::discovery::config::Kubernetes;
use crate::upstream::discovery::known::Said;
use crate::upstream::discovery::kubernetes::Slices;

/// After so many failures in a row all is listed again. Some servers will never serve a watch from the
/// version that is known, such as one whose database was set back.
const LISTED_AGAIN: u32 = 3;

/// Follows the slices of one service.
pub(super) struct KubernetesSource {
    config: Kubernetes,
    form: Option<Url>,
    /// `None`: they have to be listed first.
    slices: Option<Slices>,
    /// The watch that is open.
    changes: Option<Changes>,
    pace: Pace,
    /// What was said last; `None`: the next answer is said even if it is the same.
    told: Option<Said<Vec<SocketAddr>>>,
    has_warned: bool,
}

impl KubernetesSource {
    pub(super) fn new(config: &Kubernetes, form: Option<&Url>) -> Self {
        KubernetesSource {
            config: config.clone(),
            form: form.cloned(),
            slices: None,
            changes: None,
            pace: Pace::default(),
            told: None,
            has_warned: false,
        }
    }

    /// Waits for the next thing that happens. Returns whether the slices are known then.
    async fn step(&mut self) -> Result<bool, Failure> {
        let (Some(slices), Some(changes)) = (&mut self.slices, &mut self.changes) else {
            tokio::time::sleep(self.pace.pause()).await;
            return self.ask().await.map(|()| true);
        };
        if !changes.wait().await {
            self.pace.ended(changes.age(), *self.config.watch_timeout);
            (self.changes, self.told) = (None, None);
            return Ok(false);
        }
        // What has come together is said once.
        while let Some(line) = changes.line().map_err(Failure::nonsense)? {
            slices.take_change(line)?;
            self.pace.heard();
        }
        Ok(true)
    }

    /// Lists the slices, or begins to watch them.
    async fn ask(&mut self) -> Result<(), Failure> {
        let api = Api::new(&self.config).await?;
        match &self.slices {
            None => {
                self.slices = Some(api.list().await?);
                self.told = None;
                self.pace.listed();
            }
            Some(slices) => {
                let watch = api.watch(slices.version(), *self.config.watch_timeout).await?;
                self.changes = Some(watch);
            }
        }
        Ok(())
    }

    /// The answer for the upstream, if it differs from the last one.
    fn news(&mut self) -> Option<Said<Vec<Listed>>> {
        let slices = self.slices.as_ref()?;
        if slices.has_names() && !self.has_warned {
            self.has_warned = true;
            log::warn!(
                "{}: it has EndpointSlices with names instead of addresses, which are not used",
                self.config.words()
            );
        }
        let said = slices.said(self.config.port.as_ref());
        if self.told.as_ref() == Some(&said) {
            return None;
        }
        let form = self.form.as_ref();
        let listed = |address| Listed::from(Url::at(address, form));
        let news = match &said {
            Said::These(all) => Said::These(all.iter().copied().map(listed).collect()),
            Said::Nothing(words) => Said::Nothing(words.clone()),
            Said::Failed(error) => Said::Failed(api::shown(error)),
        };
        self.told = Some(said);
        Some(news)
    }

    /// Prepares for the next try. Returns what the upstream is told: nothing if the version is too old.
    fn fail(&mut self, failure: Failure) -> Option<Said<Vec<Listed>>> {
        self.changes = None;
        match failure {
            Failure::TooOld => {
                self.slices = None;
                self.pace.too_old();
                None
            }
            Failure::Failed { why, wait, is_nonsense } => {
                self.pace.failed(wait.unwrap_or_default());
                if is_nonsense || self.pace.failures() >= LISTED_AGAIN {
                    self.slices = None;
                }
                self.told = None;
                Some(Said::Failed(why))
            }
        }
    }
}

impl Asked for KubernetesSource {
    async fn next(&mut self) -> Said<Vec<Listed>> {
        loop {
            let said = match self.step().await {
                Ok(is_known) => is_known.then(|| self.news()).flatten(),
                Err(failure) => self.fail(failure),
            };
            if let Some(said) = said {
                return said;
            }
        }
    }
}
