//! The outbox on a real PostgreSQL.

use std::collections::BTreeSet;
use std::sync::Arc;

use postrider::config::Settings;
use postrider_domain::database_url::DatabaseUrl;
use postrider_domain::limits;
use postrider_domain::source::{FieldRule, ParkedFull, SourceKind, SourceState, SourceTerms};
use postrider_source::feed::{Connector, PullLimit, Settlement};
use postrider_source::outbox::OutboxConnector;
use postrider_source::{Connection, OutboxSettings, OutboxTable, SourceSettings};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::desk::{NAME, accepted, accepted_when, parked_when, source, source_when, terms};
use crate::support::app::{ALL_SCOPES, App, text};
use crate::support::postgres::TestDatabase;
use crate::support::process::{Serving, create_key, postrider};
use crate::support::wait::{bounded, eventually};

/// A producer's database with an outbox.
struct Producer {
    client: Client,
    // Dropped after the clients.
    database: Arc<TestDatabase>,
}

impl Producer {
    /// `None` where there is no PostgreSQL.
    async fn new() -> Option<Self> {
        let database = Arc::new(TestDatabase::without_tables().await?);
        let client = database.client().await;
        client.batch_execute(&OutboxTable::parse(OutboxTable::DEFAULT).unwrap().ddl()).await.unwrap();
        Some(Self { client, database })
    }

    async fn publish(&self, n: &str) {
        self.insert("post.created", &json!({"n": n}), Some(n)).await;
    }

    async fn insert(&self, event_type: &str, data: &Value, external_id: Option<&str>) {
        insert(&self.client, event_type, data, external_id).await;
    }

    async fn rows(&self) -> i64 {
        self.client.query_one("SELECT COUNT(*) FROM postrider_outbox", &[]).await.unwrap().get(0)
    }

    async fn emptied(&self) {
        eventually("an empty outbox", || async { (self.rows().await == 0).then_some(()) }).await;
    }

    fn outbox(&self) -> OutboxSettings {
        OutboxSettings {
            url: DatabaseUrl::parse(&self.database.url()).unwrap(),
            password_file: None,
            ca_file: None,
            table: OutboxTable::parse(OutboxTable::DEFAULT).unwrap(),
        }
    }

    fn source(&self, change: impl FnOnce(&mut SourceTerms)) -> SourceSettings {
        let mut terms = terms(SourceKind::Outbox, FieldRule::MessageId);
        change(&mut terms);
        SourceSettings { terms, connection: Connection::Outbox(self.outbox()) }
    }

    /// A server with this outbox as its source.
    async fn app(&self) -> App {
        self.app_with(|_| {}, |_| {}).await
    }

    async fn app_with(&self, terms: impl FnOnce(&mut SourceTerms), change: impl FnOnce(&mut Settings)) -> App {
        let source = self.source(terms);
        App::set_up().await.change(|settings| settings.sources = vec![source]).change(change).start().await
    }
}

async fn insert(client: &Client, event_type: &str, data: &Value, external_id: Option<&str>) {
    let sql = "INSERT INTO postrider_outbox (type, data, external_id) VALUES ($1, $2::text::jsonb, $3)";
    client.execute(sql, &[&event_type, &data.to_string(), &external_id]).await.unwrap();
}

#[tokio::test]
async fn a_row_becomes_an_event_and_is_deleted() {
    let Some(producer) = Producer::new().await else { return };
    let app = producer.app().await;
    let sql = "INSERT INTO postrider_outbox (type, project_id, data, occurred_at)
               VALUES ('post.created', 'proj_1', '{\"n\": 1}', '2026-05-15T08:21:00.5Z') RETURNING id::text";
    let id: String = producer.client.query_one(sql, &[]).await.unwrap().get(0);
    let found = accepted_when(app.caller(), 1).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), [&format!("{NAME}_{id}")]);
    let listed: Value = app.get("/v1/events").await.json();
    let event: Value = app.get(&format!("/v1/events/{}", text(&listed["data"][0], "id"))).await.data(200);
    assert_eq!((text(&event, "type"), text(&event, "projectId")), ("post.created".to_owned(), "proj_1".to_owned()));
    assert_eq!((&event["data"], text(&event, "occurredAt")), (&json!({"n": 1}), "2026-05-15T08:21:00.500Z".to_owned()));
    producer.emptied().await;
    let source = source_when(app.caller(), SourceState::Running).await;
    assert_eq!((&source["accepted"], &source["parked"], &source["error"]), (&json!(1), &json!(0), &Value::Null));
}

