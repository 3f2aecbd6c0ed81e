//! Every limit, with its unit and its reason. *(contract)* marks a limit of the wire contract.
//!
//! Constants that shape one algorithm stand beside that algorithm, not here.

use std::num::NonZeroU32;
use std::time::Duration;

// The listener

/// Bytes of a request's head (contract): request line and header fields.
pub const HEAD_BYTES: usize = 32 * 1024;
/// Header fields of a request. The parser keeps space for them on the stack.
pub const HEAD_FIELDS: usize = 100;
/// Bytes of a request's target (contract): its path and query.
pub const TARGET_BYTES: usize = 16 * 1024;
/// Time for a head, from the start of the connection or from its first byte after an answer (contract). It includes
/// the TLS handshake.
pub const HEAD_TIME: Duration = Duration::from_secs(10);
/// Time for a body of up to [`BODY_BYTES`] (contract).
pub const BODY_TIME: Duration = Duration::from_secs(30);
/// A larger body may begin slowly for this time (contract) …
pub const BODY_SLOW_START: Duration = Duration::from_secs(10);
/// … and is then never slower than this, in bytes a second (contract).
pub const BODY_BYTES_PER_SECOND: u32 = 32 * 1024;
/// How long the caller may take to read any more of an answer (contract).
pub const ANSWER_TIME: Duration = Duration::from_secs(30);
/// How long a connection may be idle between two requests (contract).
pub const IDLE_TIME: Duration = Duration::from_secs(75);
/// Bytes of bodies in memory, of all requests together (contract): sixteen batches of the largest size.
pub const BODIES_BYTES: usize = 128 * 1024 * 1024;
/// Unread bytes of a body that are read and dropped to keep the connection usable (contract).
pub const DRAIN_BYTES: u64 = 256 * 1024;
/// How long an answer waits for those bytes. They have usually arrived with the head.
pub const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Bytes that are read and dropped before a connection is closed, so that the caller can read the answer: two batches
/// of the largest size.
pub const LINGER_BYTES: u64 = 16 * 1024 * 1024;
/// How long they are read in all …
pub const LINGER_TIME: Duration = Duration::from_secs(10);
/// … and while nothing arrives.
pub const LINGER_QUIET_TIME: Duration = Duration::from_secs(2);
/// Bytes that one connection buffers for reading and for writing. A head fits twice.
pub const CONNECTION_BUFFER_BYTES: usize = 64 * 1024;
/// How long the listener waits after it could not accept a connection, for example for lack of open files.
pub const ACCEPT_RETRY_WAIT: Duration = Duration::from_millis(500);
/// How often the listener looks whether its certificate file has changed.
pub const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long browsers remember that the server speaks TLS: a year, in seconds.
pub const HSTS_SECONDS: u32 = 365 * 24 * 3600;
/// Addresses of `X-Forwarded-For` and `Forwarded` that are read, from the right: more proxies than any path has.
pub const FORWARDED_ADDRESSES: usize = 32;

// Traces

/// How old an event is at most when an attempt belongs to its trace: back ends drop spans that come long after the
/// others.
pub const TRACE_CHILD_AGE: Duration = Duration::from_secs(10 * 60);
/// Spans that wait for the collector. Further ones are dropped and counted. A span takes about 1 KB.
pub const SPANS_QUEUED: usize = 4_096;
/// Spans of one request to the collector.
pub const SPANS_PER_EXPORT: usize = 512;
/// How long a span may wait for others to share its request.
pub const SPAN_EXPORT_WAIT: Duration = Duration::from_secs(1);
/// Time for one request to the collector.
pub const SPAN_EXPORT_TIME: Duration = Duration::from_secs(10);
/// Bytes of a collector's answer that are read.
pub const COLLECTOR_ANSWER_BYTES: usize = 64 * 1024;
/// How long a stopping server waits for the collector to take the last spans.
pub const SPAN_FLUSH_WAIT: Duration = Duration::from_secs(3);

// Requests to the API

