//! Every limit of the house, with its unit and its reason. A limit that comes from the wire contract says so.

use std::time::Duration;

/// A request body in bytes (contract), also of one event in a batch.
pub const BODY_BYTES: usize = 256 * 1024;
/// A request body of a batch in bytes (contract); with an `Idempotency-Key` it is [`BODY_BYTES`] (contract).
pub const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Events of a batch (contract).
pub const BATCH_EVENTS: usize = 1000;
/// Faults told of one event's `data`, and events of a batch that are told of: enough to mend a publisher by, too few
/// to make an answer large.
pub const FAULTS_TOLD: usize = 20;
/// How deeply arrays and objects may nest in a body: far beyond real payloads, far below what exhausts a stack.
pub const JSON_DEPTH: usize = 64;
/// Characters of an endpoint's name (contract).
pub const ENDPOINT_NAME_CHARS: usize = 128;
/// Characters of an endpoint's URL (contract).
pub const ENDPOINT_URL_CHARS: usize = 1024;
/// Characters of a project id, an external id and an idempotency key (contract).
pub const OPAQUE_ID_CHARS: usize = 64;
/// Characters of a workspace's name: the same as an endpoint's.
pub const WORKSPACE_NAME_CHARS: usize = 128;
/// Characters of an API key's name: the same again.
pub const API_KEY_NAME_CHARS: usize = 128;
/// API keys of one workspace that are not revoked: far more than anyone can keep an eye on.
pub const API_KEYS_PER_WORKSPACE: u32 = 1_000;
/// Endpoints of one project (contract), those without a project counting as one.
pub const ENDPOINTS_PER_PROJECT: u32 = 500;
/// Endpoints of one workspace (contract).
pub const ENDPOINTS_PER_WORKSPACE: u32 = 50_000;
/// Deliveries that one request may create (contract).
pub const DELIVERIES_PER_REQUEST: usize = 10_000;

/// How long a rotated secret's predecessor may go on signing beside it (contract).
pub const SECRET_OVERLAP_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Items of a page when `limit` is absent (contract).
pub const PAGE_DEFAULT: u32 = 50;
/// Items of the longest page (contract).
pub const PAGE_MAX: u32 = 200;

/// Rows of the delivery log that one page looks at when its filter passes few: some tens of milliseconds. Such a page may be
/// short, or empty, and says that there is more.
pub const LOG_ROWS_PER_PAGE: u32 = 50_000;

/// How long an idempotency key holds (contract).
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// The window in which requests are counted against a rate limit (contract).
pub const RATE_WINDOW: Duration = Duration::from_secs(60);
/// Requests a workspace may make in the window, publishes aside: a dashboard for each of many people, and no more than
/// one writer thread can take from a loop gone wild.
pub const MANAGEMENT_REQUESTS_PER_MINUTE: u32 = 1_200;
/// Publishes of a workspace in the window: 50,000 a second, more than one server takes, so that a product meets it only where
/// whoever runs the server has set a lower one, and every answer tells where it stands. 0 is without limit.
pub const PUBLISHING_REQUESTS_PER_MINUTE: u32 = 3_000_000;
/// Up to this limit each request's own millisecond is kept: 64 KB for the busiest workspace.
pub const RATE_LOG_EXACT: u32 = 4_096;
/// Above it requests are noted in steps of this much: 3,001 entries for the busiest.
pub const RATE_LOG_GRAIN: Duration = Duration::from_millis(20);
/// Workspaces whose requests are remembered before the idle ones are looked for.
pub const RATE_WORKSPACES: usize = 1_024;

/// A group commit closes at this many rows …
pub const GROUP_ROWS: usize = 2_000;
/// … or at this many bytes: more would make the first in the group wait for the last.
pub const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Writes waiting for the writer; beyond it a caller waits for room.
pub const WRITES_QUEUED: usize = 16_384;
/// The write-ahead log above which publishes are answered 503 until a checkpoint has shortened it.
pub const WAL_REFUSE_BYTES: u64 = 1024 * 1024 * 1024;
/// The write-ahead log above which it is begun anew in the file that is there: to write over blocks takes the disk half as long as to
/// write new ones.
pub const WAL_RESTART_BYTES: u64 = 64 * 1024 * 1024;
/// The write-ahead log above which the writer itself stops to truncate it.
pub const WAL_TRUNCATE_BYTES: u64 = 256 * 1024 * 1024;