/// Sequences are given out before the commit, so a later number may be seen first. A poller that remembers the highest
/// number skips the row that commits late, and says nothing.
#[tokio::test]
async fn a_row_that_commits_late_is_not_skipped() {
    let Some(producer) = Producer::new().await else { return };
    let mirror = "CREATE TABLE mirror (seq bigint GENERATED ALWAYS AS IDENTITY, external_id text)";
    producer.client.batch_execute(mirror).await.unwrap();
    let app = producer.app().await;
    let publish = async |client: &Client, id: &str| {
        insert(client, "post.created", &json!({}), Some(id)).await;
        client.execute("INSERT INTO mirror (external_id) VALUES ($1)", &[&id]).await.unwrap();
    };
    let (mut cursor, mut by_cursor) = (0_i64, Vec::<String>::new());
    let mut poll = async || {
        let sql = "SELECT seq, external_id FROM mirror WHERE seq > $1 ORDER BY seq";
        for row in producer.client.query(sql, &[&cursor]).await.unwrap() {
            cursor = row.get(0);
            by_cursor.push(row.get(1));
        }
    };
    let late = producer.database.client().await;
    late.batch_execute("BEGIN").await.unwrap();
    publish(&late, "late").await;
    publish(&producer.client, "early").await;
    accepted_when(app.caller(), 1).await;
    poll().await;
    late.batch_execute("COMMIT").await.unwrap();
    poll().await;
    let found = accepted_when(app.caller(), 2).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), ["early", "late"]);
    assert_eq!(by_cursor, ["early"], "a cursor misses the late row, so this test would find that mistake");
}

/// Many producers whose transactions commit in any order, and a third of which roll back.
#[tokio::test]
async fn concurrent_producers_lose_nothing() {
    const PRODUCERS: usize = 6;
    const EACH: usize = 60;
    let Some(producer) = Producer::new().await else { return };
    let app = producer.app().await;
    let mut producing = JoinSet::new();
    for number in 0..PRODUCERS {
        let client = producer.database.client().await;
        producing.spawn(async move {
            for n in 0..EACH {
                client.batch_execute("BEGIN").await.unwrap();
                insert(&client, "post.created", &json!({}), Some(&format!("{number}-{n}"))).await;
                if (number + n) % 4 == 0 {
                    // Others take their numbers and commit meanwhile.
                    client.batch_execute("SELECT pg_sleep(0.01)").await.unwrap();
                }
                client.batch_execute(if n % 3 == 0 { "ROLLBACK" } else { "COMMIT" }).await.unwrap();
            }
        });
    }
    bounded("the producers", producing.join_all()).await;
    producer.emptied().await;
    let committed = (0..PRODUCERS).flat_map(|number| (0..EACH).map(move |n| (number, n)));
    let committed: BTreeSet<String> =
        committed.filter(|(_, n)| n % 3 != 0).map(|(number, n)| format!("{number}-{n}")).collect();
    let found = accepted_when(app.caller(), committed.len()).await;
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), committed, "each committed row, and no other");
}

