//! Opens TCP connections: the only call to `TcpStream::connect` that can reach a stranger.
//!
//! `connector` calls it with an address that it has just vetted, `proxy` with an address of the operator's own proxy.
//! It must not resolve names and judges no address.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::exchange::SendError;

/// Connects to an address that has just been vetted, or to the operator's own proxy.
///
/// # Errors
/// When the peer refuses, does not answer within `time`, or this machine is out of sockets, ports or memory.
pub async fn dial(address: SocketAddr, time: Duration) -> Result<TcpStream, SendError> {
    #[expect(clippy::disallowed_methods, reason = "the one permitted place; the callers have vetted the address")]
    let connecting = TcpStream::connect(address);
    let stream = match timeout(time, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(connect_failure(error)),
        Err(_) => return Err(SendError::ConnectTimeout),
    };
    stream.set_nodelay(true).map_err(SendError::ConnectFailed)?;
    Ok(stream)
}

fn connect_failure(error: io::Error) -> SendError {
    // ENFILE, EMFILE and ENOBUFS have no stable `ErrorKind`. The numbers are those of Linux.
    const OUT_OF_RESOURCES: [i32; 3] = [23, 24, 105];
    let out_of_resources = error.raw_os_error().is_some_and(|code| OUT_OF_RESOURCES.contains(&code));
    match error.kind() {
        io::ErrorKind::ConnectionRefused => SendError::ConnectRefused,
        io::ErrorKind::TimedOut => SendError::ConnectTimeout,
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory => SendError::Local(error),
        _ if out_of_resources => SendError::Local(error),
        _ => SendError::ConnectFailed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_descriptors_is_our_own_fault() {
        assert!(matches!(connect_failure(io::Error::from_raw_os_error(24)), SendError::Local(_)));
        assert!(matches!(connect_failure(io::Error::from_raw_os_error(111)), SendError::ConnectRefused));
        assert!(matches!(connect_failure(io::Error::from_raw_os_error(113)), SendError::ConnectFailed(_)));
    }
}
