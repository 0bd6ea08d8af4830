//! An API server of Kubernetes as far as EndpointSlices of one service go: it speaks the recorded
//! protocol of lists and watches, and errs on demand.
//!
//! No API server can be had where these tests run. What this one sends has the form of what a real one
//! was recorded to send: managed fields, references and all.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::tls::Leaf;
use super::wait::eventually;

const PATH: &str = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";

/// Knows the slices of `shop/orders`. Ends when dropped.
pub struct ApiServer {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
}

/// A request as it was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub query: BTreeMap<String, String>,
    pub authorization: Option<String>,
    pub status: u16,
}

impl Asked {
    pub fn is_watch(&self) -> bool {
        self.query.contains_key("watch")
    }

    /// A parameter of its query, or nothing.
    pub fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

/// How it treats requests.
#[derive(Clone, Debug)]
pub enum Mood {
    Well,
    /// Closes every connection, of watches as well.
    Away,
    /// With this status, and this message in it.
    Refuses(u16, &'static str),
    /// Lists and watches consist of this.
    Says(&'static str),
    /// Watches begin, bring nothing and do not end.
    Hushed,
}

#[derive(Default)]
struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    mood: Mood,
    version: u64,
    slices: BTreeMap<String, Value>,
    sent: Vec<Sent>,
    /// Watches from before this version are too old.
    oldest: u64,
    /// The most slices in a page.
    page: usize,
    token: Option<String>,
    asked: Vec<Asked>,
    connections: usize,
    stopped: bool,
}

/// What open watches are sent.
#[derive(Clone)]
enum Sent {
    Change(u64, Value),
    /// To those that are open at the time.
    Line(String),
    /// The half of a line, then the connection is closed.
    Cut,
    /// An event, after which the stream ends.
    Last(Value),
}

impl Default for Inner {
    fn default() -> Self {
        Inner {
            mood: Mood::Well,
            version: 100,
            slices: BTreeMap::new(),
            sent: Vec::new(),
            oldest: 0,
            page: usize::MAX,
            token: None,
            asked: Vec::new(),
            connections: 0,
            stopped: false,
        }
    }
}

impl ApiServer {
    pub fn start() -> Self {
        ApiServer::serve("http", None)
    }

    /// Behind TLS, with this certificate.
    pub fn start_tls(leaf: &Leaf) -> Self {
        ApiServer::serve("https", Some(Arc::new(leaf.server_config())))
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    pub fn mood(&self, mood: Mood) {
        self.change(|inner| inner.mood = mood);
    }

    /// From now on, this token alone is let in.
    pub fn expect_token(&self, token: &str) {
        self.change(|inner| inner.token = Some(token.to_owned()));
    }

    pub fn page(&self, most: usize) {
        self.change(|inner| inner.page = most);
    }

    /// Puts a slice in place, new or another one.
    pub fn put(&self, name: &str, mut slice: Value) {
        self.change(|inner| {
            inner.version += 1;
            slice["metadata"] = metadata(name, inner.version);
            let before = inner.slices.insert(name.to_owned(), slice.clone());
            let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
            inner.sent.push(Sent::Change(inner.version, event(kind, &slice)));
        });
    }

    pub fn remove(&self, name: &str) {
        self.change(|inner| {
            inner.version += 1;
            let mut slice = inner.slices.remove(name).expect("a slice of this name");
            slice["metadata"] = metadata(name, inner.version);
            inner.sent.push(Sent::Change(inner.version, event("DELETED", &slice)));
        });
    }

    /// Much happens to other objects, then open watches are told where all stands. Returns the version.
    pub fn bookmark(&self) -> u64 {
        self.change(|inner| {
            inner.version += 1000;
            let bookmark = json!({
                "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
                "metadata": {"resourceVersion": inner.version.to_string(), "creationTimestamp": null},
                "addressType": "", "endpoints": null, "ports": null,
            });
            inner.sent.push(Sent::Line(event("BOOKMARK", &bookmark).to_string()));
            inner.version
        })
    }

    /// Forgets what changed when: watches from before are too old.
    pub fn forget(&self) {
        self.change(|inner| {
            inner.version += 1000;
            inner.oldest = inner.version;
        });
    }

    /// Tells open watches that they are too old.
    pub fn expire(&self) {
        self.forget();
        self.change(|inner| inner.sent.push(Sent::Last(event("ERROR", &status(410, "too old")))));
    }

    /// Cuts open watches in the middle of a line.
    pub fn cut(&self) {
        self.change(|inner| inner.sent.push(Sent::Cut));
    }

    /// Sends open watches a line.
    pub fn say(&self, line: &str) {
        self.change(|inner| inner.sent.push(Sent::Line(line.to_owned())));
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().asked.clone()
    }

    pub fn lists(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| !asked.is_watch()).collect()
    }

