//! Requests as the access log is told of them: for what a line costs, in time and in allocations.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use portcullis::observe::access_log::{Refusals, Rules};
use portcullis::policy::breaker::State;
use portcullis::policy::failure::{Cause, Fault};
use portcullis::summary::attempt::{Bound, Connection, Failure, Limit, Times};
use portcullis::summary::ending::{Ending, Refusal};
use portcullis::summary::values::{Fact, Value, Values};
use portcullis::summary::words::Words;
use portcullis::summary::{Head, Opening, Summary};

/// What summaries borrow.
pub struct Told {
    route: Arc<str>,
    upstream: Arc<str>,
    endpoint: Arc<str>,
    failure: Failure,
    refusals: Refusals,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With the upstream's response.
    Answered,
    /// The upstream did not answer in time.
    TimedOut,
    /// A limit was used up.
    Refused,
}

impl Default for Told {
    fn default() -> Self {
        let (upstream, endpoint): (Arc<str>, Arc<str>) = ("orders".into(), "10.0.0.7:8080".into());
        let failure = Failure {
            cause: Cause::AttemptTimeout,
            words: Words::None,
            upstream: upstream.clone(),
            endpoint: Some(endpoint.clone()),
            connection: Some(Connection::Reused),
        };
        let (route, refusals) = ("checkout".into(), Refusals::default());
        Told { route, upstream, endpoint, failure, refusals }
    }
}

impl Told {
    /// A request as it has ended.
    pub fn summary(&self, end: End) -> Summary<'_> {
        let refusal = |code, fault, detail| Ending::Refused(Refusal { code, fault, detail });
        let (ending, status) = match end {
            End::Answered => (Ending::Answered, 200),
            End::TimedOut => {
                let detail = "the upstream did not answer in time";
                (refusal("attempt_timeout", Fault::Upstream, detail), 504)
            }
            End::Refused => {
                (refusal("rate_limited", Fault::Client, "the rate limit is used up"), 429)
            }
        };
        let attempted = end != End::Refused;
        let millis = Duration::from_millis;
        Summary {
            opening: Opening {
                id: None,
                received_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
                request_id: "0193792e-7c1a-7b43-8d2f-5f1e4a6b9c01",
                trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
                listener: Some("public"),
                head: Some(Head {
                    method: Some(&Method::GET),
                    path: Some("/api/v1/orders/42"),
                    query: None,
                    host: Some(b"api.example.com"),
                }),
                route: Some(&self.route),
                consumer: Some("acme"),
                certificate: None,
                client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
                protocol: "http",
                generation: 1,
                decided_after: Duration::ZERO,
                limit_keys: &[],
            },
            ending,
            fault: ending.fault(),
            status,
            upstream: Some(&self.upstream),
            endpoint: attempted.then_some(&self.endpoint),
            upstream_status: (end == End::Answered).then_some(200),
            attempts: u32::from(attempted),
            would_refuse: None,
            no_retry: (end == End::TimedOut).then_some("not_configured"),
            failure: (end == End::TimedOut).then_some(&self.failure),
            limit: (end == End::TimedOut)
                .then_some(Limit { key: "timeout.attempt", bound: Bound::Time(millis(500)) }),
            said: None,
            past: &[],
            times: Times { connect: millis(1), first_byte: millis(499), ..Times::default() },
            error: None,
            duration: millis(500),
            upstream_duration: None,
            bytes_in: Some(0),
            bytes_out: 154,
        }
    }

    /// What its route has for the log.
    pub fn rules(&self) -> Rules<'_> {
        Rules { refusals: &self.refusals, query: None, values: Some(&values) }
    }
}

fn values() -> Values {
    let phase = Value::Text(Cow::Borrowed("first_byte"));
    Values {
        route_circuit: Some(State::Closed { failures: 1 }),
        bulkhead: Some((3, 100)),
        budget: Some(12.5),
        facts: vec![Fact { name: "portcullis.phase", value: phase }],
        ..Values::default()
    }
}
