//! One finished request: one row.
//!
//! Every text is bounded and free of NUL before it reaches a store ([`Bounded`]).

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use uuid::{NoContext, Timestamp, Uuid};

use crate::record::bound::{self, PATH_BYTES, TEXT_BYTES, bound_shared, bound_string, bound_word};
use crate::record::capture::captured::Captured;

/// A unique id for a request that arrived at `time`; ids sort by time.
pub fn new_id(time: SystemTime) -> Uuid {
    // Not `now_v7`: keeping order within a millisecond takes a lock that all threads share.
    Uuid::new_v7(timestamp(time))
}

/// The least id for a request that arrived at `time`.
pub(crate) fn first_id(time: SystemTime) -> Uuid {
    let (seconds, nanos) = timestamp(time).to_unix();
    uuid::Builder::from_unix_timestamp_millis(
        seconds * 1000 + u64::from(nanos) / 1_000_000,
        &[0; 10],
    )
    .into_uuid()
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix(NoContext, since.as_secs(), since.subsec_nanos())
}

/// What is recorded about a request. Never contains a credential.
#[derive(Debug, Clone, PartialEq)]
pub struct Invocation {
    /// Sorts by the time of arrival (UUID version 7).
    pub id: Uuid,
    /// When the request arrived.
    pub created_at: SystemTime,
    /// As the client got it.
    pub request_id: Arc<str>,
    /// The W3C trace the request belongs to.
    pub trace_id: u128,
    /// The route's name; requests without a route are not recorded.
    pub route: Arc<str>,
    /// The name of the upstream of the last attempt; `None` if the gateway answered without one.
    pub upstream: Option<Arc<str>>,
    /// The endpoint of the last attempt.
    pub endpoint: Option<Arc<str>>,
    /// As the credentials prove it; `None` without credentials.
    pub consumer: Option<Arc<str>>,
    /// The client's address, after trusted proxies; `None` until it is known.
    pub client_address: Option<IpAddr>,
    /// As the client sent it.
    pub method: Method,
    /// The canonical path, without the query.
    pub path: String,
    /// Without the question mark and without secrets. Only if the route keeps it.
    pub query: Option<String>,
    /// The host that the client named.
    pub host: Option<String>,
    /// The configuration that decided, as counted by the process from 1.
    pub generation: Option<u64>,
    /// For each rate limit of the route, in its order, 16 hexadecimal digits that stand for whom the
    /// request was counted for, separated by commas. Equal on every replica.
    pub limit_keys: Option<String>,
    /// The status the client got; 499 for a client that left before it had one.
    pub status: u16,
    /// The status of the last attempt's head; `None` if there was none.
    pub upstream_status: Option<u16>,
    /// Whether the client got what it asked for: a whole response that reports no failure.
    pub success: bool,
    /// How many began, from 0.
    pub attempts: u32,
    /// The code of the refusal, if the gateway itself produced the response.
    pub rejection: Option<Cow<'static, str>>,
    /// Why the request failed, in one word; absent if it succeeded.
    pub cause: Option<Cow<'static, str>>,
    /// The code with which a policy would have refused the request, had it been enforced.
    pub would_refuse: Option<Cow<'static, str>>,
    /// From the request's head to the last byte of the response.
    pub duration: Duration,
    /// From the start of the last attempt to the upstream's head.
    pub upstream_duration: Option<Duration>,
    /// Body bytes from and to the client.
    pub bytes_in: u64,
    /// Bytes of the response's body, to the client.
    pub bytes_out: u64,
    /// The caller's protocol: `http`, `connect`, `grpc`.
    pub protocol: Cow<'static, str>,
    /// Fields of both bodies, as the route asks for them.
    pub captured: Captured,
}

impl Invocation {
    /// A request that arrived at `created_at`; nothing else is known yet.
    pub fn new(
        created_at: SystemTime,
        request_id: Arc<str>,
        route: Arc<str>,
        method: Method,
        path: String,
    ) -> Self {
        Invocation {
            id: new_id(created_at),
            created_at,
            request_id,
            trace_id: 0,
            route,
            upstream: None,
            endpoint: None,
            consumer: None,
            client_address: None,
            method,
            path,
            query: None,
            host: None,
            generation: None,
            limit_keys: None,
            status: 0,
            upstream_status: None,
            success: false,
            attempts: 0,
            rejection: None,
            cause: None,
            would_refuse: None,
            duration: Duration::ZERO,
            upstream_duration: None,
            bytes_in: 0,
            bytes_out: 0,
            protocol: Cow::Borrowed("http"),
            captured: Captured::default(),
        }
    }

    /// Sets what is known once the request has ended.
    pub fn ends(&mut self, ending: Completion) {
        let Completion {
            upstream,
            endpoint,
            status,
            upstream_status,
            success,
            attempts,
            rejection,
            cause,
            would_refuse,
            duration,
            upstream_duration,
            bytes_in,
            bytes_out,
            captured,
        } = ending;
        self.upstream = upstream;
        self.endpoint = endpoint;
        self.status = status;
        self.upstream_status = upstream_status;
        self.success = success;
        self.attempts = attempts;
        self.rejection = rejection;
        self.cause = cause;
        self.would_refuse = would_refuse;
        self.duration = duration;
        self.upstream_duration = upstream_duration;
        self.bytes_in = bytes_in;
        self.bytes_out = bytes_out;
        self.captured = captured;
    }

