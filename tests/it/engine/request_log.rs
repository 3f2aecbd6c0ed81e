//! The delivery log shows the request as it was sent, also after its endpoint has changed.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use postrider_domain::access::Scope;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::support::app::{App, text};
use crate::support::dns::Answer;
use crate::support::receiver::ReservedPort;
use crate::support::tls::TestCa;
use crate::support::wait::bounded;

const EVENT: &str = "post.created";

/// The header lines of one HTTP/1.1 request, as the bytes on the wire.
type Lines = Vec<(String, String)>;

/// Answers each request on a connection of its own. Sends the header lines of each.
async fn raw_receiver() -> (SocketAddr, mpsc::UnboundedReceiver<Lines>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            let end = loop {
                if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                    break end;
                }
                if stream.read_buf(&mut bytes).await.unwrap() == 0 {
                    return;
                }
            };
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let lines: Lines = head
                .split("\r\n")
                .skip(1)
                .map(|line| line.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
            let length: usize = lines.iter().find(|(name, _)| name == "content-length").unwrap().1.parse().unwrap();
            while bytes.len() < end + 4 + length {
                stream.read_buf(&mut bytes).await.unwrap();
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
            let _ = sender.send(lines);
        }
    });
    (address, received)
}

fn attempt_of(delivery: &Value) -> &Value {
    &delivery["attempts"][0]
}

fn shown(attempt: &Value) -> Lines {
    let headers = attempt["requestHeaders"].as_array().unwrap();
    headers.iter().map(|header| (text(header, "name"), text(header, "value"))).collect()
}

/// Replaces the values of these headers, as the log shows them.
fn redacted(mut lines: Lines, names: &[&str]) -> Lines {
    for (name, value) in &mut lines {
        if names.contains(&&**name) {
            "[redacted]".clone_into(value);
        }
    }
    lines
}

#[tokio::test]
async fn logged_headers_are_those_sent_also_after_later_changes() {
    let app = App::to_loopback().await;
    let (address, mut received) = raw_receiver().await;
    let (elsewhere, _received) = raw_receiver().await;
    let endpoint = app
        .endpoint(json!({
            "name": "A receiver",
            "url": format!("http://{address}/hook?team=a"),
            "events": [EVENT],
            "headers": {"X-Token": "hush-hush", "authorization": "Bearer hush"},
            "signatureSchemes": ["v1", "v1a"],
        }))
        .await;
    let path = format!("/v1/webhook-endpoints/{}", endpoint.id);
    app.post(&format!("{path}/rotate-secret"), json!({"overlapSeconds": 3600})).await.data(200);
    let event = app.publish(EVENT, json!({"n": 1})).await;
    let delivery = app.delivery_ended(&event, "delivered").await;
    let sent = bounded("a request", received.recv()).await.unwrap();
    assert_eq!(sent.iter().filter(|(name, _)| name == "webhook-signature").count(), 1);
    assert!(sent.iter().any(|(name, value)| name == "webhook-signature" && value.split(' ').count() == 4), "{sent:?}");
    let expected = redacted(sent, &["x-token", "authorization"]);
    assert_eq!(shown(attempt_of(&delivery)), expected);
    assert_eq!(attempt_of(&delivery)["httpVersion"], "1.1");

    app.post(&format!("{path}/rotate-secret"), json!({"revokeQueued": true})).await.data(200);
    let url = format!("http://{elsewhere}/");
    let change = json!({"url": url, "headers": {"X-Other": "new"}});
    app.caller().send(Method::PATCH, &path, change.to_string()).await.data(200);
    assert_eq!(app.delivery(&text(&delivery, "id")).await, delivery, "nothing of the log has changed");
    assert!(!delivery.to_string().contains("hush"), "{delivery}");
}

