//! The secret options of an endpoint, in plaintext: values of custom headers, and a client certificate with its key.
//!
//! They exist from the request that sets them until they are sealed. They must never be printed or shown.

use std::fmt;

use zeroize::Zeroizing;

use super::event_type::Brand;
use super::invalid_field::InvalidField;
use super::limits;

/// Shown instead of a value. When a caller sends it back, the stored value is kept.
pub const REDACTED: &str = "[redacted]";

/// The name of a custom header: a token of RFC 9110, stored as written. Names that differ only in case are equal, those
/// that a receiver may confuse are [alike](Self::is_alike).
#[derive(Clone, Debug)]
pub struct HeaderName(String);

impl HeaderName {
    /// # Errors
    /// When the text is not a token, or is longer than 128 characters.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        const MARKS: &[u8] = b"!#$%&'*+-.^_`|~";
        let is_token = text.bytes().all(|c| c.is_ascii_alphanumeric() || MARKS.contains(&c));
        if is_token && (1..=limits::CUSTOM_HEADER_NAME_CHARS).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidField("has a name that is not 1 to 128 characters of A-Z, a-z, 0-9 and !#$%&'*+-.^_`|~"))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn lowercase(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// Whether a receiver may take one header for the other. CGI and its descendants (WSGI, PHP) turn `-` into `_`, and
    /// some servers turn every mark into it, so that `Webhook_Signature` arrives as `HTTP_WEBHOOK_SIGNATURE` too.
    pub fn is_alike(&self, other: &Self) -> bool {
        self.folded() == other.folded()
    }

    fn folded(&self) -> String {
        let fold = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        self.0.chars().map(fold).collect()
    }

    /// Whether a caller may not set this header, or one that is alike: it belongs to the connection, to the body, to
    /// the path of the request, or to our own headers.
    pub fn is_reserved(&self, brand: &Brand) -> bool {
        let name = self.folded();
        RESERVED_NAMES.contains(&name.as_str())
            || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || name.starts_with(&brand.header("").to_ascii_lowercase())
    }
}

impl PartialEq for HeaderName {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for HeaderName {}

impl std::hash::Hash for HeaderName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.lowercase().hash(state);
    }
}

/// Headers that frame the message, belong to one connection, say who sent it over which path, are set by us, or would
/// look like a browser session. CGI makes `Proxy` the variable `HTTP_PROXY`, which programs obey.
const RESERVED_NAMES: &[&str] = &[
    "accept-encoding",
    "connection",
    "cookie",
    "date",
    "early-data",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "proxy",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-real-ip",
];

const RESERVED_PREFIXES: &[&str] = &["content-", "proxy-", "webhook-", "x-forwarded-"];

/// The value of a custom header: 1 to 1,024 characters of visible ASCII, spaces and tabs, without a space or tab at
/// either end.
#[derive(Clone)]
pub struct HeaderValue(Zeroizing<String>);

impl HeaderValue {
    /// # Errors
    /// When the text has another length or other characters. The error does not repeat the text.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let is_visible = text.bytes().all(|c| matches!(c, b' '..=b'~' | b'\t'));
        if !is_visible || !(1..=limits::CUSTOM_HEADER_VALUE_CHARS).contains(&text.len()) {
            return Err(InvalidField("has a value that is not 1 to 1024 characters of visible ASCII, spaces and tabs"));
        }
        if text.trim_matches([' ', '\t']).len() < text.len() {
            return Err(InvalidField("has a value that begins or ends with a space or a tab"));
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The plaintext, for sealing and for the request that carries it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderValue(…)")
    }
}

/// One header as a caller sets it.
#[derive(Clone, Debug)]
pub struct GivenHeader {
    pub name: HeaderName,
    /// `None` keeps the stored value.
    pub value: Option<HeaderValue>,
}

/// A client certificate as a caller sets it: a chain, leaf first, and the leaf's private key, both as PEM.
#[derive(Clone)]
pub struct ClientCertificate {
    pub chain: String,
    pub key: Zeroizing<String>,
}

/// Separates chain and key in the sealed text. PEM never contains it.
const SEPARATOR: char = '\0';

impl ClientCertificate {
    /// # Errors
    /// When either part is empty, too long, or not ASCII. Whether the two work together is checked by the guard.
    pub fn parse(chain: String, key: String) -> Result<Self, InvalidField> {
        let key = Zeroizing::new(key);
        let fits = |text: &str, longest| {
            let is_text = |c: u8| matches!(c, b' '..=b'~' | b'\t' | b'\r' | b'\n');
            (1..=longest).contains(&text.len()) && text.bytes().all(is_text)
        };
        if fits(&chain, limits::CERTIFICATE_CHARS) && fits(&key, limits::CERTIFICATE_KEY_CHARS) {
            Ok(Self { chain, key })
        } else {
            Err(InvalidField("must be PEM: a certificate of at most 32 KB and a privateKey of at most 16 KB"))
        }
    }