    /// Cuts every text to its bound, replaces NUL, which PostgreSQL cannot store, and clamps a time
    /// that cannot be written as text. Allocates only if something has to change.
    fn bound(&mut self) {
        self.created_at = bound::within_text(self.created_at);
        if let Some((method, _)) = self.method.as_str().split_at_checked(TEXT_BYTES) {
            self.method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
        }
        bound_string(&mut self.path, PATH_BYTES);
        self.query.iter_mut().for_each(|query| bound_string(query, PATH_BYTES));
        for text in [&mut self.host, &mut self.limit_keys] {
            text.iter_mut().for_each(|text| bound_string(text, TEXT_BYTES));
        }
        for text in [&mut self.request_id, &mut self.route] {
            bound_shared(text);
        }
        for text in [&mut self.upstream, &mut self.endpoint, &mut self.consumer] {
            text.iter_mut().for_each(bound_shared);
        }
        for text in [&mut self.rejection, &mut self.cause, &mut self.would_refuse] {
            text.iter_mut().for_each(bound_word);
        }
        bound_word(&mut self.protocol);
        self.captured.bound();
    }
}

/// A row that the stores can hold: every text is within its bound and free of NUL. Both writes of a
/// row share it.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounded(Arc<Invocation>);

impl From<Invocation> for Bounded {
    fn from(mut invocation: Invocation) -> Self {
        invocation.bound();
        Bounded(Arc::new(invocation))
    }
}

impl std::ops::Deref for Bounded {
    type Target = Invocation;

    fn deref(&self) -> &Invocation {
        &self.0
    }
}

impl Bounded {
    /// Applies `ending`, with its texts bounded as well.
    fn ends(&mut self, mut ending: Completion) {
        ending.bound();
        // The row is usually not shared any more, so nothing is copied.
        Arc::make_mut(&mut self.0).ends(ending);
    }
}

/// What may change about a row from its first write to the end of its request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// As the field of [`Invocation`], like all others here.
    pub upstream: Option<Arc<str>>,
    /// A fallback may have changed it.
    pub endpoint: Option<Arc<str>>,
    /// 499 if the client left after the first write.
    pub status: u16,
    /// That of the last attempt.
    pub upstream_status: Option<u16>,
    /// Known once the body has ended.
    pub success: bool,
    /// The final count.
    pub attempts: u32,
    /// Also of a refusal after the head.
    pub rejection: Option<Cow<'static, str>>,
    /// Why the request failed after all.
    pub cause: Option<Cow<'static, str>>,
    /// Also of a body that turned out to be too large.
    pub would_refuse: Option<Cow<'static, str>>,
    /// The whole, where the first write had the time to the head.
    pub duration: Duration,
    /// That of the last attempt.
    pub upstream_duration: Option<Duration>,
    /// The whole body, as far as it was read.
    pub bytes_in: u64,
    /// The whole body, as far as it was written.
    pub bytes_out: u64,
    /// The response's fields are known only now.
    pub captured: Captured,
}

impl Completion {
    fn bound(&mut self) {
        for text in [&mut self.upstream, &mut self.endpoint] {
            text.iter_mut().for_each(bound_shared);
        }
        for text in [&mut self.rejection, &mut self.cause, &mut self.would_refuse] {
            text.iter_mut().for_each(bound_word);
        }
        self.captured.bound();
    }
}

/// When a row is written, which decides what it may overwrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Before the response leaves. Overwrites nothing: the second write may already be there.
    Answered,
    /// The complete row; as a rule its only write.
    Whole,
    /// The second write of a row. The store has seen the first one, or soon will.
    Completion,
}

impl Stage {
    /// The stage of a first write once it has been merged with the second.
    pub(crate) fn completed(self) -> Self {
        match self {
            Stage::Answered | Stage::Whole => Stage::Whole,
            Stage::Completion => Stage::Completion,
        }
    }

    /// Whether the request had ended when this was written.
    pub(crate) fn is_complete(self) -> bool {
        match self {
            Stage::Answered => false,
            Stage::Whole | Stage::Completion => true,
        }
    }
}

/// A row on its way to a store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(crate) invocation: Bounded,
    pub(crate) stage: Stage,
}

impl Row {
    pub(crate) fn new(invocation: impl Into<Bounded>, stage: Stage) -> Self {
        Row { invocation: invocation.into(), stage }
    }
}

/// The second write of a row: the first one, and how the request ended.
#[derive(Debug)]
pub(crate) struct Second {
    pub(crate) first: Bounded,
    pub(crate) ending: Box<Completion>,
}

impl Second {
    /// The complete row.
    pub(crate) fn into_row(self) -> Row {
        let mut row = Row::new(self.first, Stage::Completion);
        row.invocation.ends(*self.ending);
        row
    }

