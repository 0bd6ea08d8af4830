//! Names of header fields that the RPC protocols add to HTTP.

use http::header::HeaderName;

/// How a call of gRPC ended, as a number; 0 is success. In the trailers, or in a head without a
/// body.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// What went wrong, percent-encoded; beside `grpc-status`.
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The coding of compressed messages in a stream of gRPC.
pub const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The coding of compressed messages in a stream of Connect.
pub const CONNECT_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");
