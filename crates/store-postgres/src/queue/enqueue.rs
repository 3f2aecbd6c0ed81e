//! Enqueueing deliveries: rows in the log and in the queue, many at once. Writes `due`, and `deliveries` through
//! `log/delivery.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::future::join3;

use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_store::ClaimToken;
use postrider_store::column::mode_code;
use postrider_store::publish::delivery::NewDelivery;
use postrider_store::queue::lane::{LaneBound, lane_key};
use postrider_store::queue::order::{NOT_YET, OrderPlacement, Position};

use super::lane::{self, LaneBounds, LaneDueTimes, ensure_visited_by};
use super::order;
use crate::log::delivery;
use crate::machinery::fault::PgError;
use crate::machinery::transaction::WriteTx;

/// The bounds of the lanes whose deliveries could be handed over.
pub async fn bounds(tx: &WriteTx, new: &[NewDelivery]) -> Result<LaneBounds, PgError> {
    let mut lanes: Vec<i64> = new
        .iter()
        .filter(|new| new.payload.is_some() && new.skipped.is_none() && tx.claims.has_room(new.lane, &new.target))
        .map(|new| lane_key(new.lane))
        .collect();
    lanes.sort_unstable();
    lanes.dedup();
    if lanes.is_empty() {
        return Ok(LaneBounds::new());
    }
    let mut bounds: LaneBounds = lanes.iter().map(|lane| (*lane, LaneBound::Empty)).collect();
    bounds.extend(lane::bounds(tx, &lanes).await?);
    Ok(bounds)
}

/// Writes deliveries to the log, and to the queue unless they are skipped. Only deliveries whose lanes are in `bounds`
/// may be handed over.
pub async fn insert(tx: &mut WriteTx, new: Vec<NewDelivery>, mut bounds: LaneBounds) -> Result<(), PgError> {
    if new.is_empty() {
        return Ok(());
    }
    keep_events(tx, &new).await?;
    let positions = positions(tx, &new).await?;
    let mut due = DueRows::default();
    for (new, position) in new.iter().zip(positions) {
        if new.skipped.is_none() {
            queue(tx, new, position, &mut bounds, &mut due);
        }
    }
    // The lanes come after the rows (`lane.rs`).
    let lanes = due.lanes();
    let due_now = due_lanes(&lanes, tx.now);
    if due_now.is_empty() && due.held.is_empty() {
        let (log, queued, visited) =
            join3(delivery::insert(tx, &new), due.insert(tx), ensure_visited_by(tx, lanes)).await;
        return log.and(queued).and(visited);
    }
    let (log, queued, locked) = join3(delivery::insert(tx, &new), due.insert(tx), lane::lock(tx, &due_now)).await;
    log.and(queued)?;
    let queued = new.iter().filter(|new| new.skipped.is_none());
    hand_over_late(tx, queued, &mut due, &locked?).await?;
    let lanes = due.lanes();
    tx.claims.left_due |= !due_lanes(&lanes, tx.now).is_empty();
    ensure_visited_by(tx, lanes).await?;
    lane::hold_all(tx, &due.held).await
}