    pub fn watches(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(Asked::is_watch).collect()
    }

    /// How many connections came so far.
    pub fn connections(&self) -> usize {
        self.state.lock().connections
    }

    /// Waits for a watch that is let in, after `count` others that were.
    #[track_caller]
    pub fn wait_for_watch(&self, count: usize) -> Asked {
        eventually("an open watch", || {
            self.watches().into_iter().filter(|watch| watch.status == 200).nth(count)
        })
    }

    fn serve(scheme: &'static str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its own address");
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || accept(&listener, tls.as_ref(), &shared));
        ApiServer { address, scheme, state }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let result = change(&mut self.state.lock());
        self.state.changed.notify_all();
        result
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.change(|inner| inner.stopped = true);
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("the API server's state")
    }
}

/// A slice as the controller writes it: the endpoints with their conditions, behind one port `http`.
pub fn slice(port: u16, endpoints: &[(IpAddr, Value)]) -> Value {
    let family = if endpoints.iter().any(|(ip, _)| ip.is_ipv6()) { "IPv6" } else { "IPv4" };
    let endpoint = |(number, (ip, conditions)): (usize, &(IpAddr, Value))| {
        let pod = json!({
            "kind": "Pod", "namespace": "shop", "name": format!("orders-6c9f7d8b5-{number}"),
            "uid": "0b0f9b52-6c0a-4a30-9d3e-3a1f6f6f8c11",
        });
        json!({
            "addresses": [ip], "conditions": conditions, "targetRef": pod, "nodeName": "worker-1",
            "zone": "eu-1a",
        })
    };
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": family,
        "endpoints": endpoints.iter().enumerate().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "protocol": "TCP", "port": port}],
    })
}

/// The conditions of an endpoint.
pub fn conditions(ready: bool, serving: bool, terminating: bool) -> Value {
    json!({"ready": ready, "serving": serving, "terminating": terminating})
}

fn metadata(name: &str, version: u64) -> Value {
    json!({
        "name": name, "generateName": "orders-", "namespace": "shop",
        "uid": "6a1f2c1e-88d0-4a4e-9f4c-0f9f6f1f2b7a", "resourceVersion": version.to_string(),
        "generation": 4, "creationTimestamp": "2026-11-29T08:00:00Z",
        "labels": {
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            "kubernetes.io/service-name": "orders",
        },
        "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-11-29T08:00:00Z"},
        "ownerReferences": [{
            "apiVersion": "v1", "kind": "Service", "name": "orders", "controller": true,
            "uid": "f1f5b3a4-2d57-4c5c-8ed8-0d8ef3a3a111", "blockOwnerDeletion": true,
        }],
        "managedFields": [{
            "manager": "kube-controller-manager", "operation": "Update",
            "apiVersion": "discovery.k8s.io/v1", "time": "2026-11-29T08:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:addressType": {}, "f:endpoints": {}, "f:ports": {}},
        }],
    })
}

fn event(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

fn status(code: u16, message: &str) -> Value {
    let reason = if code == 410 { "Expired" } else { "" };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}

fn accept(listener: &TcpListener, tls: Option<&Arc<ServerConfig>>, state: &Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept() else { continue };
        let mut inner = state.lock();
        if inner.stopped {
            return;
        }
        inner.connections += 1;
        if matches!(inner.mood, Mood::Away) {
            continue;
        }
        drop(inner);
        let (tls, state) = (tls.cloned(), state.clone());
        std::thread::spawn(move || {
            // Every error here is the gateway's leaving.
            let _ = match tls {
                None => answer_all(stream, &state),
                Some(config) => ServerConnection::new(config)
                    .map_err(Error::other)
                    .and_then(|tls| answer_all(StreamOwned::new(tls, stream), &state)),
            };
        });
    }
}

/// Requests of one connection, until one of them is a watch.
fn answer_all(stream: impl Read + Write, state: &State) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                text => lines.push(text.to_owned()),
            }
        }
        let target = lines[0].split(' ').nth(1).unwrap_or_default();
        let authorization = lines.iter().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
        });
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let query: BTreeMap<_, _> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (decoded(name), decoded(value)))
            .collect();
        let asked = Asked { query, authorization, status: 200 };
        if !answer(stream.get_mut(), path, asked, state)? {
            return Ok(());
        }
    }
}

