//! The store's own facts: its tag, its row keys, its named values.

use std::time::Duration;

use crate::store::fixture::{Fixture, START, TAG};

on_each_backend! {
    a_named_value_keeps_its_first_content,
    a_store_keeps_its_first_tag,
    row_keys_only_grow_even_when_the_clock_steps_back,
    a_working_store_passes_its_check,
}

async fn a_named_value_keeps_its_first_content(mut at: Fixture) {
    assert_eq!(at.store().meta("fact").await.unwrap(), None);
    assert_eq!(at.store().meta_or_insert("fact", b"first".to_vec()).await.unwrap(), b"first");
    assert_eq!(at.store().meta_or_insert("fact", b"second".to_vec()).await.unwrap(), b"first");
    assert_eq!(at.store().meta_or_insert("other", b"another".to_vec()).await.unwrap(), b"another");
    at.reopen().await;
    assert_eq!(at.store().meta("fact").await.unwrap().as_deref(), Some(&b"first"[..]));
    assert_eq!(at.store().meta_or_insert("fact", Vec::new()).await.unwrap(), b"first");
}

async fn a_store_keeps_its_first_tag(mut at: Fixture) {
    assert_eq!(at.store().tag(), TAG);
    at.reopen().await;
    assert_eq!(at.store().tag(), TAG, "the seed of a later process is ignored");
}

async fn row_keys_only_grow_even_when_the_clock_steps_back(at: Fixture) {
    let mut last = at.store().next_key();
    assert_eq!(last.created_at(), START);
    for step in 0..5_000 {
        if step % 100 == 0 {
            at.clock.set(START.minus(Duration::from_secs(step)));
        }
        let next = at.store().next_key();
        assert!(last < next, "{last:?} is not before {next:?}");
        last = next;
    }
    let key_of_event = at.publish(1).await[0].id.key();
    assert!(last < key_of_event && key_of_event < at.store().next_key());
}

async fn a_working_store_passes_its_check(at: Fixture) {
    at.store().check().await.unwrap();
}
