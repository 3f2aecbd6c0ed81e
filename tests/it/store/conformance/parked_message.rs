//! Parked messages: kept whole, once, within their limit, for their own tenant; and which sources are paused.

use bytes::Bytes;
use postrider_domain::audit::AuditAction;
use postrider_domain::endpoint::ProjectId;
use postrider_domain::erasure::PendingDeliveries;
use postrider_domain::id::{ParkedMessageId, RowKey};
use postrider_domain::source::{ParkReason, ParkedFull, ParkedMessage, SourceMessage, SourceName};
use postrider_domain::tenant::Tenant;
use postrider_store::parked_message::{NewParkedMessage, ParkLimit, Parked, PausedSource, RemoveParkedMessageError};

use super::erasure::{erase, project};
use crate::store::fixture::{Fixture, done, write};

on_each_backend! {
    a_message_reads_back_as_it_was_parked,
    a_message_that_comes_again_is_parked_once,
    a_full_source_takes_as_many_as_fit,
    the_oldest_go_first_where_they_are_dropped,
    a_parked_message_of_another_tenant_does_not_exist,
    a_removed_message_is_gone_and_audited,
    the_erasure_of_a_project_takes_its_parked_messages,
    a_source_is_paused_until_it_is_resumed,
}

fn source() -> SourceName {
    SourceName::parse("orders").unwrap()
}

fn limit(max: u32, full: ParkedFull) -> ParkLimit {
    ParkLimit { source: source(), max, full }
}

fn new(at: &Fixture, body: &str) -> NewParkedMessage {
    let message = SourceMessage {
        headers: vec![("a".to_owned(), "b\0".to_owned())],
        subject: Some("events.a".to_owned()),
        sequence: None,
        message_id: Some("7".to_owned()),
        body: Bytes::from(format!("\0\u{fffd}{body}")),
    };
    NewParkedMessage {
        id: ParkedMessageId::from_letters(at.letters()),
        fingerprint: message.fingerprint(),
        project_id: None,
        reason: ParkReason::NotJson,
        detail: "malformed JSON".to_owned(),
        body_bytes: message.body.len() as u64,
        message,
    }
}

/// Parks one message in the fixture's workspace.
pub async fn park(at: &Fixture, body: &str) -> ParkedMessageId {
    let new = new(at, body);
    let id = new.id;
    park_in(at, at.tenant(), limit(100, ParkedFull::Stop), vec![new]).await;
    id
}

async fn park_in(at: &Fixture, tenant: Tenant, limit: ParkLimit, messages: Vec<NewParkedMessage>) -> Parked {
    at.store().park_messages(tenant, limit, messages).await.unwrap()
}

async fn listed(at: &Fixture, tenant: Tenant) -> Vec<ParkedMessage> {
    at.store().list_parked_messages(tenant, None, Fixture::page()).await.unwrap().items
}

async fn listed_ids(at: &Fixture) -> Vec<ParkedMessageId> {
    listed(at, at.tenant()).await.iter().map(|parked| parked.id).collect()
}

async fn a_message_reads_back_as_it_was_parked(at: Fixture) {
    let new = NewParkedMessage { project_id: ProjectId::parse("p").ok(), ..new(&at, "x") };
    assert_eq!(park_in(&at, at.tenant(), limit(1, ParkedFull::Stop), vec![new.clone()]).await, Parked::default());
    let found = at.store().find_parked_message(at.tenant(), new.id).await.unwrap().unwrap();
    assert_eq!(found.message, new.message);
    assert_eq!((found.reason, &found.detail, found.body_bytes), (new.reason, &new.detail, new.body_bytes));
    assert_eq!((found.source.as_str(), found.project_id), ("orders", new.project_id));
    let [listed] = &listed(&at, at.tenant()).await[..] else { panic!("one message") };
    assert_eq!((listed.id, listed.message.body.len(), listed.parked_at), (new.id, 0, found.parked_at));
    assert_eq!(at.store().count_parked_messages(at.tenant(), source()).await.unwrap(), 1);
    let other = SourceName::parse("other").unwrap();
    let of_other = at.store().list_parked_messages(at.tenant(), Some(other), Fixture::page()).await.unwrap();
    assert!(of_other.items.is_empty());
    let of_source = at.store().list_parked_messages(at.tenant(), Some(source()), Fixture::page()).await.unwrap();
    assert_eq!(of_source.items.len(), 1);
}

