//! What the attempts at an upstream say about its endpoints: which are ejected, which are probed, and
//! what the upstream's breaker hears of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::ejection::config::Config;
use super::ejection::{Counted, Pass, Reason, Tally, outliers};
use super::endpoint::{Endpoint, Ticket};
use super::news::Change;
use super::set::{Member, Set};
use super::{Absence, Ask, Ended, Upstream};
use crate::policy::breaker::{Receipt, Verdict};
use crate::policy::outcome::{Conditions, Outcome};
use crate::time::Moment;

/// After this time it is tried again to probe an endpoint that this request could not be sent to.
const RECHECK: Duration = Duration::from_millis(100);

impl Upstream {
    /// Whether an attempt with this outcome counts as a failure of its endpoint.
    pub fn fails(&self, outcome: Outcome) -> bool {
        let failure_on = self.ejection.as_ref().map(|config| &config.failure_on);
        failure_on.unwrap_or(&Conditions::FAILURES).matches(outcome)
    }

    /// An attempt has ended, `latency` after its start if there was a response. Returns how it counts
    /// for the upstream's breaker. A success costs a few loads.
    pub fn ended(
        &self,
        ticket: &mut Ticket,
        outcome: Outcome,
        latency: Option<Duration>,
        now: Moment,
    ) -> Counted {
        let ended = Ended { failed: self.fails(outcome), latency };
        let pass = ticket.ended(ended, now);
        let (Some(pass), Some(config)) = (pass, &self.ejection) else { return Counted::Yes };
        let endpoint = ticket.endpoint();
        let verdict = Verdict::of(outcome, &config.failure_on);
        match pass {
            Pass::Aside => Counted::Yes,
            Pass::Counts(epoch) if endpoint.ejection.is_late(epoch) => Counted::No,
            Pass::Counts(epoch) => match verdict {
                Verdict::Success => {
                    endpoint.ejection.succeeded(epoch, config);
                    Counted::Yes
                }
                Verdict::Throttled | Verdict::Neutral => Counted::Yes,
                Verdict::Failure => self.failed(endpoint, epoch, config, now),
            },
            Pass::Probe(epoch) => match verdict {
                Verdict::Success | Verdict::Throttled => {
                    self.probe_succeeded(endpoint, epoch, now);
                    Counted::Yes
                }
                // It proves nothing: the ticket's end offers the probe again.
                Verdict::Neutral => Counted::Yes,
                Verdict::Failure => {
                    let shut = endpoint.ejection.probe_failed(epoch, config, now, fastrand::f64());
                    shut.inspect(|time| self.due.note(now + *time));
                    Counted::No
                }
            },
        }
    }

    /// Keeps where the breaker has counted a failure that was [`Counted::Until`].
    pub fn remember(&self, endpoint: &Endpoint, counted: Counted, receipt: Option<Receipt>) {
        let (Some(config), Some(receipt), Counted::Until(mark)) =
            (&self.ejection, receipt, counted)
        else {
            return;
        };
        // Another breaker's failures do not count here.
        let is_same = |latest: &Upstream| match (&latest.breaker, &self.breaker) {
            (Some(latest), Some(mine)) => latest.shares_circuit(mine),
            (None, _) | (_, None) => false,
        };
        if self.latest().is_some_and(|latest| !is_same(&latest)) {
            return;
        }
        if !endpoint.ejection.remember(mark, receipt, config)
            && let Some(breaker) = &self.breaker
        {
            breaker.retract(&[receipt]);
        }
    }

    /// Ends an ejection, because the endpoint is known to work.
    pub(super) fn clear(&self, endpoint: &Endpoint, now: Moment) {
        let cleared = endpoint.ejection.clear(now);
        endpoint.standing.set(Absence::Ejected, false);
        if let Some((after, failed_probes)) = cleared {
            let endpoint = endpoint.label.clone();
            self.news.add(Change::Readmitted { endpoint, after, failed_probes });
        }
    }

    /// The probe of an endpoint, if one is due that this request may be sent to.
    pub(super) fn probe(&self, set: &Set, ask: &Ask<'_>) -> Option<Ticket> {
        if self.latest().is_some() {
            // Its endpoints may be others.
            return None;
        }
        let mut probe = None;
        self.due.begin();
        for member in set.members() {
            let endpoint = &member.endpoint;
            let Some(until) = endpoint.ejection.due() else { continue };
            // A change of these puts another set in place, and all are looked at again.
            if is_kept_out(endpoint) || !set.uses(member) {
                continue;
            }
            if ask.now < until {
                self.due.note(until);
            } else if probe.is_some() || !self.may_probe(member, ask) {
                let again = if probe.is_some() { ask.now } else { ask.now + RECHECK };
                self.due.note(again);
            } else if let Some(pass) = endpoint.ejection.probe(ask.now) {
                probe =
                    Some(Ticket::probe(endpoint, self.in_flight.clone(), pass, self.due.clone()));
            }
        }
        probe
    }

