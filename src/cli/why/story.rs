//! What is known of a request, as text.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::summary::attempt::Limit;

type Facts = Map<String, Value>;

const RED: &str = "\u{1b}[31m";
const BOLD: &str = "\u{1b}[1m";
const PLAIN: &str = "\u{1b}[0m";

/// The columns of the record, by the names that the access log has for them.
const COLUMNS: [(&str, &str); 20] = [
    ("created_at", "time"),
    ("request_id", "portcullis.request_id"),
    ("trace_id", "trace_id"),
    ("client_address", "client.address"),
    ("method", "http.request.method"),
    ("path", "url.path"),
    ("query", "url.query"),
    ("protocol", "network.protocol.name"),
    ("route", "portcullis.route"),
    ("consumer", "portcullis.consumer"),
    ("upstream", "portcullis.upstream"),
    ("endpoint", "portcullis.endpoint"),
    ("status", "http.response.status_code"),
    ("upstream_status", "portcullis.upstream_status"),
    ("attempts", "portcullis.attempts"),
    ("cause", "portcullis.cause"),
    ("would_refuse", "portcullis.would_refuse"),
    ("result_message", "portcullis.error"),
    ("duration_us", "portcullis.duration_us"),
    ("upstream_duration_us", "portcullis.upstream_duration_us"),
];

/// What only some causes have, in the order in which it is told.
const PARTICULARS: [&str; 30] = [
    "portcullis.listener",
    "portcullis.truncated",
    "rpc.method",
    "rpc.response.status_code",
    "portcullis.phase",
    "portcullis.connection",
    "portcullis.retry_budget",
    "portcullis.auth",
    "portcullis.scopes_needed",
    "portcullis.scopes_match",
    "portcullis.role_needed",
    "portcullis.keys_url",
    "portcullis.keys_error",
    "portcullis.keys_age_us",
    "portcullis.rate_limit_key",
    "portcullis.circuit_opened_before_us",
    "portcullis.circuit_retry_in_us",
    "portcullis.circuit_reason",
    "portcullis.bulkhead_waiting",
    "portcullis.gave_up",
    "portcullis.endpoints",
    "portcullis.connections_in_use",
    "portcullis.store",
    "portcullis.store_error",
    "portcullis.upstream_answered",
    "portcullis.first_request",
    "portcullis.first_request_before_us",
    "portcullis.allowed_methods",
    "portcullis.accepted_types",
    "portcullis.accepted_encodings",
];

/// A row of the record, in the access log's words.
pub(super) fn of_row(mut row: Facts) -> Facts {
    let mut facts = Facts::new();
    for (column, name) in COLUMNS {
        if let Some(value) = row.remove(column) {
            facts.insert(name.to_owned(), value);
        }
    }
    let outcome = match row.get("success") {
        Some(Value::Bool(true)) => "success",
        _ => "failure",
    };
    facts.insert("portcullis.outcome".to_owned(), outcome.into());
    facts
}

