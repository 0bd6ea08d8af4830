//! Orders about endpoints, splits and circuits, as they come over HTTP: everything is in the path and the query.
//!
//! A query holds what a path cannot: addresses such as `[::1]:8080` and `unix:/run/app.sock`. It is read
//! strictly, because a parameter that is misspelt would make another order of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{StatusCode, Uri};

use super::access::refusal;
use super::into_response;
use crate::fields::Encoded;
use crate::runtime::orders::{self, Command, Refusal, Said};
use crate::runtime::shared::Shared;
use crate::runtime::status::circuits::{Order, Scope};
use crate::runtime::status::{Answer, circuits};
use crate::units::Timespan;
use crate::upstream::orders::{MAX_WEIGHT, Wanted};

/// The most characters of an author or a reason.
const LONGEST: usize = 200;

/// The last part of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verb {
    Drain,
    Eject,
    Weight,
    Readmit,
    Restore,
}

type Named<T> = Result<Path<T>, PathRejection>;

/// `POST /upstreams/NAME/endpoints/VERB?address=…`
pub(super) async fn endpoint(
    State(shared): State<Arc<Shared>>,
    path: Named<(String, Verb)>,
    uri: Uri,
) -> Response {
    let Ok(Path((name, verb))) = path else {
        let detail = "expected /upstreams/NAME/endpoints/{drain|eject|weight|readmit|restore}";
        return refusal(StatusCode::NOT_FOUND, "unknown_order", detail);
    };
    respond(of_endpoint(&shared, &name, verb, uri.query()))
}

/// `POST /routes/NAME/split?weights=…`
pub(super) async fn split(
    State(shared): State<Arc<Shared>>,
    path: Named<String>,
    uri: Uri,
) -> Response {
    let Ok(Path(name)) = path else { return unknown_route() };
    respond(of_split(&shared, &name, uri.query()))
}

/// `POST /routes/NAME/split/restore`
pub(super) async fn restore_split(
    State(shared): State<Arc<Shared>>,
    path: Named<String>,
    uri: Uri,
) -> Response {
    let Ok(Path(name)) = path else { return unknown_route() };
    let said = Query::read(uri.query(), &["author", "reason"]).and_then(|mut query| query.said());
    respond(said.map_err(invalid).and_then(|said| orders::restore_split(&shared, &name, &said)))
}

/// `POST /circuits/SCOPE/NAME/ORDER`
pub(super) async fn circuit(
    State(shared): State<Arc<Shared>>,
    path: Named<(Scope, String, Order)>,
    uri: Uri,
) -> Response {
    let Ok(Path((scope, name, order))) = path else {
        const KNOWN: &str = "expected /circuits/{route|upstream}/NAME/{open|close|reset}";
        return into_response(circuits::no_circuit(KNOWN));
    };
    let known: &[&str] = match order {
        Order::Open | Order::Close => &["author", "reason", "for"],
        Order::Reset => &["author", "reason"],
    };
    let said = Query::read(uri.query(), known).and_then(|mut query| query.said());
    let answer = said.map_err(invalid);
    respond(answer.map(|said| orders::circuit(&shared, scope, &name, order, &said)))
}

/// `GET /orders`
pub(super) async fn list(State(shared): State<Arc<Shared>>) -> Response {
    into_response(orders::list(&shared))
}

fn of_endpoint(
    shared: &Shared,
    name: &str,
    verb: Verb,
    query: Option<&str>,
) -> Result<Answer, Refusal> {
    let known: &[&str] = match verb {
        Verb::Drain | Verb::Eject => &["address", "author", "reason", "for"],
        Verb::Weight => &["address", "author", "reason", "for", "weight"],
        Verb::Readmit | Verb::Restore => &["address", "author", "reason"],
    };
    let mut query = Query::read(query, known).map_err(invalid)?;
    let address = query.0.remove("address").filter(|address| !address.is_empty());
    let address = address.ok_or_else(|| {
        invalid("name the endpoint as /status does: address=10.0.0.7:8080, encoded".to_owned())
    })?;
    let said = query.said().map_err(invalid)?;
    let command = match verb {
        Verb::Drain => Command::Put(Wanted::Drain),
        Verb::Eject => Command::Put(Wanted::Eject),
        Verb::Weight => Command::Put(Wanted::Weight(query.weight().map_err(invalid)?)),
        Verb::Readmit => Command::Readmit,
        Verb::Restore => Command::Restore,
    };
    orders::endpoint(shared, name, &address, command, &said)
}

fn of_split(shared: &Shared, name: &str, query: Option<&str>) -> Result<Answer, Refusal> {
    let mut query = Query::read(query, &["weights", "author", "reason", "for"]).map_err(invalid)?;
    let said = query.said().map_err(invalid)?;
    let weights = weights(&query.0.remove("weights").unwrap_or_default()).map_err(invalid)?;
    orders::split(shared, name, &weights, &said)
}

/// `stable:95,canary:5`
fn weights(text: &str) -> Result<Vec<(String, u32)>, String> {
    let weight = |pair: &str| {
        let (name, weight) = pair.rsplit_once(':')?;
        Some((name.trim().to_owned(), weight.trim().parse().ok()?))
    };
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    pairs.map(weight).collect::<Option<_>>().ok_or_else(|| {
        "expected upstreams with their weights, such as weights=stable:95,canary:5".to_owned()
    })
}