    fn may_probe(&self, member: &Member, ask: &Ask<'_>) -> bool {
        let is_tried = ask.tried.iter().any(|tried| Arc::ptr_eq(tried, &member.endpoint));
        !is_tried && member.endpoint.in_flight() < self.config.max_in_flight()
    }

    fn probe_succeeded(&self, endpoint: &Endpoint, epoch: u64, now: Moment) {
        let Some((after, failed_probes)) = endpoint.ejection.probe_succeeded(epoch, now) else {
            return;
        };
        let label = endpoint.label.clone();
        self.news.add(Change::Readmitted { endpoint: label, after, failed_probes });
        self.stand(endpoint, Absence::Ejected, false, now);
    }

    fn failed(&self, endpoint: &Endpoint, epoch: u64, config: &Config, now: Moment) -> Counted {
        let Some(mark) = endpoint.ejection.failed(epoch) else { return Counted::No };
        let in_a_row = config.consecutive_failures;
        if in_a_row > 0
            && mark.run >= in_a_row
            && self.eject(endpoint, Reason::Consecutive { failures: mark.run }, now)
        {
            return Counted::No;
        }
        if let Some(window) = &config.window {
            // Relaxed, as the exchange: of several threads, one begins the next window.
            let ends = self.window_ends.load(Ordering::Relaxed);
            let next = (now + *window.time).as_nanos();
            let (order, failure) = (Ordering::Relaxed, Ordering::Relaxed);
            if now.as_nanos() >= ends
                && self.window_ends.compare_exchange(ends, next, order, failure).is_ok()
            {
                self.compare(window, now);
                if endpoint.ejection.is_late(epoch) {
                    return Counted::No;
                }
            }
        }
        Counted::Until(mark)
    }

    /// A window of time is over: ejects the endpoints that failed much more than the others.
    fn compare(&self, window: &super::ejection::config::Window, now: Moment) {
        let set = self.set();
        let tally = |member: &Member| {
            let tally = member.endpoint.ejection.turn(member.endpoint.ended());
            // What is not used is no measure for the others.
            if member.endpoint.standing.is_available() { tally } else { Tally::default() }
        };
        let tallies: Vec<Tally> = set.members().iter().map(tally).collect();
        for place in outliers(&tallies, window) {
            let Tally { ended, failed } = tallies[place];
            let endpoint = &set.members()[place].endpoint;
            self.eject(endpoint, Reason::Share { ended, failed }, now);
        }
    }

    /// Ejects the endpoint, if it may be. Returns whether it is ejected.
    fn eject(&self, endpoint: &Endpoint, reason: Reason, now: Moment) -> bool {
        // Nothing changes with each failure while nothing may be ejected.
        if !self.set.load().may_eject_any() {
            return false;
        }
        // After a reload, the new upstream decides for requests that began before the reload.
        if let Some(latest) = self.latest() {
            let is_ejected = latest.eject(endpoint, reason, now);
            if is_ejected {
                self.rebuild(self.changing(), now);
            }
            return is_ejected;
        }
        let changing = self.changing();
        let Some(config) = &self.ejection else { return false };
        if !self.set.load().may_eject(endpoint) {
            // Another thread may have ejected it because of this failure as well.
            return endpoint.standing.has(Absence::Ejected);
        }
        let Some((for_now, receipts)) =
            endpoint.ejection.eject(reason, config, now, fastrand::f64())
        else {
            return true;
        };
        endpoint.standing.set(Absence::Ejected, true);
        self.due.note(now + for_now);
        let label = endpoint.label.clone();
        self.news.add(Change::Ejected { endpoint: label, reason, for_now });
        self.rebuild(changing, now);
        if let Some(breaker) = &self.breaker {
            breaker.retract(&receipts);
        }
        true
    }
}

/// Whether something else than its ejection keeps requests from it.
fn is_kept_out(endpoint: &Endpoint) -> bool {
    let Endpoint { standing, .. } = endpoint;
    standing.has(Absence::Unhealthy)
        || standing.has(Absence::EjectedByOrder)
        || standing.is_drained()
}
