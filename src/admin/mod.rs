//! The admin listener: health, metrics, state. GET never changes anything.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::net::TcpListener;

use crate::config::route::Serve;
use crate::runtime::shared::Shared;
use crate::runtime::status::{self, Answer};

/// Serves on one address until the process ends: it answers while the gateway drains.
pub struct Admin {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl Admin {
    pub fn new(shared: Arc<Shared>, address: SocketAddr) -> Self {
        Admin { shared, address }
    }

    fn router(&self) -> Router {
        let answer = |what: Serve| {
            get(move |State(shared): State<Arc<Shared>>| async move {
                into_response(status::answer(&shared, what).await)
            })
        };
        Router::new()
            .route("/livez", answer(Serve::Live))
            .route("/readyz", answer(Serve::Ready))
            .route("/healthz", answer(Serve::Health))
            .route("/status", answer(Serve::Status))
            .route("/metrics", get(metrics))
            .with_state(self.shared.clone())
    }
}

#[async_trait]
impl BackgroundService for Admin {
    async fn start(&self, _: ShutdownWatch) {
        let listener = match TcpListener::bind(self.address).await {
            Ok(listener) => listener,
            Err(error) => {
                log::error!("admin.address: cannot listen on {}: {error}", self.address);
                return;
            }
        };
        log::info!("admin on http://{}", self.address);
        if let Err(error) = axum::serve(listener, self.router()).await {
            log::error!("admin listener: {error}");
        }
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], status::metrics(&shared)).into_response()
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
