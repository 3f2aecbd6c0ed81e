//! The network between a listener and its server: it can be cut, and lead to another server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::receiver::try_connect;

/// Where connections lead. `None`: nowhere.
type Target = Option<SocketAddr>;

/// A port that passes connections on. All of them break when the target changes.
pub struct Link {
    address: SocketAddr,
    target: Arc<watch::Sender<Target>>,
    _accepting: JoinSet<()>,
}

impl Link {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port on loopback");
        let address = listener.local_addr().expect("a bound socket");
        let target = Arc::new(watch::Sender::new(Some(target)));
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&target)));
        Self { address, target, _accepting: accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn cut(&self) {
        self.target.send_replace(None);
    }

    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }
}

async fn accept(listener: TcpListener, target: Arc<watch::Sender<Target>>) {
    let mut passing = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let mut changes = target.subscribe();
        passing.spawn(async move {
            let now = *changes.borrow_and_update();
            let Some(address) = now else { return };
            let Ok(mut far) = try_connect(address).await else { return };
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                _ = changes.changed() => {}
            }
        });
    }
}
