//! Fields of JSON bodies, and error messages, that are kept in the row.
//!
//! Bodies pass through untouched: a [`Tap`] keeps a bounded copy and reads it at the end. A body
//! that is too large, is not JSON, or was cut off gives no fields; that is not an error. `proxy`
//! decides whether a body is tapped before the response is sent or while it streams.

pub(crate) mod captured;
pub(crate) mod source;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::config::Policy;
use crate::coding::Encoding;
use crate::record::capture::captured::Captured;
use crate::record::capture::source::{Source, Sources};

/// What a route captures, compiled from its policy.
#[derive(Debug, Clone)]
pub struct Capture {
    request: Arc<[Field]>,
    response: Arc<[Field]>,
    /// Fields that an error message may fill; their paths are empty.
    error: Arc<[Field]>,
    limit: usize,
}

impl Capture {
    /// `None` if the route captures nothing.
    pub fn compile(policy: &Policy) -> Option<Self> {
        if policy.capture.is_empty() {
            return None;
        }
        Some(Capture {
            request: fields(&policy.capture, |source| match source {
                Source::Request(path) => Some(path.clone()),
                Source::Response(_) | Source::ErrorMessage => None,
            }),
            response: fields(&policy.capture, |source| match source {
                Source::Response(path) => Some(path.clone()),
                Source::Request(_) | Source::ErrorMessage => None,
            }),
            error: fields(&policy.capture, |source| match source {
                Source::ErrorMessage => Some(Vec::new()),
                Source::Request(_) | Source::Response(_) => None,
            }),
            limit: policy.capture_limit.as_usize(),
        })
    }

    /// Whether response bodies are tapped at all.
    pub fn reads_responses(&self) -> bool {
        !self.response.is_empty()
    }

    /// A tap for the request body, if it may hold a captured field. `content_type` is the header's
    /// value, `content_length` the length in bytes.
    pub fn request(&self, content_type: Option<&[u8]>, content_length: Option<u64>) -> Option<Tap> {
        self.tap(&self.request, content_type, content_length)
    }

    /// A tap for the response body; arguments as for [`Capture::request`].
    pub fn response(
        &self,
        content_type: Option<&[u8]>,
        content_length: Option<u64>,
    ) -> Option<Tap> {
        self.tap(&self.response, content_type, content_length)
    }

    /// Whether any field takes the error message.
    pub fn wants_errors(&self) -> bool {
        !self.error.is_empty()
    }

    /// The captured fields of a request that failed with `message`; it fills fields that `findings`
    /// has not filled from an earlier source.
    pub fn with_error(&self, findings: &Findings, message: &str) -> Captured {
        let mut findings = findings.clone();
        for field in &*self.error {
            findings.put(field, message.to_owned());
        }
        findings.found
    }

    fn tap(
        &self,
        fields: &Arc<[Field]>,
        content_type: Option<&[u8]>,
        content_length: Option<u64>,
    ) -> Option<Tap> {
        let fits = content_length.is_none_or(|length| length <= self.limit as u64);
        if fields.is_empty() || !fits || !content_type.is_some_and(is_json) {
            return None;
        }
        let encoding = Encoding::Identity;
        Some(Tap {
            fields: Arc::clone(fields),
            limit: self.limit,
            encoding,
            body: Some(Vec::new()),
        })
    }
}

/// A bounded copy of one body.
#[derive(Debug)]
pub struct Tap {
    fields: Arc<[Field]>,
    limit: usize,
    encoding: Encoding,
    /// `None` once the body has outgrown the limit.
    body: Option<Vec<u8>>,
}

impl Tap {
    /// For a body in this encoding; `None` if the gateway cannot decode it.
    pub fn encoded(self, encoding: Encoding) -> Option<Self> {
        (encoding != Encoding::Unknown).then_some(Tap { encoding, ..self })
    }

    /// Appends the next bytes of the body to the copy, which holds at most the route's
    /// `capture_limit`.
    pub fn push(&mut self, chunk: &[u8]) {
        let Some(body) = &mut self.body else { return };
        if body.len() + chunk.len() > self.limit {
            self.body = None;
            return;
        }
        body.extend_from_slice(chunk);
    }

    /// Discards the copy, because the body is sent again from its start.
    pub fn restart(&mut self) {
        self.body = Some(Vec::new());
    }

