//! The accept loop: at most so many connections at a time, and an end that waits for their requests.

use std::io;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use postrider_domain::error_chain::Chain;
use postrider_domain::limits;

use crate::connection::{Accepted, serve_connection};
use crate::door::Door;

/// Serves `router` until `stop` is cancelled. Returns when all connections have ended: idle ones at once, the others
/// with their answer, or all of them when `cut` is cancelled.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    door: Arc<Door>,
    stop: CancellationToken,
    cut: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(door.limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    let accepting = async {
        loop {
            // A connection that gets no permit stays in the queue of the operating system and uses no descriptor.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let Some((stream, peer)) = accept(&listener).await else { continue };
            let accepted = Accepted { stream, peer, at: Instant::now(), stop: stop.child_token() };
            let (door, router, cut) = (Arc::clone(&door), router.clone(), cut.child_token());
            connections.spawn(async move {
                let _permit = permit;
                tokio::select! {
                    () = serve_connection(door, router, accepted) => {}
                    () = cut.cancelled() => {}
                }
            });
        }
    };
    tokio::select! {
        () = accepting => {}
        () = stop.cancelled() => {}
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// The next connection. `None` after a fault, such as a lack of open files. Waits before it returns a fault that does
/// not concern one connection alone, because accepting at once would fail again.
async fn accept(listener: &TcpListener) -> Option<(tokio::net::TcpStream, std::net::SocketAddr)> {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    match listener.accept().await {
        Ok(accepted) => Some(accepted),
        Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) => None,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot accept a connection; trying again");
            tokio::time::sleep(limits::ACCEPT_RETRY_WAIT).await;
            None
        }
    }
}
