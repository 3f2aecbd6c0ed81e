//! `postrider doctor database`: whether a node could work in the database, how safe what it commits is there, and what stands
//! between. Changes nothing.

use std::fmt::Display;

use anyhow::{Context, bail};
use clap::Args;

use crate::clock::SystemClock;
use crate::server::postgres_settings;
use postrider_store_postgres::PostgresSettings;
use postrider_store_postgres::examine::{Examination, Pooler, examine};

use super::super::options::DataOptions;

#[derive(Debug, Args)]
pub struct DatabaseOptions {
    #[command(flatten)]
    data: DataOptions,
}

/// Fails when a node could not work there, so that the exit code tells.
pub async fn run(options: DatabaseOptions) -> anyhow::Result<()> {
    let settings = options.data.settings()?;
    let (Some(url), Some(database)) = (&settings.database.url, postgres_settings(&settings)) else {
        bail!("no database is named: --database-url postgres://user@host:5432/database");
    };
    println!("url          {url}");
    let found = examine(&database, &SystemClock).await.with_context(|| format!("{url} cannot be examined"))?;
    let findings = findings(&found, &database);
    for finding in &findings {
        finding.print();
    }
    let obstacles = findings.iter().filter(|finding| finding.says == Says::Unfit).count();
    println!("verdict      {}", if obstacles == 0 { "a node can work here" } else { "no node can work here as it is" });
    if obstacles == 0 { Ok(()) } else { bail!("the database cannot be used as it is") }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Fine,
    /// A node works, and something should be known.
    Beware,
    Unfit,
}

struct Finding {
    name: &'static str,
    says: Says,
    text: String,
}

impl Finding {
    fn fine(name: &'static str, text: impl Display) -> Self {
        Self { name, says: Says::Fine, text: text.to_string() }
    }

    fn judged(name: &'static str, is_fine: bool, fine: impl Display, otherwise: Says, fault: impl Display) -> Self {
        match is_fine {
            true => Self::fine(name, fine),
            false => Self { name, says: otherwise, text: fault.to_string() },
        }
    }

    fn print(&self) {
        let mark = match self.says {
            Says::Fine => "",
            Says::Beware => "warning: ",
            Says::Unfit => "unfit: ",
        };
        println!("{:<12} {mark}{}", self.name, self.text);
    }
}

fn findings(found: &Examination, database: &PostgresSettings) -> Vec<Finding> {
    let mut findings = vec![
        Finding::fine("server", format!("PostgreSQL {}", found.server_version)),
        Finding::fine("connection", connection(found)),
        pooler(found.pooler, database.direct_url.is_some()),
        Finding::judged(
            "writes",
            !found.is_standby,
            "yes",
            Says::Unfit,
            "it is a standby, which takes none; name the primary, or add target_session_attrs=read-write",
        ),
        schema(found),
    ];
    findings.extend(durability(found));
    findings.push(connections(found, database.pool_size + usize::from(database.direct_url.is_some())));
    findings.push(Finding::judged(
        "clock",
        !found.is_clock_off(),
        format!("{} ms ahead of this machine's", found.clock_ahead_ms),
        Says::Unfit,
        format!(
            "{} ms ahead of this machine's: by more than 30 seconds, a node does not send; set the clocks by NTP",
            found.clock_ahead_ms
        ),
    ));
    findings
}

fn connection(found: &Examination) -> String {
    let way = if found.is_encrypted { "encrypted" } else { "plain" };
    let Examination { user, database, .. } = found;
    format!("{way}, as {user} to {database}, answers in {:.1} ms", found.round_trip.as_secs_f64() * 1000.0)
}

fn pooler(pooler: Pooler, has_direct_url: bool) -> Finding {
    let name = "pooler";
    let hint = if has_direct_url {
        ""
    } else {
        "; let --database-direct-url lead past it, or nodes look for work each second instead of being told"
    };
    match pooler {
        Pooler::NotSeen => Finding::fine(name, "none seen"),
        Pooler::ByTransaction => Finding::judged(
            name,
            has_direct_url,
            "one that pools transactions",
            Says::Beware,
            format!("one that pools transactions{hint}"),
        ),
        Pooler::OtherPort { connected, listening } => {
            let text = format!("perhaps: connected to port {connected}, the server listens at {listening}{hint}");
            Finding::judged(name, has_direct_url, &text, Says::Beware, &text)
        }
    }
}

fn schema(found: &Examination) -> Finding {
    let name = "schema";
    let newest = found.newest_schema_version;
    let Some(schema) = &found.schema else {
        return Finding { name, says: Says::Unfit, text: "the search_path names none that exists".to_owned() };
    };
    let pending = match found.schema_version {
        Some(version) if version == newest => return Finding::fine(name, format!("{schema}, version {version}")),
        Some(version) if version > newest => {
            let text = format!("{schema}, version {version}: a newer postrider made it; this one knows {newest}");
            return Finding { name, says: Says::Unfit, text };
        }
        Some(version) => format!("{schema}, version {version}: the next node to start brings it to {newest}"),
        None => format!("{schema}, new: the first node makes the tables"),
    };
    let fault = format!("{pending}, but {} may create nothing in it", found.user);
    Finding::judged(name, found.may_create, pending, Says::Unfit, fault)
}

fn durability(found: &Examination) -> [Finding; 4] {
    let synchronous = found.synchronous_commit.as_str();
    [
        Finding::judged("fsync", found.fsync, "on", Says::Beware, "off: a power failure can destroy the database"),
        Finding::judged(
            "full pages",
            found.full_page_writes,
            "on",
            Says::Beware,
            "off: a power failure can destroy the database, unless its disk writes whole pages",
        ),
        Finding::judged(
            "commits",
            synchronous != "off",
            format!("synchronous_commit is {synchronous}"),
            Says::Beware,
            "synchronous_commit is off; a node switches it on for itself",
        ),
        Finding::judged(
            "replication",
            !found.synchronous_standby_names.is_empty(),
            format!("synchronous, to {}", found.synchronous_standby_names),
            Says::Beware,
            "not synchronous: a failover to a standby can lose the events that were acknowledged last",
        ),
    ]
}

fn connections(found: &Examination, taken: usize) -> Finding {
    let Examination { max_connections, reserved_connections, used_connections, .. } = found;
    let free = max_connections.saturating_sub(*reserved_connections).saturating_sub(*used_connections);
    let text = format!(
        "{used_connections} of {max_connections} in use, {reserved_connections} kept for superusers; a node takes up to {taken}"
    );
    let fits = usize::try_from(free).is_ok_and(|free| free >= taken);
    Finding::judged("connections", fits, &text, Says::Beware, format!("{text}: more than is left"))
}