    /// Reads the fields of the complete body into `findings`.
    pub fn finish(self, findings: &mut Findings) {
        let Some(body) = self.body else { return };
        let body = match self.encoding {
            Encoding::Identity => body,
            Encoding::Coded(coding) => coding.read(&body, self.limit).unwrap_or_default(),
            Encoding::Unknown => return,
        };
        let Ok(root) = serde_json::from_slice::<Value>(&body) else { return };
        for field in &*self.fields {
            if let Some(text) = find(&root, &field.path).and_then(text) {
                findings.put(field, text);
            }
        }
    }
}

/// What was found for one request so far. Its bodies may end in any order; a field takes the first
/// of its sources, in the order in which they are configured.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    found: Captured,
    /// Fields filled by a source other than their first, and the rank of that source.
    fallbacks: Vec<(Arc<str>, usize)>,
}

impl Findings {
    /// The fields as they are known now.
    pub fn captured(&self) -> &Captured {
        &self.found
    }

    /// Takes the value of a source, unless an earlier source has given one.
    fn put(&mut self, field: &Field, value: String) {
        let fallback = self.fallbacks.iter().position(|(name, _)| *name == field.name);
        let held = match fallback {
            Some(place) => Some(self.fallbacks[place].1),
            None => self.found.has(&field.name).then_some(0),
        };
        if held.is_some_and(|held| held < field.rank) {
            return;
        }
        if let Some(place) = fallback {
            self.fallbacks.swap_remove(place);
        }
        if field.rank > 0 {
            self.fallbacks.push((Arc::clone(&field.name), field.rank));
        }
        self.found.insert(&field.name, value);
    }
}

/// One source of a field.
#[derive(Debug, PartialEq)]
struct Field {
    name: Arc<str>,
    path: Vec<String>,
    /// The position among the field's sources.
    rank: usize,
}

fn fields(
    capture: &BTreeMap<String, Sources>,
    path_of: impl Fn(&Source) -> Option<Vec<String>>,
) -> Arc<[Field]> {
    let mut fields = Vec::new();
    for (name, sources) in capture {
        let ranked = sources.iter().enumerate();
        fields.extend(ranked.filter_map(|(rank, source)| {
            Some(Field { name: name.as_str().into(), path: path_of(source)?, rank })
        }));
    }
    fields.into()
}

/// `application/json` and `application/*+json`, not the enveloped `application/connect+json`.
fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    let Some((kind, subtype)) = essence.split_at_checked("application/".len()) else {
        return false;
    };
    let suffix =
        subtype.split_last_chunk::<5>().is_some_and(|(_, s)| s.eq_ignore_ascii_case(b"+json"));
    kind.eq_ignore_ascii_case(b"application/")
        && (subtype.eq_ignore_ascii_case(b"json")
            || (suffix && !subtype.eq_ignore_ascii_case(b"connect+json")))
}

