//! Checks the rules that concern several keys: names must exist, and limits must fit together.

mod target;
mod transcode;
mod upstream;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::load::{KeyPath, Problem, Sources, suggest};
use super::{Config, Route, defaults};
use crate::config::code::Code;
use crate::policy::auth;
use crate::policy::rate_limit::Replays;
use crate::policy::retry::{BudgetName, budget};
use crate::policy::split::Destination;
use crate::record;
use crate::units::Timespan;

/// Limit on the names compared to find suggestions, over all problems: a fraction of a second.
const MAX_COMPARED: usize = 100_000;

/// All problems of a configuration whose single values are valid.
pub(super) fn problems(config: &Config, sources: &Sources) -> Vec<Problem> {
    let mut problems = Vec::new();
    if config.listeners.is_empty() {
        problems.push(Problem::new(
            Code::NoListener,
            "listeners",
            "at least one listener is needed",
        ));
    }
    addresses(config, &mut problems);
    if config.admin.address.is_none() && config.admin.socket.is_none() {
        let message = "the admin listener has neither an address nor a socket";
        problems.push(Problem::new(Code::AdminNowhere, "admin.address", message));
    }
    if config.record.default.mode != record::Mode::Off && config.record.store.chosen().is_none() {
        let message = "nothing can be recorded without `record.store`";
        problems.push(Problem::new(Code::RecordWithoutStore, "record.default.mode", message));
    }
    for name in config.retry_budgets.keys() {
        if name == budget::UNLIMITED || name.starts_with(budget::OF_UPSTREAM) {
            let message = format!(
                "`{}` is no name for a budget, nor is what begins with `{}`: they have a meaning",
                budget::UNLIMITED,
                budget::OF_UPSTREAM,
            );
            problems.push(Problem::new(Code::ReservedName, at(&["retry_budgets", name]), message));
        }
    }
    let record = &config.record;
    if record.batch.longest_interval() >= *record.commit_timeout {
        let message =
            "must be shorter than a third of `record.commit_timeout`, or requests wait in vain";
        problems.push(Problem::new(Code::CommitInterval, "record.batch.commit_interval", message));
    }
    for (name, upstream) in &config.upstreams {
        if upstream.endpoints.is_empty() && upstream.discover.is_none() {
            let path = at(&["upstreams", name, "endpoints"]);
            let message = "at least one endpoint is needed, or a source to `discover` them";
            problems.push(Problem::new(Code::NoEndpoint, path, message));
        }
        upstream::addresses(name, upstream, config, &mut problems);
        upstream::protocol(name, upstream, &mut problems);
        upstream::health(name, upstream, &mut problems);
    }
    let compared = Cell::new(0);
    problems.extend(defaults::problems(config, sources, |name, route| {
        let (at, compared) = (defaults::path_of(name), &compared);
        let mut check = RouteCheck { config, sources, at, route, compared, problems: Vec::new() };
        if name.is_some() {
            check.target();
        }
        check.all();
        check.problems
    }));
    problems
}

/// No two listeners, the admin listener included, may have the same address.
fn addresses(config: &Config, problems: &mut Vec<Problem>) {
    let admin = config.admin.address.map(|address| (address, "admin".to_owned()));
    let mut taken: BTreeMap<_, _> = admin.into_iter().collect();
    for (name, listener) in &config.listeners {
        if let Some(other) = taken.insert(listener.address, format!("listeners.{name}")) {
            let message = format!("the address is that of {other} already");
            let path = at(&["listeners", name, "address"]);
            problems.push(Problem::new(Code::AddressTaken, path, message));
        }
    }
}

struct RouteCheck<'a> {
    config: &'a Config,
    sources: &'a Sources,
    /// The route's path, or that of the defaults.
    at: KeyPath,
    route: &'a Route,
    /// How many names were compared so far, for all routes.
    compared: &'a Cell<usize>,
    problems: Vec<Problem>,
}

