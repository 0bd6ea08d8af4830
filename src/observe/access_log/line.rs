//! A request as one JSON object.
//!
//! The names of members are OpenTelemetry's where it has one; the gateway's own begin with
//! `portcullis.`. Members that say nothing are left out. Whatever a client or an upstream sent, a
//! line is valid JSON and has no control character: those, and characters that turn the direction
//! of text, are escaped.

use std::net::IpAddr;
use std::time::SystemTime;

use http::Method;

use super::left_out::Count;
use crate::config::access_log::{AccessLog as Config, Mask};
use crate::observe::json::{Object, TEXT};
use crate::policy::failure::Fault;
use crate::policy::rate_limit::Standing;
use crate::record::Query;
use crate::summary::Summary;
use crate::summary::attempt::{Bound, Connection, Failure, Limit, Past};
use crate::summary::ending::{Cut, Ending};
use crate::summary::values::{Fact, Value, Values, circuit};

/// The most bytes of a path or a query.
const PATH: usize = 2048;
/// Attempts that are told of one by one.
const ATTEMPTS: usize = 16;

/// The member that a line is found by.
pub(super) const REQUEST_ID: &str = "portcullis.request_id";
/// Bytes of nearly every line.
const SIZE: usize = 1280;

/// The line, its end included. `values` are those of a failure.
pub(super) fn json(
    config: &Config,
    summary: &Summary<'_>,
    query: Option<&Query>,
    values: Option<&Values>,
) -> Vec<u8> {
    let masks = |mask| config.mask.contains(&mask);
    let opening = &summary.opening;
    let mut line = Object::begin(Vec::with_capacity(SIZE));
    line.time("time", opening.received_at);
    line.text(REQUEST_ID, opening.request_id, TEXT);
    if let Some(id) = opening.id {
        line.shown("portcullis.record_id", id);
    }
    if opening.trace_id != 0 {
        line.hex("trace_id", opening.trace_id);
    }
    line.address("client.address", shown_address(opening.client, masks(Mask::ClientAddress)));
    line.text("network.protocol.name", opening.protocol, TEXT);
    line.word("portcullis.listener", opening.listener);
    if let Some(head) = opening.head {
        line.word("http.request.method", head.method.map(Method::as_str));
        if let Some(path) = head.path {
            line.text("url.path", path, PATH);
        }
        if let (Some(kept), Some(query)) = (query, head.query) {
            line.text("url.query", &kept.redacted(query), PATH);
        }
        if let Some(host) = head.host {
            line.text("server.address", &String::from_utf8_lossy(host), TEXT);
        }
    }
    line.word("portcullis.route", opening.route.map(|route| &**route));
    if !masks(Mask::Consumer) {
        line.word("portcullis.consumer", opening.consumer);
        line.word("portcullis.client_certificate", opening.certificate);
    }
    line.number("http.response.status_code", summary.status.into());
    line.text(
        "portcullis.outcome",
        if summary.ending.is_success() { "success" } else { "failure" },
        TEXT,
    );
    line.word("portcullis.cause", summary.ending.cause());
    line.word("portcullis.fault", summary.fault.map(Fault::as_str));
    line.word("portcullis.would_refuse", summary.would_refuse);
    if !masks(Mask::Error) {
        let said = summary.failure.and_then(|failure| failure.words.of(failure.cause));
        line.word("portcullis.error", summary.said.or(said.as_deref()));
        line.word("portcullis.detail", detail(&summary.ending));
    }
    upstream(&mut line, summary);
    line.micros("portcullis.duration_us", summary.duration);
    times(&mut line, summary);
    if let Some(bytes) = summary.bytes_in {
        line.number("http.request.body.size", bytes);
    }
    line.number("http.response.body.size", summary.bytes_out);
    if summary.ending.is_truncated() {
        line.truth("portcullis.truncated", true);
    }
    line.number("portcullis.generation", opening.generation);
    past(&mut line, summary.past, masks(Mask::Error));
    if let Some(values) = values {
        policies(&mut line, values, masks(Mask::Error));
    }
    line.end()
}

/// What happened, for a person.
fn detail<'a>(ending: &Ending<'a>) -> Option<&'a str> {
    let refusal = ending.refusal().map(|refusal| refusal.detail);
    refusal.or_else(|| ending.cut().map(Cut::phrase))
}

fn policies(line: &mut Object, values: &Values, masked: bool) {
    let Values { route_circuit, upstream_circuit, bulkhead, limit, budget, facts } = values;
    line.word("portcullis.route_circuit", route_circuit.map(circuit));
    line.word("portcullis.upstream_circuit", upstream_circuit.map(circuit));
    if let Some((taken, slots)) = *bulkhead {
        line.number("portcullis.bulkhead_in_flight", taken.into());
        line.number("portcullis.bulkhead_slots", slots.into());
    }
    if let Some(Standing { limit, verdict, .. }) = *limit {
        line.number("portcullis.rate_limit_index", limit as u64);
        line.number("portcullis.rate_limit_size", verdict.limit.into());
        line.number("portcullis.rate_limit_remaining", verdict.remaining.into());
        line.micros("portcullis.rate_limit_reset_us", verdict.reset_after);
    }
    if let Some(tokens) = *budget {
        line.tenths("portcullis.retry_budget_tokens", tokens);
    }
    for Fact { name, value } in facts {
        match value {
            Value::Text(text) => line.text(name, text, TEXT),
            Value::Error(_) if masked => {}
            Value::Error(error) => line.text(name, error, TEXT),
            Value::Number(number) => line.number(name, *number),
            Value::Truth(truth) => line.truth(name, *truth),
        }
    }
}