    /// Merges this into the first write.
    pub(crate) fn add_to(self, first: &mut Row) {
        drop(self.first);
        first.invocation.ends(*self.ending);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::capture::captured::CAPTURED_BYTES;
    use crate::record::row::value;

    pub(crate) fn invocation(name: &str) -> Invocation {
        // Stores keep microseconds.
        let at = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
        let mut invocation = Invocation::new(
            at,
            "request-1".into(),
            "invoke".into(),
            Method::POST,
            "/invoke".into(),
        );
        invocation.captured.name = Some(name.to_owned());
        invocation
    }

    /// An ending that leaves the row as it is.
    pub(crate) fn ending(row: &Invocation) -> Completion {
        let row = row.clone();
        Completion {
            upstream: row.upstream,
            endpoint: row.endpoint,
            status: row.status,
            upstream_status: row.upstream_status,
            success: row.success,
            attempts: row.attempts,
            rejection: row.rejection,
            cause: row.cause,
            would_refuse: row.would_refuse,
            duration: row.duration,
            upstream_duration: row.upstream_duration,
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
            captured: row.captured,
        }
    }

    /// A row with a value in every field.
    pub(crate) fn full() -> Invocation {
        let mut row = invocation("Ada\u{0}\"\\\u{1f980}");
        row.trace_id = 0xabc;
        row.query = Some("a=1&b=".to_owned());
        row.upstream = Some("things".into());
        row.endpoint = Some("127.0.0.1:8080".into());
        row.consumer = Some("acme".into());
        row.client_address = Some("2001:db8::1".parse().expect("an address"));
        row.upstream_status = Some(201);
        row.rejection = Some("rate_limited".into());
        row.cause = Some("upstream_5xx".into());
        row.would_refuse = Some("circuit_open".into());
        row.host = Some("shop.test:8443".to_owned());
        row.generation = Some(7);
        row.limit_keys = Some("00000000000000ab,00000000000000cd".to_owned());
        row.upstream_duration = Some(Duration::from_micros(7));
        row.bytes_out = u64::MAX;
        row.captured.result_message = Some(String::new());
        row.captured.insert(&"sku".into(), "a".into());
        row
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        let mut invocation = invocation(&"ä".repeat(CAPTURED_BYTES));
        invocation.captured.name.as_mut().expect("set").insert(0, 'x');
        invocation.consumer = Some("c".repeat(10_000).into());
        invocation.bound();
        assert_eq!(invocation.captured.name.map(|name| name.len()), Some(CAPTURED_BYTES - 1));
        assert_eq!(invocation.consumer.map(|text| text.len()), Some(TEXT_BYTES));
    }

    #[test]
    fn every_text_has_its_bound_whatever_is_in_it() {
        let mut invocation = invocation("a");
        invocation.path = "\0".repeat(PATH_BYTES);
        invocation.route = "\0".repeat(TEXT_BYTES).into();
        invocation.method = Method::from_bytes(&[b'M'; 5000]).expect("a method");
        invocation.cause = Some(Cow::Owned("c\0".repeat(TEXT_BYTES)));
        invocation.bound();
        assert!(invocation.path.len() <= PATH_BYTES && invocation.path.starts_with('\u{fffd}'));
        assert!(invocation.route.len() <= TEXT_BYTES);
        assert_eq!(invocation.method.as_str(), "M".repeat(TEXT_BYTES));
        let cause = invocation.cause.expect("set");
        assert!(cause.len() <= TEXT_BYTES && !cause.contains('\0'));
    }

    #[test]
    fn a_time_that_has_no_text_is_brought_to_one_that_has() {
        let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        let late = SystemTime::UNIX_EPOCH + Duration::from_micros(u64::MAX);
        for (at, text) in
            [(early, "1970-01-01T00:00:00.000000Z"), (late, "9999-12-31T23:59:59.999999Z")]
        {
            let mut invocation = invocation("a");
            invocation.created_at = at;
            let bounded = Bounded::from(invocation);
            assert_eq!(value::timestamp(bounded.created_at), text);
            assert_eq!(value::timestamp(at), text);
        }
    }

    #[test]
    fn nul_never_reaches_a_store() {
        let mut invocation = invocation("a\0b");
        invocation.path = "/\0".into();
        invocation.request_id = "\0".into();
        invocation.captured.insert(&"k\0".into(), "v\0".into());
        invocation.bound();
        assert_eq!(invocation.captured.name.as_deref(), Some("a\u{fffd}b"));
        assert_eq!((invocation.path.as_str(), &*invocation.request_id), ("/\u{fffd}", "\u{fffd}"));
        assert_eq!(invocation.captured.other, [("k\u{fffd}".into(), "v\u{fffd}".to_owned())]);
    }

    #[test]
    fn ids_sort_by_time() {
        let at = |millis: u64| SystemTime::UNIX_EPOCH + Duration::from_micros(millis * 1000 + 999);
        let (early, late) = (new_id(at(1_700_000_000_000)), new_id(at(1_700_000_000_001)));
        assert_eq!(early.get_version_num(), 7);
        assert!(early < first_id(at(1_700_000_000_001)));
        assert!(first_id(at(1_700_000_000_001)) <= late);
    }
}