/// A request body in bytes (contract). It also bounds one event of a batch.
pub const BODY_BYTES: usize = 256 * 1024;
/// A batch body in bytes (contract). With an `Idempotency-Key` the limit is [`BODY_BYTES`] (contract).
pub const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Events of a batch (contract).
pub const BATCH_EVENTS: usize = 1000;
/// Schema violations reported for one event, and events of a batch that are reported: enough to fix a publisher, few
/// enough to keep the answer small.
pub const VIOLATIONS_SHOWN: usize = 20;
/// Characters of the text of one schema violation. Without a limit, a list of unexpected fields could be as long as
/// `data` itself.
pub const VIOLATION_CHARS: usize = 256;
/// Nesting of arrays and objects in a body: far beyond real payloads, far below what exhausts a stack.
pub const JSON_DEPTH: usize = 64;
/// Members of all objects that are open at one place of a body. An event of [`BODY_BYTES`] cannot have more, so only a
/// body meets this limit that would be refused anyway. It bounds the memory of the reader.
pub const JSON_OPEN_MEMBERS: usize = 64 * 1024;
/// Members of an object that are looked up by name: several times what any request has.
pub const FIELDS: usize = 64;
/// Unknown parameters that an error names (contract).
pub const UNKNOWN_FIELDS_SHOWN: usize = 20;
/// Characters of a caller's text that an error repeats (contract).
pub const ECHO_CHARS: usize = 64;
/// Bytes of an error's body (contract, for remembered ones). A caller could otherwise fill memory and the store with
/// refusals that repeat its bodies.
pub const ERROR_BYTES: usize = 4 * 1024;
/// Characters of a duplicate key that an error repeats.
pub const DUPLICATE_KEY_CHARS: usize = 64;
/// Characters of an endpoint's name (contract).
pub const ENDPOINT_NAME_CHARS: usize = 128;
/// Characters of an endpoint's URL (contract).
pub const ENDPOINT_URL_CHARS: usize = 1024;
/// Characters of a project id, an external id and an idempotency key (contract).
pub const OPAQUE_ID_CHARS: usize = 64;
/// Characters of a workspace's name: the same as an endpoint's.
pub const WORKSPACE_NAME_CHARS: usize = 128;
/// Characters of an API key's name: the same as an endpoint's.
pub const API_KEY_NAME_CHARS: usize = 128;
/// Characters of an event's name in the catalogue.
pub const EVENT_NAME_CHARS: usize = 64;
/// Characters of a brand: it is part of header names and key prefixes.
pub const BRAND_CHARS: usize = 32;
/// Live portal sessions of one workspace and mode: a busy hour of a large product. A session is opened for each visit.
pub const PORTAL_SESSIONS_PER_WORKSPACE: u32 = 10_000;
/// How long a portal session lasts: at least as long as a form takes, at most a working day.
pub const PORTAL_SESSION_MIN: Duration = Duration::from_secs(300);
pub const PORTAL_SESSION_MAX: Duration = Duration::from_secs(86_400);
pub const PORTAL_SESSION_DEFAULT: Duration = Duration::from_secs(3_600);
/// How long the link of a portal session can be opened: it stands in a page that was just loaded.
pub const PORTAL_CODE_TTL: Duration = Duration::from_secs(300);
/// How often the link of a portal session can be opened: a frame may be mounted several times.
pub const PORTAL_OPENINGS: u32 = 5;
/// How long an ended portal session stays in the list.
pub const PORTAL_SESSION_KEPT: Duration = Duration::from_secs(86_400);
/// Characters of a path inside the portal that a session leads to.
pub const PORTAL_PATH_CHARS: usize = 512;
/// Origins that may show one portal session in a frame. They stand in a header of each page.
pub const PORTAL_FRAME_ANCESTORS: usize = 20;
/// Characters of the name on top of the portal: it stands in a line with the sections.
pub const PORTAL_BRAND_CHARS: usize = 64;
/// Bytes of the portal's logo: each customer loads it before he sees a page.
pub const PORTAL_LOGO_BYTES: usize = 64 * 1024;
/// The largest radius of corners in the portal, in pixels: beyond it a field is a pill and hides its ends.
pub const PORTAL_RADIUS_PX: u8 = 24;
/// Unrevoked API keys of one workspace and mode: far more than anyone can oversee.
pub const API_KEYS_PER_WORKSPACE: u32 = 1_000;
/// How long a sign-in session of the dashboard lasts at most: a working day.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How long a session lasts without a request: a long meeting. As its last request is written only now and then
/// ([`SESSION_SEEN_EVERY`]), it may end that much earlier.
pub const SESSION_IDLE: Duration = Duration::from_secs(2 * 3600);
/// How often the last request of a session is written at most.
pub const SESSION_SEEN_EVERY: Duration = Duration::from_secs(60);
/// Open sessions of one workspace, both modes together: far more than the people who look after it. A sign-in beyond
/// it ends the session that was not used for the longest time.
pub const SESSIONS_PER_WORKSPACE: u32 = 100;
/// How long a login code is valid: time to switch to the browser. A code in the history of a terminal is worth nothing.
pub const LOGIN_CODE_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// Unused login codes of one workspace. A code beyond it replaces the oldest one.
pub const LOGIN_CODES_PER_WORKSPACE: u32 = 100;
/// Requests for pages that one session may make in [`RATE_WINDOW`], at each node: ten a second, which a browser with a
/// few open tabs does not reach.
pub const PAGE_REQUESTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(600).expect("600 is not 0");
/// Streams of pages that one session may have open at each node. A browser opens one for each page on screen.
pub const LIVE_STREAMS_PER_SESSION: usize = 8;
/// Streams of pages at each node. Each renders its page every two seconds: all of them use a part of one core.
pub const LIVE_STREAMS: usize = 64;
/// Sessions whose requests are counted. Beyond it the session that came first begins anew.
pub const SESSIONS_COUNTED: usize = 4_096;
/// Endpoints of one project and mode (contract). Endpoints without a project count as one project.
pub const ENDPOINTS_PER_PROJECT: u32 = 500;
/// Endpoints of one workspace and mode (contract).
pub const ENDPOINTS_PER_WORKSPACE: u32 = 50_000;
/// The smallest budget of stored bytes of a workspace: four of the largest events. There is none by default, because
/// only the operator knows how much disk there is for how many workspaces.
pub const WORKSPACE_BYTES_MIN: u64 = 4 * BODY_BYTES as u64;
/// Deliveries that one request may create (contract).
pub const DELIVERIES_PER_REQUEST: usize = 10_000;