/// Connections of one node to a database server: two for each of the two groups of writers, the rest for requests.
pub const DATABASE_CONNECTIONS: usize = 16;
/// The fewest that can be set: the groups' own.
pub const DATABASE_CONNECTIONS_MIN: usize = 4;
/// The most: twice what a server takes by default, in all.
pub const DATABASE_CONNECTIONS_MAX: usize = 200;
/// How long a statement may take on a database server before it is ended there: far longer than any of ours should.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest that can be set.
pub const STATEMENT_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// The longest: a claim is lost after so long.
pub const STATEMENT_TIMEOUT_MAX: Duration = LEASE;

/// The whole exchange with a receiver: connect, TLS, headers and body (contract).
pub const ATTEMPT_DEADLINE: Duration = Duration::from_secs(15);
/// The longest deadline that can be set: with the margin and some waiting it fits a lease.
pub const ATTEMPT_DEADLINE_MAX: Duration = Duration::from_secs(45);
/// A send starts only if the lease outlasts its deadline by this much, so that the result is ours to record.
pub const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// How long a claim is held: a deadline, the margin, and time to wait for a slot.
pub const LEASE: Duration = Duration::from_secs(60);
const _: () = assert!(
    ATTEMPT_DEADLINE_MAX.as_secs() + LEASE_MARGIN.as_secs() < LEASE.as_secs(),
    "whatever deadline an endpoint asks for, a fresh claim can be sent"
);
/// Bytes of a receiver's answer kept in the log (contract).
pub const RESPONSE_KEPT_BYTES: usize = 4 * 1024;
/// Bytes of a receiver's header kept in the log, and how many: enough to debug, too few to fill a disk.
pub const RESPONSE_HEADER_BYTES: usize = 256;
/// See [`RESPONSE_HEADER_BYTES`].
pub const RESPONSE_HEADERS: usize = 32;
/// The longest wait that a receiver's `Retry-After` can ask for (contract).
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// Custom headers of an endpoint: more than any receiver or gateway asks for.
pub const CUSTOM_HEADERS: usize = 16;
/// Characters of a custom header's name: far above any in use.
pub const CUSTOM_HEADER_NAME_CHARS: usize = 128;
/// Characters of a custom header's value: a long token. With sixteen of them a request stays within what servers take.
pub const CUSTOM_HEADER_VALUE_CHARS: usize = 1024;
/// Deliveries a second that an endpoint can ask for at most: above it the adaptive limit is the better judge.
pub const DELIVERY_RATE_MAX: u32 = 1_000;
/// Characters of a client certificate's chain, as PEM: some ten certificates.
pub const CERTIFICATE_CHARS: usize = 32 * 1024;
/// Characters of its private key, as PEM: above RSA with 16,384 bits.
pub const CERTIFICATE_KEY_CHARS: usize = 16 * 1024;
/// Steps of a retry schedule: a longer one is a mistake in the settings.
pub const RETRY_STEPS: usize = 32;
/// The longest step of a retry schedule.
pub const RETRY_STEP_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a delivery waits behind an inactive or paused endpoint before it has failed as `expired` (contract).
pub const WAITING_MAX: Duration = Duration::from_secs(14 * 24 * 3600);

