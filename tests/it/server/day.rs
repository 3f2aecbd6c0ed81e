//! A day of traffic on a clock that is moved: retention keeps the files at the size that they reached in its first
//! hours.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::support::app::App;
use crate::support::receiver::Receiver;
use crate::support::wait::eventually;

const HOURS: usize = 24;
const EVENTS_PER_HOUR: usize = 300;
/// By now the log holds as much as retention allows, and freed pages are used again.
const FULL_AFTER: usize = 4;

/// The database and its write-ahead log.
fn store_bytes(data_dir: &Path) -> u64 {
    let size = |name: &str| std::fs::metadata(data_dir.join(name)).map_or(0, |file| file.len());
    size("postrider.db") + size("postrider.db-wal")
}

#[tokio::test]
async fn a_day_of_traffic_leaves_the_files_as_they_were() {
    let mut app = App::set_up()
        .await
        .allow("127.0.0.0/8")
        .measured()
        .change(|settings| settings.retention = Duration::from_secs(3600))
        .start()
        .await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    let event = json!({"type": "post.created", "data": {"text": "x".repeat(4_000)}});
    let mut sizes = Vec::new();
    let (mut removed_before, mut events) = (0.0, 0.0);
    for hour in 1..=HOURS {
        app.post("/v1/events/batch", json!({"events": vec![event.clone(); EVENTS_PER_HOUR]})).await.data(202);
        events += EVENTS_PER_HOUR as f64;
        eventually("the deliveries of an hour", || async {
            let ended =
                app.scrape().await.value("postrider_deliveries_ended_total{status=\"delivered\",reason=\"none\"}");
            (ended >= events).then_some(())
        })
        .await;
        app.clock().advance(Duration::from_secs(3601));
        removed_before = eventually("the removal of what is older than an hour", || async {
            // A round that was at work when the hour ended waits a minute for the next.
            app.clock().advance(Duration::from_secs(61));
            let removed = app.scrape().await.value("postrider_retention_removed_rows_total{kind=\"events\"}");
            (removed >= events).then_some(removed)
        })
        .await;
        if hour == FULL_AFTER || hour == HOURS {
            // A stop writes the whole log into the database, so that the sizes compare.
            app.stop().await;
            sizes.push(store_bytes(app.data_dir()));
            if hour == FULL_AFTER {
                app.start_again().await;
                events = 0.0;
            }
        }
    }
    assert!(removed_before > 0.0);
    let [early, late] = sizes[..] else { panic!("two sizes: {sizes:?}") };
    assert!(early > 1_000_000, "the log has {early} bytes");
    assert!(late * 10 <= early * 11, "the files went from {early} to {late} bytes");
}