/// The window between the commit here and the deletion there: a trigger holds the deletion until the server is dead.
#[tokio::test]
async fn a_kill_between_accept_and_delete_repeats_nothing() {
    let Some(producer) = Producer::new().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("postrider.toml");
    let settings = format!(
        "[[source]]\nname = \"{NAME}\"\nkind = \"outbox\"\nworkspace = \"Acme\"\nurl = \"{}\"\n",
        producer.database.url()
    );
    std::fs::write(&file, settings).unwrap();
    let data = directory.path().join("data");
    let scopes = ["--workspace", "Acme", "--scope", "events:read"];
    let key = text(&create_key(&data, &scopes).await, "key");
    let arguments = ["--config", file.to_str().unwrap()];
    let hold = "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
                  'BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN OLD; END';
                CREATE TRIGGER hold BEFORE DELETE ON postrider_outbox FOR EACH ROW EXECUTE FUNCTION hold();";
    producer.client.batch_execute(hold).await.unwrap();
    let holder = producer.database.client().await;
    for round in 1..=3 {
        holder.batch_execute("SELECT pg_advisory_lock(4711)").await.unwrap();
        let server = Serving::start(&data, &arguments).await;
        let caller = server.caller().key(&key);
        producer.publish(&format!("round-{round}")).await;
        accepted_when(&caller, round).await;
        assert_eq!(producer.rows().await, 1, "it is accepted and not deleted");
        server.kill().await;
        holder.batch_execute("SELECT pg_advisory_unlock(4711)").await.unwrap();
        let server = Serving::start(&data, &arguments).await;
        let caller = server.caller().key(&key);
        producer.emptied().await;
        let found = accepted(&caller).await;
        assert_eq!(found.len(), round, "{found:?}");
        assert!(found.values().all(|count| *count == 1), "{found:?}");
        let repeated = eventually("a settled row", || async {
            source(&caller).await["repeated"].as_u64().filter(|repeated| *repeated > 0)
        });
        assert_eq!(repeated.await, 1, "it came again and was known");
        server.kill().await;
    }
}

/// Others put such a message back for ever, drop it, or stop at it.
#[tokio::test]
async fn poison_in_a_batch_is_parked_and_stops_nothing() {
    let Some(producer) = Producer::new().await else { return };
    let large = json!({"text": "x".repeat(limits::BODY_BYTES)});
    producer.client.batch_execute("BEGIN").await.unwrap();
    producer.publish("first").await;
    producer.insert("post.vanished", &json!({"n": 1}), Some("unknown")).await;
    producer.insert("post.created", &json!([1]), Some("shape")).await;
    producer.insert("post.created", &large, Some("large")).await;
    producer.insert("post.created", &json!({}), Some("an id")).await;
    producer.publish("last").await;
    producer.client.batch_execute("COMMIT").await.unwrap();
    let app = producer.app().await;
    let parked = parked_when(app.caller(), 4).await;
    let reasons: Vec<String> = parked.iter().rev().map(|message| text(message, "reason")).collect();
    assert_eq!(reasons, ["unknown_type", "wrong_shape", "too_large", "wrong_shape"]);
    producer.emptied().await;
    assert_eq!(accepted(app.caller()).await.into_keys().collect::<Vec<_>>(), ["first", "last"]);
    let unknown: Value = app.get(&format!("/v1/parked-messages/{}", text(&parked[3], "id"))).await.data(200);
    let body = base64_text(&unknown);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["data"], json!({"n": 1}), "nothing of it is lost");
    let cut = text(&parked[1], "id");
    assert_eq!(app.post(&format!("/v1/parked-messages/{cut}/retry"), json!({})).await.status, 409);
}

