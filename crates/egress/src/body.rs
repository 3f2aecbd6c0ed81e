//! Reads the body of an answer, limited before and after decompression, and keeps the beginning.
//!
//! A stranger chooses the length and the compression ratio, so every count here is a limit. It must not judge: a body
//! that is cut or does not decompress still belongs to an answer whose status counts.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use postrider_domain::limits;

/// The part of a body that was read.
#[derive(Debug)]
pub struct Excerpt {
    pub bytes: Bytes,
    /// The body is, or may be, longer than `bytes`.
    pub truncated: bool,
    /// The body was read to its end, so the connection can carry another request.
    pub drained: bool,
    /// The connection ended before the stated length.
    pub ended_early: bool,
}

/// Reads to the end or to the limit, whichever comes first.
///
/// # Errors
/// When the connection fails before that.
pub async fn read(status: StatusCode, headers: &HeaderMap, body: &mut Incoming) -> hyper::Result<Excerpt> {
    if body.is_end_stream() {
        // Bytes that follow the head of such an answer all the same would be taken for the next answer.
        let drained = !(has_no_body(status) && announces_body(headers));
        return Ok(Excerpt { bytes: Bytes::new(), truncated: false, drained, ended_early: false });
    }
    if has_no_body(status) {
        return Ok(Excerpt { bytes: Bytes::new(), truncated: false, drained: false, ended_early: false });
    }
    let mut decoder = Decoder::for_headers(headers);
    let stated_bytes = stated_bytes_beside_identity(headers);
    let mut received_bytes = 0;
    let mut intact = true;
    let (mut drained, mut complete, mut ended_early) = (false, false, false);
    while intact {
        if stated_bytes.is_some_and(|stated| received_bytes >= stated) {
            complete = true;
            break;
        }
        let Some(frame) = body.frame().await else {
            // Here the body is shorter than `Content-Length`.
            ended_early = stated_bytes.is_some();
            (drained, complete) = (true, true);
            break;
        };
        // Trailers carry no data.
        let Ok(data) = frame?.into_data() else { continue };
        let room = limits::RESPONSE_READ_BYTES - received_bytes;
        received_bytes += data.len().min(room);
        intact = data.len() <= room;
        intact &= decoder.write(&data[..data.len().min(room)]).is_ok();
    }
    let (sink, decoded) = decoder.finish();
    let truncated = !complete || !intact || !decoded || sink.total_bytes > sink.kept.len();
    Ok(Excerpt { bytes: sink.kept.into(), truncated, drained, ended_early })
}

/// A 204 and a 304 have no body, whatever follows their head (RFC 9112, 6.3).
fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

fn announces_body(headers: &HeaderMap) -> bool {
    let is_positive = |value: &HeaderValue| value.as_bytes().trim_ascii() != b"0";
    headers.contains_key(TRANSFER_ENCODING) || headers.get_all(CONTENT_LENGTH).iter().any(is_positive)
}

/// `Content-Length` beside `Transfer-Encoding: identity`, which the older standards had for "no transfer coding". The
/// HTTP library reads such a body until the connection ends, and the sender may keep it open.
fn stated_bytes_beside_identity(headers: &HeaderMap) -> Option<usize> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_identity = codings.next()?.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    let length = headers.get(CONTENT_LENGTH).filter(|_| is_identity && codings.next().is_none())?;
    length.to_str().ok()?.trim().parse().ok()
}

/// Keeps the beginning, counts the rest, and refuses bytes beyond the limit. The refusal also stops a decoder.
#[derive(Debug, Default)]
struct BoundedBuffer {
    kept: Vec<u8>,
    total_bytes: usize,
}

