//! Every family but those of the process: its name, its help, its buckets and its label values.
//!
//! A struct holds the handles that one part of the server needs. `Default` is a struct that counts nothing.

use super::labels::{
    AgeAt, ConnectionState, Database, DeduplicatedBy, Direction, DiskStateLabel, EndpointState, LaneState,
    LookUpResult, MessageResult, Phase, PoolState, PublishKind, QueueState, RemovedKind, Reused, SpanResult,
    StatusClass, WatchedFile,
};
use super::register::{Register, by, single};
use super::scrape::BeforeScrape;
use super::series::{Counters, Gauges, Histograms, SeriesLabels};

/// Label values that belong to types of other crates, in the order of their positions.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    pub modes: Vec<&'static str>,
    /// Causes of deliveries.
    pub causes: Vec<&'static str>,
    /// Status and reason of each way in which a delivery ends.
    pub ends: Vec<(&'static str, &'static str)>,
    /// Outcomes of attempts.
    pub outcomes: Vec<&'static str>,
    /// Codes with which a publish is refused.
    pub refusals: Vec<&'static str>,
    /// Names of the sources of events.
    pub sources: Vec<&'static str>,
}

const PHASE_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 45.0];
const PUBLISH_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const FIRST_ATTEMPT_SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];
const AGE_SECONDS: &[f64] =
    &[0.01, 0.1, 1.0, 5.0, 30.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 43_200.0, 86_400.0, 259_200.0];
const DISK_SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
const COMMIT_JOBS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];

/// What the commits of a store add to the log. Each is counted once, after its commit.
#[derive(Clone, Debug, Default)]
pub struct LogMetrics {
    pub events_accepted: Counters,
    pub deliveries_created: Counters,
    pub deliveries_ended: Counters,
    pub attempts: Counters,
    pub attempt_responses: Counters,
}

impl LogMetrics {
    fn register(register: &mut Register, labels: &Labels) -> Self {
        let ends: Vec<SeriesLabels> =
            labels.ends.iter().map(|(status, reason)| vec![("status", *status), ("reason", *reason)]).collect();
        Self {
            events_accepted: register.counters(
                "events_accepted",
                "Events that were accepted, by mode",
                by("mode", &labels.modes),
            ),
            deliveries_created: register.counters(
                "deliveries_created",
                "Deliveries written to the log, by cause. Skipped and simulated ones count too",
                by("cause", &labels.causes),
            ),
            deliveries_ended: register.counters(
                "deliveries_ended",
                "Deliveries that ended, by status and reason",
                ends,
            ),
            attempts: register.counters(
                "attempts",
                "Attempts written to the log, by outcome",
                by("outcome", &labels.outcomes),
            ),
            attempt_responses: register.counters(
                "attempt_responses",
                "Attempts that the receiver answered, by the class of the status",
                by("class", StatusClass::VALUES),
            ),
        }
    }
}

/// What the engine measures.
#[derive(Clone, Debug, Default)]
pub struct EngineMetrics {
    pub phase_seconds: Histograms,
    pub first_attempt_delay_seconds: Histograms,
    pub delivery_age_seconds: Histograms,
    pub in_flight: Gauges,
    pub slots: Gauges,
    pub removed_rows: Counters,
    pub disk: DiskMetrics,
    pub before_scrape: BeforeScrape,
}

impl EngineMetrics {
    fn register(register: &mut Register, before_scrape: &BeforeScrape) -> Self {
        Self {
            phase_seconds: register.histograms(
                "attempt_phase_seconds",
                "Time of each part of an attempt. first_byte is the time from the start of the request to the head of \
                 the answer, total the time of the whole attempt",
                PHASE_SECONDS,
                by("phase", Phase::VALUES),
            ),
            first_attempt_delay_seconds: register.histograms(
                "first_attempt_delay_seconds",
                "Time from the creation of a delivery to the start of its first attempt",
                FIRST_ATTEMPT_SECONDS,
                single(),
            ),
            delivery_age_seconds: register.histograms(
                "delivery_age_seconds",
                "Time from the creation of a delivery to the outcome that ended it",
                AGE_SECONDS,
                by("end", AgeAt::VALUES),
            ),
            in_flight: register.gauges("attempts_in_flight", "Attempts that hold a slot", single()),
            slots: register.gauges("attempt_slots", "Attempts that this process makes at once at most", single()),
            removed_rows: register.counters(
                "retention_removed_rows",
                "What retention removed, by kind. payloads counts events whose data, headers and bodies went before the \
                 rows. On PostgreSQL the rows of a dropped day are estimated",
                by("kind", RemovedKind::VALUES),
            ),
            disk: DiskMetrics::register(register),
            before_scrape: before_scrape.clone(),
        }
    }
}

