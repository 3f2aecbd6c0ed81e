//! What every front door shares: the listener with its timers and limits, request ids, security headers, the address of
//! the caller, TLS.
//!
//! | file | what it decides |
//! |---|---|
//! | `listener.rs` | how many connections there are, and when they end at a stop |
//! | `connection.rs` | the life of one connection: handshake, requests, refusal of a bad head, lingering |
//! | `watch.rs` | which deadline a connection has at the moment |
//! | `exchange.rs` | one request: its id, its caller, the headers of its answer, the rest of its body |
//! | `body.rs` | how fast a body must arrive, and how many bytes of bodies are in memory |
//! | `forwarded.rs` | whose address counts behind a proxy |
//! | `certificate.rs` | the certificate, and when it is read again |
//!
//! hyper parses and writes HTTP/1.1. It must not answer by itself: the owner of a listener renders each [`Refusal`]. No
//! rule of the product stands here.

mod body;
mod certificate;
mod connection;
mod door;
mod exchange;
mod forwarded;
mod listener;
mod refusal;
mod stream;
mod watch;

pub use body::BodyFault;
pub use certificate::{Certificate, CertificateError};
pub use door::{Door, DoorLimits};
pub use forwarded::caller_address;
pub use listener::serve;
pub use refusal::{Refusal, RenderRefusal};
