//! Consul as far as the health of one service goes: it speaks the documented protocol of blocking queries,
//! and errs on demand. No real one can be had where these tests run.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::documents::{Asked, Documents, Reply};
use super::tls::Leaf;
use super::upstream::Upstream;
use super::wait::eventually;

const PATH: &str = "/v1/health/service/orders";

/// Knows the instances of `orders`.
pub struct Consul {
    server: Documents,
    state: Arc<State>,
}

/// How it treats queries.
#[derive(Clone, Debug)]
pub enum Mood {
    Well,
    /// Closes every connection, of queries that wait as well.
    Away,
    /// With this status and text.
    Refuses(u16, &'static str),
    /// With this document instead.
    Says(&'static str),
    /// Without what says up to where all is known.
    HasNoIndex,
    /// The token may read none of the instances.
    Filters,
    /// Without an end.
    Babbles,
    /// Each query is answered at once with another index.
    Spins,
}

#[derive(Default)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    mood: Mood,
    index: u64,
    instances: BTreeMap<String, Value>,
    token: Option<String>,
    asked: Vec<Asked>,
    stopped: bool,
}

impl Default for Inner {
    fn default() -> Self {
        Inner {
            mood: Mood::Well,
            index: 100,
            instances: BTreeMap::new(),
            token: None,
            asked: Vec::new(),
            stopped: false,
        }
    }
}

impl Consul {
    pub fn start() -> Self {
        Consul::serve(None)
    }

    /// Behind TLS, with this certificate.
    pub fn start_tls(leaf: &Leaf) -> Self {
        Consul::serve(Some(leaf))
    }

    fn serve(leaf: Option<&Leaf>) -> Self {
        let state = Arc::new(State::default());
        let answering = state.clone();
        Consul { server: Documents::serve(leaf, move |asked| answer(&asked, &answering)), state }
    }

