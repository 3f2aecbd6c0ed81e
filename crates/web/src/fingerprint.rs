//! A short name for a content, which changes with it.

/// FNV-1a in hexadecimal digits. It tells releases and versions of a page apart; it need not resist an attacker.
pub fn fingerprint(content: &[u8]) -> String {
    let hash = content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}
