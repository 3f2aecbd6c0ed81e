//! `postrider doctor database`: checks whether a node can work in a database, how durable its commits are, and whether
//! a pooler is in between. Changes nothing.

use std::fmt::Display;

use anyhow::{Context, bail};
use clap::Args;

use crate::clock::SystemClock;
use crate::config::Settings;
use crate::server::postgres_settings;
use postrider_domain::error_chain::Chain;
use postrider_store_postgres::PostgresSettings;
use postrider_store_postgres::examine::{Examination, Pooler, examine};

use super::super::options::DataOptions;
use super::super::output::{self, OutputError};
use super::report::Check;

#[derive(Debug, Args)]
pub struct DatabaseOptions {
    #[command(flatten)]
    data: DataOptions,
}

/// Fails if no node can work in the database, so that the exit code shows it.
pub async fn run(options: DatabaseOptions) -> anyhow::Result<()> {
    let settings = options.data.settings()?;
    let (Some(url), Some(database)) = (&settings.database.url, postgres_settings(&settings)) else {
        bail!("no database is set: use --database-url postgres://user@host:5432/database");
    };
    output::line(format_args!("url          {url}"))?;
    let found = examine(&database, &SystemClock).await.with_context(|| format!("cannot examine {url}"))?;
    let findings = findings(&found, &database);
    for finding in &findings {
        finding.print()?;
    }
    let obstacles = findings.iter().filter(|finding| finding.severity == Severity::Unfit).count();
    let verdict = if obstacles == 0 { "a node can work here" } else { "no node can work here" };
    output::line(format_args!("verdict      {verdict}"))?;
    if obstacles == 0 { Ok(()) } else { bail!("the database is not usable: see the lines marked as unfit") }
}

/// What a check says about a finding: its name among all checks, and what to do if nothing better is known.
const CHECKS: &[(&str, &str)] = &[
    ("server", "database_server"),
    ("connection", "database_connection"),
    ("pooler", "database_pooler"),
    ("writes", "database_writes"),
    ("encoding", "database_encoding"),
    ("schema", "database_schema"),
    ("fsync", "database_fsync"),
    ("full pages", "database_full_pages"),
    ("commits", "database_commits"),
    ("replication", "database_replication"),
    ("connections", "database_connections"),
    ("clock", "clock"),
];

