//! The directory of a server, and what a power failure leaves of it. `shim.c` records each change and each flush;
//! [`Disk::cut_power`] undoes a random part of the changes that no flush covered.
//!
//! - **Content:** a flush of the file covers what was written before it began. The rest survives by sectors of 512
//!   bytes: none, all, up to some write, a random choice of sectors, or up to a write of which only some sectors
//!   arrived. A length survives up to some change too.
//! - **Names:** a flush of the directory covers creations, renames and removals before it. The rest is undone from the
//!   last one backwards.
//! - **A failed flush** loses what it should have written, although a later flush succeeds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::chance::{Chance, mix};

const SECTOR: u64 = 512;
/// A write at the beginning of a log of this length starts it again.
const LOG_LONG: u64 = 1 << 20;
const HEAD: usize = 48;

/// A world's place on the disk of this machine.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
}

/// What a power failure found and took.
#[derive(Debug, Default)]
pub struct Loss {
    /// The call at which the process was ended: its name, when, and the class of its path.
    pub point: Option<(String, String, &'static str)>,
    /// Changes that no flush covered, by the class of their file. What was done to names counts as `directory`.
    pub pending: BTreeMap<&'static str, usize>,
    /// Sectors and names that were taken back.
    pub undone: BTreeMap<&'static str, usize>,
    /// Calls that the shim let fail.
    pub faults: usize,
    /// How often the log started again at the beginning of its file.
    pub log_restarts: usize,
}

struct Change {
    at: usize,
    cuts: bool,
    offset: u64,
    len: u64,
    size_before: u64,
    old: Range<usize>,
    covered: bool,
    /// A flush of it failed, so no later one covers it.
    dropped: bool,
}

struct NameChange {
    at: usize,
    kind: u32,
    path: PathBuf,
    from: Option<PathBuf>,
    kept: u64,
}

#[derive(Default)]
struct History {
    files: HashMap<u64, (&'static str, Vec<Change>)>,
    directories: HashMap<u64, Vec<NameChange>>,
    begun: HashMap<u64, usize>,
    loss: Loss,
}

/// The classes that the report tells apart.
pub fn class(path: &str) -> &'static str {
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match name {
        _ if path.ends_with('/') => "directory",
        _ if name.ends_with("-wal") => "log",
        _ if name.ends_with("-journal") => "journal",
        _ if name.ends_with("-shm") => "index",
        _ if name.ends_with(".db") => "database",
        _ if name.starts_with("master.key") => "key file",
        _ => "other",
    }
}

impl Disk {
    pub fn new(root: PathBuf) -> Self {
        for part in ["disk", "stash"] {
            std::fs::create_dir_all(root.join(part)).expect("a directory for the world");
        }
        Self { root: root.canonicalize().expect("a directory that was made") }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the shim watches. The data directory is below it, so that its creation can be lost too.
    pub fn watched(&self) -> PathBuf {
        self.root.join("disk")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.watched().join("data")
    }

    pub fn record(&self) -> PathBuf {
        self.root.join("record")
    }

    pub fn stash(&self) -> PathBuf {
        self.root.join("stash")
    }

    /// Fails the power of a machine on which no process of this world runs.
    pub fn cut_power(&self, chance: &mut Chance) -> Loss {
        let mut record = Vec::new();
        if let Ok(mut file) = File::open(self.record()) {
            file.read_to_end(&mut record).expect("a record");
        }
        let mut history = History::of(&record);
        let mut paths = HashMap::new();
        find_files(&self.watched(), &mut paths);
        find_files(&self.stash(), &mut paths);
        let mut inodes: Vec<u64> = history.files.keys().copied().collect();
        inodes.sort_unstable();
        for inode in inodes {
            let (class, changes) = &history.files[&inode];
            if let Some(path) = paths.get(&inode)
                && changes.iter().any(|change| !change.covered)
            {
                *history.loss.pending.entry(class).or_default() +=
                    changes.iter().filter(|change| !change.covered).count();
                *history.loss.undone.entry(class).or_default() += roll_back(path, changes, &record, chance);
            }
        }
        self.undo_names(&mut history, chance);
        self.scramble_index(chance);
        std::fs::remove_dir_all(self.stash()).expect("a stash");
        std::fs::create_dir(self.stash()).expect("a stash");
        let _ = std::fs::remove_file(self.record());
        history.loss
    }

    fn undo_names(&self, history: &mut History, chance: &mut Chance) {
        let mut undone = Vec::new();
        let mut directories: Vec<_> = std::mem::take(&mut history.directories).into_iter().collect();
        directories.sort_unstable_by_key(|(inode, _)| *inode);
        for (_, mut changes) in directories {
            *history.loss.pending.entry("directory").or_default() += changes.len();
            let survive = match chance.below(4) {
                0 | 1 => 0,
                2 => changes.len(),
                _ => chance.below(changes.len() + 1),
            };
            undone.extend(changes.split_off(survive.min(changes.len())));
        }
        undone.sort_by_key(|change| std::cmp::Reverse(change.at));
        *history.loss.undone.entry("directory").or_default() += undone.len();
        for change in undone {
            let kept = self.stash().join(change.kept.to_string());
            match (change.kind, &change.from) {
                // What is in a lost directory is lost with it.
                (CREATE, _) if change.path.is_dir() => {
                    drop(std::fs::rename(&change.path, self.stash().join(format!("lost-{}", change.at))));
                }
                (CREATE, _) => drop(std::fs::remove_file(&change.path)),
                (UNLINK, _) => drop(std::fs::rename(kept, &change.path)),
                (RENAME, Some(from)) => {
                    drop(std::fs::rename(&change.path, from));
                    if change.kept != 0 {
                        drop(std::fs::rename(kept, &change.path));
                    }
                }
                _ => unreachable!("no change of a name"),
            }
        }
    }

    /// The index is memory that is mapped: any part of it may have reached the disk. SQLite must not trust it.
    fn scramble_index(&self, chance: &mut Chance) {
        let path = self.data_dir().join("postrider.db-shm");
        let Ok(mut index) = std::fs::read(&path) else { return };
        match chance.below(3) {
            0 => {}
            1 => std::fs::remove_file(path).expect("an index"),
            _ => {
                for _ in 0..64 {
                    let at = chance.below(index.len());
                    if let Some(byte) = index.get_mut(at) {
                        *byte = chance.next().to_le_bytes()[0];
                    }
                }
                File::create(path).and_then(|mut file| file.write_all(&index)).expect("an index");
            }
        }
    }
}

const WRITE: u32 = 1;
const TRUNCATE: u32 = 2;
const CREATE: u32 = 3;
const UNLINK: u32 = 4;
const RENAME: u32 = 5;
const SYNC_BEGIN: u32 = 6;
const SYNC_END: u32 = 7;
const SYNC_FAILED: u32 = 8;
const CRASH: u32 = 9;
const FAULT: u32 = 10;

impl History {
    fn of(record: &[u8]) -> Self {
        let mut history = Self::default();
        let (mut at, mut position) = (0, 0);
        while position + HEAD <= record.len() {
            let word = |index: usize| {
                let from = position + index;
                u64::from_le_bytes(record[from..from + 8].try_into().expect("8 bytes"))
            };
            let length = |value: u64| usize::try_from(value).expect("a length");
            let (kind, path_len) = (word(0) & 0xffff_ffff, length(word(0) >> 32));
            let (inode, offset, old_len) = (word(8), word(16), length(word(40)));
            let path_at = position + HEAD;
            let old = path_at + path_len..path_at + path_len + old_len;
            // The process may have been killed in the middle of an entry. Its call was not made then.
            if old.end > record.len() {
                break;
            }
            let path = String::from_utf8_lossy(&record[path_at..old.start]).into_owned();
            let kind = u32::try_from(kind).expect("32 bits");
            let change = || Change {
                at,
                cuts: kind == TRUNCATE,
                offset,
                len: word(24),
                size_before: word(32),
                old: old.clone(),
                covered: false,
                dropped: false,
            };
            match kind {
                WRITE | TRUNCATE => {
                    let is_restart = kind == WRITE && offset == 0 && word(32) > LOG_LONG && class(&path) == "log";
                    history.loss.log_restarts += usize::from(is_restart);
                    history.files.entry(inode).or_insert_with(|| (class(&path), Vec::new())).1.push(change());
                }
                CREATE | UNLINK | RENAME => history.name_changed(at, kind, inode, &path, offset),
                SYNC_BEGIN => drop(history.begun.insert(offset, at)),
                SYNC_END => history.flushed(inode, offset),
                SYNC_FAILED => {
                    let changes = history.files.get_mut(&inode).into_iter().flat_map(|(_, changes)| changes);
                    changes.for_each(|change| change.dropped |= !change.covered);
                    history.loss.faults += 1;
                }
                CRASH => {
                    let mut words = path.splitn(3, ' ').map(str::to_owned);
                    let [call, when, path] = std::array::from_fn(|_| words.next().unwrap_or_default());
                    history.loss.point = Some((call, when, class(&path)));
                }
                FAULT => history.loss.faults += 1,
                other => panic!("an entry of kind {other}"),
            }
            (at, position) = (at + 1, old.end);
        }
        history
    }