#[tokio::test]
async fn a_repetition_and_a_test_show_their_marks_as_sent() {
    let app = App::to_loopback().await;
    let (address, mut received) = raw_receiver().await;
    let endpoint = app.endpoint_at(&format!("http://{address}/"), &[EVENT]).await;
    let event = app.publish(EVENT, json!({})).await;
    let first = app.delivery_ended(&event, "delivered").await;
    let sent = bounded("the event", received.recv()).await.unwrap();
    assert_eq!(shown(attempt_of(&first)), sent);
    let retry = app.post(&format!("/v1/webhook-deliveries/{}/retry", text(&first, "id")), json!({})).await.data(202);
    let test = app.post(&format!("/v1/webhook-endpoints/{}/test", endpoint.id), json!({})).await.data(202);
    for (queued, mark) in [(retry, "scripe-replay"), (test, "scripe-test")] {
        let id = text(&queued, "id");
        let ended = |all: &[Value]| all.iter().any(|one| one["id"] == *id && one["status"] == "delivered");
        app.deliveries_when("", "holds the delivered one", ended).await;
        let shown = shown(attempt_of(&app.delivery(&id).await));
        let sent = loop {
            let sent = bounded("a request", received.recv()).await.unwrap();
            if sent.contains(&("scripe-delivery-id".to_owned(), id.clone())) {
                break sent;
            }
        };
        assert_eq!(shown, sent);
        assert!(shown.contains(&(mark.to_owned(), "true".to_owned())), "{shown:?}");
    }
}

#[tokio::test]
async fn over_http_2_the_log_shows_authority_first() {
    let ca = TestCa::new();
    let app = App::set_up().await.allow("127.0.0.0/8").trust(&ca).start().await;
    app.dns().set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let acceptor = TlsAcceptor::from(ca.leaf(&["hooks.test"]).server_config(&["h2"]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, mut received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A registration only connects.
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = service_fn(|request: Request<Incoming>| {
                let sender = sender.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let _ = body.collect().await;
                    let authority = (":authority".to_owned(), head.uri.authority().unwrap().to_string());
                    let fields = head.headers.iter();
                    let fields = fields.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
                    let _ = sender.send(std::iter::once(authority).chain(fields).collect::<Lines>());
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
                }
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    });
    app.endpoint_at(&format!("https://hooks.test:{port}/in"), &[EVENT]).await;
    let event = app.publish(EVENT, json!({})).await;
    let delivery = app.delivery_ended(&event, "delivered").await;
    let sent = bounded("a request", received.recv()).await.unwrap();
    assert_eq!(shown(attempt_of(&delivery)), sent);
    assert_eq!(attempt_of(&delivery)["httpVersion"], "2");
}

#[tokio::test]
async fn without_a_request_no_headers_are_shown() {
    let app = App::to_loopback().await;
    let closed = ReservedPort::reserve();
    app.endpoint_at(&format!("http://{}/", closed.address()), &[EVENT]).await;
    let event = app.publish(EVENT, json!({})).await;
    let delivery = app.attempted(&event, 1).await;
    let attempt = attempt_of(&delivery);
    assert_eq!((&attempt["outcome"], &attempt["fault"]), (&json!("connect_failed"), &json!("receiver")));
    for absent in ["requestHeaders", "httpVersion", "remoteAddress"] {
        assert!(attempt.get(absent).is_none(), "{attempt}");
    }
}

#[tokio::test]
async fn only_an_operators_key_sees_the_remote_address() {
    let app = App::to_loopback().await;
    let (address, _received) = raw_receiver().await;
    app.endpoint_at(&format!("http://{address}/"), &[EVENT]).await;
    let event = app.publish(EVENT, json!({})).await;
    let delivery = app.delivery_ended(&event, "delivered").await;
    assert!(attempt_of(&delivery).get("remoteAddress").is_none(), "{delivery}");
    let path = format!("/v1/webhook-deliveries/{}", text(&delivery, "id"));
    let operator = app.caller_of("Acme", &[Scope::WebhooksRead, Scope::WorkspacesManage]).await;
    let seen = operator.get(&path).await.data(200);
    assert_eq!(attempt_of(&seen)["remoteAddress"], "127.0.0.1");
}
