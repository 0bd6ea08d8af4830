//! The metrics whose values live elsewhere.

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Registry};

use super::register::{counters, gauges, opts, register};

/// Gauges and counters whose values live in the policies and the recorder. They are reset, then
/// set, for each scrape or export.
pub struct StateMetrics {
    /// 0 closed, 1 half-open, 2 open, 3 forced open, 4 forced closed; by scope (`route`,
    /// `upstream`) and name, as the next one.
    pub circuit_state: IntGaugeVec,
    /// How often the circuit has opened.
    pub circuit_opened: IntCounterVec,
    /// Slots taken, by route.
    pub bulkhead_in_flight: IntGaugeVec,
    /// Slots in all, by route; it changes if the limit is adaptive.
    pub bulkhead_capacity: IntGaugeVec,
    /// Requests that wait for a slot, by route; only of routes with a queue.
    pub bulkhead_waiting: IntGaugeVec,
    /// Callers with requests under way, by route; where one may hold but a part.
    pub bulkhead_consumers: IntGaugeVec,
    /// Requests refused because their caller held its part, by route.
    pub bulkhead_consumer_full: IntCounterVec,
    /// Callers that have a budget of their own, by budget; where it is one of each caller.
    pub budget_consumers: IntGaugeVec,
    /// Retries that would be granted at once, by budget.
    pub budget_tokens: GaugeVec,
    /// Retries granted, by budget.
    pub budget_withdrawn: IntCounterVec,
    /// Retries refused, by budget.
    pub budget_refused: IntCounterVec,
    /// Requests drawn, by route and upstream; of routes with several upstreams.
    pub split_requests: IntCounterVec,
    /// Of those, requests without the key that they are drawn by, by route.
    pub split_unkeyed: IntCounterVec,
    /// Weights in force, by route and upstream.
    pub split_weight: IntGaugeVec,
    /// Addresses known, by upstream.
    pub endpoints: IntGaugeVec,
    /// Endpoints whose health checks pass, by upstream; absent for upstreams without checks.
    pub healthy_endpoints: IntGaugeVec,
    /// Ejections of endpoints, by reason and upstream.
    pub ejections: IntCounterVec,
    /// Endpoints that are ejected, by upstream.
    pub ejected: IntGaugeVec,
    /// Orders of operators in force, by kind, scope (`route`, `upstream`) and name.
    pub orders_in_force: IntGaugeVec,
    /// 1 while all endpoints are used because too few are available, by upstream.
    pub all_used: IntGaugeVec,
    /// Look-ups of names that found no address, by upstream.
    pub failed_lookups: IntCounterVec,
    /// For how many seconds a name of the upstream has not been resolved; 0 while all are.
    pub unresolved_seconds: IntGaugeVec,
    /// Requests refused, by route and limit.
    pub rate_limit_refused: IntCounterVec,
    /// Keys forgotten before their time because of `max_keys`, by route and limit.
    pub rate_limit_evictions: IntCounterVec,
    /// 1 while the store is asked, 0 while it is away; by store.
    pub rate_limit_store_up: IntGaugeVec,
    /// Lines of the access log, by what became of them.
    pub access_log_lines: IntCounterVec,
    /// Requests with a key, by result.
    pub idempotency_keys: IntCounterVec,
    /// Keys that are not too old, by authority.
    pub jwks_keys: IntGaugeVec,
    /// Fetches by authority and result.
    pub jwks_fetches: IntCounterVec,
    /// Questions to services by authority and result.
    pub auth_questions: IntCounterVec,
    /// Questions to services that are under way, by authority.
    pub auth_questions_in_flight: IntGaugeVec,
    /// When certificates end, in seconds since 1970; by listener and file.
    pub certificate_not_after: IntGaugeVec,
}

