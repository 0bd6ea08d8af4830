//! Keys in PostgreSQL, shared by all gateways that use it. Times are the server's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row as Columns;
use uuid::Uuid;

use super::store::{Claim, Found, Insertion, Row, Store};
use crate::policy::idempotency::{Answer, Scope};
use crate::record::Database;
use crate::record::store::error::Lost;
use crate::record::store::postgres::Postgres;

const INSERT: &str = "INSERT INTO idempotency_keys \
    (scope, fingerprint, route, owner, lease_until, expires_at) \
    VALUES ($1, $2, $3, $4, now() + $5 * interval '1 second', now() + $6 * interval '1 second') \
    ON CONFLICT (scope) DO NOTHING";

const FIND: &str = "SELECT fingerprint, owner, \
    (extract(epoch from lease_until) * 1000)::bigint, \
    (extract(epoch from expires_at) * 1000)::bigint, \
    status, head, body, trailers, (extract(epoch from now()) * 1000)::bigint \
    FROM idempotency_keys WHERE scope = $1";

const TAKE_OVER: &str = "UPDATE idempotency_keys SET fingerprint = $2, owner = $3, \
    lease_until = now() + $4 * interval '1 second', expires_at = now() + $5 * interval '1 second', \
    status = NULL, head = NULL, body = NULL, trailers = NULL \
    WHERE scope = $1 AND owner = $6 AND (status IS NOT NULL) = $7";

const KEEP: &str = "UPDATE idempotency_keys SET status = $3, head = $4, body = $5, \
    trailers = $6, expires_at = now() + $7 * interval '1 second' WHERE scope = $1 AND owner = $2";

const RELEASE: &str =
    "DELETE FROM idempotency_keys WHERE scope = $1 AND owner = $2 AND status IS NULL";

// Rows are locked as they are chosen, so that one taken over meanwhile is not deleted.
const EXPIRE: &str = "DELETE FROM idempotency_keys WHERE scope IN \
    (SELECT scope FROM idempotency_keys WHERE expires_at <= now() \
    ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)";

pub(super) struct PostgresKeys(pub(super) Arc<Postgres>);

impl PostgresKeys {
    /// Runs one statement, and returns how many rows it changed.
    async fn execute(
        &self,
        sql: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<u64, Lost> {
        self.0
            .run(async |client| {
                let statement = client.prepare_cached(sql).await?;
                client.execute(&statement, parameters).await
            })
            .await
    }
}

#[async_trait]
impl Store for PostgresKeys {
    async fn migrate(&self) -> Result<(), Lost> {
        Database::Postgres(Arc::clone(&self.0)).migrate().await
    }

    async fn insert(&self, claim: &Claim) -> Result<Insertion, Lost> {
        let (scope, fingerprint) = (&claim.scope.0[..], &claim.fingerprint.0[..]);
        let (lease, ttl) = (claim.lease.as_secs_f64(), claim.ttl.as_secs_f64());
        let rows = self
            .execute(INSERT, &[&scope, &fingerprint, &&*claim.route, &claim.owner, &lease, &ttl])
            .await?;
        Ok(Insertion::from(rows == 1))
    }

    async fn find(&self, scope: &Scope) -> Result<Option<Found>, Lost> {
        let row = self
            .0
            .run(async |client| {
                let statement = client.prepare_cached(FIND).await?;
                let row = client.query_opt(&statement, &[&&scope.0[..]]).await?;
                row.map(|columns| read(&columns)).transpose()
            })
            .await?;
        row.map(Row::read).transpose()
    }

    async fn take_over(&self, claim: &Claim, found: &Found) -> Result<bool, Lost> {
        let (scope, fingerprint) = (&claim.scope.0[..], &claim.fingerprint.0[..]);
        let (lease, ttl) = (claim.lease.as_secs_f64(), claim.ttl.as_secs_f64());
        let answered = found.is_answered();
        let rows = self
            .execute(
                TAKE_OVER,
                &[&scope, &fingerprint, &claim.owner, &lease, &ttl, &found.owner, &answered],
            )
            .await?;
        Ok(rows == 1)
    }

    async fn keep(
        &self,
        scope: &Scope,
        owner: Uuid,
        answer: &Answer,
        ttl: Duration,
    ) -> Result<bool, Lost> {
        let (scope, kept, ttl) = (&scope.0[..], answer.to_kept(), ttl.as_secs_f64());
        let (status, body) = (i32::from(kept.status), kept.body.as_deref());
        let rows = self
            .execute(KEEP, &[&scope, &owner, &status, &kept.head, &body, &kept.trailers, &ttl])
            .await?;
        Ok(rows == 1)
    }

    async fn release(&self, scope: &Scope, owner: Uuid) -> Result<(), Lost> {
        self.execute(RELEASE, &[&&scope.0[..], &owner]).await.map(drop)
    }

    async fn expire(&self, at_most: u32) -> Result<u64, Lost> {
        self.execute(EXPIRE, &[&i64::from(at_most)]).await
    }
}

fn read(columns: &Columns) -> Result<Row, tokio_postgres::Error> {
    Ok(Row {
        fingerprint: columns.try_get(0)?,
        owner: columns.try_get(1)?,
        lease_until: columns.try_get(2)?,
        expires_at: columns.try_get(3)?,
        status: columns.try_get(4)?,
        head: columns.try_get(5)?,
        body: columns.try_get(6)?,
        trailers: columns.try_get(7)?,
        now: columns.try_get(8)?,
    })
}