    fn name_changed(&mut self, at: usize, kind: u32, directory: u64, path: &str, kept: u64) {
        let (from, path) = match path.split_once('\0') {
            Some((from, to)) => (Some(from.into()), to.into()),
            None => (None, path.into()),
        };
        self.directories.entry(directory).or_default().push(NameChange { at, kind, path, from, kept });
    }

    fn flushed(&mut self, inode: u64, token: u64) {
        let begun = self.begun.remove(&token).expect("a flush that began");
        if let Some((_, changes)) = self.files.get_mut(&inode) {
            for change in changes.iter_mut().filter(|change| change.at < begun) {
                change.covered |= !change.dropped;
            }
            if changes.iter().all(|change| !change.dropped) {
                changes.retain(|change| !change.covered);
            }
        }
        if let Some(changes) = self.directories.get_mut(&inode) {
            changes.retain(|change| change.at > begun);
        }
    }
}

fn find_files(directory: &Path, paths: &mut HashMap<u64, PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        if metadata.is_dir() {
            find_files(&entry.path(), paths);
        } else if metadata.is_file() {
            paths.entry(metadata.ino()).or_insert_with(|| entry.path());
        }
    }
}

/// How far the changes of a file survive: `cut` is the first change of a sector that is lost, `length` of its size.
struct Survival {
    salt: u64,
    /// Sectors have cuts of their own.
    scattered: bool,
    cut: usize,
    /// Of this change some sectors survive.
    torn: Option<usize>,
    length: usize,
}

impl Survival {
    fn draw(changes: &[Change], chance: &mut Chance) -> Self {
        let count = changes.len();
        let first = changes.iter().rposition(|change| change.covered).map_or(0, |last| last + 1);
        let some = first + chance.below(count - first + 1);
        let whole = |cut, length| Self { salt: 0, scattered: false, cut, torn: None, length };
        match chance.below(8) {
            0 | 1 => whole(0, first),
            2 => whole(count, count),
            3 | 4 => whole(some, some),
            5 | 6 => Self { salt: chance.next(), scattered: true, ..whole(0, some) },
            _ => Self { salt: chance.next(), torn: Some(some), ..whole(some, (some + chance.below(2)).min(count)) },
        }
    }