fn base64_text(parked: &Value) -> String {
    use base64::Engine as _;
    let bytes = base64::prelude::BASE64_STANDARD.decode(text(parked, "body")).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn one_id_with_two_contents_is_poison_not_a_stop() {
    let Some(producer) = Producer::new().await else { return };
    producer.client.batch_execute("BEGIN").await.unwrap();
    producer.insert("post.created", &json!({"n": 1}), Some("a")).await;
    producer.insert("post.created", &json!({"n": 1}), Some("a")).await;
    producer.insert("post.created", &json!({"n": 2}), Some("a")).await;
    producer.client.batch_execute("COMMIT").await.unwrap();
    let app = producer.app().await;
    assert_eq!(text(&parked_when(app.caller(), 1).await[0], "reason"), "id_reused");
    producer.emptied().await;
    // Also when the first one came in an earlier batch.
    producer.insert("post.created", &json!({"n": 3}), Some("a")).await;
    producer.publish("b").await;
    parked_when(app.caller(), 2).await;
    assert_eq!(accepted_when(app.caller(), 2).await.into_keys().collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn a_parked_message_is_retried_once_its_reason_is_gone() {
    let Some(producer) = Producer::new().await else { return };
    let mut app = producer.app_with(|terms| terms.mode = postrider_domain::mode::Mode::Live, |_| {}).await;
    producer.insert("post.created", &json!({"n": 1}), Some("a")).await;
    accepted_when(app.caller(), 1).await;
    producer.insert("order.paid", &json!({"n": 2}), Some("b")).await;
    let id = text(&parked_when(app.caller(), 1).await[0], "id");
    let retry = format!("/v1/parked-messages/{id}/retry");
    let refused = app.post(&retry, json!({})).await;
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains("unknown_type"), "{}", refused.text());
    // The operator adds the type.
    let events = app.data_dir().join("events.toml");
    let catalogue = include_str!("../../events.toml").replace("\nversion = 1\n", "\nversion = 1000\n");
    let added = format!(
        "{catalogue}\n[[event]]\nname = \"order.paid\"\ndescription = \"An order was paid.\"\n\
         schema = \"\"\"{{\"type\": \"object\"}}\"\"\"\nexample = \"\"\"{{}}\"\"\"\n"
    );
    std::fs::write(&events, added).unwrap();
    app.stop().await;
    app = app.change_settings(|settings| settings.events_file = Some(events));
    app.start_again().await;
    source_when(app.caller(), SourceState::Running).await;
    let receipt = app.post(&retry, json!({})).await.data(202);
    assert_eq!(text(&receipt, "externalId"), "b");
    parked_when(app.caller(), 0).await;
    assert_eq!(app.post(&retry, json!({})).await.status, 404);
    assert_eq!(accepted(app.caller()).await.len(), 2);
}

#[tokio::test]
async fn a_full_parking_place_stops_the_source_until_there_is_room() {
    let Some(producer) = Producer::new().await else { return };
    let app = producer.app_with(|terms| terms.parked_max = 2, |_| {}).await;
    producer.client.batch_execute("BEGIN").await.unwrap();
    for n in 0..3 {
        producer.insert("no.type", &json!({"n": n}), None).await;
    }
    producer.publish("good").await;
    producer.client.batch_execute("COMMIT").await.unwrap();
    source_when(app.caller(), SourceState::ParkedFull).await;
    let parked = parked_when(app.caller(), 2).await;
    assert_eq!(producer.rows().await, 1, "the third one stays with the producer, the good one is accepted");
    assert_eq!(accepted(app.caller()).await.into_keys().collect::<Vec<_>>(), ["good"]);
    let discarded = app.caller().delete(&format!("/v1/parked-messages/{}", text(&parked[0], "id"))).await;
    assert_eq!(discarded.status, 204);
    producer.emptied().await;
    parked_when(app.caller(), 2).await;
}

#[tokio::test]
async fn the_oldest_parked_messages_make_room_if_asked() {
    let Some(producer) = Producer::new().await else { return };
    let drop = |terms: &mut SourceTerms| (terms.parked_max, terms.parked_full) = (2, ParkedFull::DropOldest);
    let app = producer.app_with(drop, |_| {}).await;
    for n in 0..3 {
        producer.insert("no.type", &json!({"n": n}), Some(&format!("n-{n}"))).await;
        producer.emptied().await;
    }
    let parked = parked_when(app.caller(), 2).await;
    let mut numbers = Vec::new();
    for message in &parked {
        let whole = app.get(&format!("/v1/parked-messages/{}", text(message, "id"))).await.data(200);
        numbers.push(serde_json::from_str::<Value>(&base64_text(&whole)).unwrap()["data"]["n"].clone());
    }
    assert_eq!(numbers, [json!(2), json!(1)]);
    let auditor = app.caller_of("Acme", &[postrider_domain::access::Scope::AuditRead]).await;
    let audit: Value = auditor.get("/v1/audit-log").await.json();
    let dropped: Vec<&Value> =
        audit["data"].as_array().unwrap().iter().filter(|entry| entry["action"] == "parked_messages.dropped").collect();
    assert_eq!((dropped.len(), &dropped[0]["actor"]["type"]), (1, &json!("source")));
}

/// Others end after some tries and must be restarted by hand.
#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let Some(producer) = Producer::new().await else { return };
    let app = producer.app().await;
    producer.publish("before").await;
    accepted_when(app.caller(), 1).await;
    for round in 0..3 {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid()";
        producer.client.execute(cut, &[]).await.unwrap();
        producer.publish(&format!("after-{round}")).await;
        accepted_when(app.caller(), round + 2).await;
    }
    source_when(app.caller(), SourceState::Running).await;
}

#[tokio::test]
async fn a_database_that_does_not_exist_yet_is_tried_again() {
    let Some(producer) = Producer::new().await else { return };
    producer.client.batch_execute("ALTER TABLE postrider_outbox RENAME TO away").await.unwrap();
    let app = producer.app().await;
    eventually("an error about the table", || async {
        let found = source(app.caller()).await;
        let error = found["error"].as_str().unwrap_or_default().to_owned();
        (error.starts_with("cannot read the outbox") && error.contains("does not exist")).then_some(())
    })
    .await;
    producer.client.batch_execute("ALTER TABLE away RENAME TO postrider_outbox").await.unwrap();
    producer.publish("a").await;
    accepted_when(app.caller(), 1).await;
    source_when(app.caller(), SourceState::Running).await;
}

/// A store that refuses is no fault of the message: it stays, and is neither parked nor lost.
#[tokio::test]
async fn a_store_without_room_leaves_the_rows_where_they_are() {
    let Some(producer) = Producer::new().await else { return };
    let few = |settings: &mut Settings| settings.workspace_max_bytes = Some(limits::WORKSPACE_BYTES_MIN);
    let mut app = producer.app_with(|_| {}, few).await;
    let bytes = usize::try_from(limits::WORKSPACE_BYTES_MIN).unwrap() / 4;
    let text_of = "x".repeat(bytes.min(limits::BODY_BYTES / 2));
    let rows = limits::WORKSPACE_BYTES_MIN as usize / text_of.len() + 2;
    for n in 0..rows {
        producer.insert("post.created", &json!({"text": text_of}), Some(&format!("n-{n}"))).await;
    }
    eventually("a source that says that the workspace is full", || async {
        let found = source(app.caller()).await;
        found["error"].as_str().is_some_and(|error| error.contains("limit of")).then_some(())
    })
    .await;
    assert!(producer.rows().await > 0);
    app.stop().await;
    app = app.change_settings(|settings| settings.workspace_max_bytes = None);
    app.start_again().await;
    producer.emptied().await;
    assert_eq!(accepted_when(app.caller(), rows).await.len(), rows);
    parked_when(app.caller(), 0).await;
}

#[tokio::test]
async fn a_paused_source_takes_nothing_until_it_is_resumed() {
    let Some(producer) = Producer::new().await else { return };
    let mut app = producer.app().await;
    source_when(app.caller(), SourceState::Running).await;
    let paused = app.post(&format!("/v1/sources/{NAME}/pause"), json!({})).await.data(200);
    assert_eq!(text(&paused, "state"), "paused");
    // It lasts over a restart.
    app.restart().await;
    source_when(app.caller(), SourceState::Paused).await;
    producer.publish("a").await;
    let other = app.caller_of("Other", ALL_SCOPES).await;
    assert_eq!(other.post(&format!("/v1/sources/{NAME}/resume"), json!({})).await.status, 404);
    assert_eq!(other.get(&format!("/v1/sources/{NAME}")).await.status, 404);
    assert_eq!(producer.rows().await, 1);
    app.post(&format!("/v1/sources/{NAME}/resume"), json!({})).await.data(200);
    accepted_when(app.caller(), 1).await;
    source_when(app.caller(), SourceState::Running).await;
}

#[tokio::test]
async fn a_source_waits_for_its_workspace() {
    let Some(producer) = Producer::new().await else { return };
    let app = producer.app_with(|terms| terms.workspace = "Later".to_owned(), |_| {}).await;
    producer.publish("a").await;
    let later = app.caller_of("Later", ALL_SCOPES).await;
    accepted_when(&later, 1).await;
    assert!(accepted(app.caller()).await.is_empty());
}

/// Two nodes share one outbox, and one of them dies.
#[tokio::test]
async fn two_nodes_take_each_row_once() {
    let Some(producer) = Producer::new().await else { return };
    let Some(store) = TestDatabase::new().await else { return };
    let store = Arc::new(store);
    let source = producer.source(|terms| terms.max_in_flight = 5);
    let setup = App::set_up().await.on(&store).change(|settings| settings.sources = vec![source]);
    let other = setup.settings.clone();
    let app = setup.start().await;
    let second = tempfile::tempdir().unwrap();
    let other = Settings { data_dir: second.path().to_owned(), ..other };
    let clock = Arc::new(crate::support::clock::ShiftedClock::default());
    let other = bounded("a second node", postrider::server::Server::start(&other, clock)).await.unwrap();
    for n in 0..100 {
        producer.publish(&format!("a-{n}")).await;
    }
    bounded("the end of the second node", other.stop()).await;
    for n in 0..50 {
        producer.publish(&format!("b-{n}")).await;
    }
    producer.emptied().await;
    let found = accepted_when(app.caller(), 150).await;
    assert!(found.len() == 150 && found.values().all(|count| *count == 1), "{found:?}");
}

#[tokio::test]
async fn a_pull_is_bounded_by_messages_and_by_bytes() {
    let Some(producer) = Producer::new().await else { return };
    for n in 0..10 {
        producer.insert("post.created", &json!({"n": n, "text": "x".repeat(1_000)}), None).await;
    }
    let mut feed = OutboxConnector(producer.outbox()).connect().await.unwrap();
    let pulled = feed.pull(PullLimit { messages: 3, bytes: usize::MAX }).await.unwrap();
    assert_eq!(pulled.len(), 3);
    feed.settle(&[Settlement::Done, Settlement::Release, Settlement::Done]).await.unwrap();
    assert_eq!(producer.rows().await, 8);
    let pulled = feed.pull(PullLimit { messages: 500, bytes: 3_500 }).await.unwrap();
    assert_eq!(pulled.len(), 3, "three of about 1,030 bytes fit");
    feed.settle(&[Settlement::Release; 3]).await.unwrap();
    let pulled = feed.pull(PullLimit { messages: 500, bytes: 1 }).await.unwrap();
    assert_eq!(pulled.len(), 1, "one message may exceed the limit, or it would never come");
}

#[tokio::test]
async fn the_printed_table_is_one_that_works() {
    let printed = postrider(&["outbox", "sql", "--table", "outbox_of_shop"]).await.stdout;
    let Some(database) = TestDatabase::without_tables().await else { return };
    let client = database.client().await;
    client.batch_execute(&printed).await.unwrap();
    let settings = OutboxSettings {
        url: DatabaseUrl::parse(&database.url()).unwrap(),
        password_file: None,
        ca_file: None,
        table: OutboxTable::parse("outbox_of_shop").unwrap(),
    };
    assert_eq!(postrider_source::check_outbox(&settings).await.unwrap(), Vec::<String>::new());
    client.batch_execute("ALTER TABLE outbox_of_shop DROP COLUMN external_id").await.unwrap();
    client.batch_execute("ALTER TABLE outbox_of_shop DROP CONSTRAINT outbox_of_shop_pkey").await.unwrap();
    client.batch_execute("ALTER TABLE outbox_of_shop RESET (autovacuum_vacuum_scale_factor)").await.unwrap();
    let faults = postrider_source::check_outbox(&settings).await.unwrap();
    let all = faults.join("\n");
    assert!(all.contains("no column external_id") && all.contains("no index") && all.contains("autovacuum"), "{all}");
}
