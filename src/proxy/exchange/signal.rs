//! The errors by which the gateway tells Pingora, and itself, how an attempt goes on.

use pingora_core::ErrorType;

/// The error that asks Pingora for another attempt.
pub const RETRY: ErrorType = ErrorType::Custom("portcullis: retry");

/// The error that carries a rejection, kept in the context, to `fail_to_proxy`.
pub const REJECTED: ErrorType = ErrorType::Custom("portcullis: rejected");

/// The answer cannot be made into what the caller asked for.
pub const UNREADABLE: ErrorType = ErrorType::Custom("portcullis: unreadable answer");
