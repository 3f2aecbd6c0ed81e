//! The nodes of a store.

use std::time::Duration;

use crate::store::fixture::{Fixture, START};
use crate::support::wait::eventually;

on_each_backend! {
    an_open_store_lists_its_process,
}

async fn an_open_store_lists_its_process(mut at: Fixture) {
    at.advance(Duration::from_millis(1));
    at.reopen().await;
    // The predecessor deregisters in the background.
    let alone = || async { <[_; 1]>::try_from(at.store().list_nodes().await.unwrap()).ok() };
    let [node] = eventually("a process that is alone", alone).await;
    assert_eq!((node.version.as_deref(), node.is_running), (Some(crate::store::VERSION), true));
    assert!(node.started_at.is_some_and(|at| at > START), "{node:?}");
    assert!(Some(node.last_seen_at) >= node.started_at, "{node:?}");
}