/// The key of the configuration that decided how the request ended.
pub(super) fn key_of(facts: &Facts) -> Option<String> {
    let cause = text(facts, "portcullis.cause")?;
    let of_route = |key: &str| Some(format!("routes.{}.{key}", text(facts, "portcullis.route")?));
    let upstream = || Some(format!("upstreams.{}", text(facts, "portcullis.upstream")?));
    let of_upstream = |key: &str| Some(format!("{}.{key}", upstream()?));
    let is_open = |circuit: &str| {
        text(facts, circuit).is_some_and(|state| !matches!(state, "closed" | "forced_closed"))
    };
    match text(facts, "portcullis.limit") {
        // The caller gave less time than the route, which no key decides.
        Some(Limit::OF_CALLER) => return None,
        Some(limit) if limit.starts_with("timeout.") => return of_route(limit),
        Some(
            limit @ ("max_body"
            | "idempotency.max_body"
            | "idempotency.max_response"
            | "bulkhead.max_in_flight"
            | "bulkhead.per_consumer.max_in_flight"
            | "transcode.max_message"
            | "bulkhead.queue.max_wait"),
        ) => return of_route(limit),
        Some(_) | None => {}
    }
    match cause {
        "no_route" | "method_not_allowed" => Some("routes".to_owned()),
        "loop" => of_route("upstream"),
        "address_denied" => of_route("networks"),
        "flood" => Some("flood_guard".to_owned()),
        "body_too_large" => of_route("max_body"),
        "headers_too_large" | "path_too_long" | "header_timeout" | "tls_handshake"
        | "proxy_header" => Some("listeners".to_owned()),
        "request_timeout" => of_route("timeout.idle"),
        "rate_limited" | "limit_store_unavailable" => of_route("rate_limit"),
        "circuit_open" if is_open("portcullis.route_circuit") => of_route("circuit_breaker"),
        "circuit_open" => of_upstream("circuit_breaker"),
        "bulkhead_full" | "bulkhead_wait_exceeded" => of_route("bulkhead"),
        "deadline_exceeded" | "overdue" => of_route("timeout.request"),
        "attempt_timeout" => of_route("timeout.attempt"),
        "idle_timeout" => of_route("timeout.idle"),
        "connect_timeout" => of_route("timeout.connect"),
        "record_unavailable" => of_route("record"),
        "shutdown" => Some("server.drain_timeout".to_owned()),
        "keys_unavailable" | "auth_unavailable" | "auth_denied" | "auth_redirect"
        | "caller_denied" | "scope_missing" | "role_missing" => of_route("auth"),
        "call_denied" => of_route("auth.permit"),
        cause if cause.starts_with("idempotency") => of_route("idempotency"),
        cause if cause.starts_with("credentials") || cause.starts_with("token") => of_route("auth"),
        "upstream_5xx" | "grpc_status" => of_route("retry"),
        "dns" | "no_endpoint" | "connect_refused" | "unreachable" | "connect_failed"
        | "tls_failed" => of_upstream("endpoints"),
        cause if cause.starts_with("tls_") => of_upstream("tls"),
        "endpoints_full" => of_upstream("max_connections"),
        "none_available" => of_upstream("when_none_available"),
        "stale_connection" => of_upstream("idle_timeout"),
        "invalid_response" => of_upstream("protocol"),
        "reset" | "closed" | "refused_stream" => upstream(),
        "answer_unreadable" | "unsupported_media_type" => of_route("transcode"),
        _ => text(facts, "portcullis.route").map(|route| format!("routes.{route}")),
    }
}

/// The whole story.
pub(super) fn tell(facts: &Facts, from: &str, decided: Option<&str>, coloured: bool) -> String {
    let mut story = String::new();
    headline(&mut story, facts, coloured);
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(story, "  {name:<12} {}", plain(&value));
        }
    };
    line("because", because(facts));
    line("told", shown(facts, "portcullis.detail"));
    line(
        "dry run",
        text(facts, "portcullis.would_refuse")
            .map(|code| format!("would have been refused: {code}")),
    );
    line("route", shown(facts, "portcullis.route"));
    line("client", shown(facts, "client.address"));
    line("consumer", shown(facts, "portcullis.consumer"));
    line("trace", shown(facts, "trace_id"));
    line("took", took(facts));
    line("limit", limit(facts));
    line("attempts", attempts(facts));
    for attempt in earlier(facts) {
        line("", Some(attempt));
    }
    line("policies", policies(facts));
    for name in PARTICULARS {
        let value = shown(facts, name);
        let name = name.trim_start_matches("portcullis.");
        line("", value.map(|value| format!("{name} {value}")));
    }
    line("generation", shown(facts, "portcullis.generation"));
    line("decided by", decided.map(str::to_owned));
    line("told by", Some(from.to_owned()));
    story
}

fn headline(story: &mut String, facts: &Facts, coloured: bool) {
    let (bold, red, end) = if coloured { (BOLD, RED, PLAIN) } else { ("", "", "") };
    let word = |name| plain(&shown(facts, name).unwrap_or_else(|| "-".to_owned()));
    let _ = write!(
        story,
        "{bold}{} {}{end} at {}: {}",
        word("http.request.method"),
        word("url.path"),
        word("time"),
        word("http.response.status_code"),
    );
    match text(facts, "portcullis.cause") {
        Some(cause) => {
            let _ = write!(story, " {red}{}{end}", plain(cause));
        }
        None => {
            let _ = write!(story, " {}", word("portcullis.outcome"));
        }
    }
    if let Some(fault) = text(facts, "portcullis.fault") {
        let _ = write!(story, ", the {}'s fault", plain(fault));
    }
    story.push('\n');
}

