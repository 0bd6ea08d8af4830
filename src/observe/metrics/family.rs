//! Protocols and statuses as the metrics group them.

/// The classes of statuses.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// The family of protocols that a caller speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Plain HTTP.
    Http,
    /// Connect, unary or streams.
    Connect,
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web, as bytes or in Base64.
    GrpcWeb,
}

impl Family {
    pub(super) const ALL: [Family; 4] =
        [Family::Http, Family::Connect, Family::Grpc, Family::GrpcWeb];

    /// The value of the metric's label, and of the record's column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Family::Http => "http",
            Family::Connect => "connect",
            Family::Grpc => "grpc",
            Family::GrpcWeb => "grpc_web",
        }
    }
}