impl RouteCheck<'_> {
    fn all(&mut self) {
        self.credentials();
        self.limits();
        self.claims();
        self.replays();
        self.budget();
        self.fallback();
        self.timeouts();
        self.record();
        self.idempotency();
        self.rewrite();
        self.headers();
        self.transcode();
    }

    fn report(&mut self, code: Code, keys: &[&str], message: impl Into<String>) {
        self.problems.push(Problem::new(code, self.key(keys), message));
    }

    /// The same of a key that does not fit together with another one of the route.
    fn report_pair(&mut self, code: Code, [keys, with]: [&[&str]; 2], message: impl Into<String>) {
        self.problems.push(Problem::new(code, self.key(keys), message).with(self.key(with)));
    }

    fn key(&self, keys: &[&str]) -> KeyPath {
        keys.iter().fold(self.at.clone(), |path, key| path.key(*key))
    }

    fn credentials(&mut self) {
        let Some(auth) = &self.route.auth else { return };
        for name in auth.require.iter() {
            self.reference(&["auth", "require"], "auth", name, &self.config.auth);
        }
    }

    /// All limits of a route must use one store, because they are checked in one round trip.
    fn limits(&mut self) {
        let limits = self.route.rate_limit.0.iter().filter_map(|limit| limit.shared.as_ref());
        let stores: BTreeSet<&str> = limits.map(|shared| shared.store.as_str()).collect();
        for store in &stores {
            let known = &self.config.rate_limit_stores;
            self.reference(&["rate_limit"], "rate_limit_stores", store, known);
        }
        if let (Some(one), Some(other)) = (stores.first(), stores.last())
            && one != other
        {
            let message =
                format!("the limits of a route share one store, not `{one}` and `{other}`");
            self.report(Code::TwoLimitStores, &["rate_limit"], message);
        }
    }

    /// `replays` refers to responses stored for an idempotency key.
    fn replays(&mut self) {
        let free = self.route.rate_limit.0.iter().any(|limit| limit.replays == Replays::Free);
        if free && self.route.idempotency.is_none() {
            let message = "`replays` has no meaning without `idempotency`";
            self.report(Code::ReplaysWithoutKeys, &["rate_limit"], message);
        }
    }

    /// A limit by claim needs an authority that verifies tokens.
    fn claims(&mut self) {
        let keyed = self.route.rate_limit.0.iter().any(|limit| limit.key.claims().next().is_some());
        if !keyed {
            return;
        }
        let mut required = self.route.auth.iter().flat_map(|auth| auth.require.iter());
        // A missing or invalid authority is reported elsewhere.
        let verified = required
            .any(|name| !matches!(self.config.auth.get(name), Some(auth::Config::ApiKey(_))));
        if !verified {
            let message = "counts by a claim, but the route requires no tokens";
            self.report_pair(Code::ClaimWithoutToken, [&["rate_limit"], &["auth"]], message);
        }
    }

    fn budget(&mut self) {
        let Some(retry) = &self.route.retry else { return };
        let budget = match &retry.budget {
            BudgetName::OfUpstream | BudgetName::Unlimited => return,
            BudgetName::Named(name) => name,
        };
        self.reference(&["retry", "budget"], "retry_budgets", budget, &self.config.retry_budgets);
    }

    fn fallback(&mut self) {
        let fallback = self.route.fallback.as_ref();
        let Some(upstream) = fallback.and_then(|fallback| fallback.upstream.as_ref()) else {
            return;
        };
        let key = ["fallback", "upstream"];
        if self.route.serve.is_some() {
            let message = "the route has no upstream of its own that could fail";
            self.report(Code::FallbackOfServe, &key, message);
        } else if self.route.upstream.as_ref().and_then(Destination::only) == Some(upstream) {
            self.report(Code::FallbackToItself, &key, "is the route's own upstream");
        } else {
            self.reference(&key, "upstreams", upstream, &self.config.upstreams);
        }
    }

    /// A name must be defined in `section`; a similar name is suggested.
    fn reference<T>(
        &mut self,
        key: &[&str],
        section: &str,
        name: &str,
        known: &BTreeMap<String, T>,
    ) {
        self.reference_at(self.key(key), section, name, known);
    }

    fn reference_at<T>(
        &mut self,
        path: KeyPath,
        section: &str,
        name: &str,
        known: &BTreeMap<String, T>,
    ) {
        if known.contains_key(name) || self.sources.is_pruned(at(&[section, name])) {
            return;
        }
        let message = format!("nothing in `{section}` is named `{name}`");
        let problem = Problem::new(Code::UnknownName, path, message);
        let compared = self.compared.get() + known.len();
        if compared > MAX_COMPARED {
            self.problems.push(problem);
            return;
        }
        self.compared.set(compared);
        let candidates =
            known.keys().map(String::as_str).chain(self.sources.names_pruned_from(section));
        self.problems.push(problem.suggesting(suggest(name, candidates)));
    }

    fn timeouts(&mut self) {
        let timeout = &self.route.timeout;
        if !timeout.request.is_zero() && *timeout.attempt > *timeout.request {
            let message = "an attempt cannot outlast the request it belongs to";
            let keys: [&[&str]; 2] = [&["timeout", "attempt"], &["timeout", "request"]];
            self.report_pair(Code::AttemptOutlastsRequest, keys, message);
        }
        let bounds = [("request", timeout.request), ("attempt", timeout.attempt)];
        let within = |first_byte: Timespan| {
            bounds.into_iter().find(|(_, bound)| !bound.is_zero() && first_byte > *bound)
        };
        if let Some((bound, _)) = timeout.first_byte.and_then(within) {
            let message = format!("is never reached: it is longer than `{bound}`");
            let keys: [&[&str]; 2] = [&["timeout", "first_byte"], &["timeout", bound]];
            self.report_pair(Code::FirstByteOutlasts, keys, message);
        }
    }

    fn record(&mut self) {
        let recorded = self.route.record.as_ref().map(|record| record.mode);
        if recorded.is_some_and(|mode| mode != record::Mode::Off)
            && self.config.record.store.chosen().is_none()
        {
            let message = "nothing can be recorded without `record.store`";
            self.report(Code::RecordWithoutStore, &["record", "mode"], message);
        }
    }

    /// A request header cannot depend on the response.
    fn headers(&mut self) {
        let edits = &self.route.headers.request;
        for (key, fields) in [("set", &edits.set), ("add", &edits.add)] {
            for (name, _) in fields.0.iter().filter(|(_, value)| value.is_of_response()) {
                let message = format!("`{name}`: only headers of the response know its duration");
                self.report(Code::HeaderOfResponse, &["headers", "request", key], message);
            }
        }
    }

    fn idempotency(&mut self) {
        let Some(idempotency) = &self.route.idempotency else { return };
        if self.config.record.store.chosen().is_none() {
            let message = "no key can be kept without `record.store`";
            self.report(Code::KeysWithoutStore, &["idempotency"], message);
        }
        if self.route.serve.is_some() {
            let message = "only a route with an `upstream` executes anything";
            self.report(Code::KeysOfServe, &["idempotency"], message);
        }
        if self.route.timeout.request.is_zero() {
            let message = "keys are leased for as long as a request may take: it needs a limit";
            let keys: [&[&str]; 2] = [&["timeout", "request"], &["idempotency"]];
            self.report_pair(Code::KeysWithoutDeadline, keys, message);
        }
        let commit = *self.config.record.commit_timeout;
        let lease = Timespan(idempotency.lease_of(*self.route.timeout.request, commit));
        if idempotency.ttl < lease {
            let message = format!("a key must outlast the lease of its request, which is {lease}");
            let keys: [&[&str]; 2] = [&["idempotency", "ttl"], &["timeout", "request"]];
            self.report_pair(Code::KeysTooShort, keys, message);
        }
    }

    /// Every pattern of the route must capture the parameters that the rewrite names.
    fn rewrite(&mut self) {
        let Some(rewrite) = &self.route.rewrite else { return };
        if let Err(unfit) = rewrite.check(&self.route.matches) {
            self.report(Code::RewriteParameter, &["rewrite"], unfit.to_string());
        }
    }
}

fn at(keys: &[&str]) -> KeyPath {
    keys.iter().fold(KeyPath::root(), |path, key| path.key(*key))
}
