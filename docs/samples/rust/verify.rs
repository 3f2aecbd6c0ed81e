//! A webhook receiver: verifies each delivery, answers 204 or 400, prints a line per event.
//!
//! Needs the crates axum, serde_json, standardwebhooks and tokio. Run it in this repository with
//! `WEBHOOK_SECRET=whsec_… PORT=9003 cargo run --example verify`.

#![expect(clippy::disallowed_methods, reason = "a standalone sample, which reads its own settings")]

use std::env;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use standardwebhooks::Webhook;

/// An event has at most 256 KB. A body above this limit is not from the sender.
const BODY_BYTES_MAX: usize = 512 * 1024;

/// The signature covers the bytes of `body`. Do not parse and re-serialise before verifying.
async fn receive(State(webhook): State<Arc<Webhook>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    if let Err(error) = webhook.verify(&body, &headers) {
        println!("refused: {error}");
        return StatusCode::BAD_REQUEST;
    }
    let Ok(event) = serde_json::from_slice::<serde_json::Value>(&body) else { return StatusCode::BAD_REQUEST };
    // Your code here: drop the event if its id was handled before, else put it in a queue. Then answer at once.
    println!("verified {} {}", event["id"].as_str().unwrap_or("?"), event["type"].as_str().unwrap_or("?"));
    StatusCode::NO_CONTENT
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let webhook = Arc::new(Webhook::new(&env::var("WEBHOOK_SECRET")?)?);
    let port: u16 = env::var("PORT").map_or(Ok(9003), |port| port.parse())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let app = Router::new().fallback(post(receive)).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(webhook);
    axum::serve(listener, app).await?;
    Ok(())
}
