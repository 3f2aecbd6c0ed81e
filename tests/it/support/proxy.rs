//! A real forward proxy on loopback. It accepts `CONNECT`, records the requests, and behaves as a test sets it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::receiver::try_connect;

/// How the proxy handles a request.
#[derive(Clone, Debug)]
pub enum Habit {
    /// Connects and tunnels. Answers 502 when it cannot connect.
    Tunnel,
    /// Answers with a status and opens no tunnel.
    Status(u16),
    /// Reads the request and never answers.
    Silent,
    Close,
    /// Answers with these bytes, then as [`Self::Silent`].
    Say(&'static str),
}

/// A running proxy. Stops when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _accepting: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    habit: Mutex<Habit>,
    /// The heads of the requests, one per connection.
    asked: Mutex<Vec<String>>,
}

impl Proxy {
    pub async fn start(habit: Habit) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port on loopback");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared { habit: Mutex::new(habit), asked: Mutex::default() });
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, _accepting: accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for the setting.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn now(&self, habit: Habit) {
        *self.shared.habit() = habit;
    }

    /// The heads of all requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked().clone()
    }
}

impl Shared {
    fn habit(&self) -> MutexGuard<'_, Habit> {
        self.habit.lock().expect("no holder panics")
    }

    fn asked(&self) -> MutexGuard<'_, Vec<String>> {
        self.asked.lock().expect("no holder panics")
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut tunnels = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tunnels.spawn(async move {
            let _ended = serve(stream, &shared).await;
        });
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    shared.asked().push(head);
    let habit = shared.habit().clone();
    match habit {
        Habit::Tunnel => {
            // Accepts only an address. The sender resolves and vets the name, not the proxy.
            let target: SocketAddr =
                target.and_then(|target| target.parse().ok()).ok_or(io::ErrorKind::InvalidInput)?;
            let Ok(mut upstream) = try_connect(target).await else {
                return stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
            };
            stream.write_all(b"HTTP/1.1 200 Connection established\r\nvia: 1.1 test\r\n\r\n").await?;
            tokio::io::copy_bidirectional(&mut stream, &mut upstream).await.map(drop)
        }
        Habit::Status(status) => {
            let answer = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: 4\r\n\r\nbody");
            stream.write_all(answer.as_bytes()).await?;
            stay(&mut stream).await
        }
        Habit::Silent => stay(&mut stream).await,
        Habit::Close => Ok(()),
        Habit::Say(words) => {
            stream.write_all(words.as_bytes()).await?;
            stay(&mut stream).await
        }
    }
}

/// Reads and discards until the other side closes.
async fn stay(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}