/// Failures in a row that make an endpoint `failing`: one or two are what retries are for.
pub const FAILING_FAILURES: u32 = 3;
/// Failures in a row that pause an endpoint (contract) …
pub const PAUSE_FAILURES: u32 = 5;
/// … if they span at least this long (contract): a burst that fails together tells no more than one failure.
pub const PAUSE_SPAN: Duration = Duration::from_secs(10);
/// From the pause to its first probe (contract) …
pub const PROBE_WAIT_MIN: Duration = Duration::from_secs(30);
/// … and, doubled each time, at most (contract).
pub const PROBE_WAIT_MAX: Duration = Duration::from_secs(3600);
/// How old the first failure since the last success must be for an endpoint to be switched off (contract) …
pub const DISABLE_AGE: Duration = Duration::from_secs(5 * 24 * 3600);
/// … with at least so many failures since (contract).
pub const DISABLE_FAILURES: u32 = 12;
/// When it is told that the endpoint will be switched off: a day before.
pub const DISABLE_WARNING_AGE: Duration = Duration::from_secs(4 * 24 * 3600);
/// The shortest time for which an endpoint that fails in a row is left alone before it is paused.
pub const SLOW_DOWN: Duration = Duration::from_secs(1);

/// How long the log keeps an event and its deliveries unless it is set: long enough to ask after last month's.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// The shortest retention: a day, so that a night's trouble can still be looked into in the morning.
pub const RETENTION_MIN: Duration = Duration::from_secs(24 * 3600);
/// The longest: ten years, which stands for ever.
pub const RETENTION_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Certificates in the chain that a client shows in mutual TLS: no public hierarchy is half as deep, and all of them are sent
/// in each handshake.
pub const CLIENT_CERTIFICATES: usize = 8;
/// Client identities whose TLS sessions are remembered in one process; one more and another's next handshake is a full one.
pub const IDENTITIES_REMEMBERED: usize = 1024;

/// Attempts under way at once in one process: ten thousand a second to receivers that answer in a tenth of one. Beyond it, memory and
/// sockets cost more than they bring.
pub const SLOTS: usize = 1_024;
/// Attempts under way at once to one endpoint: enough for a fast one, not enough to take every slot.
pub const SLOTS_PER_ENDPOINT: usize = 64;
/// Attempts under way at once to an endpoint of which nothing is known yet.
pub const SLOTS_AT_FIRST: usize = 8;
/// What is left of them to an endpoint that answers slowly: some, so that its queue moves, and few, because each is held long.
pub const SLOTS_WHEN_SLOW: usize = 4;
/// An endpoint whose exchanges take less than this on average is quick; those that do not share half of all slots.
pub const QUICK: Duration = Duration::from_secs(1);
/// For how long a quick endpoint is kept busy by what is claimed ahead: a few commits …
pub const CLAIMED_AHEAD: Duration = Duration::from_millis(20);
/// … and at most so many times what may be under way to it.
pub const CLAIMED_AHEAD_TURNS: usize = 3;
/// Claims that one process may have of an endpoint, those included whose attempt is over and whose outcome is not on disk yet: what a
/// crash may send it a second time. A quick endpoint needs some hundreds while its outcomes are written.
pub const CLAIMS_PER_ENDPOINT: usize = 1_024;
/// Tests that may be under way to an endpoint beside everything else: somebody waits for each.
pub const TESTS_BESIDE: usize = 4;
/// The engine asks the store at least this often, whether or not anything nudged it.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// A revoked key works for at most this long (contract: 5 s); the rest is left for clocks and commits.
pub const KEY_CACHE_TTL: Duration = Duration::from_secs(2);
/// Principals remembered: a guard against keys guessed at random filling memory.
pub const KEY_CACHE_ENTRIES: usize = 10_000;
/// How far ahead of the clock the newest row of a store may be for new rows to follow it. A clock set back by NTP or by hand is
/// well within; one that was years ahead must not stamp everything with its time for good.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long a stopping process waits for attempts under way before it gives them up to the next start.
pub const STOP_GRACE: Duration = Duration::from_secs(20);
/// The longest such wait that can be set: service managers lose patience too.
pub const STOP_GRACE_MAX: Duration = Duration::from_secs(600);

// Engine and egress

