//! Leases: claims of a listener's deliveries, held by consumers. Writes `due`, and `endpoints.last_seen_at`.
//!
//! A lease shares the workspace, as the engine's claim does, so that none is made of a listener that is being deleted.
//! It locks no lane: the bound of a listener's lane never changes.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use postrider_domain::endpoint::Endpoint;
use postrider_domain::id::{EndpointId, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::listener::ListenerWaker;
use postrider_store::queue::lane::lane_key;
use postrider_store::queue::order::NOT_YET;
use postrider_store::{ClaimToken, HeldLease, Lane, LaneKind, Lease, Leases, ListenerQueue, StoreError};

use super::due::{self, SELECT_LEASED};
use crate::PostgresStore;
use crate::machinery::column::{instant, key};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::{WriteTx, effect};
use crate::publish::matching;
use crate::registry::endpoint;

/// Lets leases last until `$4`. Returns those that held.
pub const RENEW: &str = "UPDATE due SET due_at = $4
     FROM unnest($1, $2) AS held (key, token)
     WHERE due.delivery_key = held.key AND due.claim_token = held.token AND due.lane_key = $3
     RETURNING due.delivery_key";

#[async_trait]
impl Leases for PostgresStore {
    fn listener_waker(&self) -> Arc<ListenerWaker> {
        Arc::clone(&self.database.listener_waker)
    }

    async fn look_at_listener(&self, tenant: Tenant, id: EndpointId) -> Result<Option<ListenerQueue>, StoreError> {
        let database = Arc::clone(&self.database);
        self.read(move |session| Box::pin(async move { look(session, tenant, id, database.time.about_now()).await }))
            .await
    }

    async fn lease_due(&self, tenant: Tenant, id: EndpointId, max: usize) -> Result<Option<Vec<Lease>>, StoreError> {
        if self.disk.is_stopped() {
            return Ok(Some(Vec::new()));
        }
        self.write(effect!(|tx| lease(tx, tenant, id, max))).await
    }

    async fn find_leases(
        &self,
        tenant: Tenant,
        id: EndpointId,
        held: Vec<HeldLease>,
    ) -> Result<Option<Vec<Option<Lease>>>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(async move { find_leases(session, tag, tenant, id, &held).await })).await
    }

    async fn renew_leases(
        &self,
        tenant: Tenant,
        id: EndpointId,
        held: Vec<HeldLease>,
    ) -> Result<Option<Vec<Option<Timestamp>>>, StoreError> {
        self.write(effect!(|tx, held| renew(tx, tenant, id, &held))).await
    }
}

async fn find(session: &Session, tenant: Tenant, id: EndpointId) -> Result<Option<Endpoint>, PgError> {
    Ok(endpoint::find(session, tenant, id).await?.filter(|found| found.listener.is_some()))
}

const fn lane_of_listener(tenant: Tenant, endpoint_key: RowKey) -> Lane {
    Lane { workspace_key: tenant.workspace, endpoint_key, kind: LaneKind::Events }
}

async fn look(
    session: &Session,
    tenant: Tenant,
    id: EndpointId,
    now: Timestamp,
) -> Result<Option<ListenerQueue>, PgError> {
    let Some(found) = find(session, tenant, id).await? else { return Ok(None) };
    let sql = "SELECT due_at FROM due WHERE lane_key = $1 ORDER BY due_at LIMIT 1";
    let earliest = session.query_opt(sql, &[&found.key.as_i64()]).await?;
    let earliest = earliest.map(|row| instant(&row, "due_at")).transpose()?;
    let due_at = earliest.filter(|at| *at != NOT_YET && found.is_active);
    Ok(Some(ListenerQueue {
        endpoint_key: found.key,
        next_due_in: due_at.map(|at| at.since(now)),
        seen_ago: found.listener.map(|listener| now.since(listener.last_seen_at)).unwrap_or_default(),
    }))
}

async fn lease(tx: &mut WriteTx, tenant: Tenant, id: EndpointId, max: usize) -> Result<Option<Vec<Lease>>, PgError> {
    tx.share_workspaces([tenant.workspace]).await?;
    let Some(found) = find(tx, tenant, id).await? else { return Ok(None) };
    if found.listener.is_some_and(|listener| tx.now.since(listener.last_seen_at) >= limits::LISTENER_SEEN_EVERY) {
        let sql = "UPDATE endpoints SET last_seen_at = $2 WHERE key = $1";
        tx.execute(sql, &[&found.key.as_i64(), &tx.now.millis()]).await?;
    }
    let (mut leases, mut bytes) = (Vec::new(), 0);
    let lane = lane_of_listener(tenant, found.key);
    while found.is_active && leases.len() < max && bytes < limits::LEASED_BYTES {
        let wanted = limits::LEASED_AT_ONCE.min(max - leases.len());
        let claims = due::claim_of_listener(tx, lane, wanted, limits::LEASE).await?;
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

fn keys_and_tokens(held: &[HeldLease]) -> (Vec<i64>, Vec<i64>) {
    held.iter().map(|held| (held.delivery_id.key().as_i64(), held.token.0)).unzip()
}

async fn find_leases(
    session: &Session,
    tag: StoreTag,
    tenant: Tenant,
    id: EndpointId,
    held: &[HeldLease],
) -> Result<Option<Vec<Option<Lease>>>, PgError> {
    let Some(listener) = find(session, tenant, id).await? else { return Ok(None) };
    let lane = lane_of_listener(tenant, listener.key);
    let Some(target) = matching::read_target(session, lane).await? else { return Ok(None) };
    let (keys, tokens) = keys_and_tokens(held);
    let mut found: HashMap<(RowKey, ClaimToken), Lease> = HashMap::new();
    for row in session.query(SELECT_LEASED, &[&keys, &tokens, &lane_key(lane)]).await? {
        if let Some(lease) = due::lease_from_row(&row, tag, &target)? {
            found.insert((lease.claim.delivery_id.key(), lease.claim.token), lease);
        }
    }
    Ok(Some(held.iter().map(|held| found.get(&(held.delivery_id.key(), held.token)).cloned()).collect()))
}

async fn renew(
    tx: &mut WriteTx,
    tenant: Tenant,
    id: EndpointId,
    held: &[HeldLease],
) -> Result<Option<Vec<Option<Timestamp>>>, PgError> {
    let Some(found) = find(tx, tenant, id).await? else { return Ok(None) };
    let (keys, tokens) = keys_and_tokens(held);
    let ends_at = tx.now.plus(limits::LEASE);
    let lane = lane_key(lane_of_listener(tenant, found.key));
    let rows = tx.query(RENEW, &[&keys, &tokens, &lane, &ends_at.millis()]).await?;
    let renewed = rows.iter().map(|row| key(row, "delivery_key")).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(held.iter().map(|held| renewed.contains(&held.delivery_id.key()).then_some(ends_at)).collect()))
}
