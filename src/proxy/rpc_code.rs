//! The codes of the RPC world, as Connect and gRPC know them, and which of them a status of plain
//! HTTP amounts to. Which code a refusal has is decided in [`super::rejection`].

use crate::config::route::ErrorCodes;

/// A code other than `ok`. Its number is that of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RpcCode {
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

const ALL: [RpcCode; 16] = [
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

impl RpcCode {
    /// As gRPC writes it.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The code of this number.
    pub fn numbered(number: u8) -> Option<RpcCode> {
        ALL.into_iter().find(|code| code.number() == number)
    }

    /// The code that Connect writes as `name`.
    pub fn named(name: &str) -> Option<RpcCode> {
        ALL.into_iter().find(|code| code.as_str() == name)
    }

    /// As Connect writes it.
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

    /// What a plain HTTP upstream's error status means to an RPC client, by one of two tables.
    pub const fn of_status(status: u16, table: ErrorCodes) -> RpcCode {
        match table {
            ErrorCodes::Gateway => RpcCode::of_meaning(status),
            ErrorCodes::Connect => RpcCode::of_connect(status),
        }
    }

    const fn of_meaning(status: u16) -> RpcCode {
        match status {
            400 => RpcCode::InvalidArgument,
            401 => RpcCode::Unauthenticated,
            403 => RpcCode::PermissionDenied,
            404 => RpcCode::NotFound,
            408 | 504 => RpcCode::DeadlineExceeded,
            409 => RpcCode::AlreadyExists,
            413 | 429 | 431 => RpcCode::ResourceExhausted,
            499 => RpcCode::Canceled,
            405 | 501 => RpcCode::Unimplemented,
            502 | 503 => RpcCode::Unavailable,
            500..=599 => RpcCode::Internal,
            _ => RpcCode::Unknown,
        }
    }

    /// Connect protocol, "HTTP to Error Code".
    const fn of_connect(status: u16) -> RpcCode {
        match status {
            400 => RpcCode::Internal,
            401 => RpcCode::Unauthenticated,
            403 => RpcCode::PermissionDenied,
            404 => RpcCode::Unimplemented,
            429 | 502 | 503 | 504 => RpcCode::Unavailable,
            _ => RpcCode::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_those_of_the_protocols() {
        for (index, code) in ALL.into_iter().enumerate() {
            assert_eq!(usize::from(code.number()), index + 1);
            assert_eq!(RpcCode::named(code.as_str()), Some(code));
        }
        assert_eq!(RpcCode::named("ok"), None);
    }

    #[test]
    fn a_status_that_connect_itself_uses_for_a_code_leads_back_to_that_status() {
        for status in [400, 401, 403, 404, 409, 429, 499, 500, 501, 503, 504] {
            let code = RpcCode::of_status(status, ErrorCodes::Gateway);
            assert_eq!(code.http_status(), status);
        }
    }

    #[test]
    fn the_tables_differ_where_their_authors_do() {
        for (status, gateway, connect) in [
            (400, RpcCode::InvalidArgument, RpcCode::Internal),
            (404, RpcCode::NotFound, RpcCode::Unimplemented),
            (409, RpcCode::AlreadyExists, RpcCode::Unknown),
            (429, RpcCode::ResourceExhausted, RpcCode::Unavailable),
            (504, RpcCode::DeadlineExceeded, RpcCode::Unavailable),
            (503, RpcCode::Unavailable, RpcCode::Unavailable),
        ] {
            assert_eq!(RpcCode::of_status(status, ErrorCodes::Gateway), gateway, "{status}");
            assert_eq!(RpcCode::of_status(status, ErrorCodes::Connect), connect, "{status}");
        }
    }
}