/// How full the disk is.
#[derive(Clone, Debug, Default)]
pub struct DiskMetrics {
    pub budget_bytes: Gauges,
    pub budget_used_bytes: Gauges,
    pub state: Gauges,
}

impl DiskMetrics {
    fn register(register: &mut Register) -> Self {
        Self {
            budget_bytes: register.gauges(
                "disk_budget_bytes",
                "Bytes that the store may take: --max-disk, or less if the file system has less",
                single(),
            ),
            budget_used_bytes: register.gauges(
                "disk_budget_used_bytes",
                "Bytes of the budget that are used: the database without its free pages, its log and the reserve",
                single(),
            ),
            state: register.gauges(
                "disk_state",
                "1 for the state of the disk budget, 0 for the others",
                by("state", DiskStateLabel::VALUES),
            ),
        }
    }
}

/// What the client for receivers measures.
#[derive(Clone, Debug, Default)]
pub struct EgressMetrics {
    pub bytes: Counters,
    pub connections_used: Counters,
    pub look_ups: Counters,
    pub connections: Gauges,
    pub before_scrape: BeforeScrape,
}

impl EgressMetrics {
    fn register(register: &mut Register, before_scrape: &BeforeScrape) -> Self {
        Self {
            bytes: register.counters(
                "attempt_bytes",
                "Bytes of requests and answers, without those of TLS, by direction",
                by("direction", Direction::VALUES),
            ),
            connections_used: register.counters(
                "connections_used",
                "Requests to receivers, by whether their connection had carried a request before",
                by("reused", Reused::VALUES),
            ),
            look_ups: register.counters(
                "dns_lookups",
                "DNS look-ups of receivers, by result",
                by("result", LookUpResult::VALUES),
            ),
            connections: register.gauges(
                "connections",
                "Open connections to receivers, by what they do",
                by("state", ConnectionState::VALUES),
            ),
            before_scrape: before_scrape.clone(),
        }
    }
}

/// What the service measures at its front door.
#[derive(Clone, Debug, Default)]
pub struct ServiceMetrics {
    pub refused: Counters,
    pub deduplicated: Counters,
    pub publish_seconds: Histograms,
    pub last_backup: Gauges,
}

impl ServiceMetrics {
    fn register(register: &mut Register, labels: &Labels) -> Self {
        Self {
            refused: register.counters(
                "events_refused",
                "Requests to publish that were refused, by error code. A batch counts once",
                by("reason", &labels.refusals),
            ),
            deduplicated: register.counters(
                "events_deduplicated",
                "Events that had been published before, by what showed it. A batch that is repeated with its \
                 Idempotency-Key counts once",
                by("by", DeduplicatedBy::VALUES),
            ),
            publish_seconds: register.histograms(
                "publish_seconds",
                "Time from a publish whose body was read to its answer, by whether it was a batch. Only accepted ones \
                 count",
                PUBLISH_SECONDS,
                by("kind", PublishKind::VALUES),
            ),
            last_backup: register.gauges(
                "last_backup_timestamp_seconds",
                "When the snapshot of the last good backup by `postrider backup` was taken, in seconds since 1970. \
                 Absent when there is none. Only with SQLite",
                single(),
            ),
        }
    }
}

/// What a store measures.
#[derive(Clone, Debug, Default)]
pub struct StoreMetrics {
    pub log: LogMetrics,
    pub commits: Counters,
    pub commit_seconds: Histograms,
    pub commit_jobs: Histograms,
    pub sync_seconds: Histograms,
    pub wal_bytes: Gauges,
    pub pool: Gauges,
    pub pool_waiting: Gauges,
    pub up: Gauges,
    pub clock_offset_seconds: Gauges,
    pub before_scrape: BeforeScrape,
}

