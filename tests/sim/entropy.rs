//! Every source of chance, seeded: the random source of the product, the keys of hash maps, and SQLite's own generator.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use postrider_crypto::RandomSource;
use rusqlite::ffi;

use crate::chance::Chance;

thread_local! {
    /// Set on the thread of a simulation.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Seeds what this thread and SQLite draw from now on. Only one thread may simulate at a time, because SQLite has one
/// generator for the process.
pub fn seed(seed: u64) {
    SEED.set(Some(seed));
    let bits = u32::try_from(seed & 0x7fff_ffff).expect("31 bits").max(1);
    // SAFETY: the operation takes an int and a connection, which may be null.
    unsafe {
        ffi::sqlite3_test_control(
            ffi::SQLITE_TESTCTRL_PRNG_SEED,
            c_int::try_from(bits).expect("31 bits"),
            std::ptr::null_mut::<ffi::sqlite3>(),
        );
    }
}

/// Replaces libc's function of this name, which the standard library asks for the keys of hash maps.
///
/// # Safety
/// As for `getrandom(2)`: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    // SAFETY: the caller promises the room.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    match SEED.get() {
        Some(seed) => {
            let mut chance = Chance::of(seed);
            bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&chance.next().to_le_bytes()[..part.len()]));
            SEED.set(Some(chance.next()));
        }
        None => match std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(bytes)) {
            Ok(()) => {}
            Err(_) => return -1,
        },
    }
    isize::try_from(length).unwrap_or(-1)
}

/// The random source that the product draws from.
#[derive(Debug)]
pub struct SeededRandom(Mutex<Chance>);

impl SeededRandom {
    pub fn of(seed: u64) -> Self {
        Self(Mutex::new(Chance::of(seed)))
    }
}

impl RandomSource for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut chance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&chance.next().to_le_bytes()[..part.len()]));
    }
}
