//! Error types that tell Pingora, and later phases, how an attempt goes on.

use pingora_core::ErrorType;

/// The error that asks Pingora for another attempt.
pub const RETRY: ErrorType = ErrorType::Custom("portcullis: retry");

/// Ends the attempt with a rejection, which `fail_to_proxy` finds in the context.
pub const REJECTED: ErrorType = ErrorType::Custom("portcullis: rejected");

/// The upstream's response cannot be converted to the caller's protocol.
pub const UNREADABLE: ErrorType = ErrorType::Custom("portcullis: unreadable answer");
