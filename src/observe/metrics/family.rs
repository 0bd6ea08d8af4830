//! Protocols and statuses as metrics tell them apart.

/// Of statuses.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The kind of protocol a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Http,
    Connect,
    Grpc,
    GrpcWeb,
}

impl Family {
    pub(super) const ALL: [Family; 4] =
        [Family::Http, Family::Connect, Family::Grpc, Family::GrpcWeb];

    /// The metric label, and what the record calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Family::Http => "http",
            Family::Connect => "connect",
            Family::Grpc => "grpc",
            Family::GrpcWeb => "grpc_web",
        }
    }
}