/// Returns whether the connection goes on.
fn answer(to: &mut impl Write, path: &str, mut asked: Asked, state: &State) -> Result<bool> {
    let mut inner = state.lock();
    let wanted = inner.token.as_ref().map(|token| format!("Bearer {token}"));
    let from: u64 = asked.parameter("resourceVersion").parse().unwrap_or(0);
    let is_known =
        path == PATH && asked.parameter("labelSelector") == "kubernetes.io/service-name=orders";
    let refusal = match &inner.mood {
        Mood::Away => return Ok(false),
        Mood::Refuses(code, why) => Some((*code, *why)),
        _ if wanted.is_some() && asked.authorization != wanted => Some((401, "Unauthorized")),
        _ if !is_known => Some((404, "the server could not find the requested resource")),
        _ if asked.is_watch() && from < inner.oldest => Some((410, "too old resource version")),
        Mood::Well | Mood::Says(_) | Mood::Hushed => None,
    };
    if let Some((code, why)) = refusal {
        asked.status = code;
        inner.asked.push(asked);
        drop(inner);
        return whole(to, code, &status(code, why).to_string());
    }
    inner.asked.push(asked.clone());
    let said = match inner.mood {
        Mood::Says(text) => Some(text.to_owned()),
        _ if asked.is_watch() => None,
        _ => Some(list(&inner, &asked)),
    };
    if let Some(text) = said {
        drop(inner);
        return whole(to, 200, &text);
    }
    let known = inner.sent.len();
    drop(inner);
    watch(to, &asked, (from, known), state).map(|()| false)
}

fn whole(to: &mut impl Write, code: u16, body: &str) -> Result<bool> {
    let length = body.len();
    let head = format!("HTTP/1.1 {code} It\r\ncontent-type: application/json\r\n");
    write!(to, "{head}content-length: {length}\r\n\r\n{body}")?;
    to.flush()?;
    Ok(true)
}

fn list(inner: &Inner, asked: &Asked) -> String {
    let limit = asked.parameter("limit").parse().unwrap_or(usize::MAX).min(inner.page);
    // Characters that a query must not hold as they are.
    let place = asked.parameter("continue").trim_start_matches("from+/").trim_end_matches('=');
    let start: usize = place.parse().unwrap_or(0);
    let slices: Vec<_> = inner.slices.values().skip(start).take(limit).collect();
    let end = start + slices.len();
    let mut metadata = json!({"resourceVersion": inner.version.to_string()});
    if end < inner.slices.len() {
        metadata["continue"] = json!(format!("from+/{end}="));
        metadata["remainingItemCount"] = json!(inner.slices.len() - end);
    }
    let list = json!({
        "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata,
        "items": slices,
    });
    list.to_string()
}

/// Sends what changed after the version, of what was sent up to then, and all that is sent from then on.
fn watch(
    to: &mut impl Write,
    asked: &Asked,
    (version, mut next): (u64, usize),
    state: &State,
) -> Result<()> {
    let seconds = asked.parameter("timeoutSeconds").parse().unwrap_or(1800);
    let ends = Instant::now() + Duration::from_secs(seconds);
    to.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    to.flush()?;
    let mut inner = state.lock();
    let before = inner.sent[..next].iter();
    let mut pending: Vec<_> = before.filter(|sent| sent.is_after(version)).cloned().collect();
    loop {
        let is_over = Instant::now() >= ends;
        let is_hushed = matches!(inner.mood, Mood::Hushed);
        if inner.stopped || matches!(inner.mood, Mood::Away) {
            return Ok(());
        }
        if !is_hushed {
            pending.extend(inner.sent[next..].iter().cloned());
            next = inner.sent.len();
        }
        if !is_hushed && !pending.is_empty() {
            drop(inner);
            for sent in pending.drain(..) {
                match sent {
                    Sent::Change(_, event) => chunks(to, &format!("{event}\n"))?,
                    Sent::Line(line) => chunks(to, &format!("{line}\n"))?,
                    Sent::Cut => {
                        return chunks(to, "{\"type\":\"MODIFIED\",\"object\":{\"kind\":\"Endp");
                    }
                    Sent::Last(event) => {
                        chunks(to, &format!("{event}\n"))?;
                        to.write_all(b"0\r\n\r\n")?;
                        return to.flush();
                    }
                }
            }
            inner = state.lock();
            continue;
        }
        if is_over && !is_hushed {
            to.write_all(b"0\r\n\r\n")?;
            return to.flush();
        }
        let wait = ends.saturating_duration_since(Instant::now()).max(Duration::from_millis(50));
        inner = state.changed.wait_timeout(inner, wait).expect("the API server's state").0;
    }
}

/// In two pieces, as lines do not mind where a stream is cut.
fn chunks(to: &mut impl Write, text: &str) -> Result<()> {
    for piece in [&text[..text.len() / 2], &text[text.len() / 2..]] {
        write!(to, "{:x}\r\n{piece}\r\n", piece.len())?;
        to.flush()?;
    }
    Ok(())
}

impl Sent {
    fn is_after(&self, version: u64) -> bool {
        match self {
            Sent::Change(at, _) => *at > version,
            Sent::Line(_) | Sent::Cut | Sent::Last(_) => false,
        }
    }
}
