//! A receiver that counts, for endpoints that are not measured.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::error::BenchError;
use super::wire::{consume, read_message};

/// Answers every request with 204, until the runtime ends.
pub struct CountingReceiver {
    address: SocketAddr,
    received: Arc<AtomicU64>,
}

/// Time without a request after which waiting for more fails.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

impl CountingReceiver {
    pub async fn start(answer_after: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer_after, Arc::clone(&count)));
            }
        });
        Ok(Self { address, received })
    }

    /// The URL of an endpoint, which differs by its number.
    pub fn url(&self, number: usize) -> String {
        format!("http://{}/{number}", self.address)
    }

    /// Waits until so many requests have arrived.
    pub async fn wait_for(&self, count: u64) -> Result<(), BenchError> {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let received = self.received.load(Ordering::Relaxed);
            if received >= count {
                return Ok(());
            }
            if received > last {
                (last, since) = (received, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                return Err(BenchError::setup(format!("{received} of {count} deliveries arrived")));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

async fn serve(mut stream: TcpStream, answer_after: Duration, received: Arc<AtomicU64>) {
    let mut buffer = BytesMut::new();
    while let Ok(Some(head)) = read_message(&mut stream, &mut buffer).await {
        consume(&mut buffer, &head);
        received.fetch_add(1, Ordering::Relaxed);
        if !answer_after.is_zero() {
            tokio::time::sleep(answer_after).await;
        }
        if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.is_err() {
            break;
        }
    }
}