/// The longest time for which a rotated secret signs beside its successor (contract).
pub const SECRET_OVERLAP_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Items of a page when `limit` is absent (contract).
pub const PAGE_DEFAULT: u32 = 50;
/// Items of the longest page (contract).
pub const PAGE_MAX: u32 = 200;

/// Values of one parameter of a filter. All outcomes fit, and a page of chosen endpoints does.
pub const FILTER_VALUES: usize = 50;
/// Characters of a text that a list looks for. The longest host fits.
pub const SOUGHT_TEXT_CHARS: usize = 256;

/// Matching deliveries that are counted at most; then the count says *at least*.
pub const COUNTED_MAX: u32 = 10_000;

/// Rows of the delivery log that one page reads when its filter passes few: some tens of milliseconds. Such a page may
/// be short or empty, and says that there is more.
pub const LOG_ROWS_PER_PAGE: u32 = 10_000;

/// Between two writes of the keys that were used. With [`KEY_CACHE_TTL`], for which a use may go unnoticed,
/// `lastUsedAt` is at most a minute late (contract).
pub const KEY_USES_WRITTEN_EVERY: Duration = Duration::from_secs(55);

/// Lifetime of an idempotency key (contract).
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// The window of a request limit (contract).
pub const RATE_WINDOW: Duration = Duration::from_secs(60);
/// The nodes that share a store admit this part of a rate limit, all together, beyond what they have told each other.
/// So a limit can be exceeded by a tenth, of the fifth that is allowed (contract); the rest is for a node that joins.
pub const RATE_ALLOWANCE_PART: u32 = 10;
/// How often a node looks for request counts to exchange.
pub const RATE_EXCHANGE_INTERVAL: Duration = Duration::from_secs(1);
/// The age of the last exchange at which the counts of a quiet workspace are exchanged again.
pub const RATE_EXCHANGE_AGE: Duration = Duration::from_secs(5);
/// How long a request waits for an exchange. Beyond it the store counts as unavailable.
pub const RATE_EXCHANGE_WAIT: Duration = Duration::from_secs(2);
/// Requests of a workspace in the window, except publishes: enough for the dashboards of many people, and no more than
/// one writer thread can take from a runaway loop.
pub const MANAGEMENT_REQUESTS_PER_MINUTE: u32 = 1_200;
/// Publishes of a workspace in the window: 50,000 a second, more than one server takes. A product reaches the limit
/// only where the operator has set a lower one; every answer reports what is left. 0 means no limit.
pub const PUBLISHING_REQUESTS_PER_MINUTE: u32 = 3_000_000;
/// Up to this limit the log keeps the millisecond of each request: 64 KB for the busiest workspace.
pub const RATE_LOG_EXACT: u32 = 4_096;
/// Above it the log rounds to this step: 3,001 entries for the busiest workspace.
pub const RATE_LOG_GRAIN: Duration = Duration::from_millis(20);
/// Workspaces whose requests are remembered before idle ones are removed.
pub const RATE_WORKSPACES: usize = 1_024;

