//! Public ids: parsed once at the border, then passed on as types.
//!
//! Two families:
//!
//! - *Drawn* ids (`org_`, `key_`, `whe_`, `lst_`, `req_`, `ses_`) are 16 random characters of `[a-z0-9]`.
//! - *Timed* ids (`evt_`, `dlv_`, `aud_`, `rpl_`, `era_`) contain an integer key and a tag of the store that made them.
//!   The upper bits of the key are the millisecond of creation, so that key order is time order and a look-up can prune
//!   by time. The tag keeps two servers from giving a receiver the same `webhook-id`.

use std::fmt;
use std::str::FromStr;

use super::time::Timestamp;

/// The text is not an id of this kind.
#[derive(Debug, thiserror::Error)]
#[error("not an id of this kind")]
pub struct InvalidId;

const DRAWN_LENGTH: usize = 16;

fn parse_letters(text: &str) -> Result<[u8; DRAWN_LENGTH], InvalidId> {
    let letters: [u8; DRAWN_LENGTH] = text.as_bytes().try_into().map_err(|_| InvalidId)?;
    let valid = letters.iter().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase());
    if valid { Ok(letters) } else { Err(InvalidId) }
}

macro_rules! drawn_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; DRAWN_LENGTH]);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id of letters drawn at random from `0-9a-z`.
            pub const fn from_letters(letters: [u8; DRAWN_LENGTH]) -> Self {
                Self(letters)
            }

            fn letters(&self) -> &str {
                std::str::from_utf8(&self.0).unwrap_or_default()
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                parse_letters(text.strip_prefix(Self::PREFIX).ok_or(InvalidId)?).map(Self)
            }
        }

        id_text!($name, |id, f| write!(f, "{}{}", $name::PREFIX, id.letters()));
    };
}