fn find<'a>(root: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, step| match value {
        Value::Object(object) => object.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Some(value.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding::Coding;

    fn capture(yaml: &str) -> Capture {
        let policy: Policy = serde_yaml::from_str(yaml).expect("a valid policy");
        Capture::compile(&policy).expect("something to capture")
    }

    fn captured(yaml: &str, chunks: &[&[u8]]) -> Captured {
        let mut tap = capture(yaml).request(Some(b"application/json"), None).expect("a tap");
        chunks.iter().for_each(|chunk| tap.push(chunk));
        let mut findings = Findings::default();
        tap.finish(&mut findings);
        findings.found
    }

    /// The result when the request's body has ended before the response's, or after it.
    fn result_of(sources: &str, request: &str, response: &str, request_first: bool) -> Captured {
        let capture = capture(&format!("capture: {{result_message: {sources}}}"));
        let mut taps = [
            (capture.request(Some(b"application/json"), None), request),
            (capture.response(Some(b"application/json"), None), response),
        ];
        if !request_first {
            taps.reverse();
        }
        let mut findings = Findings::default();
        for (tap, body) in taps {
            let Some(mut tap) = tap else { continue };
            tap.push(body.as_bytes());
            tap.finish(&mut findings);
        }
        match capture.wants_errors() {
            true => capture.with_error(&findings, "refused"),
            false => findings.found,
        }
    }

    #[test]
    fn the_first_source_that_is_there_counts_whatever_ends_first() {
        for request_first in [true, false] {
            let result = |sources: &str, request: &str, response: &str| {
                result_of(sources, request, response, request_first).result_message
            };
            let both = ("{\"a\":\"asked\"}", "{\"b\":\"told\"}");
            let some = |text: &str| Some(text.to_owned());
            assert_eq!(result("[response.b, request.a]", both.0, both.1), some("told"));
            assert_eq!(result("[request.a, response.b]", both.0, both.1), some("asked"));
            assert_eq!(
                result("[response.x, request.a, response.b]", both.0, both.1),
                some("asked")
            );
            assert_eq!(
                result("[response.x, error.message, request.a]", both.0, both.1),
                some("refused")
            );
            assert_eq!(result("[response.b, error.message]", "{}", both.1), some("told"));
            assert_eq!(result("[response.b, response.c]", "{}", "{\"b\":null,\"c\":1}"), some("1"));
            assert_eq!(result("[response.x, request.x]", both.0, both.1), None);
        }
    }

    #[test]
    fn a_field_is_found_across_chunks() {
        let found = captured("capture: {name: request.name}", &[b"{\"na", b"me\":\"Ad", b"a\"}"]);
        assert_eq!(found.name.as_deref(), Some("Ada"));
    }

    #[test]
    fn nested_fields_and_items_are_found() {
        let found = captured(
            "capture: {name: request.user.id, sku: request.items.0.sku, all: request.items}",
            &[br#"{"user":{"id":7},"items":[{"sku":"a"}]}"#],
        );
        assert_eq!(found.name.as_deref(), Some("7"));
        let other: std::collections::BTreeMap<_, _> = found.other.into_iter().collect();
        assert_eq!(other.get("all").map(String::as_str), Some(r#"[{"sku":"a"}]"#));
        assert_eq!((other.get("sku").map(String::as_str), other.len()), (Some("a"), 2));
    }

    #[test]
    fn a_missing_field_or_null_captures_nothing() {
        for body in [&b"{}"[..], b"[]", b"7", br#"{"name":null}"#, br#"{"name"#, b"", b"\xff\xfe"] {
            assert_eq!(captured("capture: {name: request.name}", &[body]), Captured::default());
        }
    }

    #[test]
    fn a_body_beyond_the_limit_captures_nothing_and_holds_nothing() {
        let capture = capture("{capture: {name: request.name}, capture_limit: 16B}");
        let mut tap = capture.request(Some(b"application/json"), None).expect("a tap");
        tap.push(br#"{"name":"Ada","#);
        tap.push(br#""x":1}"#);
        assert!(tap.body.is_none());
        assert!(capture.request(Some(b"application/json"), Some(17)).is_none());
    }

    #[test]
    fn a_body_in_gzip_is_read_up_to_the_limit() {
        let json = format!("{{\"name\":\"Ada\"{}}}", " ".repeat(1000));
        let body = Coding::Gzip.write(json.as_bytes()).expect("it gets smaller");
        for (limit, found) in [(2000, Some("Ada")), (500, None)] {
            let capture =
                capture(&format!("{{capture: {{name: request.name}}, capture_limit: {limit}B}}"));
            let tap = capture.request(Some(b"application/json"), Some(body.len() as u64));
            let mut tap = tap.and_then(|tap| tap.encoded(Encoding::Coded(Coding::Gzip)));
            tap.as_mut().expect("a tap").push(&body);
            let mut findings = Findings::default();
            tap.expect("a tap").finish(&mut findings);
            assert_eq!(findings.found.name.as_deref(), found);
        }
        let capture = capture("capture: {name: request.name}");
        let tap = capture.request(Some(b"application/json"), None).expect("a tap");
        assert!(tap.encoded(Encoding::Unknown).is_none());
    }

    #[test]
    fn a_second_attempt_starts_over() {
        let capture = capture("capture: {name: request.name}");
        let mut tap = capture.request(Some(b"application/json"), Some(14)).expect("a tap");
        tap.push(br#"{"name":"#);
        tap.restart();
        tap.push(br#"{"name":"Ada"}"#);
        let mut findings = Findings::default();
        tap.finish(&mut findings);
        assert_eq!(findings.found.name.as_deref(), Some("Ada"));
    }

    #[test]
    fn only_json_is_read() {
        let capture = capture("capture: {name: request.name}");
        let tapped = |content_type: &[u8]| capture.request(Some(content_type), None).is_some();
        assert!(tapped(b"application/json") && tapped(b"Application/JSON; charset=utf-8"));
        assert!(tapped(b"application/problem+json"));
        assert!(!tapped(b"application/connect+json") && !tapped(b"application/grpc+proto"));
        assert!(!tapped(b"text/plain") && !tapped(b"") && !tapped(b"json"));
        assert!(capture.request(None, None).is_none());
    }

    #[test]
    fn each_side_is_tapped_only_for_its_own_fields() {
        let capture = capture("capture: {result_message: response.message}");
        assert!(capture.request(Some(b"application/json"), None).is_none());
        assert!(capture.response(Some(b"application/json"), None).is_some());
    }
}