// Store

/// A group commit closes at this many rows …
pub const GROUP_ROWS: usize = 2_000;
/// … or at this many bytes. A larger group would make its first write wait for its last.
pub const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Writes queued for the writer. Beyond it a caller waits.
pub const WRITES_QUEUED: usize = 16_384;
/// Size of the write-ahead log above which publishes are answered 503 until a checkpoint has shortened it.
pub const WAL_REFUSE_BYTES: u64 = 1024 * 1024 * 1024;
/// Size of the write-ahead log above which it restarts at the beginning of its file. Overwriting blocks takes the disk
/// half as long as writing new ones.
pub const WAL_RESTART_BYTES: u64 = 64 * 1024 * 1024;
/// Size of the write-ahead log above which the writer itself pauses to truncate it.
pub const WAL_TRUNCATE_BYTES: u64 = 256 * 1024 * 1024;

/// Connections of one node to a database server: two for each of the two groups of writers, the rest for requests.
pub const DATABASE_CONNECTIONS: usize = 16;
/// The smallest pool: the connections of the two groups of writers.
pub const DATABASE_CONNECTIONS_MIN: usize = 4;
/// The largest pool: twice what a server accepts in all by default.
pub const DATABASE_CONNECTIONS_MAX: usize = 200;
/// Time after which the database server cancels a statement: far longer than any of ours should take.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest statement timeout that can be set.
pub const STATEMENT_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// The longest statement timeout: a claim is lost after this time.
pub const STATEMENT_TIMEOUT_MAX: Duration = LEASE;

/// How far ahead of the clock the newest row of a store may be for new rows to follow it. A clock set back by NTP or by
/// hand is well within this limit. A clock that was years ahead must not determine the time of every later row.
pub const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);

/// Retention of events and their deliveries by default: long enough to answer questions about last month.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// Retention of audit entries by default: a year, and a month to look into it.
pub const AUDIT_RETENTION: Duration = Duration::from_secs(400 * 24 * 3600);
/// The shortest retention of each kind: a minute, for trials. Upkeep runs once a minute.
pub const RETENTION_MIN: Duration = Duration::from_secs(60);
/// A shorter retention is warned of: an outage at night could not be examined in the morning.
pub const RETENTION_SHORT: Duration = Duration::from_secs(24 * 3600);
/// The longest retention: ten years, which means for ever.
pub const RETENTION_MAX: Duration = Duration::from_secs(3650 * 24 * 3600);