/// The findings as checks of the whole server.
pub async fn checks(settings: &Settings) -> Vec<Check> {
    let (Some(url), Some(database)) = (&settings.database.url, postgres_settings(settings)) else { return Vec::new() };
    match examine(&database, &SystemClock).await {
        Ok(found) => findings(&found, &database).into_iter().map(Finding::into_check).collect(),
        Err(error) => {
            let advice = "start the database, or correct --database-url and its password";
            vec![Check::fail("database", format_args!("{url}: {}", Chain(&error)), advice)]
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Fine,
    /// A node can work, with a risk.
    Warning,
    Unfit,
}

struct Finding {
    name: &'static str,
    severity: Severity,
    text: String,
}

impl Finding {
    fn fine(name: &'static str, text: impl Display) -> Self {
        Self { name, severity: Severity::Fine, text: text.to_string() }
    }

    fn judged(name: &'static str, is_fine: bool, fine: impl Display, otherwise: Severity, fault: impl Display) -> Self {
        match is_fine {
            true => Self::fine(name, fine),
            false => Self { name, severity: otherwise, text: fault.to_string() },
        }
    }

    /// The text of a finding that is not fine says what to do.
    fn into_check(self) -> Check {
        let name = CHECKS.iter().find(|(finding, _)| *finding == self.name).map_or(self.name, |(_, check)| *check);
        let (detail, advice) = match self.text.split_once([':', ';']) {
            Some((detail, advice)) if self.severity != Severity::Fine => (detail.to_owned(), advice.trim().to_owned()),
            _ => (self.text.clone(), "`postrider doctor database` and docs/postgresql.md say more".to_owned()),
        };
        match self.severity {
            Severity::Fine => Check::ok(name, self.text),
            Severity::Warning => Check::warn(name, detail, advice),
            Severity::Unfit => Check::fail(name, detail, advice),
        }
    }

    fn print(&self) -> Result<(), OutputError> {
        let mark = match self.severity {
            Severity::Fine => "",
            Severity::Warning => "warning: ",
            Severity::Unfit => "unfit: ",
        };
        output::line(format_args!("{:<12} {mark}{}", self.name, self.text))
    }
}

fn findings(found: &Examination, database: &PostgresSettings) -> Vec<Finding> {
    let mut findings = vec![
        Finding::fine("server", format!("PostgreSQL {}", found.server_version)),
        Finding::fine("connection", connection(found)),
        pooler(found.pooler, database.direct_url.is_some()),
        writes(found),
        Finding::judged(
            "encoding",
            found.encoding == "UTF8",
            "UTF8",
            Severity::Unfit,
            format!("{}: create the database with the encoding UTF8", found.encoding),
        ),
        schema(found),
    ];
    findings.extend(durability(found));
    findings.push(connections(found, database.pool_size + usize::from(database.direct_url.is_some())));
    findings.push(Finding::judged(
        "clock",
        !found.is_clock_off(),
        format!("{} ms ahead of this machine's", found.clock_ahead_ms),
        Severity::Unfit,
        format!(
            "{} ms ahead of this machine's: above 30 seconds a node does not send; synchronize the clocks by NTP",
            found.clock_ahead_ms
        ),
    ));
    findings
}

fn writes(found: &Examination) -> Finding {
    let fault = if found.is_standby {
        "no: this is a standby; use the URL of the primary, or add target_session_attrs=read-write".to_owned()
    } else if found.is_read_only {
        "no: transactions are read-only (default_transaction_read_only); set it to off for this user or database"
            .to_owned()
    } else {
        format!("no: {} may not write the tables; connect as their owner", found.user)
    };
    Finding::judged(
        "writes",
        !found.is_standby && !found.is_read_only && found.may_write,
        "yes",
        Severity::Unfit,
        fault,
    )
}

fn connection(found: &Examination) -> String {
    let transport = if found.is_encrypted { "encrypted" } else { "plain" };
    let Examination { user, database, .. } = found;
    format!("{transport}, as {user} to {database}, answers in {:.1} ms", found.round_trip.as_secs_f64() * 1000.0)
}

fn pooler(pooler: Pooler, has_direct_url: bool) -> Finding {
    let name = "pooler";
    let hint = if has_direct_url {
        ""
    } else {
        "; set --database-direct-url to a URL without it, otherwise nodes poll each second instead of being notified"
    };
    match pooler {
        Pooler::NotSeen => Finding::fine(name, "none found"),
        Pooler::ByTransaction => Finding::judged(
            name,
            has_direct_url,
            "yes, it pools transactions",
            Severity::Warning,
            format!("yes, it pools transactions{hint}"),
        ),
        Pooler::OtherPort { connected, listening } => {
            let text = format!("perhaps: connected to port {connected}, but the server listens on {listening}{hint}");
            Finding::judged(name, has_direct_url, &text, Severity::Warning, &text)
        }
    }
}

fn schema(found: &Examination) -> Finding {
    let name = "schema";
    let newest = found.newest_schema_version;
    let Some(schema) = &found.schema else {
        return Finding { name, severity: Severity::Unfit, text: "no schema in the search_path exists".to_owned() };
    };
    let pending = match found.schema_version {
        Some(version) if version == newest => return Finding::fine(name, format!("{schema}, version {version}")),
        Some(version) if version > newest => {
            let text =
                format!("{schema}, version {version}: made by a newer postrider; this one supports up to {newest}");
            return Finding { name, severity: Severity::Unfit, text };
        }
        Some(version) => format!("{schema}, version {version}: the next node that starts migrates it to {newest}"),
        None => format!("{schema}, new: the first node creates the tables"),
    };
    let fault = format!("{pending}, but {} has no CREATE privilege on it", found.user);
    Finding::judged(name, found.may_create, pending, Severity::Unfit, fault)
}

fn durability(found: &Examination) -> [Finding; 4] {
    let synchronous = found.synchronous_commit.as_str();
    [
        Finding::judged("fsync", found.fsync, "on", Severity::Warning, "off: a power failure can destroy the database"),
        Finding::judged(
            "full pages",
            found.full_page_writes,
            "on",
            Severity::Warning,
            "off: a power failure can destroy the database, unless its disk writes pages atomically",
        ),
        Finding::judged(
            "commits",
            synchronous != "off",
            format!("synchronous_commit is {synchronous}"),
            Severity::Warning,
            "synchronous_commit is off; a node switches it on for its sessions",
        ),
        Finding::judged(
            "replication",
            !found.synchronous_standby_names.is_empty(),
            format!("synchronous, to {}", found.synchronous_standby_names),
            Severity::Warning,
            "not synchronous: a failover to a standby can lose the last acknowledged events",
        ),
    ]
}

fn connections(found: &Examination, taken: usize) -> Finding {
    let Examination { max_connections, reserved_connections, used_connections, .. } = found;
    let free = max_connections.saturating_sub(*reserved_connections).saturating_sub(*used_connections);
    let text = format!(
        "{used_connections} of {max_connections} in use, {reserved_connections} reserved for superusers; a node uses up to {taken}"
    );
    let fits = usize::try_from(free).is_ok_and(|free| free >= taken);
    Finding::judged("connections", fits, &text, Severity::Warning, format!("{text}, more than are free"))
}