fn upstream(line: &mut Object, summary: &Summary<'_>) {
    // The upstream that failed, where a fallback took its place without success.
    let failed = summary.failure.filter(|_| !summary.ending.is_success());
    let upstream = failed.map(|failure| &failure.upstream).or(summary.upstream);
    let endpoint = failed.and_then(|f| f.endpoint.as_ref()).or(summary.endpoint);
    line.word("portcullis.upstream", upstream.map(|name| &**name));
    line.word("portcullis.endpoint", endpoint.map(|endpoint| &**endpoint));
    if let Some(status) = summary.upstream_status {
        line.number("portcullis.upstream_status", status.into());
    }
    line.number("portcullis.attempts", summary.attempts.into());
    line.word("portcullis.no_retry", summary.no_retry);
    let connection = failed.and_then(|failure| failure.connection);
    line.word("portcullis.connection", connection.map(Connection::as_str));
    if let Some(Limit { key, bound }) = summary.limit {
        line.text("portcullis.limit", key, TEXT);
        match bound {
            Bound::Time(time) => line.micros("portcullis.limit_us", time),
            Bound::Bytes(bytes) => line.number("portcullis.limit_bytes", bytes),
            Bound::Count(count) => line.number("portcullis.limit_count", count),
            Bound::Rate(count, time) => {
                line.number("portcullis.limit_count", count);
                line.micros("portcullis.limit_us", time);
            }
        }
    }
}

fn times(line: &mut Object, summary: &Summary<'_>) {
    let times = summary.times;
    for (name, time) in [
        ("portcullis.queue_us", times.queue),
        ("portcullis.connect_us", times.connect),
        ("portcullis.first_byte_us", times.first_byte),
        ("portcullis.body_us", times.body),
        ("portcullis.backoff_us", times.backoff),
        ("portcullis.client_us", times.client),
    ] {
        if !time.is_zero() {
            line.micros(name, time);
        }
    }
}

fn past(line: &mut Object, attempts: &[Past], masked: bool) {
    if attempts.is_empty() {
        return;
    }
    line.name("portcullis.earlier_attempts");
    line.out.push(b'[');
    for (n, attempt) in attempts.iter().take(ATTEMPTS).enumerate() {
        if n > 0 {
            line.out.push(b',');
        }
        let mut object = Object::begin(std::mem::take(&mut line.out));
        object.text("endpoint", &attempt.endpoint, TEXT);
        object.micros("after_us", attempt.after);
        object.micros("duration_us", attempt.duration);
        if let Some(status) = attempt.status {
            object.number("status", status.into());
        }
        if let Some(Failure { cause, words, connection, .. }) = attempt.failure.as_deref() {
            object.text("cause", cause.as_str(), TEXT);
            object.word("connection", connection.map(Connection::as_str));
            if !masked {
                object.word("error", words.of(*cause).as_deref());
            }
        }
        line.out = object.close();
    }
    line.out.push(b']');
}

/// A line that counts lines which are not there.
pub(super) fn left_out(count: &Count, now: SystemTime) -> Vec<u8> {
    let mut line = Object::begin(Vec::with_capacity(128));
    line.time("time", now);
    line.text("event.name", "portcullis.lines_left_out", TEXT);
    line.word("portcullis.route", Some(&*count.route).filter(|route| !route.is_empty()));
    line.text("portcullis.cause", count.cause, TEXT);
    line.number("portcullis.lines", count.lines);
    line.end()
}

/// A line that counts lines which were lost.
pub(super) fn dropped(lines: u64, now: SystemTime) -> Vec<u8> {
    let mut line = Object::begin(Vec::with_capacity(128));
    line.time("time", now);
    line.text("event.name", "portcullis.lines_dropped", TEXT);
    line.number("portcullis.lines", lines);
    line.end()
}

/// The address, or only its network.
pub(super) fn shown_address(address: IpAddr, masked: bool) -> IpAddr {
    match address.to_canonical() {
        address if !masked => address,
        IpAddr::V4(address) => (address.to_bits() & !0xff).to_be_bytes().into(),
        IpAddr::V6(address) => (address.to_bits() >> 80 << 80).to_be_bytes().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_addresses_name_a_network() {
        for (address, shown) in [
            ("192.0.2.77", "192.0.2.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
            ("::ffff:192.0.2.77", "192.0.2.0"),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(shown_address(address, true).to_string(), shown);
        }
        let mapped = "::ffff:192.0.2.77".parse().expect("an address");
        assert_eq!(shown_address(mapped, false).to_string(), "192.0.2.77");
    }
}
