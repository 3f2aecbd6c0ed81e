//! The proof on SQLite: when an erasure says `erased`, no byte of the content stands in any file of the data directory.
//!
//! The marked rows are written among many others, over splits of pages, and rows around them are removed by retention.
//! So copies of marked rows come to stand in free pages and in the write-ahead log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_domain::endpoint::OpaqueId;
use postrider_domain::erasure::{ErasureStatus, PendingDeliveries};
use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::id::RowKey;
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, RecordedAnswer, Recording};
use postrider_store::{AgedStep, LogPart};
use rusqlite::Connection;

use super::conformance::erasure::{erase, project, refresh, run};
use super::fixture::{EVENT_TYPE, Fixture};
use super::sqlite::SqliteBackend;
use crate::support::files::count_in_files;

const MARKER: &str = "kq3-personal-data-7xw";
const MARKED: usize = 200;

/// An event of about this size. A marked one repeats the marker over its whole length.
fn event_of_size(at: &Fixture, number: usize, bytes: usize, is_marked: bool) -> NewEvent {
    let word = if is_marked { MARKER } else { "somebody-else-entirely" };
    let envelope = Bytes::from(format!("{number}:{}", word.repeat(bytes / word.len())));
    let external_id = Some(OpaqueId::parse(&format!("{word}-{number}")).unwrap());
    let project = if is_marked { "marked" } else { "other" };
    NewEvent { envelope, external_id, ..at.event_of(EVENT_TYPE, Some(project)) }
}

/// Publishes the event with an idempotency key, and delivers it. The answers repeat what they were sent.
async fn publish_and_deliver(at: &Fixture, number: usize, event: NewEvent) {
    let scope = IdempotencyScope { tenant: at.tenant(), route: "POST /v1/events".to_owned() };
    let key = OpaqueId::parse(&format!("key-{number}")).unwrap();
    let request = IdempotentRequest { scope, key, body_hash: [1; 32], caller: None };
    let render = |receipts: &Vec<EventReceipt>| {
        let EventReceipt { id, external_id, .. } = &receipts[0];
        let body = format!("{{\"data\":{{\"id\":\"{id}\",\"externalId\":\"{}\"}}}}", external_id.as_ref().unwrap());
        RecordedAnswer { status: 202, body: body.into(), sealed: false }
    };
    let recording = Recording { request, render: Arc::new(render) };
    let sent = event.envelope.clone();
    at.store().accept_events(vec![event], Some(recording)).await.unwrap();
    let claim = at.claim_one().await;
    let mut outcome = at.delivered(&claim);
    outcome.attempt.response_body = Some(sent.slice(..sent.len().min(4096)));
    let echo = String::from_utf8(sent.slice(..sent.len().min(200)).to_vec()).unwrap();
    outcome.attempt.response_headers = vec![("x-echo".to_owned(), echo)];
    at.record(outcome).await;
}

async fn remove_older_than(at: &Fixture, age: Duration) {
    for part in [LogPart::Deliveries, LogPart::Events] {
        let mut after = Some(RowKey::from_i64(0));
        while let Some(from) = after {
            after = at.store().remove_aged(AgedStep { part, age, after: from, limit: 100 }).await.unwrap().next;
        }
    }
}

#[tokio::test]
async fn no_byte_of_an_erased_project_is_left_in_any_file() {
    let backend = SqliteBackend::new();
    let directory = backend.directory().to_owned();
    let mut at = Fixture::new(backend).await;
    at.endpoint().await;
    let sizes = [300, 1_100, 2_500, 9_000, 40_000];
    let total = 1_500;
    for number in 0..total {
        let is_marked = number % (total / MARKED) == 3;
        let event = event_of_size(&at, number, sizes[number % sizes.len()], is_marked);
        publish_and_deliver(&at, number, event).await;
        at.advance(Duration::from_secs(1));
        // Retention removes rows beside marked ones, and later rows take some of the free pages.
        if number % 300 == 299 {
            remove_older_than(&at, Duration::from_secs(1_000)).await;
        }
    }
    assert!(count_in_files(&directory, MARKER) > MARKED, "the test writes what it looks for");
    let erasure = erase(&at, project("marked"), PendingDeliveries::Cancel).await;
    run(&at).await;
    let erased = refresh(&at, &erasure).await;
    assert_eq!(erased.status, ErasureStatus::Erased);
    assert!(erased.events > 100 && erased.attempts > 100 && erased.answers > 100, "{erased:?}");
    assert_eq!(count_in_files(&directory, MARKER), 0, "while the store is open");
    let kept = count_in_files(&directory, "somebody-else-entirely");
    assert!(kept > 1_000, "other content stays: {kept}");
    let free = free_pages(&directory);
    assert!(free.filler == 0, "the zeros are gone");
    assert!(free.pages > 0, "the pages are free again");
    at.close();
    assert_eq!(count_in_files(&directory, MARKER), 0, "after the store was closed");
}

struct Free {
    pages: i64,
    filler: i64,
}

fn free_pages(directory: &Path) -> Free {
    let connection = Connection::open(directory.join("postrider.db")).unwrap();
    let one = |sql| connection.query_row(sql, [], |row| row.get(0)).unwrap();
    Free { pages: one("PRAGMA freelist_count"), filler: one("SELECT COUNT(*) FROM erasure_filler") }
}

#[tokio::test]
async fn a_reader_keeps_an_erasure_from_its_end_and_from_nothing_else() {
    let backend = SqliteBackend::new();
    let directory = backend.directory().to_owned();
    let at = Fixture::new(backend).await;
    at.accept(vec![event_of_size(&at, 1, 300, true)]).await;
    let reader = Connection::open(directory.join("postrider.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT COUNT(*) FROM events").unwrap();
    at.advance(Duration::from_millis(1));
    let erasure = erase(&at, project("marked"), PendingDeliveries::Cancel).await;
    let waits = || async { (at.store().advance_erasures().await.unwrap() == Some(0)).then_some(()) };
    crate::support::wait::eventually("the wait for the reader", waits).await;
    let waiting = refresh(&at, &erasure).await;
    assert_eq!((waiting.status, waiting.events), (ErasureStatus::Running, 1));
    assert!(count_in_files(&directory, MARKER) > 0, "the log still has the old pages");
    at.accept(vec![event_of_size(&at, 2, 300, false)]).await;
    reader.execute_batch("COMMIT").unwrap();
    run(&at).await;
    assert_eq!(refresh(&at, &erasure).await.status, ErasureStatus::Erased);
    assert_eq!(count_in_files(&directory, MARKER), 0);
}

#[tokio::test]
async fn an_erasure_in_a_file_of_an_older_version_says_so() {
    let backend = SqliteBackend::new();
    let directory = backend.directory().to_owned();
    let mut at = Fixture::new(backend).await;
    let connection = Connection::open(directory.join("postrider.db")).unwrap();
    // As the migration marks a store that has workspaces.
    let made_old = "INSERT INTO meta (name, value) VALUES ('erasure:old_file', x'01');
                    PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = NONE; VACUUM";
    at.close();
    connection.execute_batch(made_old).unwrap();
    drop(connection);
    at.reopen().await;
    let erasure = erase(&at, project("p"), PendingDeliveries::Cancel).await;
    assert!(erasure.needs_compact);
    at.close();
    let connection = Connection::open(directory.join("postrider.db")).unwrap();
    let rewritten = "PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = INCREMENTAL; VACUUM";
    connection.execute_batch(rewritten).unwrap();
    drop(connection);
    at.reopen().await;
    assert!(!erase(&at, project("p"), PendingDeliveries::Cancel).await.needs_compact, "the file was rewritten");
}