/// Hands over deliveries that were enqueued as due because an older row was due, and that row is claimed by now.
///
/// Otherwise every transaction that waited for that claim would make the lane due again. Later ones would have to wait
/// for the next claim, without end.
async fn hand_over_late<'n>(
    tx: &mut WriteTx,
    queued: impl Iterator<Item = &'n NewDelivery>,
    due: &mut DueRows,
    locked: &LaneBounds,
) -> Result<(), PgError> {
    let (mut keys, mut tokens, mut still_due) = (Vec::new(), Vec::new(), HashSet::new());
    for (row, new) in queued.enumerate() {
        let lane_key = lane_key(new.lane);
        if due.due_at[row] > tx.now.millis() || still_due.contains(&lane_key) {
            continue;
        }
        if let Some(token) = try_hand_over(tx, new, locked.get(&lane_key)) {
            due.due_at[row] = lease_end(tx).millis();
            keys.push(new.key.as_i64());
            tokens.push(token.0);
        } else {
            still_due.insert(lane_key);
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE due SET due_at = $3, claim_token = claim.token, claimed_at = $4, attempts = 1
               FROM unnest($1, $2) AS claim (key, token) WHERE due.delivery_key = claim.key";
    tx.execute(sql, &[&keys, &tokens, &lease_end(tx).millis(), &tx.now.millis()]).await?;
    Ok(())
}

/// Locks stored events that are enqueued again, so that neither they nor their payloads are removed meanwhile. A
/// removal locks it `FOR UPDATE` first and then looks again for deliveries.
///
/// # Errors
/// [`PgError::Overtaken`] when one has just been removed. The next run of the transaction finds it gone.
async fn keep_events(tx: &WriteTx, new: &[NewDelivery]) -> Result<(), PgError> {
    let events: BTreeSet<i64> =
        new.iter().filter(|new| new.payload.is_none()).map(|new| new.event_key.as_i64()).collect();
    if events.is_empty() {
        return Ok(());
    }
    let events: Vec<i64> = events.into_iter().collect();
    let sql = "SELECT 1 FROM events WHERE key = ANY($1) AND payload = 0 ORDER BY key FOR KEY SHARE";
    let kept = tx.query(sql, &[&events]).await?.len();
    if kept == events.len() { Ok(()) } else { Err(PgError::Overtaken) }
}

/// The position of each delivery in its endpoint's order, if it has one.
async fn positions(tx: &WriteTx, new: &[NewDelivery]) -> Result<Vec<Option<Position>>, PgError> {
    let mut wanted = BTreeMap::<i64, i64>::new();
    for new in new.iter().filter(|new| new.placement == OrderPlacement::Last && new.skipped.is_none()) {
        *wanted.entry(lane_key(new.lane)).or_default() += 1;
    }
    let mut taken = HashMap::new();
    if !wanted.is_empty() {
        let wanted: Vec<_> = wanted.into_iter().collect();
        let positions = order::allocate_positions(tx, &wanted).await?;
        for (lane, count) in wanted {
            if let Some((last, first_is_head)) = positions.get(&lane) {
                taken.insert(lane, (last - count + 1, *first_is_head));
            }
        }
    }
    Ok(new
        .iter()
        .map(|new| match new.placement {
            _ if new.skipped.is_some() => None,
            OrderPlacement::Outside => None,
            OrderPlacement::InPlaceOf(sequence) => Some(Position { sequence, is_head: true }),
            OrderPlacement::Last => taken.get_mut(&lane_key(new.lane)).map(|(next, is_head)| {
                let position = Position { sequence: *next, is_head: *is_head };
                (*next, *is_head) = (*next + 1, false);
                position
            }),
        })
        .collect())
}

/// Adds a delivery to `due`. Hands it over if its attempt can start at once.
fn queue(tx: &mut WriteTx, new: &NewDelivery, position: Option<Position>, bounds: &mut LaneBounds, due: &mut DueRows) {
    let lane_key = lane_key(new.lane);
    let may_start = position.as_ref().is_none_or(|position| position.is_head);
    let token = if may_start { try_hand_over(tx, new, bounds.get(&lane_key)) } else { None };
    let due_at = match token {
        Some(_) => lease_end(tx),
        None if may_start => tx.now,
        None => NOT_YET,
    };
    due.push(new, due_at, token, tx.now, position.map(|position| position.sequence));
    if let Some(bound) = bounds.get_mut(&lane_key) {
        *bound = match *bound {
            LaneBound::NotBefore(next_at) if next_at <= due_at => *bound,
            LaneBound::Held | LaneBound::OfListener => *bound,
            LaneBound::NotBefore(_) | LaneBound::Empty => LaneBound::NotBefore(due_at),
        };
    }
}

fn lease_end(tx: &WriteTx) -> Timestamp {
    tx.now.plus(limits::LEASE)
}

/// Hands a delivery over if nothing older is due in its lane and the sink accepts it.
fn try_hand_over(tx: &mut WriteTx, new: &NewDelivery, bound: Option<&LaneBound>) -> Option<ClaimToken> {
    let payload = new.payload.as_ref()?;
    let is_free = bound.is_some_and(|bound| !bound.may_have_due(tx.now));
    if !is_free || new.is_held || !tx.claims.has_room(new.lane, &new.target) {
        return None;
    }
    let token = ClaimToken(tx.next_key().as_i64());
    tx.claims.hand_over(new.first_claim(token, tx.tag, payload.clone()));
    Some(token)
}

/// The lanes with something due.
fn due_lanes(lanes: &LaneDueTimes, now: Timestamp) -> Vec<i64> {
    lanes.iter().filter(|(_, (_, at))| *at <= now).map(|(lane_key, _)| *lane_key).collect()
}

/// Inserts rows into the queue.
pub const INSERT_DUE: &str =
    "INSERT INTO due (delivery_key, lane_key, event_key, due_at, mode, cause, attempts, claim_token, claimed_at,
                                    secret_version, also_secret_version, sequence)
                   SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";

/// Rows of the queue, column by column.
#[derive(Default)]
struct DueRows {
    delivery_keys: Vec<i64>,
    lane_keys: Vec<i64>,
    event_keys: Vec<i64>,
    due_at: Vec<i64>,
    modes: Vec<i64>,
    causes: Vec<i64>,
    attempts: Vec<i64>,
    tokens: Vec<Option<i64>>,
    claimed_at: Vec<Option<i64>>,
    secret_versions: Vec<i64>,
    also_secret_versions: Vec<Option<i64>>,
    sequences: Vec<Option<i64>>,
    workspaces: Vec<RowKey>,
    /// Inactive endpoints: their lanes are held.
    held: Vec<i64>,
}

impl DueRows {
    fn push(
        &mut self,
        new: &NewDelivery,
        due_at: Timestamp,
        token: Option<ClaimToken>,
        now: Timestamp,
        sequence: Option<i64>,
    ) {
        self.delivery_keys.push(new.key.as_i64());
        self.lane_keys.push(lane_key(new.lane));
        self.event_keys.push(new.event_key.as_i64());
        self.due_at.push(due_at.millis());
        self.modes.push(mode_code(new.mode));
        self.causes.push(new.cause.code());
        self.attempts.push(i64::from(token.is_some()));
        self.tokens.push(token.map(|token| token.0));
        self.claimed_at.push(token.map(|_| now.millis()));
        self.secret_versions.push(i64::from(new.target.secret_version.0));
        self.also_secret_versions.push(new.also_secret_version.map(|version| i64::from(version.0)));
        self.sequences.push(sequence);
        self.workspaces.push(new.lane.workspace_key);
        if new.is_held {
            self.held.push(new.lane.endpoint_key.as_i64());
        }
    }

    /// The instant by which each lane must be visited.
    fn lanes(&self) -> LaneDueTimes {
        let mut lanes = LaneDueTimes::new();
        for ((lane_key, workspace), due_at) in self.lane_keys.iter().zip(&self.workspaces).zip(&self.due_at) {
            let due_at = Timestamp::from_millis(*due_at);
            let lane = lanes.entry(*lane_key).or_insert((*workspace, due_at));
            lane.1 = lane.1.min(due_at);
        }
        lanes
    }

    async fn insert(&self, tx: &WriteTx) -> Result<(), PgError> {
        if self.delivery_keys.is_empty() {
            return Ok(());
        }
        tx.execute(
            INSERT_DUE,
            &[
                &self.delivery_keys,
                &self.lane_keys,
                &self.event_keys,
                &self.due_at,
                &self.modes,
                &self.causes,
                &self.attempts,
                &self.tokens,
                &self.claimed_at,
                &self.secret_versions,
                &self.also_secret_versions,
                &self.sequences,
            ],
        )
        .await?;
        Ok(())
    }
}