/// The parameters of an order, each once.
#[derive(Debug)]
struct Query(BTreeMap<String, String>);

impl Query {
    fn read(query: Option<&str>, known: &[&str]) -> Result<Self, String> {
        let mut all = BTreeMap::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if !known.contains(&name.as_str()) {
                return Err(format!("this order has these parameters: {}", known.join(", ")));
            }
            if all.insert(name.clone(), value).is_some() {
                return Err(format!("`{name}` is there twice"));
            }
        }
        Ok(Query(all))
    }

    fn said(&mut self) -> Result<Said, String> {
        let mut text = |name: &str| match self.0.remove(name) {
            Some(text) if text.chars().count() > LONGEST || text.chars().any(char::is_control) => {
                Err(format!("`{name}` has at most {LONGEST} characters, all of them printable"))
            }
            text => Ok(text.filter(|text| !text.is_empty()).map(Arc::from)),
        };
        let (author, reason) = (text("author")?, text("reason")?);
        Ok(Said { time: self.time()?, author, reason })
    }

    fn time(&mut self) -> Result<Option<Duration>, String> {
        let Some(text) = self.0.remove("for") else { return Ok(None) };
        let time: Timespan = text.parse().map_err(|error| format!("`for`: {error}"))?;
        if time.is_zero() {
            return Err("`for` must be longer than 0".to_owned());
        }
        Ok(Some(*time))
    }

    fn weight(&mut self) -> Result<u32, String> {
        let weight = self.0.remove("weight").and_then(|text| text.parse().ok());
        match weight {
            Some(0) => Err(format!(
                "a weight is from 1 to {MAX_WEIGHT}: to send the endpoint nothing, drain it"
            )),
            Some(weight) if weight <= MAX_WEIGHT => Ok(weight),
            Some(_) | None => Err(format!("`weight` is a whole number from 1 to {MAX_WEIGHT}")),
        }
    }
}

fn decoded(text: &str) -> Result<String, String> {
    String::from_utf8(Encoded(text).octets().collect())
        .map_err(|_| "the query is not UTF-8".to_owned())
}

fn invalid(detail: String) -> Refusal {
    Refusal { status: 400, code: "invalid_order", detail }
}

fn unknown_route() -> Response {
    refusal(StatusCode::NOT_FOUND, "unknown_route", "no route has this name")
}

fn respond(answer: Result<Answer, Refusal>) -> Response {
    match answer {
        Ok(answer) => into_response(answer),
        Err(Refusal { status, code, detail }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
            refusal(status, code, &detail)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["address", "author", "reason", "for", "weight"];

    #[test]
    fn a_query_holds_any_address() {
        for (query, address) in [
            ("address=10.0.0.7:8080", "10.0.0.7:8080"),
            ("address=[::1]:8080&for=10m", "[::1]:8080"),
            ("address=%5B::1%5D:1,127.0.0.1:1", "[::1]:1,127.0.0.1:1"),
            ("address=unix:/run/app.sock", "unix:/run/app.sock"),
            ("for=1s&address=unix%3A%2Frun%2Fa%2Bb.sock", "unix:/run/a+b.sock"),
        ] {
            let query = Query::read(Some(query), &KNOWN).expect("a query");
            assert_eq!(query.0.get("address").map(String::as_str), Some(address));
        }
    }

    #[test]
    fn what_is_misspelt_or_there_twice_is_no_order() {
        for query in ["adress=a", "address=a&four=1m", "for=1m&for=2m", "address=%ff", "x"] {
            assert!(Query::read(Some(query), &KNOWN).is_err(), "{query}");
        }
    }

    #[test]
    fn an_order_says_how_long_by_whom_and_why() {
        let said = |query: &str| Query::read(Some(query), &KNOWN)?.said();
        let all = said("for=1h+30m&author=anna&reason=disk%20is%20full").expect("an order");
        assert_eq!(all.time, Some(Duration::from_secs(5400)));
        assert_eq!((all.author, all.reason), (Some("anna".into()), Some("disk is full".into())));
        assert_eq!(said("author=&reason="), Ok(Said::default()));
        for wrong in
            ["for=0s", "for=10", "for=", "reason=a%0Ab", &format!("author={}", "a".repeat(201))]
        {
            assert!(said(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_weight_of_zero_is_no_weight() {
        let weight = |query: &str| Query::read(Some(query), &KNOWN)?.weight();
        assert_eq!((weight("weight=1"), weight("weight=1000")), (Ok(1), Ok(1000)));
        for wrong in ["weight=0", "weight=1001", "weight=-1", "weight=1.5", "weight=", ""] {
            assert!(weight(wrong).is_err(), "{wrong}");
        }
        assert!(weight("weight=0").is_err_and(|words| words.contains("drain")));
    }

    #[test]
    fn weights_of_a_split_are_pairs() {
        let pairs = |text| weights(text).map(|pairs| pairs.len());
        assert_eq!(weights("a:95, b:5"), Ok(vec![("a".to_owned(), 95), ("b".to_owned(), 5)]));
        assert_eq!((pairs(""), pairs("a:1,")), (Ok(0), Ok(1)));
        for wrong in ["a", "a:", "a:-1", "a:x", "a=5"] {
            assert!(weights(wrong).is_err(), "{wrong}");
        }
    }
}
