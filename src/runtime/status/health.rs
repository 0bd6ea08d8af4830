//! Whether the gateway is alive, ready and healthy.

use serde::Serialize;

use super::Answer;
use crate::runtime::shared::Shared;
use crate::runtime::status::circuits;

#[derive(Serialize)]
struct Health<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    circuits: Option<circuits::All>,
}

impl<'a> Health<'a> {
    fn of(status: &'a str) -> Self {
        Health { status, reason: None, circuits: None }
    }
}

pub(super) fn live() -> Answer {
    Answer::json(200, &Health::of("alive"))
}

pub(super) fn ready(shared: &Shared) -> Answer {
    // With a successor there is a gateway that is ready, and the next connection is its.
    let is_ready = shared.lifecycle.is_ready() || shared.lifecycle.has_successor();
    match (is_ready, shared.lifecycle.is_draining()) {
        (true, _) => Answer::json(200, &Health::of("ready")),
        (false, true) => Answer::json(503, &Health::of("draining")),
        (false, false) => Answer::json(503, &Health::of("starting")),
    }
}

pub(super) async fn health(shared: &Shared, circuits: Option<circuits::All>) -> Answer {
    let answer = match &shared.recorder {
        Some(recorder) => recorder.health().await,
        None => Ok(()),
    };
    match answer {
        Ok(()) => Answer::json(200, &Health { circuits, ..Health::of("healthy") }),
        Err(reason) => {
            Answer::json(503, &Health { status: "unhealthy", reason: Some(&reason), circuits })
        }
    }
}