impl StoreMetrics {
    fn register(register: &mut Register, labels: &Labels, before_scrape: &BeforeScrape) -> Self {
        Self {
            log: LogMetrics::register(register, labels),
            commits: register.counters(
                "store_commits",
                "Committed write transactions, by database",
                by("store", Database::VALUES),
            ),
            commit_seconds: register.histograms(
                "store_commit_seconds",
                "Time of a write transaction, from its begin to the end of its commit. With SQLite the flush to the disk \
                 comes after it",
                DISK_SECONDS,
                single(),
            ),
            commit_jobs: register.histograms(
                "store_commit_jobs",
                "Writes that shared a transaction",
                COMMIT_JOBS,
                single(),
            ),
            sync_seconds: register.histograms(
                "store_sync_seconds",
                "Time of a flush of the write-ahead log to the disk. Only with SQLite",
                DISK_SECONDS,
                single(),
            ),
            wal_bytes: register.gauges(
                "store_wal_bytes",
                "Bytes of the write-ahead log that are in use. Only with SQLite",
                single(),
            ),
            pool: register.gauges(
                "store_pool",
                "Connections of this process to its database for reads, with PostgreSQL also for writes, by what they do",
                by("state", PoolState::VALUES),
            ),
            pool_waiting: register.gauges(
                "store_pool_waiting",
                "Requests that wait for a connection to the database. Only with PostgreSQL",
                single(),
            ),
            up: register.gauges("store_up", "1 if the store could be used when it was last asked, 0 if not", single()),
            clock_offset_seconds: register.gauges(
                "clock_offset_seconds",
                "How far the clock of this machine is ahead of the clock of the store",
                single(),
            ),
            before_scrape: before_scrape.clone(),
        }
    }
}

/// What is read in the store now and then. With several nodes, one of them has these.
#[derive(Clone, Debug, Default)]
pub struct QueueMetrics {
    pub deliveries: Gauges,
    pub oldest_due_age_seconds: Gauges,
    pub lanes: Gauges,
    pub endpoints: Gauges,
    pub counted_at: Gauges,
    pub file_bytes: Gauges,
    pub free_bytes: Gauges,
}

impl QueueMetrics {
    fn register(register: &mut Register) -> Self {
        Self {
            deliveries: register.gauges(
                "queue_deliveries",
                "Deliveries that have not ended: due, scheduled for later, held back with their endpoint or for a \
                 consumer of a listener, or claimed by an attempt",
                by("state", QueueState::VALUES),
            ),
            oldest_due_age_seconds: register.gauges(
                "queue_oldest_due_age_seconds",
                "How long the oldest due delivery has been due. 0 if none is. Deliveries that are held back do not count",
                single(),
            ),
            lanes: register.gauges(
                "lanes",
                "Endpoints with deliveries that have not ended: something is due, all is scheduled for later, only probes \
                 are sent, or nothing is",
                by("state", LaneState::VALUES),
            ),
            endpoints: register.gauges(
                "endpoints",
                "Endpoints, by how they stand: the last attempt succeeded or none was made, failing, paused, disabled by \
                 the server, or switched off",
                by("state", EndpointState::VALUES),
            ),
            counted_at: register.gauges(
                "queue_counted_timestamp_seconds",
                "When the deliveries, lanes and endpoints above were counted",
                single(),
            ),
            file_bytes: register.gauges("store_file_bytes", "Size of the database", single()),
            free_bytes: register.gauges(
                "store_free_bytes",
                "Bytes of the database that hold nothing and are used again. Only with SQLite",
                single(),
            ),
        }
    }

    /// Leaves all of it out.
    pub fn clear(&self) {
        for gauges in [
            &self.deliveries,
            &self.oldest_due_age_seconds,
            &self.lanes,
            &self.endpoints,
            &self.counted_at,
            &self.file_bytes,
            &self.free_bytes,
        ] {
            gauges.clear();
        }
    }
}