/// How long the counts of each minute are kept, at most as long as the log: enough to look into yesterday.
pub const MINUTE_ROLLUPS_KEPT: Duration = Duration::from_secs(2 * 24 * 3600);
/// How long the counts of each hour are kept, at most as long as the log. Those of each day are kept as long as that.
pub const HOUR_ROLLUPS_KEPT: Duration = Duration::from_secs(60 * 24 * 3600);
/// From the end of an hour until its counts are added up: longer than any transaction that may still write into it.
pub const ROLLUP_CLOSING_TIME: Duration = Duration::from_secs(5 * 60);
/// Buckets of one answer about statistics (contract): 25 hours in minutes, or 62 days in hours.
pub const STATS_BUCKETS: usize = 1_500;
/// Pending deliveries that are counted (contract). Beyond it an answer says that there are more: counting millions
/// would take as long as reading them.
pub const PENDING_COUNTED: u64 = 10_000;

// Attempts and their answers

/// The whole exchange with a receiver: connect, TLS, headers and body (contract).
pub const ATTEMPT_DEADLINE: Duration = Duration::from_secs(15);
/// The shortest deadline that an operator can set.
pub const ATTEMPT_DEADLINE_MIN: Duration = Duration::from_millis(100);
/// The longest deadline: with the margin and some waiting it fits into a lease.
pub const ATTEMPT_DEADLINE_MAX: Duration = Duration::from_secs(45);
/// A send starts only if the lease outlasts its deadline by this much, so that this node can record the result.
pub const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// How long a claim is held: a deadline, the margin, and time to wait for a permit.
pub const LEASE: Duration = Duration::from_secs(60);
const _: () = assert!(
    ATTEMPT_DEADLINE_MAX.as_secs() + LEASE_MARGIN.as_secs() < LEASE.as_secs(),
    "a fresh claim must have time to send, whatever deadline the endpoint has"
);
/// Bytes of a receiver's answer kept in the log (contract).
pub const RESPONSE_KEPT_BYTES: usize = 4 * 1024;
/// Bytes of one response header kept in the log: enough to debug, too few to fill a disk.
pub const RESPONSE_HEADER_BYTES: usize = 256;
/// Response headers kept in the log: enough to debug, too few to fill a disk.
pub const RESPONSE_HEADERS: usize = 32;
/// The longest wait that a receiver's `Retry-After` can ask for (contract).
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);
/// Wait before an attempt is repeated that failed by our own fault. It uses no step of the schedule.
pub const SENDER_FAULT_WAIT: Duration = Duration::from_secs(5);
/// Custom headers of an endpoint: more than any receiver or gateway asks for.
pub const CUSTOM_HEADERS: usize = 16;
/// Characters of a custom header's name: far above any in use.
pub const CUSTOM_HEADER_NAME_CHARS: usize = 128;
/// Characters of a custom header's value: a long token. A request with sixteen of them is within what servers accept.
pub const CUSTOM_HEADER_VALUE_CHARS: usize = 1024;
/// The highest rate limit of an endpoint, in deliveries per second. Above it the adaptive limit decides better.
pub const DELIVERY_RATE_MAX: u32 = 1_000;
/// Characters of a client certificate's chain, as PEM: some ten certificates.
pub const CERTIFICATE_CHARS: usize = 32 * 1024;
/// Characters of a client certificate's private key, as PEM: above RSA with 16,384 bits.
pub const CERTIFICATE_KEY_CHARS: usize = 16 * 1024;
/// Steps of a retry schedule: a longer schedule is a mistake in the settings.
pub const RETRY_STEPS: usize = 32;
/// The longest step of a retry schedule.
pub const RETRY_STEP_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Reads of the log that count what a replay by filter would send, of 2,000 rows each: some seconds at most. A count
/// that is not done by then says how far it looked.
pub const REPLAY_COUNT_READS: u32 = 250;
/// Erasures of a workspace that have not ended: far more than customers leave at once. Each looks at the log in turn.
pub const ERASURES_UNFINISHED: usize = 1_000;
/// The wait before an erasure looks again at deliveries that must end first. A look that took long is followed by ten
/// times its duration, at most 600 of these waits.
pub const ERASURE_PASS_WAIT: Duration = Duration::from_secs(1);
/// Deliveries that one request retries: those that a person selects on a page.
pub const RETRIES_PER_REQUEST: usize = 200;
/// How long before an event's instant an endpoint's last change counts as settled: longer than any transaction takes,
/// and than the clocks of two nodes differ.
pub const CHANGE_SETTLES: Duration = Duration::from_secs(60);
/// How long a delivery waits behind an inactive or paused endpoint before it fails as `expired` (contract).
pub const WAITING_MAX: Duration = Duration::from_secs(14 * 24 * 3600);

