//! The calls of the demo and what each must be answered.

use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::Result;
use crate::grpc_web;
use crate::table::Table;

pub const PATH: &str = "/gateway.v1.GatewayService/InvokeCustom";

/// The circuit opens at the fifth failure in a row: three calls, with their retries.
const CALLS_UNTIL_OPEN: usize = 8;

/// One call, as the client and the upstream saw it.
pub struct Answer {
    what: &'static str,
    name: &'static str,
    request_id: String,
    status: StatusCode,
    body: Value,
    retry_after: Option<String>,
    upstream_calls: u64,
    took: Duration,
}

impl Answer {
    /// What its row must say: request id, status, attempts.
    pub fn recorded(&self) -> (&str, u64, u64) {
        (&self.request_id, self.status.as_u16().into(), self.upstream_calls)
    }

    fn circuit_is_open(&self) -> bool {
        self.upstream_calls == 0 && self.retry_after.is_some()
    }

    /// The Connect code of an error, the message of a success.
    fn text(&self) -> String {
        let field = if self.status.is_success() { "message" } else { "code" };
        self.body[field].as_str().unwrap_or("-").to_owned()
    }

    fn expect(&self, status: u16, text: &str, upstream_calls: u64) -> Result<()> {
        let (found, expected) = (
            (self.status.as_u16(), self.text(), self.upstream_calls),
            (status, text, upstream_calls),
        );
        if (found.0, found.1.as_str(), found.2) == expected {
            return Ok(());
        }
        Err(format!(
            "{}: expected (status, text, upstream calls) {expected:?}, found {found:?}",
            self.what
        )
        .into())
    }
}

/// Calls the gateway and keeps the answers. Every request id begins with the run's.
pub struct Caller {
    client: Client,
    gateway: String,
    upstream: String,
    token: String,
    run: String,
    answers: Vec<Answer>,
}

impl Caller {
    pub fn new(client: Client, gateway: &str, upstream: &str, token: &str) -> Self {
        Caller {
            client,
            gateway: gateway.to_owned(),
            upstream: upstream.to_owned(),
            token: token.to_owned(),
            run: format!("demo-{:08x}", fastrand::u32(..)),
            answers: Vec::new(),
        }
    }

    pub fn run(&self) -> &str {
        &self.run
    }

    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    async fn call(&mut self, what: &'static str, name: &'static str) -> Result<&Answer> {
        self.send(what, name, true).await
    }

    /// The same as a message of protocol buffers, in the frames of gRPC-Web.
    async fn call_by_grpc_web(
        &mut self,
        what: &'static str,
        name: &'static str,
    ) -> Result<&Answer> {
        let request = self.request("application/grpc-web+proto").body(grpc_web::call(name)?);
        let request = request.bearer_auth(&self.token);
        self.make(what, name, request, grpc_web::answer).await
    }

    async fn call_without_token(
        &mut self,
        what: &'static str,
        name: &'static str,
    ) -> Result<&Answer> {
        self.send(what, name, false).await
    }

    async fn send(
        &mut self,
        what: &'static str,
        name: &'static str,
        token: bool,
    ) -> Result<&Answer> {
        let request = self.request("application/json").header("Connect-Protocol-Version", "1");
        let mut request = request.body(json!({"name": name}).to_string());
        if token {
            request = request.bearer_auth(&self.token);
        }
        let read = |body: &[u8]| serde_json::from_slice(body).unwrap_or_default();
        self.make(what, name, request, read).await
    }

    fn request(&self, content_type: &str) -> RequestBuilder {
        let call = self.client.post(format!("{}{PATH}", self.gateway));
        call.header("Content-Type", content_type).header("X-Request-Id", self.request_id())
    }

    fn request_id(&self) -> String {
        format!("{}-{:02}", self.run, self.answers.len() + 1)
    }

    async fn make(
        &mut self,
        what: &'static str,
        name: &'static str,
        request: RequestBuilder,
        read: impl Fn(&[u8]) -> Value,
    ) -> Result<&Answer> {
        let before = self.upstream_calls().await?;
        let request_id = self.request_id();
        let start = Instant::now();
        let response = request.send().await?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get("Retry-After")
            .and_then(|seconds| seconds.to_str().ok())
            .map(str::to_owned);
        let body = read(&response.bytes().await?);
        let took = start.elapsed();
        let upstream_calls = self.upstream_calls().await? - before;
        self.answers.push(Answer {
            what,
            name,
            request_id,
            status,
            body,
            retry_after,
            upstream_calls,
            took,
        });
        self.answers.last().ok_or_else(|| "no answer".into())
    }

    async fn upstream_calls(&self) -> Result<u64> {
        let seen = self.client.get(format!("{}/seen", self.upstream)).send().await?;
        let seen: Value = serde_json::from_slice(&seen.bytes().await?)?;
        seen["calls"].as_u64().ok_or_else(|| "the demo upstream does not count".into())
    }
}

/// Makes the calls; an error is the first answer that is not as promised.
pub async fn make(caller: &mut Caller) -> Result<()> {
    let hello = "Hello Ada from custom-lang-service!";
    caller.call("a success", "Ada").await?.expect(200, hello, 1)?;
    caller.call_by_grpc_web("the same by gRPC-Web", "Ada").await?.expect(200, hello, 1)?;
    caller.call("a 503, retried", "flaky").await?.expect(
        200,
        "Hello flaky from custom-lang-service!",
        2,
    )?;
    caller.call("a 404, not retried", "notfound").await?.expect(404, "not_found", 1)?;
    caller.call_without_token("no token", "Ada").await?.expect(401, "unauthenticated", 0)?;
    open_the_circuit(caller).await?;
    let refused = caller.call("any name, circuit open", "Ada").await?;
    refused.expect(503, "unavailable", 0)?;
    if !refused.circuit_is_open() {
        return Err("an open circuit must answer with Retry-After".into());
    }
    Ok(())
}

async fn open_the_circuit(caller: &mut Caller) -> Result<()> {
    for _ in 0..CALLS_UNTIL_OPEN {
        let answer = caller.call("503s until the circuit opens", "unavailable").await?;
        if answer.circuit_is_open() {
            return answer.expect(503, "unavailable", 0);
        }
        answer.expect(503, "unavailable", answer.upstream_calls)?;
    }
    Err(format!("the circuit did not open within {CALLS_UNTIL_OPEN} calls").into())
}

pub fn table(answers: &[Answer]) -> Table {
    let mut table =
        Table::new(&["call", "name", "status", "answer", "upstream calls", "retry after", "time"]);
    for answer in answers {
        table.push(
            answer.status.is_success(),
            vec![
                answer.what.to_owned(),
                answer.name.to_owned(),
                answer.status.as_u16().to_string(),
                answer.text(),
                answer.upstream_calls.to_string(),
                answer.retry_after.as_ref().map_or("-".to_owned(), |seconds| format!("{seconds}s")),
                format!("{}ms", answer.took.as_millis()),
            ],
        );
    }
    table
}
