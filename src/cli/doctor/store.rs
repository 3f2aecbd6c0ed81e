//! Checks of the store and what belongs to it: the server, the master key, the schema, the log, the backups.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use crate::clock::SystemClock;
use crate::config::Settings;
use crate::server::admin::{self, AdminError, AdminRequest, AdminResponse};
use crate::server::named_master_key;
use postrider_crypto::MasterKey;
use postrider_domain::disk::{DiskSpace, DiskState};
use postrider_domain::duration::format_duration;
use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_domain::time::{Clock as _, Timestamp};
use postrider_store::sealing::keyring::KeyFacts;
use postrider_store_sqlite::examine::{Examination, examine};
use postrider_store_sqlite::restore::StoreFacts;

use super::report::Check;

/// A backup that is older should be replaced.
const BACKUP_AGE_MAX: Duration = Duration::from_secs(2 * 24 * 3600);
/// A clock that is less behind is corrected by NTP before anybody notices.
const CLOCK_BEHIND_MAX: Duration = Duration::from_secs(5);

/// Whether a server runs with the data directory, and is ready.
pub async fn server(settings: &Settings) -> Check {
    let name = "server";
    let socket = settings.admin_socket_path();
    let asked = admin::ask(&socket, &AdminRequest::Health);
    match tokio::time::timeout(limits::HEALTH_DEADLINE, asked).await {
        Ok(Ok(AdminResponse::Health { ready: true, .. })) => Check::ok(name, "running and ready"),
        Ok(Ok(AdminResponse::Health { ready: false, .. })) => Check::fail(
            name,
            "degraded: it cannot read or write its store",
            "its log has the cause; the checks below may show it, too",
        ),
        Ok(Err(AdminError::NoServer)) => Check::ok(name, "none runs with this data directory"),
        Ok(Err(error)) => Check::warn(name, Chain(&error), "run the doctor as the user of the server, or as root"),
        Ok(Ok(_)) => Check::warn(name, "it gave another answer", "use the postrider of the server's version"),
        Err(_) => Check::fail(
            name,
            format_args!("no answer within {}", format_duration(limits::HEALTH_DEADLINE)),
            "look at its log, and restart it",
        ),
    }
}

/// The SQLite store of the data directory and the master key.
pub async fn sqlite(settings: &Settings) -> Vec<Check> {
    let directory = settings.data_dir.clone();
    let examined = tokio::task::spawn_blocking(move || examine(&directory)).await;
    let mut checks = Vec::new();
    let found = match examined {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            let advice = "check the rights of the files, and the disk; a damaged database is replaced by a backup";
            checks.push(Check::fail("store", Chain(&error), advice));
            None
        }
        Err(error) => {
            checks.push(Check::fail("store", error, "report this as a defect"));
            None
        }
    };
    let now = SystemClock.now();
    match &found {
        Some(found) => {
            checks.extend(store(found, now));
            checks.extend(disk_budget(settings, found));
        }
        None if checks.is_empty() => checks.push(Check::ok("store", "none yet: the first start creates it")),
        None => {}
    }
    checks.extend(master_key(settings, found.map(|found| found.facts.key_facts)).await);
    checks
}

fn store(found: &Examination, now: Timestamp) -> Vec<Check> {
    let mut checks = vec![schema(found), log(found.log_bytes), clock(&found.facts, now)];
    checks.extend(found.facts.is_restored_copy.then(restored_copy));
    checks.push(last_backup(&found.facts, now));
    checks
}

/// Whether the store has room in `--max-disk`, by the rule of the server. `None` without a budget.
fn disk_budget(settings: &Settings, found: &Examination) -> Option<Check> {
    let name = "disk_budget";
    let max = settings.max_disk?;
    let file_system = rustix::fs::statvfs(&settings.data_dir).ok()?;
    let held = found.database_bytes + found.log_bytes;
    let room = held + file_system.f_bavail * file_system.f_frsize;
    let used = (found.database_bytes + found.log_bytes).saturating_sub(found.free_bytes);
    let space = DiskSpace { used, reserve: limits::DISK_RESERVE_BYTES.min(max / 10), limit: max.min(room) };
    let state = DiskState::Ok.next(space);
    let megabytes = |bytes: u64| bytes / 1_000_000;
    let detail = format!(
        "{}, {} MB of {} MB used, with the reserve",
        state.as_str(),
        megabytes(space.used + space.reserve),
        megabytes(space.limit)
    );
    let advice = "give it more room, raise --max-disk, or keep less: --retention";
    Some(match state {
        DiskState::Full | DiskState::Stopped => Check::fail(name, detail, advice),
        DiskState::Tight => Check::warn(name, detail, advice),
        DiskState::Ok if room < max => {
            let detail = format!("{detail}; --max-disk is {} MB, more than the file system has", megabytes(max));
            Check::warn(name, detail, "make room on the file system, or lower --max-disk to what it has")
        }
        DiskState::Ok => Check::ok(name, detail),
    })
}

