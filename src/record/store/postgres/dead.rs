//! Rows that are refused, set aside with the reason.

use deadpool_postgres::Object;
use tokio_postgres::Error;

use crate::record::invocation::Row;
use crate::record::row::json;

/// Puts the row into `invocations_dead`; the last reason is kept.
pub(super) async fn insert(client: &Object, row: &Row, reason: &str) -> Result<(), Error> {
    let sql = "INSERT INTO invocations_dead (id, reason, invocation) VALUES ($1, $2, $3)
               ON CONFLICT (id) DO UPDATE SET (refused_at, reason, invocation) =
                   (now(), excluded.reason, excluded.invocation)";
    let mut text = Vec::new();
    json::write(&row.invocation, row.stage.is_complete(), &mut text);
    let text = String::from_utf8_lossy(&text);
    let statement = client.prepare_cached(sql).await?;
    client.execute(&statement, &[&row.invocation.id, &reason, &&*text]).await?;
    Ok(())
}
