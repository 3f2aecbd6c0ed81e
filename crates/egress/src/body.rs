//! Reading the body of an answer: bounded before and after decompression, the beginning kept.
//!
//! A stranger decides how long it is and how well it was packed, so every count here is a limit. It must not judge:
//! a body that is cut or does not unpack is still the body of an answer whose status counts.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use postrider_domain::limits::RESPONSE_KEPT_BYTES;

/// What is read of a body, counted on the wire and again after decompression.
pub const MAX_READ_BYTES: usize = 64 * 1024;

/// What was read of a body.
#[derive(Debug)]
pub struct Excerpt {
    pub bytes: Bytes,
    /// The body was, or may have been, longer than `bytes`.
    pub truncated: bool,
    /// The body was read to its end, so that its connection can carry another request.
    pub drained: bool,
}

/// Reads until the end or the limit, whichever is first.
///
/// # Errors
/// When the connection fails before either.
pub async fn read(headers: &HeaderMap, body: &mut Incoming) -> hyper::Result<Excerpt> {
    if body.is_end_stream() {
        return Ok(Excerpt { bytes: Bytes::new(), truncated: false, drained: true });
    }
    let mut decoder = Decoder::for_headers(headers);
    let mut received_bytes = 0;
    let mut intact = true;
    let mut drained = false;
    while intact {
        let Some(frame) = body.frame().await else {
            drained = true;
            break;
        };
        // Trailers bring no data.
        let Ok(data) = frame?.into_data() else { continue };
        let room = MAX_READ_BYTES - received_bytes;
        received_bytes += data.len().min(room);
        intact = data.len() <= room;
        intact &= decoder.write(&data[..data.len().min(room)]).is_ok();
    }
    let (sink, whole) = decoder.finish();
    let truncated = !drained || !intact || !whole || sink.total_bytes > sink.kept.len();
    Ok(Excerpt { bytes: sink.kept.into(), truncated, drained })
}

/// Keeps the beginning, counts the rest, and refuses what goes over the limit: which also stops a decoder.
#[derive(Debug, Default)]
struct Sink {
    kept: Vec<u8>,
    total_bytes: usize,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let keep = data.len().min(RESPONSE_KEPT_BYTES - self.kept.len());
        self.kept.extend_from_slice(&data[..keep]);
        self.total_bytes += data.len();
        if self.total_bytes > MAX_READ_BYTES { Err(io::ErrorKind::QuotaExceeded.into()) } else { Ok(data.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Decoder {
    Plain(Sink),
    Gzip(Box<MultiGzDecoder<Sink>>),
    /// `deflate`, before its first byte: it may come with or without the zlib wrapper that the standard asks for.
    UnknownDeflate(Sink),
    Zlib(Box<ZlibDecoder<Sink>>),
    Deflate(Box<DeflateDecoder<Sink>>),
}

impl Decoder {
    /// An encoding that is unknown, or one of several, is kept as it came.
    fn for_headers(headers: &HeaderMap) -> Self {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let sink = Sink::default();
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
            // The low nibble of a zlib header names the method, which is always 8; no raw stream begins so and
            // decodes.
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

    /// What was decoded, and whether the stream was whole.
    fn finish(self) -> (Sink, bool) {
        match self {
            Self::Plain(sink) | Self::UnknownDeflate(sink) => (sink, true),
            Self::Gzip(mut decoder) => {
                let whole = decoder.try_finish().is_ok();
                (std::mem::take(decoder.get_mut()), whole)
            }
            Self::Zlib(mut decoder) => {
                let whole = decoder.try_finish().is_ok();
                (std::mem::take(decoder.get_mut()), whole)
            }
            Self::Deflate(mut decoder) => {
                let whole = decoder.try_finish().is_ok();
                (std::mem::take(decoder.get_mut()), whole)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;
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
    fn known_encodings_are_unpacked_and_unknown_ones_kept() {
        let text = b"thank you, received".repeat(20);
        for (name, packing) in [("gzip", "gzip"), ("X-GZIP", "gzip"), ("deflate", "zlib"), ("deflate", "raw")] {
            let mut decoder = decoder(name);
            // Byte by byte: nothing may depend on how the stream is cut.
            for byte in packed(packing, &text) {
                decoder.write(&[byte]).unwrap();
            }
            let (sink, whole) = decoder.finish();
            assert!(whole && sink.kept == text, "{name} {packing}");
        }
        for name in ["br", "gzip, gzip", "identity", ""] {
            let mut decoder = decoder(name);
            decoder.write(&text).unwrap();
            assert_eq!(decoder.finish().0.kept, text, "{name}");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let bomb = packed("gzip", &vec![0; 50 * 1024 * 1024]);
        assert!(bomb.len() > MAX_READ_BYTES / 2);
        let mut decoder = decoder("gzip");
        assert!(decoder.write(&bomb[..1024]).is_err());
        let (sink, whole) = decoder.finish();
        assert!(!whole);
        assert_eq!(sink.kept.len(), RESPONSE_KEPT_BYTES);
        assert!(sink.total_bytes <= MAX_READ_BYTES + 64 * 1024, "{}", sink.total_bytes);
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_grows(data: Vec<u8>, coding in 0..3_usize) {
            let mut decoder = decoder(["gzip", "deflate", "br"][coding]);
            let _fault = decoder.write(&data);
            let (sink, _) = decoder.finish();
            prop_assert!(sink.kept.len() <= RESPONSE_KEPT_BYTES);
        }
    }
}