    fn cut_of(&self, sector: u64, count: usize) -> usize {
        let drawn = usize::try_from(mix(self.salt ^ sector) >> 33).expect("31 bits");
        match self.torn {
            _ if self.scattered => drawn % (count + 1),
            Some(torn) => torn + drawn % 2,
            None => self.cut,
        }
    }
}

/// Undoes what does not survive. Returns the number of sectors that were written back, and one for a changed length.
fn roll_back(path: &Path, changes: &[Change], record: &[u8], chance: &mut Chance) -> usize {
    let survival = Survival::draw(changes, chance);
    let file = OpenOptions::new().write(true).open(path).expect("a file of the world");
    let now = file.metadata().expect("a file").len();
    // A change after a lost truncation is lost too. One before a truncation that survives cannot come back behind it.
    let lost_cut = (survival.length..changes.len()).find(|&at| changes[at].cuts).unwrap_or(changes.len());
    let kept_cut = (0..survival.length).rfind(|&at| changes[at].cuts);
    let (mut undone, mut rewritten) = (0, HashSet::new());
    for (at, change) in changes.iter().enumerate().rev() {
        if change.cuts {
            if at >= survival.length && !change.covered {
                file.write_all_at(&record[change.old.clone()], change.offset).expect("a file of the world");
            }
            continue;
        }
        let end = change.offset + change.len;
        for sector in change.offset / SECTOR..end.div_ceil(SECTOR) {
            if change.covered {
                rewritten.insert(sector);
                continue;
            }
            let mut cut = survival.cut_of(sector, changes.len()).min(lost_cut);
            if let Some(kept) = kept_cut.filter(|&kept| sector * SECTOR >= changes[kept].offset) {
                cut = cut.max(kept + 1);
            }
            if at >= cut && !rewritten.contains(&sector) {
                let part = (sector * SECTOR).max(change.offset)..((sector + 1) * SECTOR).min(end);
                file.write_all_at(&old_bytes(change, record, &part), part.start).expect("a file of the world");
                undone += 1;
            }
        }
    }
    let length = changes.get(survival.length).map_or(now, |change| change.size_before);
    file.set_len(length).expect("a file of the world");
    undone + usize::from(length != now)
}

/// What a part of the file held before the change. There were zeros behind its end.
fn old_bytes(change: &Change, record: &[u8], part: &Range<u64>) -> Vec<u8> {
    let known = &record[change.old.clone()];
    let index = |position: u64| usize::try_from(position - change.offset).expect("a part of a write");
    let (from, to) = (index(part.start), index(part.end));
    let mut bytes = known.get(from.min(known.len())..to.min(known.len())).unwrap_or_default().to_vec();
    bytes.resize(to - from, 0);
    bytes
}
