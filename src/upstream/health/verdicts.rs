//! What follows from the checks for the endpoints of an upstream.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Config, Edge, Failure, Verdict};
use crate::time::Moment;
use crate::upstream::{Absence, Endpoint, Upstream};

impl Upstream {
    /// Takes over the endpoints, whose checks had the configuration `before`: to be called when the
    /// checks begin, and as well for an upstream without any.
    pub fn begin_checks(&self, before: Option<&Config>, now: Moment) {
        let set = self.set();
        let endpoints = || set.members().iter().map(|member| &member.endpoint);
        match &self.config().health {
            None => endpoints().for_each(|endpoint| endpoint.health.forget()),
            Some(config) if before.is_some_and(|before| before != config) => {
                endpoints().for_each(|endpoint| endpoint.health.begin_anew());
            }
            Some(_) => {}
        }
        self.settle(endpoints(), now);
        self.tell();
    }

    /// Takes in how a check of the endpoint has ended.
    pub(super) fn checked(
        &self,
        endpoint: &Arc<Endpoint>,
        result: Result<(), Failure>,
        config: &Config,
        now: Moment,
    ) {
        let words = result.as_ref().err().map(|failure| failure.words.clone());
        let was_checked = endpoint.health.is_checked();
        let edge = endpoint.health.note(result, config, now);
        // Until now those that had not been checked were used.
        let is_first = words.is_none() && !self.has_passed.swap(true, Ordering::Relaxed);
        // One that was there when the process started has its share with its first pass.
        let is_new = endpoint.warming_since().is_some();
        match edge {
            Some(Edge { from: Verdict::Unknown, to: Verdict::Healthy, .. }) if !is_new => {
                self.settle(std::iter::once(endpoint), now);
            }
            Some(_) => {
                self.stand(endpoint, Absence::Unhealthy, self.keeps_from(endpoint), now);
            }
            None if !was_checked => self.settle(std::iter::once(endpoint), now),
            None => {}
        }
        if is_first {
            let set = self.set();
            self.settle(set.members().iter().map(|member| &member.endpoint), now);
        }
        if let Some(edge) = edge {
            self.report(endpoint, edge, is_new, words.as_deref());
            // Such as that none is available any more.
            self.tell();
        }
    }

    /// Whether the checks keep requests from the endpoint.
    pub(in crate::upstream) fn keeps_from(&self, endpoint: &Endpoint) -> bool {
        if self.config().health.is_none() {
            return false;
        }
        match endpoint.health.verdict() {
            Verdict::Healthy => false,
            Verdict::Unhealthy => true,
            // Relaxed, here and above: the lock on the set orders what follows.
            Verdict::Unknown => {
                endpoint.health.is_checked() || self.has_passed.load(Ordering::Relaxed)
            }
        }
    }

    /// Puts a set in place in which the endpoints are used as their checks say.
    fn settle<'a>(&self, endpoints: impl Iterator<Item = &'a Arc<Endpoint>>, now: Moment) {
        let changing = self.changing();
        let mut has_changed = false;
        for endpoint in endpoints {
            let is_kept_from = self.keeps_from(endpoint);
            has_changed |= endpoint.standing.set(Absence::Unhealthy, is_kept_from);
        }
        if has_changed {
            self.rebuild(changing, now);
        }
    }

    fn report(&self, endpoint: &Endpoint, edge: Edge, is_new: bool, words: Option<&str>) {
        let (name, label) = (&self.name, &endpoint.label);
        match (edge.from, edge.to) {
            (_, Verdict::Unhealthy) => log::warn!(
                "upstreams.{name}: {label} is unhealthy, {} failed: {}",
                counted(edge.in_a_row),
                words.unwrap_or_default(),
            ),
            (Verdict::Unhealthy, Verdict::Healthy) => log::info!(
                "upstreams.{name}: {label} is healthy again after {:.1}s, {} passed",
                edge.after.as_secs_f64(),
                counted(edge.in_a_row),
            ),
            // At the start this is what is expected, of perhaps thousands of endpoints.
            (Verdict::Unknown, Verdict::Healthy) if edge.is_first && !is_new => {
                log::debug!("upstreams.{name}: {label} is healthy, its first health check passed");
            }
            (_, Verdict::Healthy) => {
                log::info!("upstreams.{name}: {label} is healthy, a health check passed");
            }
            (_, Verdict::Unknown) => {}
        }
    }
}

fn counted(checks: u32) -> String {
    match checks {
        1 => "a health check".to_owned(),
        n => format!("{n} health checks in a row"),
    }
}
