//! A minimal HTTP/1.1 parser, because the generator must cost far less than the measured server.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The lengths of a message's head and body, in bytes.
pub struct MessageHead {
    pub length: usize,
    pub body_bytes: usize,
}

/// Maximum length of a head.
const HEAD_BYTES: usize = 16 * 1024;

/// Reads until `buffer` contains a whole message. `None` if the connection ends between messages.
pub async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Option<MessageHead>> {
    loop {
        if let Some(head) = parse_head(buffer)? {
            while buffer.len() < head.length + head.body_bytes {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            return Ok(Some(head));
        }
        if buffer.len() > HEAD_BYTES {
            return Err(io::Error::other("the head of an HTTP message is too long"));
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// Removes a processed message from the buffer.
pub fn consume(buffer: &mut BytesMut, head: &MessageHead) {
    buffer.advance(head.length + head.body_bytes);
}

fn parse_head(buffer: &[u8]) -> io::Result<Option<MessageHead>> {
    let Some(end) = find(buffer, b"\r\n\r\n") else { return Ok(None) };
    let body_bytes = match header(&buffer[..end], b"content-length") {
        None => 0,
        Some(value) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| io::Error::other("cannot parse a content-length"))?,
    };
    Ok(Some(MessageHead { length: end + 4, body_bytes }))
}

/// The value of a header. `name` must be lowercase.
pub fn header<'h>(head: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        line[..colon].eq_ignore_ascii_case(name).then(|| line[colon + 1..].trim_ascii())
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The path in the head of a request.
pub fn path(head: &[u8]) -> Option<&[u8]> {
    head.split(|byte| *byte == b'\n').next()?.split(|byte| *byte == b' ').nth(1)
}
