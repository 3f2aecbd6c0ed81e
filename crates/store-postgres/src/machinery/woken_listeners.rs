//! What a notification to the other nodes says: that something is due for their engines, and for which listeners.
//!
//! The text is a hint, as the notification is. A node that does not understand it wakes everything it has.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use postrider_domain::id::RowKey;
use postrider_store::listener::ListenerWaker;

/// What was left for others since the last notification.
#[derive(Debug, Default)]
pub struct WokenListeners(Mutex<Woken>);

#[derive(Debug, Default)]
struct Woken {
    for_engines: bool,
    listeners: BTreeSet<i64>,
}

/// Listeners that one notification names: PostgreSQL carries 8,000 bytes. More are told as all.
const NAMED: usize = 300;
const ALL: &str = "*";
/// Says that only listeners have something new.
const LISTENERS_ONLY: &str = "listeners";

impl WokenListeners {
    pub fn note(&self, listeners: &[RowKey], for_engines: bool) {
        let mut woken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        woken.for_engines |= for_engines;
        if woken.listeners.len() <= NAMED {
            woken.listeners.extend(listeners.iter().map(|listener| listener.as_i64()));
        }
    }

    /// The text of a notification, and empties the note.
    pub fn take_text(&self) -> String {
        let woken = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let named = if woken.listeners.len() > NAMED {
            vec![ALL.to_owned()]
        } else {
            woken.listeners.iter().map(ToString::to_string).collect()
        };
        let whom = (!woken.for_engines && !named.is_empty()).then(|| LISTENERS_ONLY.to_owned());
        whom.into_iter().chain(named).collect::<Vec<_>>().join(" ")
    }
}

/// Wakes what a notification names. Returns whether the engine is meant, too.
pub fn wake_named(text: &str, waker: &ListenerWaker) -> bool {
    let (mut for_engine, mut listeners) = (true, Vec::new());
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match word.parse() {
            Ok(key) => listeners.push(RowKey::from_i64(key)),
            Err(_) if word == LISTENERS_ONLY => for_engine = false,
            Err(_) => waker.wake_all(),
        }
    }
    waker.wake(&listeners);
    for_engine
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_notification_wakes_the_listeners_that_it_names() {
        let (woken, waker) = (WokenListeners::default(), Arc::new(ListenerWaker::default()));
        assert_eq!(woken.take_text(), "");
        let mut wait = waker.wait_for(RowKey::from_i64(7));
        woken.note(&[RowKey::from_i64(7), RowKey::from_i64(5)], false);
        let text = woken.take_text();
        assert_eq!(text, "listeners 5 7");
        assert!(!wake_named(&text, &waker));
        wait.woken().await;
        woken.note(&[RowKey::from_i64(5)], true);
        assert_eq!(woken.take_text(), "5");
        assert!(wake_named("5", &waker) && wake_named("", &waker));
        woken.note(&(0..400).map(RowKey::from_i64).collect::<Vec<_>>(), false);
        assert!(!wake_named(&woken.take_text(), &waker));
        wait.woken().await;
    }
}
