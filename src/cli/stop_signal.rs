//! The signals that stop this process.

use tokio::signal::unix::{SignalKind, signal};

/// Completes at SIGTERM or SIGINT.
pub async fn wait_for_stop_signal() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
