//! `max_body:` of a route: a size, or a size with `enforce`.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::policy::dry_run::Enforce;
use crate::units::Size;

/// The largest body, and whether larger ones are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxBody {
    /// 0 means no limit; default 10 MiB.
    pub size: Size,
    /// `false`: requests with a larger body are counted in `would_refuse_total`, and pass. Default
    /// `true`.
    pub enforce: Enforce,
}

impl MaxBody {
    /// Bytes that a body may have; 0 means no limit, also of a dry run.
    pub const fn enforced(self) -> Size {
        if self.enforce.is_dry() { Size(0) } else { self.size }
    }

    /// Bytes beyond which a dry run counts a body; `None` if the limit is enforced, or if there is
    /// none.
    pub const fn dry(self) -> Option<u64> {
        if self.enforce.is_dry() && self.size.0 != 0 { Some(self.size.0) } else { None }
    }
}

impl Default for MaxBody {
    fn default() -> Self {
        MaxBody { size: Size::mib(10), enforce: Enforce::Yes }
    }
}

impl<'de> Deserialize<'de> for MaxBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MaxBodyVisitor)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    size: Size,
    #[serde(default)]
    enforce: Enforce,
}

struct MaxBodyVisitor;

impl<'de> Visitor<'de> for MaxBodyVisitor {
    type Value = MaxBody;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as 64KiB or 10MB, or {size: 64KiB, enforce: false}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<MaxBody, E> {
        let size = Size::deserialize(text.into_deserializer())?;
        Ok(MaxBody { size, enforce: Enforce::Yes })
    }

    // YAML reads a bare `500` as a number; the parser then says that the unit is missing.
    fn visit_u64<E: Error>(self, number: u64) -> Result<MaxBody, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MaxBody, A::Error> {
        let Written { size, enforce } = Written::deserialize(MapAccessDeserializer::new(map))?;
        Ok(MaxBody { size, enforce })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MaxBody, String> {
        serde_yaml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn a_size_stands_alone_or_with_enforce() {
        let size = Size::kib(64);
        let enforced = MaxBody { size, enforce: Enforce::Yes };
        assert_eq!(parse("64KiB"), Ok(enforced));
        assert_eq!(parse("{size: 64KiB}"), Ok(enforced));
        let dry = MaxBody { size, enforce: Enforce::No };
        assert_eq!(parse("{size: 64KiB, enforce: false}"), Ok(dry));
        assert_eq!((enforced.enforced(), enforced.dry()), (size, None));
        assert_eq!((dry.enforced(), dry.dry()), (Size(0), Some(64 * 1024)));
    }

    #[test]
    fn no_limit_is_none_in_a_dry_run_either() {
        assert_eq!(parse("0").map(MaxBody::enforced), Ok(Size(0)));
        assert_eq!(parse("{size: 0, enforce: false}").map(MaxBody::dry), Ok(None));
    }

    #[test]
    fn what_is_not_a_size_is_refused_with_what_was_expected() {
        assert!(parse("10").expect_err("no unit").contains("unit"));
        assert!(parse("[64KiB]").expect_err("a list").contains("{size: 64KiB, enforce: false}"));
        assert!(parse("{enforce: false}").expect_err("no size").contains("size"));
        assert!(parse("{size: 64KiB, dry: true}").is_err());
    }
}
