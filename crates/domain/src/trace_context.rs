//! The trace that an event belongs to, as W3C Trace Context has it: the header `traceparent` and its stored form.
//!
//! Only ids and flags are kept. `tracestate` and baggage may carry data of the publisher's vendors or users, and must
//! reach no third party.

use std::fmt;

use postrider_crypto::Random;

/// The name of the header.
pub const TRACEPARENT: &str = "traceparent";

/// Characters of the header in version 00.
const HEADER_CHARS: usize = 55;

const SAMPLED: u8 = 1;
/// The flags that this version knows: sampled, and that the trace id is random. Others must not be passed on.
const KNOWN_FLAGS: u8 = 0b11;

macro_rules! trace_part {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// `None` for zeros, which name nothing.
            pub fn new(bytes: [u8; $bytes]) -> Option<Self> {
                (bytes != [0; $bytes]).then_some(Self(bytes))
            }

            pub fn random(random: &Random) -> Self {
                loop {
                    if let Some(id) = Self::new(random.bytes()) {
                        return id;
                    }
                }
            }

            pub const fn bytes(self) -> [u8; $bytes] {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

trace_part!(
    /// What all spans of a trace share.
    TraceId,
    16
);
trace_part!(
    /// One span of a trace.
    SpanId,
    8
);

/// A span, as those that follow it refer to it. `Display` is the value of `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    flags: u8,
}

impl TraceContext {
    pub const STORED_BYTES: usize = 25;

    pub const fn new(trace_id: TraceId, span_id: SpanId, is_sampled: bool) -> Self {
        Self { trace_id, span_id, flags: is_sampled as u8 }
    }

    /// Reads the values of all `traceparent` headers of a request. `None` when there is none, or more than one, or when
    /// it is invalid. Of a later version only the parts of version 00 are read.
    pub fn of_headers<'h>(mut values: impl Iterator<Item = &'h [u8]>) -> Option<Self> {
        let value = values.next()?;
        if values.next().is_some() { None } else { Self::parse(value) }
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(HEADER_CHARS)?;
        let [version] = from_hex(&known[..2])?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.first().is_none_or(|next| *next == b'-'),
        };
        if !is_whole || [2, 35, 52].into_iter().any(|dash| known[dash] != b'-') {
            return None;
        }
        let [flags] = from_hex(&known[53..55])?;
        Some(Self {
            trace_id: TraceId::new(from_hex(&known[3..35])?)?,
            span_id: SpanId::new(from_hex(&known[36..52])?)?,
            flags: flags & KNOWN_FLAGS,
        })
    }

    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same with this decision.
    #[must_use]
    pub const fn sampled(self, is_sampled: bool) -> Self {
        Self { flags: self.flags & !SAMPLED | is_sampled as u8, ..self }
    }

    /// Another span of the same trace.
    #[must_use]
    pub const fn with_span(self, span_id: SpanId) -> Self {
        Self { span_id, ..self }
    }

    /// The trace id, the span id and the flags.
    pub fn to_bytes(self) -> [u8; Self::STORED_BYTES] {
        let mut bytes = [0; Self::STORED_BYTES];
        bytes[..16].copy_from_slice(&self.trace_id.bytes());
        bytes[16..24].copy_from_slice(&self.span_id.bytes());
        bytes[24] = self.flags;
        bytes
    }

    /// `None` when the bytes are not of the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::STORED_BYTES] = bytes.try_into().ok()?;
        let (trace_id, rest) = bytes.split_first_chunk()?;
        let (span_id, rest) = rest.split_first_chunk()?;
        Some(Self { trace_id: TraceId::new(*trace_id)?, span_id: SpanId::new(*span_id)?, flags: *rest.first()? })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace_id, span_id, flags } = self;
        write!(f, "00-{trace_id}-{span_id}-{flags:02x}")
    }
}

/// Lower-case digits alone, as the specification demands.
fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(values: &[&str]) -> Option<TraceContext> {
        TraceContext::of_headers(values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn a_valid_header_reads_back_from_its_bytes_and_its_text() {
        for (text, sampled) in [(VALID.to_owned(), true), (VALID.replace("-01", "-00"), false)] {
            let context = read(&[&text]).unwrap();
            assert_eq!(context.is_sampled(), sampled);
            assert_eq!(context.to_string(), text);
            assert_eq!(TraceContext::from_bytes(&context.to_bytes()), Some(context));
            assert_eq!(context.sampled(!sampled).sampled(sampled), context);
        }
    }

    #[test]
    fn flags_that_are_not_known_are_dropped() {
        assert_eq!(read(&[&VALID.replace("-01", "-ff")]).unwrap().to_string(), VALID.replace("-01", "-03"));
    }

    #[test]
    fn a_later_version_may_have_more_parts() {
        for later in ["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", &VALID.replace("00-4", "01-4")] {
            assert_eq!(read(&[later]).unwrap().to_string(), VALID, "{later}");
            assert_eq!(read(&[&format!("{later}-what-comes")]).unwrap().to_string(), VALID, "{later}");
            assert_eq!(read(&[&format!("{later}.what-comes")]), None, "{later}");
        }
    }

    #[test]
    fn an_invalid_header_is_no_context() {
        let invalid = [
            "".to_owned(),
            "00".to_owned(),
            VALID.replace("00-4", "ff-4"),
            VALID.replace("00-4", "0-4"),
            VALID.to_uppercase(),
            VALID.replace('-', "_"),
            VALID.replace("00f067aa0ba902b7", "0000000000000000"),
            VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            VALID.replace("4bf9", "4bg9"),
            VALID.replace("-01", "-1"),
            VALID.replace("-01", "-0x"),
            format!("{VALID}-extra"),
            format!("{VALID}0"),
            format!(" {VALID}"),
            format!("{VALID},{VALID}"),
            "\u{e9}".repeat(40),
        ];
        for invalid in &invalid {
            assert_eq!(read(&[invalid]), None, "{invalid:?}");
        }
        assert_eq!(read(&[VALID, VALID]), None, "two headers");
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn bytes_of_another_form_are_no_context() {
        let bytes = read(&[VALID]).unwrap().to_bytes();
        for length in 0..bytes.len() {
            assert_eq!(TraceContext::from_bytes(&bytes[..length]), None, "{length}");
        }
        assert_eq!(TraceContext::from_bytes(&[0; 25]), None);
    }
}
