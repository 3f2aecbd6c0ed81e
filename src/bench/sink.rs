//! The receiver of a run: answers 204 at once and notes each arrival.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::arrivals::Arrivals;
use super::wire::{pass, read_message};

/// Listens on a free port until the runtime ends.
pub async fn start(arrivals: Arc<Arrivals>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&arrivals)));
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream, arrivals: Arc<Arrivals>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    while let Ok(Some(head)) = read_message(&mut stream, &mut buffer).await {
        let (text, rest) = buffer.split_at(head.length);
        arrivals.arrived(text, &rest[..head.body_bytes]);
        pass(&mut buffer, &head);
        if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.is_err() {
            break;
        }
    }
}

/// The headers of a signed request, for the ceiling.
pub fn signed_headers(id: &str, timestamp: i64, signature: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("webhook-id"), HeaderValue::from_str(id).ok()?);
    headers.insert(HeaderName::from_static("webhook-timestamp"), HeaderValue::from(timestamp));
    headers.insert(HeaderName::from_static("webhook-signature"), HeaderValue::from_str(signature).ok()?);
    Some(headers)
}