/// What the sources of events measure. A series has the position of its source among those of the settings.
#[derive(Clone, Debug, Default)]
pub struct SourceMetrics {
    /// By source, then by [`MessageResult`].
    pub messages: Counters,
    pub up: Gauges,
    pub parked_messages: Gauges,
    pub last_message: Gauges,
    pub restarts: Counters,
    pub batch_seconds: Histograms,
}

impl SourceMetrics {
    fn register(register: &mut Register, labels: &Labels) -> Self {
        let of_result = |source: &'static str| {
            MessageResult::VALUES.iter().map(move |result| vec![("source", source), ("result", *result)])
        };
        Self {
            messages: register.counters(
                "source_messages",
                "Messages of each source, by what became of them: an event, one that was accepted before, or a parked \
                 message",
                labels.sources.iter().copied().flat_map(of_result).collect(),
            ),
            up: register.gauges(
                "source_up",
                "1 while this process takes messages from the source or the source is paused, 0 while it cannot",
                by("source", &labels.sources),
            ),
            parked_messages: register.gauges(
                "source_parked_messages",
                "Messages of the source that are parked, in the whole store",
                by("source", &labels.sources),
            ),
            last_message: register.gauges(
                "source_last_message_timestamp_seconds",
                "When this process last settled messages of the source",
                by("source", &labels.sources),
            ),
            restarts: register.counters(
                "source_restarts",
                "Times that the source failed and was started again",
                by("source", &labels.sources),
            ),
            batch_seconds: register.histograms(
                "source_batch_seconds",
                "Time from the pull of a batch of messages until it was settled",
                PUBLISH_SECONDS,
                single(),
            ),
        }
    }
}

/// What concerns the process as a whole.
#[derive(Clone, Debug, Default)]
pub struct ServerMetrics {
    pub http_responses: Counters,
    pub log_lines_dropped: Counters,
    pub file_problem: Gauges,
    pub start_time_seconds: Gauges,
}

impl ServerMetrics {
    fn register(register: &mut Register) -> Self {
        Self {
            http_responses: register.counters(
                "http_responses",
                "Answers of the API and the pages, by the class of the status",
                by("class", StatusClass::VALUES),
            ),
            log_lines_dropped: register.counters(
                "log_lines_dropped",
                "Lines of the log that were dropped because standard error was not read fast enough",
                single(),
            ),
            file_problem: register.gauges(
                "file_problem",
                "1 if a file of the settings could not be used when it was last read, so that its earlier content is \
                 still in use, 0 if not",
                by("file", WatchedFile::VALUES),
            ),
            start_time_seconds: register.gauges(
                "start_time_seconds",
                "When the server started, in seconds since 1970",
                single(),
            ),
        }
    }
}

/// What the export of spans counts.
#[derive(Clone, Debug, Default)]
pub struct TraceMetrics {
    pub spans: Counters,
}

impl TraceMetrics {
    fn register(register: &mut Register) -> Self {
        Self {
            spans: register.counters(
                "trace_spans",
                "Spans, by what became of them: the collector took them, it did not, or the queue had no room for them",
                by("result", SpanResult::VALUES),
            ),
        }
    }
}

/// All families but those of the process.
#[derive(Debug)]
pub struct Families {
    pub engine: EngineMetrics,
    pub egress: EgressMetrics,
    pub service: ServiceMetrics,
    pub store: StoreMetrics,
    pub queue: QueueMetrics,
    pub source: SourceMetrics,
    pub server: ServerMetrics,
    pub traces: TraceMetrics,
}

impl Families {
    pub fn register(register: &mut Register, labels: &Labels, before_scrape: &BeforeScrape) -> Self {
        Self {
            store: StoreMetrics::register(register, labels, before_scrape),
            service: ServiceMetrics::register(register, labels),
            engine: EngineMetrics::register(register, before_scrape),
            egress: EgressMetrics::register(register, before_scrape),
            queue: QueueMetrics::register(register),
            source: SourceMetrics::register(register, labels),
            server: ServerMetrics::register(register),
            traces: TraceMetrics::register(register),
        }
    }
}
