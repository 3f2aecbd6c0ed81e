//! The tools for local development over real sockets: the receiver, the client and the tour. A small API stands in for
//! the server.

mod api;
mod client;
mod dev;
mod receiver;
mod tail;

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use postrider_domain::time::Timestamp;
use standardwebhooks::Webhook;

use crate::support::receiver::connect;
use crate::support::wait::bounded;

/// The time at which the tests begin.
const NOON: Timestamp = Timestamp::from_millis(1_778_846_400_000);

/// A webhook to send to a receiver, signed by an independent library.
#[derive(Clone, Debug)]
struct Outgoing {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Outgoing {
    fn signed(secret: &str, id: &str, at: Timestamp, body: &[u8]) -> Self {
        let signature = Webhook::new(secret).unwrap().sign(id, at.seconds(), body).unwrap();
        Self { headers: Vec::new(), body: body.to_vec() }
            .header("webhook-id", id)
            .header("webhook-timestamp", &at.seconds().to_string())
            .header("webhook-signature", &signature)
    }

    /// Sets a header. Replaces a header of the same name.
    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends it on a new connection. Returns the status and the body of the answer.
    async fn post(self, address: SocketAddr, path: &str) -> (u16, String) {
        let mut request = Request::post(path).header("host", address.to_string());
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::from(self.body))).unwrap();
        bounded("the receiver's answer", send(address, request)).await
    }
}

async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> (u16, String) {
    let (mut sender, connection) = handshake(TokioIo::new(connect(address).await)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.into()).unwrap())
}
