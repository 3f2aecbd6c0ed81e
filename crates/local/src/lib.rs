//! What runs on a desk: a receiver that verifies what it gets, a client of our own API, and the tour that shows
//! the two at work.
//!
//! Everything here stands outside the service and talks to it as a customer would, over HTTP. It must not reach
//! around the API, and the sockets it opens lead only to addresses that the user named.

pub mod client;
pub mod curl;
pub mod dev;
pub mod receiver;
pub mod screen;
pub mod state;
pub mod verify;