macro_rules! id_text {
    ($name:ident, |$id:ident, $f:ident| $write:expr) => {
        impl fmt::Display for $name {
            fn fmt(&self, $f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $id = self;
                $write
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

drawn_id!(
    /// A workspace: one product, or one customer with its own keys and limits.
    WorkspaceId,
    "org_"
);
drawn_id!(
    /// The public id of an API key. The key itself is a secret.
    ApiKeyId,
    "key_"
);
/// A webhook endpoint, or a listener: an endpoint without a URL, whose deliveries are pulled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId {
    is_listener: bool,
    letters: [u8; DRAWN_LENGTH],
}

impl EndpointId {
    pub const PREFIX: &'static str = "whe_";
    pub const LISTENER_PREFIX: &'static str = "lst_";

    /// Makes the id of an endpoint of letters drawn at random from `0-9a-z`.
    pub const fn from_letters(letters: [u8; DRAWN_LENGTH]) -> Self {
        Self { is_listener: false, letters }
    }

    /// As [`Self::from_letters`], of a listener.
    pub const fn listener(letters: [u8; DRAWN_LENGTH]) -> Self {
        Self { is_listener: true, letters }
    }

    pub const fn is_listener(self) -> bool {
        self.is_listener
    }
}

impl FromStr for EndpointId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let (is_listener, letters) = match text.strip_prefix(Self::PREFIX) {
            Some(letters) => (false, letters),
            None => (true, text.strip_prefix(Self::LISTENER_PREFIX).ok_or(InvalidId)?),
        };
        parse_letters(letters).map(|letters| Self { is_listener, letters })
    }
}

id_text!(EndpointId, |id, f| {
    f.write_str(if id.is_listener { EndpointId::LISTENER_PREFIX } else { EndpointId::PREFIX })?;
    f.write_str(std::str::from_utf8(&id.letters).unwrap_or_default())
});

drawn_id!(
    /// A portal session. Its code and its tokens are secrets.
    PortalSessionId,
    "pts_"
);
drawn_id!(
    /// A message of a source that could not become an event.
    ParkedMessageId,
    "pkm_"
);
drawn_id!(
    /// One request to the API.
    RequestId,
    "req_"
);
drawn_id!(
    /// A sign-in session of the dashboard. Its token is a secret.
    SessionId,
    "ses_"
);

/// The integer key of a row: millisecond of creation, then node, then sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey(i64);

const NODE_BITS: u32 = 9;
const SEQUENCE_BITS: u32 = 12;
const SEQUENCES: i64 = 1 << SEQUENCE_BITS;

impl RowKey {
    pub const fn from_i64(value: i64) -> Self {
        Self(value)
    }

    pub const fn as_i64(self) -> i64 {
        self.0
    }

    /// The smallest key of a row created at `at`. Keys end in the year 2109; a later instant sorts after all of them.
    pub const fn first_at(at: Timestamp) -> Self {
        match at.millis().checked_mul(1 << (NODE_BITS + SEQUENCE_BITS)) {
            Some(key) => Self(key),
            None if at.millis() < 0 => Self(i64::MIN),
            None => Self(i64::MAX),
        }
    }

    pub const fn created_at(self) -> Timestamp {
        Timestamp::from_millis(self.0 >> (NODE_BITS + SEQUENCE_BITS))
    }

    /// The number of the process that made it.
    pub const fn node(self) -> u16 {
        ((self.0 >> SEQUENCE_BITS) & ((1 << NODE_BITS) - 1)) as u16
    }
}

/// Distinguishes the timed ids of one store from those of another. Drawn once, when a store is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreTag(u32);

impl StoreTag {
    pub const fn from_u32(value: u32) -> Self {
        Self(value)
    }

    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

const TIMED_LENGTH: usize = 20; // 64 bits of key and 32 of tag, five per letter, rounded up
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

fn encode_timed(key: RowKey, tag: StoreTag) -> [u8; TIMED_LENGTH] {
    let bits = (u128::from(key.0.cast_unsigned()) << 32) | u128::from(tag.0);
    std::array::from_fn(|position| {
        let shift = 5 * (TIMED_LENGTH - 1 - position);
        BASE32[usize::try_from((bits >> shift) & 31).unwrap_or(0)]
    })
}

fn decode_timed(letters: &[u8]) -> Option<(RowKey, StoreTag)> {
    if letters.len() != TIMED_LENGTH {
        return None;
    }
    let mut bits = 0_u128;
    for letter in letters {
        let value = BASE32.iter().position(|candidate| candidate == letter)?;
        bits = (bits << 5) | value as u128;
    }
    let key = i64::try_from(bits >> 32).ok()?;
    let tag = u32::try_from(bits & u128::from(u32::MAX)).ok()?;
    Some((RowKey(key), StoreTag(tag)))
}

macro_rules! timed_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            key: RowKey,
            tag: u32,
        }

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            pub const fn new(key: RowKey, tag: StoreTag) -> Self {
                Self { key, tag: tag.0 }
            }

            pub const fn key(self) -> RowKey {
                self.key
            }

            pub const fn tag(self) -> StoreTag {
                StoreTag(self.tag)
            }

            pub const fn created_at(self) -> Timestamp {
                self.key.created_at()
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let letters = text.strip_prefix(Self::PREFIX).ok_or(InvalidId)?;
                let (key, tag) = decode_timed(letters.as_bytes()).ok_or(InvalidId)?;
                Ok(Self::new(key, tag))
            }
        }

        id_text!($name, |id, f| {
            let letters = encode_timed(id.key, StoreTag(id.tag));
            f.write_str($name::PREFIX)?;
            f.write_str(std::str::from_utf8(&letters).unwrap_or_default())
        });
    };
}

timed_id!(
    /// A published event. Receivers see it as `webhook-id`.
    EventId,
    "evt_"
);
timed_id!(
    /// One event on its way to one endpoint.
    DeliveryId,
    "dlv_"
);
timed_id!(
    /// One entry of the audit log.
    AuditId,
    "aud_"
);

timed_id!(
    /// A replay: a job that repeats deliveries.
    ReplayId,
    "rpl_"
);

timed_id!(
    /// An erasure: a job that takes the content of events out of the store.
    ErasureId,
    "era_"
);

/// Makes strictly increasing row keys, even when the clock steps back or a millisecond has no sequence number left.
#[derive(Debug)]
pub struct KeySequence {
    node: i64,
    last_millis: i64,
    used: i64,
}

impl KeySequence {
    /// `node` distinguishes the processes that share a store. Only its lowest nine bits are used.
    pub const fn new(node: u16) -> Self {
        Self { node: (node as i64) & ((1 << NODE_BITS) - 1), last_millis: 0, used: 0 }
    }

