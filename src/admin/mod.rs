//! The admin listener: health, metrics, state, and orders. It has an address, a Unix socket, or both.
//!
//! GET never changes anything; POST does. `access` decides which requests are served, `connections`
//! limits their time and number; `registry` is where instances of services register.

mod access;
mod connections;
mod orders;
mod registry;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Router, middleware};
use http::header::CONTENT_TYPE;
use percent_encoding::percent_decode_str;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::net::{TcpListener, UnixListener};

use self::access::{Gate, Over};
use self::connections::{Accepts, Connections, Limits};
use crate::config::log::Level;
use crate::config::route::Serve;
use crate::runtime::shared::Shared;
use crate::runtime::status;
use crate::runtime::status::Answer;

/// Limit on a request. The check of the store for `/healthz` gives up sooner.
const REQUEST: Duration = Duration::from_secs(5);
/// Scrapes usually come every 15 s to 60 s.
const IDLE: Duration = Duration::from_secs(75);

/// Serves until the process ends, so that it also responds during the drain; or until another process has
/// taken over.
pub struct Admin {
    shared: Arc<Shared>,
    /// Taken by the start, of which there is only one.
    sockets: Mutex<Sockets>,
}

/// The listening ones: that of the address, and the Unix socket.
type Sockets = (Option<std::net::TcpListener>, Option<std::os::unix::net::UnixListener>);

impl Admin {
    /// Both listen already.
    pub fn new(
        shared: Arc<Shared>,
        address: Option<std::net::TcpListener>,
        socket: Option<std::os::unix::net::UnixListener>,
    ) -> Self {
        Admin { shared, sockets: Mutex::new((address, socket)) }
    }

    async fn serve(&self, listener: impl Accepts, over: Over, connections: usize) {
        let limits = Limits { connections, request: REQUEST, idle: IDLE };
        let listener = Connections::new(listener, limits);
        let lifecycle = self.shared.lifecycle.clone();
        let succeeded = async move { drop(lifecycle.until_succeeded().await) };
        let served = axum::serve(listener, self.router(over)).with_graceful_shutdown(succeeded);
        if let Err(error) = served.await {
            log::error!("admin listener: {error}");
        }
    }

    async fn serve_address(&self, socket: std::net::TcpListener, connections: usize) {
        let address = socket.local_addr();
        let listener = match TcpListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                log::error!("admin.address: {error}");
                return;
            }
        };
        if let Ok(address) = address {
            log::info!("admin on http://{address}");
        }
        self.serve(listener, Over::Address, connections).await;
    }

    async fn serve_socket(&self, socket: std::os::unix::net::UnixListener, connections: usize) {
        let address = socket.local_addr();
        let listener = match UnixListener::from_std(socket) {
            Ok(listener) => listener,
            Err(error) => {
                log::error!("admin.socket: {error}");
                return;
            }
        };
        if let Some(path) = address.as_ref().ok().and_then(|address| address.as_pathname()) {
            log::info!("admin on unix:{}", path.display());
        }
        self.serve(listener, Over::Socket, connections).await;
    }

    fn router(&self, over: Over) -> Router {
        let gate = Gate { shared: self.shared.clone(), over };
        let answer = |what: Serve| {
            get(move |State(shared): State<Arc<Shared>>| async move {
                into_response(status::answer(&shared, what).await)
            })
        };
        Router::new()
            .route("/livez", answer(Serve::Live))
            .route("/readyz", answer(Serve::Ready))
            .route("/healthz", answer(Serve::HealthDetails))
            .route("/status", answer(Serve::Status))
            .route("/metrics", get(metrics))
            .route("/requests", get(requests))
            .route("/requests/{id}", get(request))
            .route("/log", post(level))
            .route("/circuits/{scope}/{name}/{order}", post(orders::circuit))
            .route("/upstreams/{name}/endpoints", get(registry::list))
            .route(
                "/upstreams/{name}/endpoints/{id}",
                put(registry::register).delete(registry::deregister).post(orders::endpoint),
            )
            .route("/orders", get(orders::list))
            .route("/routes/{name}/split", post(orders::split))
            .route("/routes/{name}/split/restore", post(orders::restore_split))
            .layer(middleware::from_fn_with_state(gate, access::check))
            .with_state(self.shared.clone())
    }
}

#[async_trait]
impl BackgroundService for Admin {
    async fn start(&self, _: ShutdownWatch) {
        let (address, socket) =
            std::mem::take(&mut *self.sockets.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.lifecycle.until_accepting().await;
        let connections = self.shared.descriptors.admin_connections();
        // Each has its own, so that a crowd at one of them leaves the other free.
        let (both, half) = (address.is_some() && socket.is_some(), connections.div_ceil(2));
        let connections = if both { half } else { connections };
        let address = async {
            if let Some(address) = address {
                self.serve_address(address, connections).await;
            }
        };
        let socket = async {
            if let Some(socket) = socket {
                self.serve_socket(socket, connections).await;
            }
        };
        tokio::join!(address, socket);
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    into_response(status::metrics(&shared).await)
}

/// The latest requests that failed or were slow, one JSON object in each line, the latest first.
async fn requests(State(shared): State<Arc<Shared>>) -> Response {
    lines(shared.access_log.latest().concat())
}

async fn request(
    State(shared): State<Arc<Shared>>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let found = id.ok().and_then(|Path(id)| shared.access_log.of_request(&id));
    match found {
        Some(line) => lines(line.to_vec()),
        None => {
            let detail = "it is not among the latest requests that failed or were slow";
            access::refusal(http::StatusCode::NOT_FOUND, "unknown_request", detail)
        }
    }
}

/// Changes the level of the process's log, until the next reload: `POST /log?level=debug`.
async fn level(State(shared): State<Arc<Shared>>, uri: http::Uri) -> Response {
    let wanted = uri.query().and_then(|query| query.strip_prefix("level=")).unwrap_or_default();
    let wanted = percent_decode_str(wanted).decode_utf8_lossy();
    let (level, logs) = match (Level::new(&wanted), &shared.logs) {
        (Ok(level), Some(logs)) => (level, logs),
        (Err(detail), _) => {
            return access::refusal(http::StatusCode::BAD_REQUEST, "invalid_level", &detail);
        }
        (Ok(_), None) => return http::StatusCode::NOT_FOUND.into_response(),
    };
    let before = logs.level();
    let told = log::log_enabled!(log::Level::Warn);
    let tell = || {
        log::warn!(
            "log: the level is {} now, as ordered; it was {}",
            level.as_str(),
            before.as_str()
        );
    };
    // The line is written if either level lets it be.
    if told {
        tell();
    }
    logs.set_level(level.clone());
    if !told {
        tell();
    }
    axum::Json(serde_json::json!({"level": level.as_str()})).into_response()
}

fn lines(body: Vec<u8>) -> Response {
    let jsonl = http::HeaderValue::from_static("application/jsonl");
    ([(CONTENT_TYPE, jsonl)], body).into_response()
}

fn into_response(answer: Answer) -> Response {
    let status = http::StatusCode::from_u16(answer.status);
    let mut response =
        (status.unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR), answer.body).into_response();
    if let Some(content_type) = answer.content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}
