//! Parked messages: messages of sources that could not become events. Also which sources are paused, for all nodes.

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use postrider_domain::audit::AuditAction;
use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::{ParkedMessageId, RowKey};
use postrider_domain::mode::Mode;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::source::{ParkReason, ParkedFull, ParkedMessage, SourceMessage, SourceName};
use postrider_domain::tenant::Tenant;

use crate::{StoreError, UnexpectedValue, Write, Written};

/// A message to park. It is cut already.
#[derive(Clone, Debug)]
pub struct NewParkedMessage {
    pub id: ParkedMessageId,
    /// Of the whole message.
    pub fingerprint: [u8; 32],
    pub project_id: Option<ProjectId>,
    pub reason: ParkReason,
    pub detail: String,
    pub message: SourceMessage,
    /// Bytes of the whole body.
    pub body_bytes: u64,
}

/// How many messages a source may park, and what happens to more.
#[derive(Clone, Debug)]
pub struct ParkLimit {
    pub source: SourceName,
    pub max: u32,
    pub full: ParkedFull,
}

/// What became of messages to park.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parked {
    /// The positions of those for which there is no room. The others are parked now, or were before.
    pub without_room: Vec<usize>,
    /// How many were dropped: older ones, and the first of the new ones where these alone exceed the limit.
    pub dropped: u64,
}

/// Why a parked message was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveParkedMessageError {
    #[error("there is no such parked message")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A source that somebody paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PausedSource {
    pub workspace: RowKey,
    pub mode: Mode,
    pub source: String,
}

/// What happens to messages that are not parked yet, of which the positions are given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// To be added.
    pub added: Vec<usize>,
    pub without_room: Vec<usize>,
    /// So many of the oldest rows are removed.
    pub removed: u64,
    pub dropped: u64,
}

impl ParkLimit {
    /// Decides for `new` messages where `parked` are parked already.
    pub fn room_for(&self, parked: u64, new: Vec<usize>) -> Room {
        let over = (parked + new.len() as u64).saturating_sub(self.max.into());
        let excess = usize::try_from(over).unwrap_or(usize::MAX).min(new.len());
        match self.full {
            ParkedFull::Stop => {
                let (added, without_room) = new.split_at(new.len() - excess);
                Room { added: added.to_vec(), without_room: without_room.to_vec(), ..Room::default() }
            }
            ParkedFull::DropOldest => {
                let removed = over.min(parked);
                let skipped = usize::try_from(over - removed).unwrap_or(usize::MAX).min(new.len());
                Room { added: new[skipped..].to_vec(), without_room: Vec::new(), removed, dropped: over }
            }
        }
    }
}

#[async_trait]
pub trait ParkedMessages: Send + Sync + 'static {
    /// Parks messages of one source, the first ones if there is no room for all. A message that is parked already is
    /// not parked twice.
    async fn park_messages(
        &self,
        tenant: Tenant,
        limit: ParkLimit,
        messages: Vec<NewParkedMessage>,
    ) -> Result<Parked, StoreError>;

    /// Parked messages of a tenant without their bodies, newest first.
    async fn list_parked_messages(
        &self,
        tenant: Tenant,
        source: Option<SourceName>,
        page: PageRequest,
    ) -> Result<Page<ParkedMessage>, StoreError>;

    async fn find_parked_message(
        &self,
        tenant: Tenant,
        id: ParkedMessageId,
    ) -> Result<Option<ParkedMessage>, StoreError>;

    /// Removes a parked message. The action says why, for the audit log.
    async fn remove_parked_message(
        &self,
        write: Write<()>,
        id: ParkedMessageId,
        action: AuditAction,
    ) -> Result<Written<()>, RemoveParkedMessageError>;

    /// How many messages the source has parked. It reads an index of that many rows.
    async fn count_parked_messages(&self, tenant: Tenant, source: SourceName) -> Result<u64, StoreError>;

    /// Pauses or resumes a source on all nodes. One that is so already stays as it is.
    async fn set_source_paused(
        &self,
        write: Write<()>,
        source: SourceName,
        is_paused: bool,
    ) -> Result<Written<()>, StoreError>;

    /// The paused sources of all workspaces.
    async fn paused_sources(&self) -> Result<Vec<PausedSource>, StoreError>;
}

/// The column `origin`: what the message has beside its body.
#[derive(Serialize, Deserialize)]
struct Origin {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(default)]
    headers: Vec<(String, String)>,
}

/// Everything of a message but its body, as the column `origin` has it. JSON escapes U+0000, which PostgreSQL refuses
/// in text.
pub fn origin_text(message: &SourceMessage) -> String {
    let SourceMessage { headers, subject, sequence, message_id, body: _ } = message.clone();
    serde_json::to_string(&Origin { subject, sequence, message_id, headers }).expect("texts are JSON")
}

/// # Errors
/// When the text is not one that [`origin_text`] makes.
pub fn message_from(origin: &str, body: Bytes) -> Result<SourceMessage, UnexpectedValue> {
    let origin = serde_json::from_str(origin).map_err(|_| UnexpectedValue("parked_messages.origin"))?;
    let Origin { subject, sequence, message_id, headers } = origin;
    Ok(SourceMessage { headers, subject, sequence, message_id, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_source_stops_or_drops_the_oldest() {
        let limit = |full| ParkLimit { source: SourceName::parse("a").unwrap(), max: 3, full };
        let stop = limit(ParkedFull::Stop);
        assert_eq!(stop.room_for(1, vec![0, 4]).added, [0, 4], "exactly as many as fit");
        let room = stop.room_for(2, vec![0, 4]);
        assert_eq!((room.added, room.without_room, room.removed), (vec![0], vec![4], 0));
        assert_eq!(stop.room_for(7, vec![0]).without_room, [0], "the limit was lowered");
        let drop = limit(ParkedFull::DropOldest);
        let room = drop.room_for(2, vec![0, 4]);
        assert_eq!((room.added, room.removed, room.dropped), (vec![0, 4], 1, 1));
        let room = drop.room_for(1, vec![0, 1, 2, 3, 4]);
        assert_eq!((room.added, room.removed, room.dropped), (vec![2, 3, 4], 1, 3));
    }

    #[test]
    fn a_message_reads_back_as_parked() {
        let message = SourceMessage {
            headers: vec![("Nats-Msg-Id".to_owned(), "a\0b".to_owned())],
            subject: Some("events.a".to_owned()),
            sequence: Some("7".to_owned()),
            message_id: None,
            body: Bytes::from_static(b"{\xff"),
        };
        let origin = origin_text(&message);
        assert!(!origin.contains('\0'));
        assert_eq!(message_from(&origin, message.body.clone()).unwrap(), message);
        message_from("{", Bytes::new()).unwrap_err();
    }
}