    /// The text to seal.
    pub fn to_stored(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}{SEPARATOR}{}", self.chain, *self.key))
    }

    pub fn from_stored(stored: &[u8]) -> Option<Self> {
        let (chain, key) = std::str::from_utf8(stored).ok()?.split_once(SEPARATOR)?;
        Some(Self { chain: chain.to_owned(), key: Zeroizing::new(key.to_owned()) })
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate(…)")
    }
}

/// Changes of the secret options. A `None` field keeps the stored value.
#[derive(Clone, Debug, Default)]
pub struct PrivateOptions {
    /// The complete list of headers.
    pub headers: Option<Vec<GivenHeader>>,
    pub client_certificate: Option<Option<ClientCertificate>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_reserved(name: &str) -> bool {
        HeaderName::parse(name).unwrap().is_reserved(&Brand::default())
    }

    #[test]
    fn a_header_name_is_a_token_and_ignores_case() {
        let longest = "x".repeat(128);
        for good in ["X-Token", "authorization", "!#$%&'*+-.^_`|~09", &longest] {
            assert_eq!(HeaderName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a:b", "a\r\nb", "ä", "a(", &(longest + "x")] {
            assert!(HeaderName::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(HeaderName::parse("X-Token").unwrap(), HeaderName::parse("x-tOKEN").unwrap());
    }

    #[test]
    fn framing_and_identifying_headers_are_reserved_in_any_case() {
        for name in ["Host", "CONTENT-TYPE", "content-length", "Content-Encoding", "transfer-encoding", "Connection"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["keep-alive", "TE", "trailer", "upgrade", "expect", "Proxy-Authorization", "user-agent", "cookie"]
        {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["accept-encoding", "webhook-id", "Webhook-Anything", "Scripe-Delivery-Id", "scripe-x"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Proxy", "Max-Forwards", "Early-Data"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["Authorization", "X-Api-Key", "X-Scripe-Key", "webhook", "scripes-own", "Accept"] {
            assert!(!is_reserved(name), "{name}");
        }
        let other = Brand::new("acme").unwrap();
        assert!(HeaderName::parse("Acme_Replay").unwrap().is_reserved(&other));
        assert!(HeaderName::parse("acme-replay").unwrap().is_reserved(&other));
        assert!(!HeaderName::parse("scripe-x").unwrap().is_reserved(&other));
    }

    #[test]
    fn a_name_that_may_be_taken_for_a_reserved_one_is_reserved() {
        for name in [
            "Webhook_Signature",
            "WEBHOOK_ID",
            "webhook.timestamp",
            "Scripe_Delivery_Id",
            "scripe-delivery_id",
            "Content_Length",
            "transfer_encoding",
            "Keep_Alive",
            "X_Forwarded_For",
            "user~agent",
        ] {
            assert!(is_reserved(name), "{name}");
        }
        let name = |text: &str| HeaderName::parse(text).unwrap();
        assert!(name("X-Token").is_alike(&name("x_TOKEN")) && name("X-Token") != name("X_Token"));
        assert!(!name("X-Token").is_alike(&name("X-Tokens")));
    }

    #[test]
    fn a_value_is_visible_text_and_never_printed() {
        let longest = "v".repeat(1024);
        for good in ["Bearer abc", "a\tb", "x", &longest] {
            assert_eq!(HeaderValue::parse(good).unwrap().reveal(), good);
        }
        for bad in ["", " x", "x\t", "a\r\nb", "a\nb", "a\0b", "ä", "\x7f", &(longest + "v")] {
            assert!(HeaderValue::parse(bad).is_err(), "{bad:?}");
        }
        let key = "-----BEGIN PRIVATE KEY-----";
        let certificate = ClientCertificate::parse("chain".to_owned(), key.to_owned()).unwrap();
        let printed = format!("{:?} {certificate:?}", HeaderValue::parse("hush").unwrap());
        assert!(!printed.contains("hush") && !printed.contains("BEGIN"), "{printed}");
    }

    #[test]
    fn a_certificate_parses_back_from_the_sealed_text() {
        let certificate = ClientCertificate::parse("chain\n".to_owned(), "key\n".to_owned()).unwrap();
        let back = ClientCertificate::from_stored(certificate.to_stored().as_bytes()).unwrap();
        assert_eq!((back.chain, back.key), (certificate.chain, certificate.key));
        for (chain, key) in [("", "key"), ("chain", ""), ("ch\0ain", "key"), ("chain", "schlüssel")] {
            assert!(ClientCertificate::parse(chain.to_owned(), key.to_owned()).is_err(), "{chain:?} {key:?}");
        }
    }
}
