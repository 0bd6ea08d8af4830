//! Checks the rules that concern several keys: names must exist, and limits must fit together.

mod limits;
mod permit;
mod target;
mod transcode;
mod upstream;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) use self::upstream::own;
use super::load::{KeyPath, Problem, Sources, suggest};
use super::{Config, Route, defaults};
use crate::config::code::Code;
use crate::policy::retry::{BudgetName, budget};
use crate::policy::split::Destination;
use crate::record;
use crate::routing::Unfit;
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
    let upgrade = config.server.upgrade_socket.as_ref();
    if upgrade.is_some_and(|path| config.admin.socket.as_ref() == Some(path)) {
        let message = "the path is that of `admin.socket` already";
        problems.push(Problem::new(Code::SocketTaken, "server.upgrade_socket", message));
    }
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
                "`{}` and names that begin with `{}` have a meaning of their own, and name no budget",
                budget::UNLIMITED,
                budget::OF_UPSTREAM,
            );
            problems.push(Problem::new(Code::ReservedName, at(&["retry_budgets", name]), message));
        }
    }
    let record = &config.record;
    if record.batch.longest_interval() >= *record.commit_timeout {
        let most = Timespan(Duration::from_millis(record.commit_timeout.as_millis() as u64 / 3));
        let message = format!(
            "must be shorter than {most}, a third of `record.commit_timeout`, or requests wait in vain"
        );
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
            check.listeners();
            check.target();
        }
        check.all();
        check.problems
    }));
    problems
}

/// No two listeners, the admin listener included, may have the same address.
fn addresses(config: &Config, problems: &mut Vec<Problem>) {
    let admin = config.admin.address.map(|address| (address, at(&["admin"])));
    let mut taken: BTreeMap<_, _> = admin.into_iter().collect();
    for (name, listener) in &config.listeners {
        let own = at(&["listeners", name]);
        if let Some(other) = taken.insert(listener.address, own.clone()) {
            let message = format!("the address is that of {other} already");
            let problem = Problem::new(Code::AddressTaken, own.key("address"), message);
            // The admin listener has this address even if the file does not say so.
            problems.push(problem.beside(other.key("address")));
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
        self.permit();
        self.limits();
        self.claims();
        self.nameless();
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
        for (index, name) in auth.require.iter().enumerate() {
            let path = self.sources.element(&self.key(&["auth", "require"]), index);
            self.reference_at(path, "auth", name, &self.config.auth);
        }
    }

    fn listeners(&mut self) {
        for (index, name) in self.route.matches.listener.values().into_iter().flatten().enumerate()
        {
            let path = self.sources.element(&self.key(&["match", "listener"]), index);
            self.reference_at(path, "listeners", name, &self.config.listeners);
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
        if self.route.own_answer().is_some() {
            let message = "the route has no upstream of its own that could fail";
            self.report(Code::FallbackOfServe, &key, message);
        } else if self.route.upstream.as_ref().and_then(Destination::only) == Some(upstream) {
            let message =
                format!("`{upstream}` is the route's own upstream, which has just failed");
            self.report(Code::FallbackToItself, &key, message);
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
            let message = format!(
                "an attempt may take {}, but its whole request only {}",
                timeout.attempt, timeout.request
            );
            let keys: [&[&str]; 2] = [&["timeout", "attempt"], &["timeout", "request"]];
            self.report_pair(Code::AttemptOutlastsRequest, keys, message);
        }
        let bounds = [("request", timeout.request), ("attempt", timeout.attempt)];
        let within = |first_byte: Timespan| {
            bounds.into_iter().find(|(_, bound)| !bound.is_zero() && first_byte > *bound)
        };
        if let Some((bound, ends)) = timeout.first_byte.and_then(within) {
            let message = format!(
                "`first_byte` is never reached: `timeout.{bound}` ends the wait after {ends}"
            );
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
                let message = "the duration is known only once there is a response";
                let keys = ["headers", "request", key, name.as_str()];
                self.report(Code::HeaderOfResponse, &keys, message);
            }
        }
    }

    fn idempotency(&mut self) {
        let Some(idempotency) = &self.route.idempotency else { return };
        if self.config.record.store.chosen().is_none() {
            let message = "no key can be kept without `record.store`";
            self.report(Code::KeysWithoutStore, &["idempotency"], message);
        }
        if let Some(key) = self.route.own_answer() {
            let message =
                format!("a route with `{key}` has no upstream whose responses could be kept");
            self.report(Code::KeysOfServe, &["idempotency"], message);
        }
        if self.route.timeout.request.is_zero() {
            let message = "keys are leased for as long as a request may take: it needs a limit";
            let keys: [&[&str]; 2] = [&["timeout", "request"], &["idempotency"]];
            self.report_pair(Code::KeysWithoutDeadline, keys, message);
        }
        let (request, commit) = (self.route.timeout.request, self.config.record.commit_timeout);
        let lease = Timespan(idempotency.lease_of(*request, *commit));
        if idempotency.ttl < lease {
            let (made_of, part) = if lease == idempotency.lease {
                ("`idempotency.lease`".to_owned(), "idempotency.lease")
            } else {
                let rest = Timespan(lease.saturating_sub(*request + *commit));
                let parts =
                    format!("`timeout.request` {request}, `record.commit_timeout` {commit}");
                (format!("{parts} and {rest}"), "timeout.request")
            };
            let message =
                format!("a key must outlast the lease of its request: {lease} ({made_of})");
            let path = self.key(&["idempotency", "ttl"]);
            let problem = Problem::new(Code::KeysTooShort, path, message)
                .with(self.key(&["timeout", "request"]))
                .remedied(format!(
                    "set `idempotency.ttl` to at least {lease}, or shorten `{part}`"
                ));
            self.problems.push(problem);
        }
    }

    /// Every pattern of the route must capture the parameters that the rewrite names.
    fn rewrite(&mut self) {
        let Some(rewrite) = self.route.rewrite() else { return };
        let Err(unfit) = rewrite.check(&self.route.matches) else { return };
        let keys: &[&str] = match (&self.route.redirect, &unfit) {
            (None, Unfit::Placeholder { .. }) => &["rewrite", "path"],
            (None, Unfit::Prefix { .. }) => &["rewrite", "strip_prefix"],
            // Its path may be that of `to`.
            (Some(_), Unfit::Placeholder { .. }) => &["redirect"],
            (Some(_), Unfit::Prefix { .. }) => &["redirect", "strip_prefix"],
        };
        self.report(Code::RewriteParameter, keys, unfit.to_string());
    }
}

fn at(keys: &[&str]) -> KeyPath {
    keys.iter().fold(KeyPath::root(), |path, key| path.key(*key))
}
