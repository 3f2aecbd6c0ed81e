//! Checks of the machine: the data directory and its disk, the limit of open files, name servers, TLS, the proxy.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::SystemClock;
use crate::config::Settings;
use crate::open_files;
use crate::server::egress_settings;
use postrider_domain::error_chain::Chain;
use postrider_egress::{Egress, ResolveError};
use postrider_store::backup::file::remove_if_there;

use super::report::Check;

/// Flushes that are measured.
const FLUSHES: usize = 64;
/// A publish waits for a flush: above this its answer is slow.
const SLOW_FLUSH: Duration = Duration::from_millis(50);
const PAGE: [u8; 4096] = [0; 4096];
const GB: u64 = 1_000_000_000;
/// Below this a burst of events can fill the disk.
const FREE_BYTES_LOW: u64 = 2 * GB;
/// Below this not even the write-ahead log has room.
const FREE_BYTES_MIN: u64 = GB / 4;
/// Half of the open files are for connections of callers, the other half for the store and for deliveries.
const OPEN_FILES_LOW: u64 = 4_096;
const OPEN_FILES_MIN: u64 = 256;

/// The data directory: whether it can be written, its file system, its room, and how fast it flushes. `holds_store`:
/// the store is in it, not in a database.
pub fn directory(path: &Path, holds_store: bool) -> Vec<Check> {
    let name = "data_directory";
    let shown = path.display();
    if !path.is_dir() {
        let advice = "the first start creates it: nothing to do, unless --data-dir names the wrong one";
        return vec![Check::warn(name, format_args!("{shown} does not exist"), advice)];
    }
    let mut checks = Vec::new();
    match flushes(path) {
        Ok(times) => {
            checks.push(Check::ok(name, format_args!("{shown} can be written")));
            checks.extend(holds_store.then(|| disk_flush(&times)));
        }
        Err(error) => {
            let advice = "give the directory to the user of the server, and run the doctor as that user or as root";
            checks.push(Check::fail(name, format_args!("cannot write in {shown}: {error}"), advice));
        }
    }
    if holds_store {
        checks.extend(file_system(path));
        checks.extend(free_space(path));
    }
    checks
}

/// The times of flushes of a page, in rising order.
fn flushes(directory: &Path) -> std::io::Result<Vec<Duration>> {
    let path = directory.join("doctor.probe");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let measured = (0..FLUSHES).map(|_| {
        let began = Instant::now();
        file.write_all(&PAGE)?;
        file.sync_data()?;
        Ok(began.elapsed())
    });
    let measured: std::io::Result<Vec<Duration>> = measured.collect();
    remove_if_there(&path)?;
    let mut times = measured?;
    times.sort_unstable();
    Ok(times)
}

fn disk_flush(times: &[Duration]) -> Check {
    let name = "disk_flush";
    let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let (half, slowest) = (at(50).copied().unwrap_or_default(), at(99).copied().unwrap_or_default());
    let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
    let detail =
        format!("half of {} flushes within {:.1} ms, 99 % within {:.1} ms", times.len(), millis(half), millis(slowest));
    match slowest < SLOW_FLUSH {
        true => Check::ok(name, detail),
        false => {
            Check::warn(name, detail, "every publish waits for a flush: use a local SSD, or look for what else writes")
        }
    }
}