// Health of an endpoint

/// Consecutive failures that make an endpoint `failing`. Retries alone handle one or two.
pub const FAILING_FAILURES: u32 = 3;
/// Consecutive failures that pause an endpoint (contract) …
pub const PAUSE_FAILURES: u32 = 5;
/// … if they span at least this time (contract): a burst that fails at once is no more evidence than one failure.
pub const PAUSE_SPAN: Duration = Duration::from_secs(10);
/// From the pause to its first probe (contract) …
pub const PROBE_WAIT_MIN: Duration = Duration::from_secs(30);
/// … and, doubled after each failed probe, at most (contract).
pub const PROBE_WAIT_MAX: Duration = Duration::from_secs(3600);
/// Age of the first failure since the last success at which an endpoint is switched off (contract) …
pub const DISABLE_AGE: Duration = Duration::from_secs(5 * 24 * 3600);
/// … with at least this many failures since (contract).
pub const DISABLE_FAILURES: u32 = 12;
/// Age of the first failure at which the operator is warned that the endpoint will be switched off: a day before.
pub const DISABLE_WARNING_AGE: Duration = Duration::from_secs(4 * 24 * 3600);
/// The shortest break for an endpoint with consecutive failures, before it is paused.
pub const SLOW_DOWN: Duration = Duration::from_secs(1);

// Audit log

/// Bytes of one value in an audit entry, as JSON: a URL of the longest kind. An entry of an endpoint has two dozen
/// values, most of them short.
pub const AUDIT_VALUE_BYTES: usize = 4 * 1024;
/// Kinds of refused requests that get an entry of their own in a minute, of each process. Strangers cause them: this
/// many take some 20 MB a day at most, and retention removes them.
pub const REFUSALS_PER_MINUTE: usize = 60;

// Admin socket and command line

/// Bytes of a request at the admin socket: far above the longest kind.
pub const ADMIN_REQUEST_BYTES: u64 = 64 * 1024;
/// Bytes of an answer of the admin socket: the longest page has 200 audit entries. One of an endpoint may take 32 KB:
/// its events and its URL at the limit of a value, before and after, and sixteen headers.
pub const ADMIN_ANSWER_BYTES: u64 = 8 * 1024 * 1024;
/// Time for one exchange at the admin socket.
pub const ADMIN_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes a second that a backup copies by default: a disk for servers writes several times as many, so deliveries keep
/// most of it.
pub const BACKUP_BYTES_PER_SECOND: u64 = 50_000_000;
/// The fastest rate of a backup that can be asked for, in MB/s: beyond it the rate limits nothing.
pub const BACKUP_RATE_MAX_MB: u32 = 100_000;
/// Size of the write-ahead log at which a backup gives up. Its snapshot keeps the log from being restarted, so the log
/// grows as long as the backup copies. At twice this size publishes would be refused.
pub const BACKUP_WAL_BYTES: u64 = WAL_REFUSE_BYTES / 2;
/// Bytes that must stay free where a backup or a compacted store is written.
pub const BACKUP_SPARE_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of a manifest that are read: one has about 400.
pub const MANIFEST_BYTES: u64 = 64 * 1024;
/// Bytes of the path of a Unix socket (Linux: 108 with the closing NUL).
pub const SOCKET_PATH_BYTES: usize = 107;

// Master key

/// Endpoints' secrets or options that a change of the master key seals anew in one step: a few milliseconds of the
/// writer's time, between which deliveries go on. Options may hold certificates of tens of kilobytes.
pub const RESEALED_ROWS_PER_STEP: usize = 100;
/// Pages that one request of the command walks before it reports its progress.
pub const RESEALED_PAGES_PER_REQUEST: usize = 10;
/// How often a server looks in the store for a change of the master key. Each phase of a change waits for it.
pub const KEY_STATE_POLL: Duration = Duration::from_secs(1);
/// Ids of earlier master keys that a store remembers for its messages: years of changes.
pub const REPLACED_KEYS_REMEMBERED: usize = 32;
/// Time for the command that prints the master key: a slow vault, and less than a service manager waits for a start.
pub const MASTER_KEY_COMMAND_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes that are read of that command's standard output and standard error, each: a key has 65.
pub const MASTER_KEY_COMMAND_BYTES: usize = 4 * 1024;

