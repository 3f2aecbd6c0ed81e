//! One exchange on a connection: reads a request and performs the scripted behaviour.

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::{Answer, Behaviour, GZIP_BOMB_BYTES, Received, Shared};

/// A stream that gives access to its socket.
pub trait Wire: AsyncRead + AsyncWrite + Unpin {
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn socket(&self) -> &TcpStream {
        self.get_ref().0
    }
}

pub async fn read_request(
    wire: &mut impl Wire,
    unread: &mut Vec<u8>,
    connection: usize,
) -> io::Result<Option<Received>> {
    let head_length = loop {
        if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if wire.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<u8> = unread.drain(..head_length).collect();
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let mut lines = head.lines();
    let mut request_line = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, path) = (request_line.next().unwrap_or_default(), request_line.next().unwrap_or_default());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name: HeaderName = name.parse().map_err(io::Error::other)?;
        headers.append(name, value.trim().parse().map_err(io::Error::other)?);
    }
    let length = headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let length: usize = length.unwrap_or(0);
    while unread.len() < length {
        if wire.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    }
    let body = unread.drain(..length).collect();
    Ok(Some(Received { method, path, headers, body, at: Instant::now(), connection, tls: None }))
}

/// One answer to one request.
pub struct Exchange<'a, W> {
    pub wire: &'a mut W,
    pub shared: &'a Shared,
}

impl<W: Wire> Exchange<'_, W> {
    /// Returns whether the connection may carry another request.
    pub async fn perform(&mut self, behaviour: Behaviour) -> io::Result<bool> {
        const PROMISE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
        match behaviour {
            Behaviour::Answer(answer) => return self.answer(&answer).await.map(|()| true),
            Behaviour::Hold(gate, answer) => {
                gate.opened().await;
                return self.answer(&answer).await.map(|()| true);
            }
            Behaviour::Late(time, answer) => {
                tokio::time::sleep(time).await;
                return self.answer(&answer).await.map(|()| true);
            }
            Behaviour::StallBeforeHeaders => until_hang_up(self.wire).await?,
            Behaviour::StallMidBody => {
                self.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await?;
                until_hang_up(self.wire).await?;
            }
            Behaviour::CutMidBody => self.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await?,
            Behaviour::DripHeaders(interval) => {
                self.send(b"HTTP/1.1 200 OK\r\nx-drip: ").await?;
                self.drip(interval).await?;
            }
            Behaviour::DripBody(interval) => {
                self.send(PROMISE.as_bytes()).await?;
                self.drip(interval).await?;
            }
            Behaviour::EndlessBody => {
                self.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
                let chunk = [b"1000\r\n", &[b'a'; 0x1000][..], b"\r\n"].concat();
                self.send_forever(&chunk).await?;
            }
            Behaviour::EndlessInterim => {
                self.send_forever(b"HTTP/1.1 103 Early Hints\r\nlink: </a>; rel=preload\r\n\r\n").await?;
            }
            Behaviour::GzipBomb => {
                let answer = Answer::status(200).header("content-encoding", "gzip").body(gzip_bomb());
                return self.answer(&answer).await.map(|()| true);
            }
            Behaviour::HugeHeader => {
                self.answer(&Answer::status(200).header("x-huge", &"a".repeat(1 << 20))).await?;
            }
            Behaviour::ManyHeaders => {
                let headers = (0..20_000).map(|number| (format!("x-{number}"), "a".to_owned())).collect();
                self.answer(&Answer { headers, ..Answer::status(200) }).await?;
            }
            Behaviour::EndlessHeaders => {
                self.send(b"HTTP/1.1 200 OK\r\n").await?;
                let header = format!("x-more: {}\r\n", "a".repeat(1 << 10));
                self.send_forever(header.as_bytes()).await?;
            }
            Behaviour::Reset => {
                self.wire.socket().set_zero_linger()?;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Behaviour::CloseWithoutAnswer => {}
            Behaviour::NotHttp => self.send(b"SSH-2.0-OpenSSH_9.6\r\n").await?,
            Behaviour::KeepAliveThenClose => {
                self.answer(&Answer::status(200).header("connection", "keep-alive")).await?;
                self.wire.socket().peek(&mut [0]).await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(false)
    }

    async fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        self.send(&[answer.head().as_bytes(), &answer.body].concat()).await
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(16 << 10) {
            self.wire.write_all(piece).await?;
            self.shared.counts.send_modify(|counts| counts.bytes_sent += piece.len());
        }
        self.wire.flush().await
    }

    async fn send_forever(&mut self, piece: &[u8]) -> io::Result<()> {
        loop {
            self.send(piece).await?;
        }
    }

    async fn drip(&mut self, interval: Duration) -> io::Result<()> {
        loop {
            self.send(b"a").await?;
            tokio::time::sleep(interval).await;
        }
    }
}

/// Reads and discards until the other side closes.
pub async fn until_hang_up(wire: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut buffer = [0; 1024];
    while wire.read(&mut buffer).await? > 0 {}
    Ok(())
}

pub fn gzip_bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        io::Write::write_all(&mut encoder, &vec![0; GZIP_BOMB_BYTES]).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    })
}