    /// With these instances, of which each passes.
    pub fn of(upstreams: &[&Upstream]) -> Self {
        let consul = Consul::start();
        for (number, upstream) in upstreams.iter().enumerate() {
            consul.put(&format!("orders-{number}"), instance(upstream));
        }
        consul
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    pub fn mood(&self, mood: Mood) {
        self.change(|inner| inner.mood = mood);
    }

    /// From now on, this token alone is let in; queries that wait go on to wait.
    pub fn expect_token(&self, token: &str) {
        self.change(|inner| inner.token = Some(token.to_owned()));
    }

    /// Registers an instance, a new or another one.
    pub fn put(&self, id: &str, mut instance: Value) {
        instance["Service"]["ID"] = json!(id);
        self.change(|inner| {
            inner.index += 1;
            inner.instances.insert(id.to_owned(), instance);
        });
    }

    pub fn remove(&self, id: &str) {
        self.change(|inner| {
            inner.index += 1;
            inner.instances.remove(id).expect("an instance with this id");
        });
    }

    /// The index counts from here, as after a restore; queries that wait are answered.
    pub fn set_index(&self, index: u64) {
        self.change(|inner| inner.index = index);
    }

    /// Something changes that the query does not ask for.
    pub fn touch(&self) {
        self.change(|inner| inner.index += 1);
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().asked.clone()
    }

    /// The `index` of each query, `""` for one that does not wait.
    pub fn indexes(&self) -> Vec<String> {
        self.asked().iter().map(|asked| asked.parameter("index").to_owned()).collect()
    }

    /// Waits for a query that waits, after `count` others of any kind.
    #[track_caller]
    pub fn wait_for_query(&self, count: usize) -> Asked {
        eventually("a query that waits", || {
            let later = self.asked().into_iter().skip(count);
            later.into_iter().find(|asked| !asked.parameter("index").is_empty())
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.state.changed.notify_all();
        result
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.change(|inner| inner.stopped = true);
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("Consul's state")
    }
}

/// This upstream as an instance that passes its checks.
pub fn instance(upstream: &Upstream) -> Value {
    let (ip, port) = (upstream.address().ip().to_string(), upstream.address().port());
    json!({
        "Node": {
            "ID": "40e4a748-2192-161a-0510-9bf59fe950b5", "Node": "worker-1", "Address": "192.0.2.1",
            "Datacenter": "dc1", "TaggedAddresses": {"lan": "192.0.2.1", "wan": "192.0.2.1"},
            "Meta": {"consul-network-segment": ""}, "CreateIndex": 12, "ModifyIndex": 14,
        },
        "Service": {
            "ID": "", "Service": "orders", "Tags": ["v1"], "Address": ip, "Meta": {}, "Port": port,
            "Weights": {"Passing": 1, "Warning": 1}, "EnableTagOverride": false,
            "Proxy": {"Mode": "", "MeshGateway": {}, "Expose": {}}, "Connect": {},
            "CreateIndex": 20, "ModifyIndex": 20,
        },
        "Checks": [
            {"Node": "worker-1", "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": "passing",
             "Notes": "", "Output": "Agent alive and reachable", "ServiceID": "", "ServiceTags": []},
            {"Node": "worker-1", "CheckID": "service:orders", "Name": "orders", "Status": "passing",
             "Notes": "", "Output": "HTTP GET: 200 OK", "ServiceID": "orders", "ServiceTags": ["v1"]},
        ],
    })
}

/// The same, with its own check in this state.
pub fn with_status(mut instance: Value, status: &str) -> Value {
    instance["Checks"][1]["Status"] = json!(status);
    instance
}

fn answer(asked: &Asked, state: &State) -> Reply {
    let mut inner = state.lock();
    if matches!(inner.mood, Mood::Away) {
        return Reply::Close;
    }
    inner.asked.push(asked.clone());
    if inner.token.as_deref().is_some_and(|token| asked.header("x-consul-token") != Some(token)) {
        return Reply::of(403, "ACL not found\n");
    }
    if asked.path != PATH {
        return Reply::of(404, "");
    }
    let index: u64 = asked.parameter("index").parse().unwrap_or(0);
    let wait = asked.parameter("wait").trim_end_matches('s').parse().unwrap_or(300);
    let ends = Instant::now() + Duration::from_secs(wait);
    let first = inner.index;
    loop {
        match inner.mood.clone() {
            _ if inner.stopped => return Reply::Close,
            Mood::Away => return Reply::Close,
            Mood::Refuses(status, text) => {
                return Reply::Whole(
                    status,
                    vec![("location", "/elsewhere".to_owned())],
                    text.into(),
                );
            }
            Mood::Babbles => return Reply::Endless,
            Mood::Spins => inner.index += 1,
            Mood::Well | Mood::Says(_) | Mood::HasNoIndex | Mood::Filters => {}
        }
        // A restore wakes those that wait, too.
        let is_due = index == 0 || inner.index > index || inner.index < first;
        let left = ends.saturating_duration_since(Instant::now());
        if is_due || left.is_zero() {
            return whole(asked, &inner);
        }
        inner = state.changed.wait_timeout(inner, left).expect("Consul's state").0;
    }
}

fn whole(asked: &Asked, inner: &Inner) -> Reply {
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("x-consul-effective-consistency", "leader".to_owned()),
        ("x-consul-knownleader", "true".to_owned()),
        ("x-consul-lastcontact", "0".to_owned()),
    ];
    if !matches!(inner.mood, Mood::HasNoIndex) {
        headers.push(("x-consul-index", inner.index.to_string()));
    }
    let body = match inner.mood {
        Mood::Says(text) => text.to_owned(),
        Mood::Filters => {
            headers.push(("x-consul-results-filtered-by-acls", "true".to_owned()));
            "[]".to_owned()
        }
        _ => json!(
            inner.instances.values().filter(|one| is_asked_for(one, asked)).collect::<Vec<_>>()
        )
        .to_string(),
    };
    Reply::Whole(200, headers, body)
}

fn is_asked_for(instance: &Value, asked: &Asked) -> bool {
    let checks = instance["Checks"].as_array().expect("checks");
    let passes = checks.iter().all(|check| check["Status"] == "passing");
    let tags = instance["Service"]["Tags"].as_array().expect("tags");
    let mut wanted = asked.query.iter().filter(|(name, _)| name == "tag");
    (passes || asked.parameter("passing").is_empty())
        && wanted.all(|(_, tag)| tags.contains(&json!(tag)))
}
