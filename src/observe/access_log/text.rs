//! A request as a line of text, for people.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

use http::Method;

use super::Rules;
use super::left_out::Count;
use super::line::shown_address;
use crate::config::access_log::{AccessLog as Config, Mask};
use crate::observe::json::{cut, is_unsafe, within_years};
use crate::policy::failure::Fault;
use crate::summary::Summary;
use crate::summary::attempt::{Bound, Connection};
use crate::summary::values::{Fact, Value};

/// The most bytes of a path, and of other texts.
const PATH: usize = 512;
const TEXT: usize = 256;

const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";
const PLAIN: &str = "\u{1b}[0m";

/// `2026-11-29T16:30:00.123Z 502 GET /orders/7 route=checkout cause=connect_refused …`
pub(super) fn text(
    config: &Config,
    summary: &Summary<'_>,
    rules: Rules<'_>,
    coloured: bool,
) -> Vec<u8> {
    let masks = |mask| config.mask.contains(&mask);
    let opening = &summary.opening;
    let mut line = String::with_capacity(256);
    let time = within_years(opening.received_at);
    let _ = write!(line, "{} ", humantime::format_rfc3339_millis(time));
    let colour = colour(summary).filter(|_| coloured);
    line.push_str(colour.unwrap_or_default());
    let _ = write!(line, "{:03}", summary.status);
    line.push_str(if colour.is_some() { PLAIN } else { "" });
    if let Some(head) = opening.head {
        line.push(' ');
        push(&mut line, head.method.map_or("-", Method::as_str), TEXT);
        line.push(' ');
        push(&mut line, head.path.unwrap_or("-"), PATH);
    }
    let _ = write!(line, " {:.1}ms", summary.duration.as_secs_f64() * 1000.0);
    pair(&mut line, "route", opening.route.map(|route| &**route));
    pair(&mut line, "cause", summary.ending.cause());
    pair(&mut line, "fault", summary.fault.map(Fault::as_str));
    pair(&mut line, "would_refuse", summary.would_refuse);
    let failed = summary.failure.filter(|_| !summary.ending.is_success());
    let upstream = failed.map(|failure| &failure.upstream).or(summary.upstream);
    let endpoint = failed.and_then(|f| f.endpoint.as_ref()).or(summary.endpoint);
    pair(&mut line, "upstream", upstream.map(|name| &**name));
    pair(&mut line, "endpoint", endpoint.map(|endpoint| &**endpoint));
    if summary.attempts != 1 {
        let _ = write!(line, " attempts={}", summary.attempts);
    }
    pair(&mut line, "no_retry", summary.no_retry);
    let connection = failed.and_then(|failure| failure.connection);
    pair(&mut line, "connection", connection.map(Connection::as_str));
    pair(&mut line, "limit", summary.limit.map(|limit| limit.key));
    match summary.limit.map(|limit| limit.bound) {
        Some(Bound::Time(time)) => number(&mut line, "limit_us", time.as_micros()),
        Some(Bound::Bytes(bytes)) => number(&mut line, "limit_bytes", bytes.into()),
        Some(Bound::Count(count)) => number(&mut line, "limit_count", count.into()),
        Some(Bound::Rate(count, time)) => {
            number(&mut line, "limit_count", count.into());
            number(&mut line, "limit_us", time.as_micros());
        }
        None => {}
    }
    if let Some(values) = rules.values.filter(|_| !summary.ending.is_success()) {
        for Fact { name, value } in values().facts {
            let name = name.trim_start_matches("portcullis.");
            match value {
                Value::Text(text) => pair(&mut line, name, Some(&text)),
                Value::Error(_) if masks(Mask::Error) => {}
                Value::Error(error) => pair(&mut line, name, Some(&error)),
                Value::Number(value) => number(&mut line, name, value.into()),
                Value::Truth(truth) => pair(&mut line, name, Some(&truth.to_string())),
            }
        }
    }
    pair(&mut line, "listener", opening.listener);
    if !masks(Mask::Consumer) {
        pair(&mut line, "consumer", opening.consumer);
    }
    let client: IpAddr = shown_address(opening.client, masks(Mask::ClientAddress));
    let _ = write!(line, " client={client} request_id=");
    push(&mut line, opening.request_id, TEXT);
    let words = || summary.failure.and_then(|failure| failure.words.of(failure.cause));
    let said = summary.said.map(Cow::Borrowed).or_else(|| words().map(Cow::Owned));
    if let Some(said) = said.filter(|_| !masks(Mask::Error)) {
        line.push_str(": ");
        push(&mut line, &said, TEXT);
    }
    line.push('\n');
    line.into_bytes()
}

pub(super) fn left_out(count: &Count) -> Vec<u8> {
    let mut line = format!("{} more lines left out", count.lines);
    pair(&mut line, "route", Some(&*count.route).filter(|route| !route.is_empty()));
    pair(&mut line, "cause", Some(count.cause));
    line.push('\n');
    line.into_bytes()
}

pub(super) fn dropped(lines: u64) -> Vec<u8> {
    format!("{lines} lines were dropped\n").into_bytes()
}

fn colour(summary: &Summary<'_>) -> Option<&'static str> {
    match summary.fault? {
        Fault::Gateway | Fault::Upstream => Some(RED),
        Fault::Client => Some(YELLOW),
    }
}

fn pair(line: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        line.push(' ');
        line.push_str(name);
        line.push('=');
        push(line, value, TEXT);
    }
}

fn number(line: &mut String, name: &str, number: u128) {
    // Writing into memory does not fail.
    let _ = write!(line, " {name}={number}");
}

/// Appends `text`; of characters that a terminal would obey, a mark is left.
fn push(line: &mut String, text: &str, limit: usize) {
    let (text, is_cut) = cut(text, limit);
    line.extend(text.chars().map(|c| if is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c }));
    line.push_str(if is_cut { "…" } else { "" });
}
