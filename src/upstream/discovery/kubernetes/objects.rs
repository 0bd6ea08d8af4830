//! What is read of the objects that the API server sends (`discovery.k8s.io/v1`).

use std::num::NonZeroU16;

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct List {
    pub(super) kind: String,
    pub(super) metadata: Metadata,
    /// `null` if there is none.
    pub(super) items: Option<Vec<Object>>,
}

#[derive(Deserialize)]
pub(super) struct Change {
    #[serde(rename = "type")]
    pub(super) kind: ChangeKind,
    pub(super) object: Object,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum ChangeKind {
    Added,
    Modified,
    Deleted,
    /// Nothing has changed up to this version.
    Bookmark,
    Error,
}

/// A slice; or, in an error, a status. A bookmark is a slice with a version and nothing else.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Object {
    /// Objects in a list have none.
    #[serde(default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) address_type: String,
    pub(super) endpoints: Option<Vec<Endpoint>>,
    pub(super) ports: Option<Vec<Port>>,
    pub(super) code: Option<u16>,
    pub(super) message: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Endpoint {
    pub(super) addresses: Vec<String>,
    pub(super) conditions: Option<Conditions>,
}

/// What is not said counts as ready, as serving, and as not terminating.
#[derive(Deserialize, Default)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Deserialize)]
pub(super) struct Port {
    pub(super) name: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) port: Option<NonZeroU16>,
}
