//! Values as PostgreSQL takes them: as its binary protocol sends them, and in arrays of such.

use std::error::Error;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::record::row::value::{Kind, Value, texts_json, trace_text};
use crate::record::store::count;

/// The type of a column of this kind.
pub(super) fn type_of(kind: Kind) -> Type {
    match kind {
        Kind::Id => Type::UUID,
        Kind::Time => Type::TIMESTAMPTZ,
        Kind::Text | Kind::Trace => Type::TEXT,
        Kind::Address => Type::INET,
        Kind::Small => Type::INT4,
        Kind::Big => Type::INT8,
        Kind::Flag => Type::BOOL,
        Kind::Texts => Type::JSONB,
    }
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Value::Absent => Ok(IsNull::Yes),
            Value::Id(id) => id.to_sql(kind, out),
            Value::Time(at) => at.to_sql(kind, out),
            Value::Text(text) => text.to_sql(kind, out),
            Value::Trace(id) => trace_text(*id, &mut [0; 32]).to_sql(kind, out),
            Value::Address(address) => address.to_sql(kind, out),
            Value::Small(n) => i32::try_from(*n).unwrap_or(i32::MAX).to_sql(kind, out),
            Value::Big(n) => count(*n).to_sql(kind, out),
            Value::Flag(flag) => flag.to_sql(kind, out),
            Value::Texts(texts) => {
                // The version of the `jsonb` wire format; there is only this one.
                out.extend_from_slice(&[1]);
                out.extend_from_slice(texts_json(texts).as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    // The types of `type_of`; the list of columns pairs each with values of its kind.
    accepts!(UUID, TIMESTAMPTZ, TEXT, INET, INT4, INT8, BOOL, JSONB);
    to_sql_checked!();
}