// Local tools

/// How far a webhook's timestamp may be from the receiver's clock, in either direction (Standard Webhooks). It bounds
/// how long an intercepted webhook can be replayed.
pub const TIMESTAMP_TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// Bytes that one explanation of a signature hashes in search of its cause: a tenth of a second of one core. The bodies
/// of most events fit in often enough for every combination.
pub const VERIFICATION_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of the form that such a request is pasted into: an event of [`BODY_BYTES`], each byte written as three.
pub const VERIFICATION_FORM_BYTES: usize = 4 * BODY_BYTES;
/// Time for one call of the API client, from the first byte sent to the last byte read: longer than the server's own
/// deadlines.
pub const CLIENT_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of a file or of standard input that a command reads for a request: a capture with a large page around it.
pub const INPUT_FILE_BYTES: usize = 16 * 1024 * 1024;
/// How long the API client waits before it repeats a call, if the server asks for it: a minute of the rate limit.
pub const CLIENT_RETRY_WAIT: Duration = Duration::from_secs(60);
/// Events that one command publishes: as many as a test of a receiver needs.
pub const TRIGGERED_EVENTS: u32 = 10_000;
/// Time for `postrider health`: shorter than the 30 s that container engines give a check.
pub const HEALTH_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an answer that the API client reads: a page of 200 with long fields stays far below it.
pub const CLIENT_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of a body that the local receiver reads: four times the largest event, so that none of ours is refused.
pub const RECEIVER_BODY_BYTES: usize = 1024 * 1024;
/// Arrivals that the local receiver queues for the screen. Beyond it an answer waits, which slows the sender down.
pub const RECEIVER_ARRIVALS: usize = 1024;
/// How long the local receiver waits for running requests when it stops.
pub const RECEIVER_STOP_WAIT: Duration = Duration::from_secs(1);
/// How long `postrider dev` waits for its deliveries before it lists the missing ones.
pub const TOUR_WAIT: Duration = Duration::from_secs(10);

// Engine and egress

/// Certificates in the chain of a client certificate: no public hierarchy is half as deep, and each handshake sends all
/// of them.
pub const CLIENT_CERTIFICATES: usize = 8;
/// Client identities whose TLS sessions one process remembers. One more costs another identity a full handshake.
pub const IDENTITIES_REMEMBERED: usize = 1024;

