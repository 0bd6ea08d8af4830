//! A request as a line of text, for people.

use std::borrow::Cow;
use std::io::Write;

use http::Method;

use super::left_out::Count;
use super::line::shown_address;
use crate::config::access_log::{AccessLog as Config, Mask};
use crate::observe::append;
use crate::observe::json::{cut, is_plain, is_unsafe, within_years};
use crate::policy::failure::Fault;
use crate::summary::Summary;
use crate::summary::attempt::{Bound, Connection};
use crate::summary::values::{Fact, Value, Values};

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
    values: Option<&Values>,
    coloured: bool,
) -> Vec<u8> {
    let masks = |mask| config.mask.contains(&mask);
    let opening = &summary.opening;
    let mut line: Vec<u8> = Vec::with_capacity(640);
    let time = within_years(opening.received_at);
    let _ = write!(line, "{} ", humantime::format_rfc3339_millis(time));
    let colour = colour(summary).filter(|_| coloured);
    line.extend_from_slice(colour.unwrap_or_default().as_bytes());
    let _ = write!(line, "{:03}", summary.status);
    line.extend_from_slice(colour.map_or("", |_| PLAIN).as_bytes());
    if let Some(head) = opening.head {
        line.push(b' ');
        push(&mut line, head.method.map_or("-", Method::as_str), TEXT);
        line.push(b' ');
        push(&mut line, head.path.unwrap_or("-"), PATH);
    }
    line.push(b' ');
    // Rounded to tenths of a millisecond.
    append::tenths(&mut line, append::micros(summary.duration).saturating_add(50) / 100);
    line.extend_from_slice(b"ms");
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
        number(&mut line, "attempts", summary.attempts.into());
    }
    pair(&mut line, "no_retry", summary.no_retry);
    let connection = failed.and_then(|failure| failure.connection);
    pair(&mut line, "connection", connection.map(Connection::as_str));
    pair(&mut line, "limit", summary.limit.map(|limit| limit.key));
    match summary.limit.map(|limit| limit.bound) {
        Some(Bound::Time(time)) => number(&mut line, "limit_us", append::micros(time)),
        Some(Bound::Bytes(bytes)) => number(&mut line, "limit_bytes", bytes),
        Some(Bound::Count(count)) => number(&mut line, "limit_count", count),
        Some(Bound::Rate(count, time)) => {
            number(&mut line, "limit_count", count);
            number(&mut line, "limit_us", append::micros(time));
        }
        None => {}
    }
    for Fact { name, value } in values.into_iter().flat_map(|values| &values.facts) {
        let name = name.strip_prefix("portcullis.").unwrap_or(name);
        match value {
            Value::Text(text) => pair(&mut line, name, Some(text)),
            Value::Error(_) if masks(Mask::Error) => {}
            Value::Error(error) => pair(&mut line, name, Some(error)),
            Value::Number(value) => number(&mut line, name, *value),
            Value::Truth(truth) => pair(&mut line, name, Some(&truth.to_string())),
        }
    }
    pair(&mut line, "listener", opening.listener);
    if !masks(Mask::Consumer) {
        pair(&mut line, "consumer", opening.consumer);
        pair(&mut line, "client_certificate", opening.certificate);
    }
    line.extend_from_slice(b" client=");
    append::address(&mut line, shown_address(opening.client, masks(Mask::ClientAddress)));
    line.extend_from_slice(b" request_id=");
    push(&mut line, opening.request_id, TEXT);
    let words = || summary.failure.and_then(|failure| failure.words.of(failure.cause));
    let said = summary.said.map(Cow::Borrowed).or_else(|| words().map(Cow::Owned));
    if let Some(said) = said.filter(|_| !masks(Mask::Error)) {
        line.extend_from_slice(b": ");
        push(&mut line, &said, TEXT);
    }
    line.push(b'\n');
    line
}

pub(super) fn left_out(count: &Count) -> Vec<u8> {
    let mut line = format!("{} more lines left out", count.lines).into_bytes();
    pair(&mut line, "route", Some(&*count.route).filter(|route| !route.is_empty()));
    pair(&mut line, "cause", Some(count.cause));
    line.push(b'\n');
    line
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

fn pair(line: &mut Vec<u8>, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        line.push(b' ');
        line.extend_from_slice(name.as_bytes());
        line.push(b'=');
        push(line, value, TEXT);
    }
}

fn number(line: &mut Vec<u8>, name: &str, number: u64) {
    line.push(b' ');
    line.extend_from_slice(name.as_bytes());
    line.push(b'=');
    append::number(line, number);
}

/// Appends `text`; of characters that a terminal would obey, a mark is left.
fn push(line: &mut Vec<u8>, text: &str, limit: usize) {
    let (text, is_cut) = cut(text, limit);
    if is_plain(text) {
        line.extend_from_slice(text.as_bytes());
    } else {
        let harmless = |c| if is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c };
        line.extend_from_slice(text.chars().map(harmless).collect::<String>().as_bytes());
    }
    if is_cut {
        line.extend_from_slice("…".as_bytes());
    }
}
