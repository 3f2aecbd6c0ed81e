//! The style sheet of the pages.

pub const STYLE: &str = include_str!("docs.css");

/// A path that changes with the content, so that browsers may cache the style sheet forever.
pub fn style_path() -> String {
    // FNV-1a: the hash distinguishes releases. It need not resist an attacker.
    let hash = STYLE
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("/docs/docs-{hash:016x}.css")
}
