//! A relay between a node and its database. It can cut the connection at the worst moment: after a commit was sent and
//! before its answer.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::receiver::try_connect;
use crate::support::wait::bounded;

/// Relays bytes between a node and the database. Ends when dropped.
pub struct Way {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    is_armed: AtomicBool,
    /// Whether a commit of events has been held back from the database.
    is_caught: watch::Sender<bool>,
    is_cut: watch::Sender<bool>,
}

impl Way {
    pub async fn to(database: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, database, Arc::clone(&shared)));
        Self { address, shared, _accepting: accepting }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Holds back the next commit of accepted events.
    pub fn catch_next_commit(&self) {
        self.shared.is_armed.store(true, Ordering::SeqCst);
    }

    pub async fn caught(&self) {
        let mut changes = self.shared.is_caught.subscribe();
        bounded("a commit to catch", changes.wait_for(|caught| *caught)).await.unwrap();
    }

    /// Closes the connection of the held commit, so that the node sees it as lost.
    pub fn cut(&self) {
        self.shared.is_cut.send_replace(true);
    }
}

async fn accept(listener: TcpListener, database: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((node, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // Without a database, the node sees its connection close.
            if let Ok(server) = try_connect(database).await {
                carry(node, server, &shared).await;
            }
        });
    }
}

async fn carry(node: TcpStream, server: TcpStream, shared: &Shared) {
    for stream in [&node, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let (mut from_node, mut to_node) = node.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        let (mut chunk, mut has_events) = (vec![0; 64 * 1024], false);
        loop {
            let read = from_node.read(&mut chunk).await.unwrap_or(0);
            let bytes = &chunk[..read];
            has_events |= contains(bytes, b"INSERT INTO events");
            if has_events && contains(bytes, b"COMMIT\0") {
                has_events = false;
                if shared.is_armed.swap(false, Ordering::SeqCst) {
                    shared.is_caught.send_replace(true);
                    let _ = shared.is_cut.subscribe().wait_for(|cut| *cut).await;
                    return;
                }
            }
            if read == 0 || to_server.write_all(bytes).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let _ = copy(&mut from_server, &mut to_node).await;
        if *shared.is_caught.borrow() {
            // The server is gone. The node must not see it before the test cuts the connection.
            let _ = shared.is_cut.subscribe().wait_for(|cut| *cut).await;
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
