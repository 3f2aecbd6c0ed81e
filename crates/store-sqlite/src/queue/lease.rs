//! Leases: claims of a listener's deliveries, held by consumers.
//!
//! Writes `due`, and `last_seen_at` in `endpoints`.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, params};

use postrider_domain::endpoint::Endpoint;
use postrider_domain::id::EndpointId;
use postrider_domain::limits;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::listener::ListenerWaker;
use postrider_store::queue::lane::lane_key;
use postrider_store::queue::order::NOT_YET;
use postrider_store::{EndpointTarget, HeldLease, Lane, LaneKind, Lease, Leases, ListenerQueue, StoreError};

use super::due;
use super::lane::SELECT_EARLIEST;
use crate::SqliteStore;
use crate::machinery::reader::ReadTx;
use crate::machinery::writer::{JobSize, WriteTx};
use crate::publish::matching;
use crate::registry::endpoint;

pub const SELECT_LEASED: &str =
    "SELECT delivery_key, event_key, due.mode, cause, attempts, step, claimed_at, secret_version,
            also_secret_version, sequence, envelope, traceparent, due_at
     FROM due LEFT JOIN events ON events.key = event_key
     WHERE delivery_key = ?1 AND claim_token = ?2 AND lane_key = ?3";

pub const RENEW: &str = "UPDATE due SET due_at = ?4 WHERE delivery_key = ?1 AND claim_token = ?2 AND lane_key = ?3";

#[async_trait]
impl Leases for SqliteStore {
    fn listener_waker(&self) -> Arc<ListenerWaker> {
        self.writer.as_ref().map(|writer| Arc::clone(&writer.listener_waker)).unwrap_or_default()
    }

    async fn look_at_listener(&self, tenant: Tenant, id: EndpointId) -> Result<Option<ListenerQueue>, StoreError> {
        let now = self.clock.now();
        self.read(move |tx| look(tx, tenant, id, now)).await
    }

    async fn lease_due(&self, tenant: Tenant, id: EndpointId, max: usize) -> Result<Option<Vec<Lease>>, StoreError> {
        if self.disk.is_stopped() {
            return Ok(Some(Vec::new()));
        }
        self.write(JobSize { rows: max, bytes: 0 }, move |tx| lease(tx, tenant, id, max)).await
    }

    async fn find_leases(
        &self,
        tenant: Tenant,
        id: EndpointId,
        held: Vec<HeldLease>,
    ) -> Result<Option<Vec<Option<Lease>>>, StoreError> {
        self.read(move |tx| {
            let Some(listener) = find(tx, tenant, id)? else { return Ok(None) };
            let Some(target) = matching::read_target(tx.connection, listener.key)? else { return Ok(None) };
            held.iter().map(|held| find_lease(tx, &target, *held)).collect::<Result<Vec<_>, _>>().map(Some)
        })
        .await
    }

    async fn renew_leases(
        &self,
        tenant: Tenant,
        id: EndpointId,
        held: Vec<HeldLease>,
    ) -> Result<Option<Vec<Option<Timestamp>>>, StoreError> {
        self.write(JobSize { rows: held.len(), bytes: 0 }, move |tx| renew(tx, tenant, id, &held)).await
    }
}

fn find(tx: ReadTx<'_>, tenant: Tenant, id: EndpointId) -> Result<Option<Endpoint>, rusqlite::Error> {
    Ok(endpoint::find(tx.connection, tenant, id)?.filter(|found| found.listener.is_some()))
}

fn look(
    tx: ReadTx<'_>,
    tenant: Tenant,
    id: EndpointId,
    now: Timestamp,
) -> Result<Option<ListenerQueue>, rusqlite::Error> {
    let Some(found) = find(tx, tenant, id)? else { return Ok(None) };
    let earliest: Option<i64> =
        tx.connection.prepare_cached(SELECT_EARLIEST)?.query_row([found.key.as_i64()], |row| row.get(0)).optional()?;
    let due_at = earliest.map(Timestamp::from_millis).filter(|at| *at != NOT_YET && found.is_active);
    Ok(Some(ListenerQueue {
        endpoint_key: found.key,
        next_due_in: due_at.map(|at| at.since(now)),
        seen_ago: found.listener.map(|listener| now.since(listener.last_seen_at)).unwrap_or_default(),
    }))
}

fn lease(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    id: EndpointId,
    max: usize,
) -> Result<Option<Vec<Lease>>, rusqlite::Error> {
    let Some(found) = find(tx.as_read(), tenant, id)? else { return Ok(None) };
    if found.listener.is_some_and(|listener| tx.now.since(listener.last_seen_at) >= limits::LISTENER_SEEN_EVERY) {
        note_seen(tx, &found)?;
    }
    let (mut leases, mut bytes) = (Vec::new(), 0);
    let lane = Lane { workspace_key: tenant.workspace, endpoint_key: found.key, kind: LaneKind::Events };
    while found.is_active && leases.len() < max && bytes < limits::LEASED_BYTES {
        let wanted = limits::LEASED_AT_ONCE.min(max - leases.len());
        let claims = due::claim_of_listener(tx, lane, wanted, limits::LEASE)?;
        let is_last = claims.len() < wanted;
        bytes += claims.iter().map(|claim| claim.envelope.len()).sum::<usize>();
        let (claimed_at, ends_at) = (tx.now, tx.now.plus(limits::LEASE));
        leases.extend(claims.into_iter().map(|claim| Lease { claim, claimed_at, ends_at }));
        if is_last {
            break;
        }
    }
    Ok(Some(leases))
}

fn note_seen(tx: &WriteTx<'_>, listener: &Endpoint) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("UPDATE endpoints SET last_seen_at = ?2 WHERE key = ?1")?
        .execute(params![listener.key.as_i64(), tx.now.millis()])?;
    Ok(())
}

fn find_lease(tx: ReadTx<'_>, target: &Arc<EndpointTarget>, held: HeldLease) -> Result<Option<Lease>, rusqlite::Error> {
    let parameters = params![held.delivery_id.key().as_i64(), held.token.0, target.endpoint_key.as_i64()];
    let found = tx
        .connection
        .prepare_cached(SELECT_LEASED)?
        .query_row(parameters, |row| Ok((due::due_from_row(row)?, row.get::<_, i64>("due_at")?)))
        .optional()?;
    let Some((mut row, due_at)) = found else { return Ok(None) };
    let claimed_at = row.lost_claim_at.unwrap_or_default();
    // The row counts the attempt that the lease allows.
    row.attempts = row.attempts.saturating_sub(1);
    let lane = target.lane(LaneKind::Events);
    let claim = row.into_claim(tx.tag, lane, target, held.token);
    Ok(claim.map(|claim| Lease { claim, claimed_at, ends_at: Timestamp::from_millis(due_at) }))
}

fn renew(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    id: EndpointId,
    held: &[HeldLease],
) -> Result<Option<Vec<Option<Timestamp>>>, rusqlite::Error> {
    let Some(found) = find(tx.as_read(), tenant, id)? else { return Ok(None) };
    let lane = lane_key(Lane { workspace_key: tenant.workspace, endpoint_key: found.key, kind: LaneKind::Events });
    let ends_at = tx.now.plus(limits::LEASE);
    let mut renewed = Vec::with_capacity(held.len());
    for lease in held {
        let changed = tx.connection.prepare_cached(RENEW)?.execute(params![
            lease.delivery_id.key().as_i64(),
            lease.token.0,
            lane,
            ends_at.millis()
        ])?;
        renewed.push((changed > 0).then_some(ends_at));
    }
    Ok(Some(renewed))
}