/// What the kernel calls a file system, with what it means for a store.
enum FileSystem {
    Local(&'static str),
    /// Gone with the container or the next boot.
    Passing(&'static str),
    /// Locks or the shared memory of the write-ahead log do not work over a network.
    Network(&'static str),
    /// Depends on what is behind it.
    Unclear(&'static str),
}

/// By the magic numbers of `statfs(2)`.
fn kind(magic: u64) -> FileSystem {
    match magic {
        0xef53 => FileSystem::Local("ext4"),
        0x5846_5342 => FileSystem::Local("XFS"),
        0x9123_683e => FileSystem::Local("Btrfs"),
        0x2fc1_2fc1 => FileSystem::Local("ZFS"),
        0xf2f5_2010 => FileSystem::Local("F2FS"),
        0x0102_1994 => FileSystem::Passing("tmpfs"),
        0x8584_58f6 => FileSystem::Passing("ramfs"),
        0x794c_7630 => FileSystem::Passing("overlayfs"),
        0x6969 => FileSystem::Network("NFS"),
        0x517b => FileSystem::Network("SMB"),
        0xfe53_4d42 => FileSystem::Network("SMB"),
        0xff53_4d42 => FileSystem::Network("CIFS"),
        0x00c3_6400 => FileSystem::Network("CephFS"),
        0x5346_414f => FileSystem::Network("AFS"),
        0x0bd0_0bd0 => FileSystem::Network("Lustre"),
        0x0102_1997 => FileSystem::Unclear("9P"),
        0x6573_5546 => FileSystem::Unclear("FUSE"),
        _ => FileSystem::Local("of a kind that is not known"),
    }
}

fn file_system(path: &Path) -> Option<Check> {
    let name = "file_system";
    let found = rustix::fs::statfs(path).ok()?;
    let magic = u64::try_from(found.f_type).unwrap_or_default() & 0xffff_ffff;
    Some(match kind(magic) {
        FileSystem::Local(kind) => Check::ok(name, kind),
        FileSystem::Passing(kind) => {
            let advice = "the store is lost with the container or at the next boot: put --data-dir on a volume";
            Check::warn(name, kind, advice)
        }
        FileSystem::Unclear(kind) => Check::warn(
            name,
            kind,
            "SQLite needs locks and shared memory: use a local file system, or try it under load",
        ),
        FileSystem::Network(kind) => Check::fail(
            name,
            format_args!("{kind}, a network file system"),
            "SQLite's write-ahead log does not work there: put --data-dir on a local disk, or use PostgreSQL",
        ),
    })
}

fn free_space(path: &Path) -> Option<Check> {
    let name = "free_space";
    let found = rustix::fs::statvfs(path).ok()?;
    let (free, total) = (found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize);
    let percent = (free * 100).checked_div(total).unwrap_or(100);
    let detail = format!("{} MB of {} MB free", free / 1_000_000, total / 1_000_000);
    Some(if free < FREE_BYTES_MIN {
        Check::fail(name, detail, "publishes are refused when the disk is full: make room now")
    } else if free < FREE_BYTES_LOW || percent < 10 {
        Check::warn(name, detail, "make room, or keep less: --retention")
    } else {
        Check::ok(name, detail)
    })
}

/// Of this process. A service manager may give the server another limit.
pub fn open_files() -> Check {
    let name = "open_files";
    let Some(limit) = open_files::limit() else { return Check::ok(name, "no limit") };
    let detail = format!("{limit} in this shell");
    let advice = "raise it: `ulimit -Hn`, or LimitNOFILE= in the unit for systemd";
    if limit < OPEN_FILES_MIN {
        Check::fail(name, detail, advice)
    } else if limit < OPEN_FILES_LOW {
        Check::warn(name, detail, advice)
    } else {
        Check::ok(name, detail)
    }
}

/// What calls to receivers need: roots of TLS, name servers, the proxy.
pub async fn outbound(settings: &Settings) -> Vec<Check> {
    let made = egress_settings(settings)
        .map_err(|error| Chain(&error).to_string())
        .and_then(|settings| Egress::new(settings, Arc::new(SystemClock)).map_err(|error| Chain(&error).to_string()));
    let egress = match made {
        Ok(egress) => egress,
        Err(error) => {
            return vec![Check::fail(
                "outbound_tls",
                error,
                "correct the setting that is named; no receiver can be called",
            )];
        }
    };
    let roots = match &settings.ca_file {
        Some(file) => format!("the public authorities and those of {}", file.display()),
        None => "the public authorities".to_owned(),
    };
    let mut checks = vec![Check::ok("outbound_tls", roots), name_servers(&egress).await];
    checks.extend(proxy(settings, &egress).await);
    checks
}

async fn name_servers(egress: &Egress) -> Check {
    let name = "name_servers";
    let began = Instant::now();
    match egress.examine_name_servers().await {
        Ok(()) => Check::ok(name, format_args!("one answered in {} ms", began.elapsed().as_millis())),
        Err(error @ ResolveError::NoAddress) => Check::ok(name, error),
        Err(error) => {
            let advice =
                "no receiver with a name can be called: look at /etc/resolv.conf and the firewall, or set --dns-server";
            Check::fail(name, error, advice)
        }
    }
}

async fn proxy(settings: &Settings, egress: &Egress) -> Option<Check> {
    let name = "proxy";
    let url = settings.egress_proxy.as_ref()?;
    let began = Instant::now();
    Some(match egress.examine_proxy().await? {
        Ok(()) => Check::ok(name, format_args!("{url} accepts connections, in {} ms", began.elapsed().as_millis())),
        Err(error) => {
            let advice = "no receiver can be called: start the proxy, or correct --egress-proxy";
            Check::fail(name, format_args!("{url}: {}", Chain(&error)), advice)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::report::State;
    use super::*;

    #[test]
    fn a_network_file_system_fails_and_a_local_one_does_not() {
        for (magic, expected) in
            [(0xef53, 0), (0x794c_7630, 1), (0x6969, 2), (0xff53_4d42, 2), (0x6573_5546, 3), (1, 0)]
        {
            let found = match kind(magic) {
                FileSystem::Local(_) => 0,
                FileSystem::Passing(_) => 1,
                FileSystem::Network(_) => 2,
                FileSystem::Unclear(_) => 3,
            };
            assert_eq!(found, expected, "{magic:x}");
        }
    }

    #[test]
    fn slow_flushes_are_warned_of() {
        let times = |slowest| (0..100).map(|_| Duration::from_millis(1)).chain([slowest, slowest]).collect::<Vec<_>>();
        assert_eq!(disk_flush(&times(Duration::from_millis(2))).state, State::Ok);
        let slow = disk_flush(&times(Duration::from_millis(51)));
        assert_eq!(slow.state, State::Warn);
        assert!(slow.detail.ends_with("99 % within 51.0 ms"), "{}", slow.detail);
    }

    #[test]
    fn a_directory_is_measured_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let checks = directory(folder.path(), true);
        let names: Vec<&str> = checks.iter().map(|check| check.name).collect();
        assert_eq!(names, ["data_directory", "disk_flush", "file_system", "free_space"]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let missing = directory(&folder.path().join("none"), true);
        assert_eq!((missing.len(), missing[0].state), (1, State::Warn));
    }
}