async fn a_message_that_comes_again_is_parked_once(at: Fixture) {
    let first = park(&at, "x").await;
    park(&at, "x").await;
    assert_eq!(listed_ids(&at).await, [first]);
    // Twice in one batch, and with no room for another one.
    let again = vec![new(&at, "x"), new(&at, "x")];
    assert_eq!(park_in(&at, at.tenant(), limit(1, ParkedFull::Stop), again).await, Parked::default());
    assert_eq!(listed_ids(&at).await, [first]);
}

async fn a_full_source_takes_as_many_as_fit(at: Fixture) {
    let first = park(&at, "1").await;
    let more = vec![new(&at, "1"), new(&at, "2"), new(&at, "3")];
    let second = more[1].id;
    let parked = park_in(&at, at.tenant(), limit(2, ParkedFull::Stop), more).await;
    assert_eq!(parked, Parked { without_room: vec![2], dropped: 0 });
    assert_eq!(listed_ids(&at).await, [second, first]);
}

async fn the_oldest_go_first_where_they_are_dropped(at: Fixture) {
    park(&at, "1").await;
    let second = park(&at, "2").await;
    let third = new(&at, "3");
    let id = third.id;
    let parked = park_in(&at, at.tenant(), limit(2, ParkedFull::DropOldest), vec![third]).await;
    assert_eq!(parked, Parked { without_room: Vec::new(), dropped: 1 });
    assert_eq!(listed_ids(&at).await, [id, second]);
}

async fn a_parked_message_of_another_tenant_does_not_exist(at: Fixture) {
    let id = park(&at, "x").await;
    for stranger in [at.test_tenant(), Tenant::whole(RowKey::from_i64(1), at.tenant().mode)] {
        assert!(listed(&at, stranger).await.is_empty());
        assert!(at.store().find_parked_message(stranger, id).await.unwrap().is_none());
        let action = AuditAction::ParkedMessageDiscarded;
        let removed = at.store().remove_parked_message(write(stranger), id, action).await;
        assert!(matches!(removed, Err(RemoveParkedMessageError::NotFound)), "{removed:?}");
    }
    assert_eq!(listed_ids(&at).await, [id]);
}

async fn a_removed_message_is_gone_and_audited(at: Fixture) {
    let id = park(&at, "x").await;
    let remove = || at.store().remove_parked_message(write(at.tenant()), id, AuditAction::ParkedMessageRetried);
    done(remove().await.unwrap());
    assert!(matches!(remove().await, Err(RemoveParkedMessageError::NotFound)));
    assert!(listed_ids(&at).await.is_empty());
    // The same message may come again, and is parked again.
    park(&at, "x").await;
    assert_eq!(listed_ids(&at).await.len(), 1);
}

async fn the_erasure_of_a_project_takes_its_parked_messages(at: Fixture) {
    let of = |name: &str, body: &str| NewParkedMessage { project_id: ProjectId::parse(name).ok(), ..new(&at, body) };
    let (erased, kept) = (of("p", "1"), of("q", "2"));
    let id = kept.id;
    park_in(&at, at.tenant(), limit(9, ParkedFull::Stop), vec![erased, kept]).await;
    erase(&at, project("p"), PendingDeliveries::Cancel).await;
    assert_eq!(listed_ids(&at).await, [id]);
}

async fn a_source_is_paused_until_it_is_resumed(at: Fixture) {
    let set = |is_paused| at.store().set_source_paused(write(at.tenant()), source(), is_paused);
    done(set(true).await.unwrap());
    done(set(true).await.unwrap());
    let Tenant { workspace, mode, .. } = at.tenant();
    let paused = PausedSource { workspace, mode, source: "orders".to_owned() };
    assert_eq!(at.store().paused_sources().await.unwrap(), [paused]);
    done(set(false).await.unwrap());
    assert_eq!(at.store().paused_sources().await.unwrap(), []);
}