    /// As [`Self::new`], but every key is larger than `last`, which a process with a faster clock may have made.
    pub const fn after(node: u16, last: RowKey) -> Self {
        Self { last_millis: last.created_at().millis(), used: SEQUENCES, ..Self::new(node) }
    }

    /// The next key. When a millisecond has no sequence number left, the next millisecond is used.
    pub fn next(&mut self, now: Timestamp) -> RowKey {
        if now.millis() > self.last_millis {
            (self.last_millis, self.used) = (now.millis(), 0);
        } else if self.used == SEQUENCES {
            (self.last_millis, self.used) = (self.last_millis + 1, 0);
        }
        let key = (self.last_millis << (NODE_BITS + SEQUENCE_BITS)) | (self.node << SEQUENCE_BITS) | self.used;
        self.used += 1;
        RowKey(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_id_parses_back_and_any_other_form_is_refused() {
        let id = EndpointId::from_letters(*b"a1b2c3d4e5f6g7h8");
        assert_eq!(id.to_string(), "whe_a1b2c3d4e5f6g7h8");
        assert_eq!("whe_a1b2c3d4e5f6g7h8".parse::<EndpointId>().unwrap(), id);
        let listener: EndpointId = "lst_a1b2c3d4e5f6g7h8".parse().unwrap();
        assert_eq!(listener.to_string(), "lst_a1b2c3d4e5f6g7h8");
        assert!(listener.is_listener() && !id.is_listener() && listener != id);
        for bad in
            ["whe_A1b2c3d4e5f6g7h8", "whe_a1b2c3d4e5f6g7h", "org_a1b2c3d4e5f6g7h8", "whe_", "", "whe_a1b2c3d4e5f6g7é"]
        {
            assert!(bad.parse::<EndpointId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_timed_id_contains_its_millisecond_key_and_store() {
        let mut keys = KeySequence::new(3);
        let at = Timestamp::from_millis(1_778_833_260_123);
        let id = EventId::new(keys.next(at), StoreTag::from_u32(0xdead_beef));
        let back: EventId = id.to_string().parse().unwrap();
        assert_eq!((back, back.created_at(), back.tag().as_u32()), (id, at, 0xdead_beef));
        assert!(id.to_string().replace("evt_", "dlv_").parse::<EventId>().is_err());
        assert!(id.to_string().to_uppercase().parse::<EventId>().is_err());
    }

    #[test]
    fn keys_grow_when_the_clock_steps_back_or_a_millisecond_is_full() {
        let mut keys = KeySequence::new(1);
        let at = Timestamp::from_millis(1_000_000);
        let made: Vec<RowKey> = (0..10_000).map(|n| keys.next(Timestamp::from_millis(at.millis() - n % 7))).collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(made[0].created_at(), at);
        assert!(RowKey::first_at(at) <= made[0]);
        assert_eq!(made[9_999].created_at().millis(), 1_000_002);
    }

    #[test]
    fn keys_follow_those_of_a_process_with_a_faster_clock() {
        let at = Timestamp::from_millis(1_000_000);
        let last = KeySequence::new(511).next(at);
        let mut keys = KeySequence::after(0, last);
        let first = keys.next(at.minus(std::time::Duration::from_secs(5)));
        assert!(first > last && first < keys.next(at));
        assert_eq!(first.created_at().millis(), at.millis() + 1);
        let later = at.plus(std::time::Duration::from_secs(5));
        assert_eq!(keys.next(later).created_at(), later, "once the clock has caught up, it determines the key");
    }

    #[test]
    fn an_instant_beyond_the_last_key_sorts_after_all_keys() {
        let last = Timestamp::parse("9999-12-30T00:00:00Z").unwrap();
        for (earlier, later) in [(Timestamp::default(), last), (last.minus(std::time::Duration::MAX), last)] {
            assert!(RowKey::first_at(earlier) < RowKey::first_at(later));
        }
        let at = Timestamp::from_millis(4_000_000_000_000);
        assert_eq!(RowKey::first_at(at).created_at(), at);
    }

    #[test]
    fn two_nodes_never_make_the_same_key() {
        let (mut a, mut b) = (KeySequence::new(1), KeySequence::new(2));
        let at = Timestamp::from_millis(5);
        let a: std::collections::HashSet<RowKey> = (0..9_000).map(|_| a.next(at)).collect();
        assert!((0..9_000).all(|_| !a.contains(&b.next(at))));
    }
}
