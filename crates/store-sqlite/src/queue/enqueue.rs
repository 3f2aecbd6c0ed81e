//! Puts a delivery into the queue, claimed at once for the engine when the engine has a free slot for it.
//!
//! Writes `due`.

use rusqlite::params;

use postrider_domain::limits;
use postrider_store::ClaimToken;
use postrider_store::column::mode_code;
use postrider_store::publish::delivery::NewDelivery;
use postrider_store::queue::lane::lane_key;
use postrider_store::queue::order::{NOT_YET, Position};

use super::{lane, order};
use crate::machinery::writer::WriteTx;

pub const INSERT_DUE: &str =
    "INSERT INTO due (delivery_key, lane_key, event_key, due_at, mode, cause, secret_version, also_secret_version,
                      attempts, claim_token, claimed_at, sequence)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

pub fn enqueue(tx: &mut WriteTx<'_>, new: &NewDelivery) -> Result<(), rusqlite::Error> {
    let position = order::allocate_position(tx, new.lane, new.placement)?;
    let is_next = position.as_ref().is_none_or(|position| position.is_head);
    let envelope = match &new.payload {
        Some(envelope)
            if is_next
                && !new.is_held
                && tx.claims.has_room(new.lane, &new.target)
                && !lane::may_have_due(tx, new.lane)? =>
        {
            Some(envelope)
        }
        _ => None,
    };
    let token = envelope.map(|_| ClaimToken(tx.next_key().as_i64()));
    insert_due(tx, new, token, position)?;
    if new.is_held {
        lane::hold(tx, new.lane.endpoint_key)?;
    }
    let (Some(envelope), Some(token)) = (envelope, token) else {
        tx.claims.left_due |= !new.target.id.is_listener();
        return Ok(());
    };
    tx.claims.hand_over(new.first_claim(token, tx.tag, envelope.clone()));
    Ok(())
}

/// With a token the row is claimed for the length of a lease.
fn insert_due(
    tx: &mut WriteTx<'_>,
    new: &NewDelivery,
    token: Option<ClaimToken>,
    position: Option<Position>,
) -> Result<(), rusqlite::Error> {
    let is_next = position.as_ref().is_none_or(|position| position.is_head);
    let due_at = match token {
        Some(_) => tx.now.plus(limits::LEASE),
        None if is_next => tx.now,
        None => NOT_YET,
    };
    tx.connection.prepare_cached(INSERT_DUE)?.execute(params![
        new.key.as_i64(),
        lane_key(new.lane),
        new.event_key.as_i64(),
        due_at.millis(),
        mode_code(new.mode),
        new.cause.code(),
        new.target.secret_version.0,
        new.also_secret_version.map(|version| version.0),
        u32::from(token.is_some()),
        token.map(|token| token.0),
        token.map(|_| tx.now.millis()),
        position.map(|position| position.sequence),
    ])?;
    lane::lower_next_at(tx, new.lane, due_at)
}