fn because(facts: &Facts) -> Option<String> {
    let upstream = shown(facts, "portcullis.upstream");
    let endpoint = shown(facts, "portcullis.endpoint");
    let status =
        shown(facts, "portcullis.upstream_status").map(|status| format!("answered {status}"));
    let said = shown(facts, "portcullis.error");
    let parts: Vec<String> = [upstream, endpoint, status, said].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

fn took(facts: &Facts) -> Option<String> {
    let micros = |name: &str| facts.get(name).and_then(Value::as_u64);
    let shown = |micros: u64| format!("{:.1} ms", micros as f64 / 1000.0);
    let mut took = shown(micros("portcullis.duration_us")?);
    let parts = ["queue", "connect", "first_byte", "body", "backoff", "client"]
        .into_iter()
        .filter_map(|part| {
            let micros = micros(&format!("portcullis.{part}_us"))?;
            Some(format!("{} {}", part.replace('_', " "), shown(micros)))
        });
    let parts: Vec<String> = parts.collect();
    if !parts.is_empty() {
        took.push_str(": ");
        took.push_str(&parts.join(", "));
    }
    Some(took)
}

/// The limit that was reached.
fn limit(facts: &Facts) -> Option<String> {
    let key = match text(facts, "portcullis.limit")? {
        Limit::OF_CALLER => "the caller's own",
        Limit::BUILT_IN => "built in",
        key => key,
    };
    let number = |name| facts.get(name).and_then(Value::as_u64);
    let millis = number("portcullis.limit_us").map(|micros| micros as f64 / 1000.0);
    let count = number("portcullis.limit_count");
    let bytes = number("portcullis.limit_bytes");
    Some(match (count, bytes, millis) {
        (Some(count), _, Some(millis)) => format!("{key}, {count} in {millis:.1} ms"),
        (Some(count), _, None) => format!("{key}, {count}"),
        (None, Some(bytes), _) => format!("{key}, {bytes} bytes"),
        (None, None, Some(millis)) => format!("{key}, {millis:.1} ms"),
        (None, None, None) => key.to_owned(),
    })
}

fn attempts(facts: &Facts) -> Option<String> {
    let attempts = shown(facts, "portcullis.attempts")?;
    Some(match text(facts, "portcullis.no_retry") {
        Some(reason) => format!("{attempts}, and no more: {reason}"),
        None => attempts,
    })
}

/// A line for each attempt before the last.
fn earlier(facts: &Facts) -> Vec<String> {
    let attempts = facts.get("portcullis.earlier_attempts").and_then(Value::as_array);
    let shown = |attempt: &Value| {
        let millis = |name: &str| attempt[name].as_u64().unwrap_or(0) as f64 / 1000.0;
        let mut line = format!(
            "{} after {:.1} ms, for {:.1} ms",
            attempt["endpoint"].as_str().unwrap_or("-"),
            millis("after_us"),
            millis("duration_us"),
        );
        for name in ["status", "cause", "connection", "error"] {
            match &attempt[name] {
                Value::Null => {}
                Value::String(text) => line.push_str(&format!(", {text}")),
                other => line.push_str(&format!(", {other}")),
            }
        }
        line
    };
    attempts.into_iter().flatten().map(shown).collect()
}

fn policies(facts: &Facts) -> Option<String> {
    let mut parts = Vec::new();
    for (circuit, name) in
        [("portcullis.route_circuit", "route's"), ("portcullis.upstream_circuit", "upstream's")]
    {
        if let Some(state) = text(facts, circuit) {
            parts.push(format!("the {name} circuit {state}"));
        }
    }
    if let (Some(taken), Some(slots)) =
        (shown(facts, "portcullis.bulkhead_in_flight"), shown(facts, "portcullis.bulkhead_slots"))
    {
        parts.push(format!("bulkhead {taken} of {slots}"));
    }
    if let (Some(left), Some(size)) = (
        shown(facts, "portcullis.rate_limit_remaining"),
        shown(facts, "portcullis.rate_limit_size"),
    ) {
        parts.push(format!("rate limit {left} of {size} left"));
    }
    if let Some(tokens) = shown(facts, "portcullis.retry_budget_tokens") {
        parts.push(format!("retry budget {tokens}"));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn text<'a>(facts: &'a Facts, name: &str) -> Option<&'a str> {
    facts.get(name).and_then(Value::as_str)
}

fn shown(facts: &Facts, name: &str) -> Option<String> {
    match facts.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// Without what a terminal would obey: a log may be anyone's.
fn plain(text: &str) -> String {
    let is_unsafe = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
    text.chars().map(|c| if is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