/// Endpoints whose counts and adaptive limits the engine keeps before it forgets those without claims.
pub const ENDPOINTS_TRACKED: usize = 100_000;
/// Opened keys that the engine caches, of each kind (`v1` and `v1a`). Beyond it a key is opened again when it is
/// needed.
pub const SIGNING_KEYS_CACHED: usize = 50_000;
/// Endpoints whose opened headers and client certificates the engine caches. Beyond it they are opened again.
pub const ENDPOINT_OPTIONS_CACHED: usize = 10_000;
/// Endpoint URLs that the engine caches in parsed form. Beyond it a URL is parsed again.
pub const TARGET_URLS_CACHED: usize = 50_000;
/// Deliveries in one claim: enough to share a commit, few enough not to delay the commits of others.
pub const DELIVERIES_PER_CLAIM: usize = 256;
/// Outcomes that wait to be written. Beyond it an attempt waits with its outcome.
pub const OUTCOMES_QUEUED: usize = 4_096;
/// Outcomes in one write.
pub const OUTCOMES_PER_WRITE: usize = 512;
/// How often outcomes are written again, once a second, while the store is unavailable. After that the leases have
/// expired and the node that took the deliveries over records their attempts.
pub const OUTCOME_WRITE_TRIES: u32 = 60;
/// Rows that the janitor expires, forgets or removes in one step: a few milliseconds of the writer's time.
pub const AGEING_ROWS_PER_STEP: usize = 500;

/// How long one look-up of a host may take, both address families together.
pub const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long vetted addresses are used before the host is looked up again.
pub const PIN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// While a host that cannot be connected to keeps the same addresses, how often it is looked up again.
pub const PIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// Hosts whose vetted addresses are kept: twice the endpoints that one workspace may have. One takes a few hundred
/// bytes.
pub const PINNED_HOSTS: usize = 100_000;
/// Addresses that one attempt tries. All addresses of a host are vetted, but a host with hundreds of them must not make
/// us open hundreds of sockets.
pub const ADDRESSES_PER_ATTEMPT: usize = 16;
/// How long one address may take to accept a connection. Several are tried side by side.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one address may take for its TLS handshake, so that a silent one leaves time for the others.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Hosts whose TLS sessions are kept for resumption, without a client certificate.
pub const TLS_SESSIONS: usize = 4_096;
/// The same for one client identity. An identity is one customer's and is seldom shown to more than a few hosts.
pub const TLS_SESSIONS_PER_IDENTITY: usize = 16;
/// How long the proxy's own addresses are used before its host is looked up again.
pub const PROXY_ADDRESS_LIFETIME: Duration = Duration::from_secs(60);
/// Bytes of the head of a proxy's answer to `CONNECT`: a status line and a few headers.
pub const PROXY_HEAD_BYTES: usize = 8 * 1024;
/// Idle HTTP/1.1 connections in the pool.
pub const IDLE_CONNECTIONS: usize = 8_192;
/// How long a connection may be idle: less than the keep-alive of common servers (nginx 75 s, load balancers 60 s), so
/// that they seldom close first.
pub const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(45);
/// The age at which a connection is not used again, so that a move of the host is noticed although it is never idle.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// Bytes of the status line and the headers of one answer.
pub const RESPONSE_HEAD_BYTES: usize = 64 * 1024;
/// Header fields of one answer. The parser of HTTP/1.1 has the same limit.
pub const RESPONSE_HEADERS_READ: usize = 100;
/// Bytes of a body that are read, counted on the wire and again after decompression.
pub const RESPONSE_READ_BYTES: usize = 64 * 1024;
/// Bytes that HTTP/1.1 reads at most before they are asked for.
pub const READ_AHEAD_BYTES: usize = 128 * 1024;
/// Bytes that a peer may send in answer to one request. Headers, body and read-ahead are at most half of it, so only
/// interim answers can exceed it. A shared connection may receive as much for each request in flight: which request
/// its bytes belong to is not known.
pub const RESPONSE_WIRE_BYTES: u64 = 512 * 1024;
/// Bytes that an HTTP/2 peer may send on one stream before we ask for more.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// The same for a whole connection.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