impl Write for BoundedBuffer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let keep = data.len().min(limits::RESPONSE_KEPT_BYTES - self.kept.len());
        self.kept.extend_from_slice(&data[..keep]);
        self.total_bytes += data.len();
        if self.total_bytes > limits::RESPONSE_READ_BYTES {
            Err(io::ErrorKind::QuotaExceeded.into())
        } else {
            Ok(data.len())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Decoder {
    Plain(BoundedBuffer),
    Gzip(Box<MultiGzDecoder<BoundedBuffer>>),
    /// `deflate` before its first byte. The standard requires a zlib wrapper, but some servers send none.
    UnknownDeflate(BoundedBuffer),
    Zlib(Box<ZlibDecoder<BoundedBuffer>>),
    Deflate(Box<DeflateDecoder<BoundedBuffer>>),
}

impl Decoder {
    /// An unknown encoding, or several of them, is kept as received.
    fn for_headers(headers: &HeaderMap) -> Self {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let sink = BoundedBuffer::default();
        let (Some(coding), None) = (codings.next(), codings.next()) else { return Self::Plain(sink) };
        let coding = coding.as_bytes().trim_ascii();
        if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") {
            Self::Gzip(Box::new(MultiGzDecoder::new(sink)))
        } else if coding.eq_ignore_ascii_case(b"deflate") {
            Self::UnknownDeflate(sink)
        } else {
            Self::Plain(sink)
        }
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let Some(&first) = data.first() else { return Ok(()) };
        if let Self::UnknownDeflate(sink) = self {
            let sink = std::mem::take(sink);
            // The low nibble of a zlib header is the method, always 8. No valid raw stream begins with it.
            *self = if first & 0x0f == 8 {
                Self::Zlib(Box::new(ZlibDecoder::new(sink)))
            } else {
                Self::Deflate(Box::new(DeflateDecoder::new(sink)))
            };
        }
        match self {
            Self::Plain(sink) | Self::UnknownDeflate(sink) => sink.write_all(data),
            Self::Gzip(decoder) => decoder.write_all(data),
            Self::Zlib(decoder) => decoder.write_all(data),
            Self::Deflate(decoder) => decoder.write_all(data),
        }
    }

    /// Returns the decoded bytes and whether the stream was complete.
    fn finish(self) -> (BoundedBuffer, bool) {
        match self {
            Self::Plain(sink) | Self::UnknownDeflate(sink) => (sink, true),
            Self::Gzip(mut decoder) => {
                let complete = decoder.try_finish().is_ok();
                (std::mem::take(decoder.get_mut()), complete)
            }
            Self::Zlib(mut decoder) => {
                let complete = decoder.try_finish().is_ok();
                (std::mem::take(decoder.get_mut()), complete)
            }
            Self::Deflate(mut decoder) => {
                let complete = decoder.try_finish().is_ok();
                (std::mem::take(decoder.get_mut()), complete)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn decoder(coding: &'static str) -> Decoder {
        let headers = [(CONTENT_ENCODING, HeaderValue::from_static(coding))].into_iter().collect();
        Decoder::for_headers(&headers)
    }

    fn packed(coding: &str, data: &[u8]) -> Vec<u8> {
        let level = Compression::fast();
        match coding {
            "gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), level);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            "zlib" => {
                let mut encoder = ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            _ => {
                let mut encoder = DeflateEncoder::new(Vec::new(), level);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    #[test]
    fn known_encodings_are_decoded_and_unknown_ones_kept() {
        let text = b"thank you, received".repeat(20);
        for (name, packing) in [("gzip", "gzip"), ("X-GZIP", "gzip"), ("deflate", "zlib"), ("deflate", "raw")] {
            let mut decoder = decoder(name);
            // Byte by byte: the result must not depend on where the stream is split.
            for byte in packed(packing, &text) {
                decoder.write(&[byte]).unwrap();
            }
            let (sink, complete) = decoder.finish();
            assert!(complete && sink.kept == text, "{name} {packing}");
        }
        for name in ["br", "gzip, gzip", "identity", ""] {
            let mut decoder = decoder(name);
            decoder.write(&text).unwrap();
            assert_eq!(decoder.finish().0.kept, text, "{name}");
        }
    }

    #[test]
    fn a_gzip_bomb_stops_at_the_limit() {
        let bomb = packed("gzip", &vec![0; 50 * 1024 * 1024]);
        assert!(bomb.len() > limits::RESPONSE_READ_BYTES / 2);
        let mut decoder = decoder("gzip");
        assert!(decoder.write(&bomb[..1024]).is_err());
        let (sink, complete) = decoder.finish();
        assert!(!complete);
        assert_eq!(sink.kept.len(), limits::RESPONSE_KEPT_BYTES);
        assert!(sink.total_bytes <= limits::RESPONSE_READ_BYTES + 64 * 1024, "{}", sink.total_bytes);
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_exceeds_the_limit(data: Vec<u8>, coding in 0..3_usize) {
            let mut decoder = decoder(["gzip", "deflate", "br"][coding]);
            let _fault = decoder.write(&data);
            let (sink, _) = decoder.finish();
            prop_assert!(sink.kept.len() <= limits::RESPONSE_KEPT_BYTES);
        }
    }
}
