//! `postrider bench` for one second: too short to measure anything, but the run must end and find no fault.

use serde_json::Value;

use crate::support::process::{command, path_text};

#[tokio::test]
async fn a_run_with_failing_receivers_delivers_every_event_and_plots() {
    let directory = tempfile::tempdir().unwrap();
    let plot = directory.path().join("plot.svg");
    let how = ["--seconds", "1", "--publishers", "2", "--payload-bytes", "64", "--json", "--plot", path_text(&plot)];
    // No `bounded` here: the retries can take longer than its limit, and the run has a limit of its own.
    let output = command(&[&["bench", "failing"], &how[..]].concat()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &report["scenarios"][0];
    assert_eq!(row["scenario"], "failing");
    assert!(row["events"].as_u64().unwrap() > 0, "{row}");
    assert!(row["delivered"].as_u64() >= row["events"].as_u64(), "{row}");
    for fault in ["refused", "missing", "misrouted", "badSignatures"] {
        assert_eq!(row[fault], 0, "{row}");
    }
    assert!(std::fs::read_to_string(plot).unwrap().contains(">failing<"));
}