fn schema(found: &Examination) -> Check {
    let name = "schema";
    let (version, newest) = (found.facts.schema_version, found.newest_schema_version);
    if version > newest {
        let detail = format!("version {version}, made by a newer postrider; this one supports up to {newest}");
        return Check::fail(name, detail, "use the newer postrider, or restore a backup from before the upgrade");
    }
    if version < newest {
        let detail = format!("version {version}; the next start migrates it to {newest}");
        return Check::warn(name, detail, "take a backup before: an older postrider cannot open the store afterwards");
    }
    Check::ok(name, format_args!("version {version}, {} MB", found.database_bytes / 1_000_000))
}

fn log(bytes: u64) -> Check {
    let (name, detail) = ("write_ahead_log", format!("{} MB", bytes / 1_000_000));
    if bytes >= limits::WAL_REFUSE_BYTES {
        Check::fail(name, detail, "publishes are refused: end what reads the database, or use a faster disk")
    } else if bytes > limits::WAL_REFUSE_BYTES / 2 {
        Check::warn(name, detail, "look for a program that keeps a transaction open, or for a slow disk")
    } else {
        Check::ok(name, detail)
    }
}

fn clock(facts: &StoreFacts, now: Timestamp) -> Check {
    let name = "clock";
    let behind = facts.last_time.filter(|last| *last > now).map(|last| last.since(now)).unwrap_or_default();
    if behind <= CLOCK_BEHIND_MAX {
        return Check::ok(name, format_args!("{now}, not before the last instant of the store"));
    }
    let detail = format!("{now}, {} before the last instant of the store", format_duration(whole_seconds(behind)));
    Check::warn(name, detail, "the clock is wrong now or was wrong then: synchronize it by NTP")
}

/// A duration is shown in seconds at most.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

fn restored_copy() -> Check {
    Check::warn(
        "restored_copy",
        "the store is a restored copy: its server sends nothing",
        "when the original is out of use for ever, start the server once with --i-am-the-only-one",
    )
}

fn last_backup(facts: &StoreFacts, now: Timestamp) -> Check {
    let name = "last_backup";
    let advice = "take one with `postrider backup --to FILE`, each night";
    let Some(last) = facts.last_backup else { return Check::warn(name, "none by `postrider backup`", advice) };
    let detail = format!("{}, {} MB", last.at, last.bytes / 1_000_000);
    let is_fresh = last.at >= now.minus(BACKUP_AGE_MAX);
    if is_fresh { Check::ok(name, detail) } else { Check::warn(name, detail, advice) }
}

/// The file of the key, and whether the key is the one of the store. `facts`: `None` when there is no store.
pub async fn master_key(settings: &Settings, facts: Option<KeyFacts>) -> Vec<Check> {
    let mut named = settings.clone();
    if named.master_key_command.is_none() {
        named.master_key_file = Some(settings.master_key_path());
    }
    let name = "master_key";
    let is_new = facts.as_ref().is_none_or(|facts| facts.key_id.is_none() && facts.state.is_none());
    let is_own = settings.master_key_file.is_none() && settings.master_key_command.is_none();
    if is_own && is_new && settings.database.url.is_none() && !settings.master_key_path().exists() {
        return vec![Check::ok(name, "none yet: the first start creates it")];
    }
    match named_master_key(&named).await {
        Ok(Some(key)) => vec![fits(key, facts), key_file(settings)].into_iter().flatten().collect(),
        Ok(None) => vec![Check::fail(name, "none is named", "set --master-key-file or --master-key-command")],
        Err(error) => {
            let advice = "put the key of this store back: without it no secret can be opened";
            vec![Check::fail(name, Chain(&error), advice)]
        }
    }
}

fn fits(key: MasterKey, facts: Option<KeyFacts>) -> Option<Check> {
    let name = "master_key";
    let id = key.id().to_string();
    Some(match facts.map(|facts| facts.check(key)) {
        None => Check::ok(name, format_args!("{id}, which no store was compared with")),
        Some(Ok(())) => Check::ok(name, format_args!("{id}, the key of the store")),
        Some(Err(error)) => Check::fail(name, Chain(&error), "start the server with the key of this store"),
    })
}

/// `None` when the key comes from a command.
fn key_file(settings: &Settings) -> Option<Check> {
    let name = "master_key_file";
    if settings.master_key_command.is_some() {
        return None;
    }
    let path = settings.master_key_path();
    let (file, shown) = (std::fs::metadata(&path).ok()?, path.display());
    let owner_of_data = std::fs::metadata(&settings.data_dir).ok().map(|directory| directory.uid());
    let mode = file.mode() & 0o777;
    Some(if mode & 0o077 != 0 {
        Check::warn(name, format_args!("{shown} has the mode {mode:o}: others can read it"), "set its mode to 600")
    } else if owner_of_data.is_some_and(|owner| owner != file.uid() && file.uid() != 0) {
        let detail = format!("{shown} belongs to the user {}, the data directory to another", file.uid());
        Check::warn(name, detail, "give the file to the user of the server")
    } else {
        Check::ok(name, format_args!("{shown}, only for its owner"))
    })
}
