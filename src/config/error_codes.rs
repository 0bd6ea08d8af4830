//! `routes.NAME.error_codes`: which RPC code a plain HTTP status is translated to.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::rpc_code::RpcCode;

/// A table, with the route's own codes for some statuses. Written as a table's name, or as `{base:
/// connect, 501: internal}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorCodes {
    base: Table,
    /// Codes that replace the table's.
    codes: BTreeMap<u16, RpcCode>,
}

/// The tables to choose from.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// By the meaning of the status: 404 is `not_found`, 429 `resource_exhausted`, 504
    /// `deadline_exceeded`.
    #[default]
    Gateway,
    /// The Connect protocol's table, for responses of unknown origin.
    Connect,
}

impl ErrorCodes {
    /// For requests that have no route.
    pub const GATEWAY: ErrorCodes = ErrorCodes { base: Table::Gateway, codes: BTreeMap::new() };

    /// The code that an upstream's plain HTTP error status means to an RPC client.
    pub fn of_status(&self, status: u16) -> RpcCode {
        match (self.codes.get(&status), self.base) {
            (Some(code), _) => *code,
            (None, Table::Gateway) => of_meaning(status),
            (None, Table::Connect) => of_connect(status),
        }
    }

    /// Whether `status` has the code that the Connect protocol gives it. A client then derives the
    /// same code from an upstream that speaks Connect.
    pub fn is_connect(&self, status: u16) -> bool {
        self.base == Table::Connect && !self.codes.contains_key(&status)
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

impl<'de> Deserialize<'de> for ErrorCodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ErrorCodesVisitor)
    }
}

struct ErrorCodesVisitor;

impl<'de> Visitor<'de> for ErrorCodesVisitor {
    type Value = ErrorCodes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gateway, connect, or a mapping such as {base: connect, 501: internal}")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<ErrorCodes, E> {
        Ok(ErrorCodes { base: table(name)?, ..ErrorCodes::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ErrorCodes, A::Error> {
        let mut found = ErrorCodes::default();
        while let Some(key) = map.next_key()? {
            match key {
                Key::Base => found.base = table(&map.next_value::<String>()?)?,
                Key::Status(status) => {
                    found.codes.insert(status, code(&map.next_value::<String>()?)?);
                }
            }
        }
        Ok(found)
    }
}

/// A key of the mapping.
enum Key {
    Base,
    Status(u16),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`base`, or an error status from 400 to 599")
            }

            fn visit_u64<E: Error>(self, status: u64) -> Result<Key, E> {
                let status = u16::try_from(status).ok().filter(|s| (400..600).contains(s));
                status
                    .map(Key::Status)
                    .ok_or_else(|| E::custom("expected `base`, or an error status from 400 to 599"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Key, E> {
                match text {
                    "base" => Ok(Key::Base),
                    other => self.visit_u64(other.parse().unwrap_or_default()),
                }
            }
        }

        deserializer.deserialize_any(KeyVisitor)
    }
}

fn table<E: Error>(name: &str) -> Result<Table, E> {
    match name {
        "gateway" => Ok(Table::Gateway),
        "connect" => Ok(Table::Connect),
        _ => Err(E::custom("expected gateway or connect")),
    }
}

fn code<E: Error>(name: &str) -> Result<RpcCode, E> {
    RpcCode::named(name).ok_or_else(|| {
        let names = RpcCode::ALL.map(RpcCode::as_str).join(", ");
        E::custom(format_args!("expected a code of RPC: {names}"))
    })
}

impl JsonSchema for ErrorCodes {
    fn schema_name() -> Cow<'static, str> {
        "ErrorCodes".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<Table>();
        let code = json_schema!({
            "description": "The code that callers get for this status.",
            "enum": RpcCode::ALL.map(RpcCode::as_str),
        });
        let mut base = table.clone();
        base.insert("description".to_owned(), "The table for all other statuses.".into());
        json_schema!({
            "description": "A table's name, or a table with the route's own codes for some statuses.",
            "anyOf": [table, {
                "type": "object",
                "properties": { "base": base },
                "patternProperties": { "^[45][0-9][0-9]$": code },
                "additionalProperties": false,
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<ErrorCodes, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn a_status_that_connect_itself_uses_for_a_code_leads_back_to_that_status() {
        for status in [400, 401, 403, 404, 409, 429, 499, 500, 501, 503, 504] {
            assert_eq!(ErrorCodes::GATEWAY.of_status(status).http_status(), status);
        }
    }

    #[test]
    fn the_tables_differ_where_their_authors_do() {
        let table = parse("connect").expect("a table");
        for (status, gateway, connect) in [
            (400, RpcCode::InvalidArgument, RpcCode::Internal),
            (404, RpcCode::NotFound, RpcCode::Unimplemented),
            (409, RpcCode::AlreadyExists, RpcCode::Unknown),
            (429, RpcCode::ResourceExhausted, RpcCode::Unavailable),
            (504, RpcCode::DeadlineExceeded, RpcCode::Unavailable),
            (503, RpcCode::Unavailable, RpcCode::Unavailable),
        ] {
            assert_eq!(ErrorCodes::GATEWAY.of_status(status), gateway, "{status}");
            assert_eq!(table.of_status(status), connect, "{status}");
        }
    }

    #[test]
    fn a_code_of_the_route_s_own_takes_the_place_of_the_table_s() {
        let codes = parse("{base: connect, 501: internal, 404: not_found}").expect("codes");
        assert_eq!(codes.of_status(501), RpcCode::Internal);
        assert_eq!(codes.of_status(404), RpcCode::NotFound);
        assert_eq!(codes.of_status(409), RpcCode::Unknown, "the table's");
        assert!(codes.is_connect(409) && !codes.is_connect(404));
        let codes = parse("{501: internal}").expect("codes");
        assert_eq!(codes.of_status(409), RpcCode::AlreadyExists, "of the default table");
    }

    #[test]
    fn what_is_no_table_status_or_code_is_refused_with_what_there_is() {
        for (yaml, why) in [
            ("grpc", "expected gateway or connect"),
            ("{base: grpc}", "expected gateway or connect"),
            ("{base: connect, 200: internal}", "from 400 to 599"),
            ("{600: internal}", "from 400 to 599"),
            ("{bass: connect}", "`base`"),
            ("{501: intern}", "expected a code of RPC: canceled, unknown"),
            ("{501: ok}", "expected a code of RPC"),
            ("[connect]", "a mapping such as"),
        ] {
            let error = parse(yaml).expect_err(yaml);
            assert!(error.contains(why), "{yaml}: {error}");
        }
    }
}
