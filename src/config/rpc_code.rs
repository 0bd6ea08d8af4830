//! The error codes of RPC, as Connect and gRPC define them.
//!
//! [`super::error_codes`] translates plain HTTP statuses to codes; `proxy::rejection` gives the
//! gateway's refusals their codes.

/// A code other than `ok`. Its number is that of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RpcCode {
    /// The caller gave the call up.
    Canceled = 1,
    /// An error whose cause is not known.
    Unknown = 2,
    /// The request is wrong, whatever the state of the system.
    InvalidArgument = 3,
    /// The call was not complete when its time was over.
    DeadlineExceeded = 4,
    /// What the request names does not exist.
    NotFound = 5,
    /// What the request would create exists.
    AlreadyExists = 6,
    /// The caller is known and may not do this.
    PermissionDenied = 7,
    /// A quota or another limit is used up.
    ResourceExhausted = 8,
    /// The state of the system does not allow the call; repeating it does not help.
    FailedPrecondition = 9,
    /// A conflict with another call; the whole transaction may be repeated.
    Aborted = 10,
    /// A position beyond the end of what there is.
    OutOfRange = 11,
    /// The method does not exist, or is not supported.
    Unimplemented = 12,
    /// An invariant is broken.
    Internal = 13,
    /// The service cannot be used now; the call may be repeated.
    Unavailable = 14,
    /// Data is lost for good, or damaged.
    DataLoss = 15,
    /// The caller has no valid credentials.
    Unauthenticated = 16,
}

impl RpcCode {
    /// All codes, in the order of their numbers.
    pub const ALL: [RpcCode; 16] = [
        RpcCode::Canceled,
        RpcCode::Unknown,
        RpcCode::InvalidArgument,
        RpcCode::DeadlineExceeded,
        RpcCode::NotFound,
        RpcCode::AlreadyExists,
        RpcCode::PermissionDenied,
        RpcCode::ResourceExhausted,
        RpcCode::FailedPrecondition,
        RpcCode::Aborted,
        RpcCode::OutOfRange,
        RpcCode::Unimplemented,
        RpcCode::Internal,
        RpcCode::Unavailable,
        RpcCode::DataLoss,
        RpcCode::Unauthenticated,
    ];

    /// The code's number in gRPC.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The code with this number in gRPC; `None` for 0 (`ok`) and unknown numbers.
    pub fn numbered(number: u8) -> Option<RpcCode> {
        RpcCode::ALL.into_iter().find(|code| code.number() == number)
    }

    /// The code with this name in Connect; `None` for unknown names.
    pub fn named(name: &str) -> Option<RpcCode> {
        RpcCode::ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// The code's name in Connect.
    pub const fn as_str(self) -> &'static str {
        match self {
            RpcCode::Canceled => "canceled",
            RpcCode::Unknown => "unknown",
            RpcCode::InvalidArgument => "invalid_argument",
            RpcCode::DeadlineExceeded => "deadline_exceeded",
            RpcCode::NotFound => "not_found",
            RpcCode::AlreadyExists => "already_exists",
            RpcCode::PermissionDenied => "permission_denied",
            RpcCode::ResourceExhausted => "resource_exhausted",
            RpcCode::FailedPrecondition => "failed_precondition",
            RpcCode::Aborted => "aborted",
            RpcCode::OutOfRange => "out_of_range",
            RpcCode::Unimplemented => "unimplemented",
            RpcCode::Internal => "internal",
            RpcCode::Unavailable => "unavailable",
            RpcCode::DataLoss => "data_loss",
            RpcCode::Unauthenticated => "unauthenticated",
        }
    }

    /// The HTTP status of a Connect unary error with this code (Connect protocol, "Error Codes").
    pub const fn http_status(self) -> u16 {
        match self {
            RpcCode::Canceled => 499,
            RpcCode::InvalidArgument | RpcCode::FailedPrecondition | RpcCode::OutOfRange => 400,
            RpcCode::DeadlineExceeded => 504,
            RpcCode::NotFound => 404,
            RpcCode::AlreadyExists | RpcCode::Aborted => 409,
            RpcCode::PermissionDenied => 403,
            RpcCode::ResourceExhausted => 429,
            RpcCode::Unimplemented => 501,
            RpcCode::Internal | RpcCode::Unknown | RpcCode::DataLoss => 500,
            RpcCode::Unavailable => 503,
            RpcCode::Unauthenticated => 401,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_the_protocols() {
        for (index, code) in RpcCode::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), index + 1);
            assert_eq!(RpcCode::named(code.as_str()), Some(code));
        }
        assert_eq!(RpcCode::named("ok"), None);
    }
}