impl StateMetrics {
    pub(super) fn new(r: &Registry) -> prometheus::Result<Self> {
        Ok(StateMetrics {
            circuit_state: gauges(
                r,
                "circuit_state",
                "0 closed, 1 half-open, 2 open, 3 forced open, 4 forced closed",
                &["scope", "name"],
            )?,
            circuit_opened: counters(
                r,
                "circuit_opened_total",
                "How often the circuit has opened",
                &["scope", "name"],
            )?,
            bulkhead_in_flight: gauges(r, "bulkhead_in_flight", "Slots taken", &["route"])?,
            bulkhead_capacity: gauges(r, "bulkhead_capacity", "Slots in all", &["route"])?,
            bulkhead_waiting: gauges(
                r,
                "bulkhead_waiting",
                "Requests that wait for a slot",
                &["route"],
            )?,
            bulkhead_consumers: gauges(
                r,
                "bulkhead_consumers",
                "Callers that have requests under way",
                &["route"],
            )?,
            bulkhead_consumer_full: counters(
                r,
                "bulkhead_consumer_full_total",
                "Requests refused because their caller had its share of the bulkhead",
                &["route"],
            )?,
            budget_consumers: gauges(
                r,
                "retry_budget_consumers",
                "Callers that have a budget of their own now",
                &["budget"],
            )?,
            budget_tokens: register(
                r,
                GaugeVec::new(opts("retry_budget_tokens", "Retries granted at once"), &["budget"])?,
            )?,
            budget_withdrawn: counters(
                r,
                "retry_budget_withdrawn_total",
                "Retries the budget paid for",
                &["budget"],
            )?,
            budget_refused: counters(
                r,
                "retry_budget_refused_total",
                "Retries the budget refused",
                &["budget"],
            )?,
            split_requests: counters(
                r,
                "split_requests_total",
                "Requests drawn among the upstreams of a route",
                &["route", "upstream"],
            )?,
            split_unkeyed: counters(
                r,
                "split_unkeyed_total",
                "Requests drawn at random because they had no key",
                &["route"],
            )?,
            split_weight: gauges(
                r,
                "split_weight",
                "The upstream's weight in force",
                &["route", "upstream"],
            )?,
            endpoints: gauges(r, "upstream_endpoints", "Endpoints known", &["upstream"])?,
            healthy_endpoints: gauges(
                r,
                "upstream_endpoints_healthy",
                "Endpoints whose health checks pass",
                &["upstream"],
            )?,
            ejections: counters(
                r,
                "upstream_ejections_total",
                "Endpoints taken out of use for a time, by what they had done",
                &["reason", "upstream"],
            )?,
            ejected: gauges(r, "upstream_ejected", "Endpoints ejected", &["upstream"])?,
            orders_in_force: gauges(
                r,
                "orders_in_force",
                "Orders of operators in force",
                &["kind", "scope", "name"],
            )?,
            all_used: gauges(
                r,
                "upstream_all_used",
                "1 while all endpoints are used because too few are available",
                &["upstream"],
            )?,
            failed_lookups: counters(
                r,
                "upstream_failed_lookups_total",
                "Look-ups of names that found no address, and questions to sources that found no endpoint",
                &["upstream"],
            )?,
            unresolved_seconds: gauges(
                r,
                "upstream_unresolved_seconds",
                "How long a name has not been resolved, or the source has named no endpoint; 0 while all is known",
                &["upstream"],
            )?,
            rate_limit_refused: counters(
                r,
                "rate_limit_refused_total",
                "Requests refused for this limit",
                &["route", "limit"],
            )?,
            rate_limit_evictions: counters(
                r,
                "rate_limit_evictions_total",
                "Keys forgotten before their time: max_keys is too small",
                &["route", "limit"],
            )?,
            rate_limit_store_up: gauges(
                r,
                "rate_limit_store_up",
                "1 while the store is asked, 0 while it is away",
                &["store"],
            )?,
            access_log_lines: counters(
                r,
                "access_log_lines_total",
                "Lines of the access log by what became of them",
                &["result"],
            )?,
            idempotency_keys: counters(
                r,
                "idempotency_keys_total",
                "Requests with an idempotency key by what became of them",
                &["result"],
            )?,
            jwks_keys: gauges(r, "jwks_keys", "Usable keys", &["auth"])?,
            jwks_fetches: counters(r, "jwks_fetches_total", "Fetches", &["auth", "result"])?,
            auth_questions: counters(
                r,
                "auth_questions_total",
                "Questions to the services of auth, and requests that needed none",
                &["auth", "result"],
            )?,
            auth_questions_in_flight: gauges(
                r,
                "auth_questions_in_flight",
                "Questions to the services of auth that are under way",
                &["auth"],
            )?,
            certificate_not_after: gauges(
                r,
                "tls_certificate_not_after_seconds",
                "When the certificate, or one it depends on, ends, in seconds since 1970",
                &["listener", "certificate"],
            )?,
        })
    }

    /// Removes all values, so that what a reload has removed is not shown any more.
    pub fn reset(&self) {
        for gauges in [
            &self.circuit_state,
            &self.bulkhead_in_flight,
            &self.bulkhead_capacity,
            &self.bulkhead_waiting,
            &self.bulkhead_consumers,
            &self.budget_consumers,
            &self.split_weight,
            &self.endpoints,
            &self.healthy_endpoints,
            &self.ejected,
            &self.orders_in_force,
            &self.all_used,
            &self.unresolved_seconds,
            &self.rate_limit_store_up,
            &self.jwks_keys,
            &self.auth_questions_in_flight,
            &self.certificate_not_after,
        ] {
            gauges.reset();
        }
        self.budget_tokens.reset();
        for counters in [
            &self.circuit_opened,
            &self.split_requests,
            &self.ejections,
            &self.split_unkeyed,
            &self.failed_lookups,
            &self.rate_limit_refused,
            &self.rate_limit_evictions,
            &self.bulkhead_consumer_full,
            &self.budget_withdrawn,
            &self.budget_refused,
            &self.access_log_lines,
            &self.idempotency_keys,
            &self.jwks_fetches,
            &self.auth_questions,
        ] {
            counters.reset();
        }
    }
}