/// Concurrent attempts of one process: ten thousand a second to receivers that answer in 100 ms. Beyond it, memory and
/// sockets cost more than they bring.
pub const SLOTS: usize = 1_024;
/// Concurrent attempts to one endpoint: enough for a fast one, too few to take every permit.
pub const SLOTS_PER_ENDPOINT: usize = 64;
/// Concurrent attempts to an endpoint without a history.
pub const SLOTS_AT_FIRST: usize = 8;
/// Concurrent attempts to a slow endpoint: some, so that its queue moves, and few, because each holds its permit long.
pub const SLOTS_WHEN_SLOW: usize = 4;
/// An endpoint whose exchanges take less than this on average is quick. All others share half of the permits.
pub const QUICK: Duration = Duration::from_secs(1);
/// For how long the claims made ahead keep a quick endpoint busy: a few commits …
pub const CLAIMED_AHEAD: Duration = Duration::from_millis(20);
/// … and at most this many times its concurrency limit.
pub const CLAIMED_AHEAD_TURNS: usize = 3;
/// Claims of one process on one endpoint, including finished attempts whose outcome is not on disk yet: this many
/// attempts can be repeated after a crash. A quick endpoint needs some hundreds while its outcomes are written.
pub const CLAIMS_PER_ENDPOINT: usize = 1_024;
/// Concurrent tests of an endpoint, beside its other attempts: somebody waits for each.
pub const TESTS_BESIDE: usize = 4;
/// The engine polls the store at least this often, with or without a wake-up.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long a revoked key may go on working (contract: 5 s). The difference is left for clocks and commits.
pub const KEY_CACHE_TTL: Duration = Duration::from_secs(2);
/// Principals remembered: keeps keys guessed at random from filling memory.
pub const KEY_CACHE_ENTRIES: usize = 10_000;
/// Requests with a refused key from one address in a minute (contract): far more than a client with a wrong key sends
/// before somebody notices, and too few to guess.
pub const REFUSED_KEYS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(100).expect("100 is not 0");
/// Addresses whose refused keys are counted: some 10 MB at most. Beyond it the address that came first is forgotten.
pub const REFUSED_ADDRESSES: usize = 4_096;
/// Concurrent look-ups of keys that are not cached. The store's other connections stay free for callers with a key.
pub const KEY_LOOK_UPS: usize = 4;
/// How long the result of a health check is used: load balancers ask every few seconds.
pub const READINESS_KEPT: Duration = Duration::from_secs(1);
/// How long a stopping process waits for running attempts before the next start repeats them.
pub const STOP_GRACE: Duration = Duration::from_secs(20);
/// The longest grace that can be set: service managers have timeouts too.
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
/// The smallest disk budget: less has no room for the write-ahead log.
pub const DISK_BUDGET_MIN: u64 = 100_000_000;
/// The file that is deleted when the disk is full, so that deletes can still be committed.
pub const DISK_RESERVE_BYTES: u64 = 64_000_000;
/// The reserve is deleted when the disk is full and less than this is left.
pub const DISK_RESERVE_NEEDED_BELOW: u64 = 16_000_000;
/// A disk that gets full takes no rows of the log or payloads that are younger than this.
pub const TIGHT_RETENTION: Duration = Duration::from_secs(3600);
/// Rows that the janitor expires, forgets or removes in one step: a few milliseconds of the writer's time.
pub const AGEING_ROWS_PER_STEP: usize = 500;
/// Events whose payloads the janitor looks at in one step. A payload may have 256 KB in many pages.
pub const PAYLOADS_PER_STEP: usize = 100;

/// How long one look-up of a host may take, both address families together.
pub const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// Look-ups at a time, of different names. Each has up to six sockets open: for both families, and for each datagram
/// that is repeated because it may be lost. Further ones wait, within their own time.
pub const LOOK_UPS_AT_ONCE: usize = 64;
/// How long an answer of a name server proves that the network to it works, so that its silence about another name is
/// the fault of that name.
pub const NAME_SERVER_TRUST: Duration = Duration::from_secs(60);
/// How long vetted addresses are used before the host is looked up again.
pub const PIN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// While a host that cannot be connected to keeps the same addresses, how often it is looked up again.
pub const PIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// Endpoints whose vetted addresses are kept: twice as many as one workspace may have. One takes a few hundred bytes.
pub const PINNED_HOSTS: usize = 100_000;
/// Hosts of which it is remembered for [`PIN_RENEWAL_INTERVAL`] that they kept their addresses. Beyond that, hosts that
/// cannot be connected to are looked up more often.
pub const UNCHANGED_HOSTS: usize = 10_000;
/// Shortest prefix of an IPv4 block that one `--allow-target` may allow: the size of 10.0.0.0/8, the largest private
/// block.
pub const ALLOWED_V4_PREFIX_MIN: u8 = 8;
/// Shortest prefix of an IPv6 block that one `--allow-target` may allow: what a provider gets. Blocks inside fc00::/7,
/// which is private, may be shorter.
pub const ALLOWED_V6_PREFIX_MIN: u8 = 32;
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
/// How often one attempt sends its request again on another connection because the receiver has not processed it. An
/// HTTP/2 server that closes a connection after a few requests refuses all others on it.
pub const RESENDS_PER_ATTEMPT: u32 = 5;
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
/// After the grace, how long connections that were cut off may take to close.
pub const CUT_WAIT: Duration = Duration::from_secs(1);

mod listener;
mod process;
mod source;

pub use listener::*;
pub use process::*;
pub use source::*;
