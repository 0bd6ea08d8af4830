//! Eureka as far as the instances of one application go: it answers as a real one was recorded to answer,
//! and errs on demand. No real one can be had where these tests run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use super::documents::{Asked, Documents, Reply};
use super::tls::Leaf;
use super::upstream::Upstream;
use super::wait::eventually;

/// Knows the instances of `ORDERS`.
pub struct Eureka {
    server: Documents,
    state: Arc<Mutex<Inner>>,
}

/// How it treats requests.
#[derive(Clone, Debug)]
pub enum Mood {
    Well,
    /// Closes every connection.
    Away,
    /// With this status and text.
    Refuses(u16, &'static str),
    /// With this document instead.
    Says(&'static str),
    /// It was started anew, and no instance has found it yet.
    Empty,
    /// Without an end.
    Babbles,
}

struct Inner {
    mood: Mood,
    instances: BTreeMap<String, Value>,
    authorization: Option<String>,
    asked: Vec<Asked>,
}

impl Eureka {
    pub fn start() -> Self {
        Eureka::serve(None)
    }

    /// Behind TLS, with this certificate.
    pub fn start_tls(leaf: &Leaf) -> Self {
        Eureka::serve(Some(leaf))
    }

    fn serve(leaf: Option<&Leaf>) -> Self {
        let state = Arc::new(Mutex::new(Inner {
            mood: Mood::Well,
            instances: BTreeMap::new(),
            authorization: None,
            asked: Vec::new(),
        }));
        let answering = state.clone();
        let server = Documents::serve(leaf, move |asked| {
            answer(asked, &mut answering.lock().expect("Eureka's state"))
        });
        Eureka { server, state }
    }

    /// With these instances, of which each is `UP`.
    pub fn of(upstreams: &[&Upstream]) -> Self {
        let eureka = Eureka::start();
        for (number, upstream) in upstreams.iter().enumerate() {
            eureka.put(&format!("orders-{number}"), instance(upstream));
        }
        eureka
    }

    /// `http://host:port/eureka`
    pub fn url(&self) -> String {
        format!("{}/eureka", self.server.url())
    }

    pub fn authority(&self) -> String {
        self.server.authority()
    }

    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    pub fn mood(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// From now on, the `Authorization` must be this one.
    pub fn expect(&self, authorization: &str) {
        self.lock().authorization = Some(authorization.to_owned());
    }

    /// Registers an instance, a new or another one.
    pub fn put(&self, id: &str, mut instance: Value) {
        instance["instanceId"] = json!(id);
        self.lock().instances.insert(id.to_owned(), instance);
    }

    pub fn remove(&self, id: &str) {
        self.lock().instances.remove(id).expect("an instance with this id");
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    /// Waits until it is asked twice more: the second time, all that was before has been taken in.
    #[track_caller]
    pub fn wait_for_questions(&self) {
        let count = self.asked().len();
        eventually("two more questions", || (self.asked().len() >= count + 2).then_some(()));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().expect("Eureka's state")
    }
}

/// This upstream as an instance that is `UP`.
pub fn instance(upstream: &Upstream) -> Value {
    let (ip, port) = (upstream.address().ip().to_string(), upstream.address().port());
    json!({
        "instanceId": "", "hostName": "localhost", "app": "ORDERS", "ipAddr": ip, "status": "UP",
        "overriddenStatus": "UNKNOWN", "port": {"$": port, "@enabled": "true"},
        "securePort": {"$": 443, "@enabled": "false"}, "countryId": 1,
        "dataCenterInfo": {
            "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn",
        },
        "leaseInfo": {
            "renewalIntervalInSecs": 30, "durationInSecs": 90, "registrationTimestamp": 1764400000000_u64,
            "lastRenewalTimestamp": 1764400030000_u64, "evictionTimestamp": 0,
            "serviceUpTimestamp": 1764400000000_u64,
        },
        "metadata": {"management.port": "8081"}, "homePageUrl": format!("http://localhost:{port}/"),
        "vipAddress": "orders", "secureVipAddress": "orders", "isCoordinatingDiscoveryServer": "false",
        "lastUpdatedTimestamp": "1764400000000", "lastDirtyTimestamp": "1764400000000",
        "actionType": "ADDED",
    })
}

/// The same in this state.
pub fn with_status(mut instance: Value, status: &str) -> Value {
    instance["status"] = json!(status);
    instance
}

fn answer(asked: Asked, inner: &mut Inner) -> Reply {
    let is_let_in = inner.authorization.is_none()
        || asked.header("authorization") == inner.authorization.as_deref();
    let (path, is_json) = (asked.path.clone(), asked.header("accept") == Some("application/json"));
    inner.asked.push(asked);
    match inner.mood {
        Mood::Away => return Reply::Close,
        Mood::Refuses(status, text) => {
            return Reply::Whole(status, vec![("location", "/elsewhere".to_owned())], text.into());
        }
        Mood::Says(text) => return Reply::of(200, text),
        Mood::Babbles => return Reply::Endless,
        Mood::Well | Mood::Empty => {}
    }
    if !is_let_in {
        return Reply::of(401, "{\"status\":401,\"error\":\"Unauthorized\"}");
    }
    if !is_json {
        return Reply::of(200, "<application><name>ORDERS</name></application>");
    }
    let is_empty = matches!(inner.mood, Mood::Empty) || inner.instances.is_empty();
    if path == "/eureka/apps" {
        let all = json!({"versions__delta": "1", "apps__hashcode": "", "application": []});
        return Reply::of(200, &json!({"applications": all}).to_string());
    }
    // Names are in capital letters here, and an application without instances is not known.
    if path != "/eureka/apps/ORDERS" || is_empty {
        return Reply::of(404, "");
    }
    let instances: Vec<_> = inner.instances.values().collect();
    // As the older of its two converters writes it.
    let instances = if let [only] = instances[..] { only.clone() } else { json!(instances) };
    Reply::of(200, &json!({"application": {"name": "ORDERS", "instance": instances}}).to_string())
}
