//! The types of a row's fields, and how each is the value of a column.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use uuid::Uuid;

use super::bytes::Bytes;
use super::value::{Kind, TraceId, Value, micros};

/// A field that a column holds.
pub(super) trait Field: Sized {
    const KIND: Kind;
    /// Whether the field can be absent.
    const NULLABLE: bool = false;

    fn value(&self) -> Value<'_>;

    /// `None` if the value is not one of this field.
    fn from_value(value: Value<'_>) -> Option<Self>;

    /// Appends the field to `out`, and says whether it is present. The journal is written and read
    /// without [`Value`]s between, which would take twice the time.
    fn put(&self, out: &mut Vec<u8>) -> bool;

    /// Takes what [`Field::put`] has appended.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

/// A field that is always present: what a [`Value`] and the journal hold of it, and the field made of
/// that again.
macro_rules! field {
    ($type:ty, $kind:ident($held:ty), |$it:ident| $value:expr, |$taken:ident| $field:expr) => {
        impl Field for $type {
            const KIND: Kind = Kind::$kind;

            fn value(&self) -> Value<'_> {
                let $it = self;
                Value::$kind($value)
            }

            fn from_value(value: Value<'_>) -> Option<Self> {
                let Value::$kind($taken) = value else { return None };
                $field
            }

            fn put(&self, out: &mut Vec<u8>) -> bool {
                let $it = self;
                Bytes::write($value, out);
                true
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                let $taken = <$held>::read(from)?;
                $field
            }
        }
    };
}

field!(Uuid, Id(Uuid), |it| *it, |id| Some(id));
field!(SystemTime, Time(SystemTime), |it| *it, |at| Some(at));
field!(Arc<str>, Text(&str), |it| &**it, |text| Some(text.into()));
field!(String, Text(&str), |it| it.as_str(), |text| Some(text.to_owned()));
field!(Cow<'static, str>, Text(&str), |it| &**it, |text| Some(Cow::Owned(text.to_owned())));
field!(Method, Text(&str), |it| it.as_str(), |text| text.parse().ok());
field!(IpAddr, Address(IpAddr), |it| *it, |address| Some(address));
field!(u16, Small(u32), |it| u32::from(*it), |n| n.try_into().ok());
field!(u32, Small(u32), |it| *it, |n| Some(n));
field!(u64, Big(u64), |it| *it, |n| Some(n));
field!(Duration, Big(u64), |it| micros(*it), |n| Some(Duration::from_micros(n)));
field!(bool, Flag(bool), |it| *it, |flag| Some(flag));

impl<F: Field> Field for Option<F> {
    const KIND: Kind = F::KIND;
    const NULLABLE: bool = true;

    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Absent, F::value)
    }

    fn from_value(value: Value<'_>) -> Option<Self> {
        if value == Value::Absent { Some(None) } else { F::from_value(value).map(Some) }
    }

    fn put(&self, out: &mut Vec<u8>) -> bool {
        self.as_ref().is_some_and(|it| it.put(out))
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        F::take(from).map(Some)
    }
}

/// The id of a trace; zero if there is none.
impl Field for u128 {
    const KIND: Kind = Kind::Trace;
    const NULLABLE: bool = true;

    fn value(&self) -> Value<'_> {
        if *self == 0 { Value::Absent } else { Value::Trace(self.to_be_bytes()) }
    }

    fn from_value(value: Value<'_>) -> Option<Self> {
        let Value::Trace(id) = value else { return (value == Value::Absent).then_some(0) };
        Some(u128::from_be_bytes(id))
    }

    fn put(&self, out: &mut Vec<u8>) -> bool {
        if *self != 0 {
            self.to_be_bytes().write(out);
        }
        *self != 0
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        TraceId::read(from).map(u128::from_be_bytes)
    }
}

/// Texts by name; absent if there are none.
impl Field for Vec<(Arc<str>, String)> {
    const KIND: Kind = Kind::Texts;
    const NULLABLE: bool = true;

    fn value(&self) -> Value<'_> {
        if self.is_empty() { Value::Absent } else { Value::Texts(self) }
    }

    fn from_value(value: Value<'_>) -> Option<Self> {
        let Value::Texts(texts) = value else {
            return (value == Value::Absent).then(Vec::new);
        };
        Some(texts.to_vec())
    }

    fn put(&self, out: &mut Vec<u8>) -> bool {
        if !self.is_empty() {
            (self.len() as u64).write(out);
            for (name, text) in self {
                Bytes::write(&**name, out);
                Bytes::write(text.as_str(), out);
            }
        }
        !self.is_empty()
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        // Not reserved: the number may be damaged.
        let each = (0..u64::read(from)?)
            .map(|_| Some((<&str>::read(from)?.into(), <&str>::read(from)?.to_owned())));
        each.collect()
    }
}
