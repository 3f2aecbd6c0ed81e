//! The address from which a request came.

use std::net::IpAddr;

/// The caller's address. The front door puts it into the extensions of each request: the peer's address, or the one that
/// a trusted proxy names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallerAddress(pub IpAddr);
