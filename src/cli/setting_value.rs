//! Parsers and printers of setting values. A parser returns its error as the end of a sentence.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::config::{LogFormat, MetricsListen};
use crate::telemetry;
use postrider_domain::database_url::DatabaseUrl;
use postrider_domain::duration::{format_duration, parse_duration};
use postrider_domain::invalid_field::InvalidField;
use postrider_domain::limits;
use postrider_domain::portal::FrameAncestor;
use postrider_domain::portal_look::Colour;
use postrider_egress::{AllowTarget, DenyTarget};

pub fn set<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

pub fn message(error: impl std::error::Error) -> String {
    error.to_string()
}

pub fn parsed<T: FromStr>(text: &str, fault: &str) -> Result<T, String> {
    text.parse().map_err(|_| fault.to_owned())
}

pub fn metrics_listen(text: &str) -> Result<MetricsListen, String> {
    match text {
        "off" => Ok(MetricsListen::Off),
        text => parsed(text, "is neither an address like 127.0.0.1:9464 nor off").map(MetricsListen::At),
    }
}

pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("must be on or off".to_owned()),
    }
}

pub fn shown_switch(is_on: bool) -> String {
    if is_on { "on".to_owned() } else { "off".to_owned() }
}

pub fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is not a path: it is empty".to_owned()) } else { Ok(text.into()) }
}

pub fn command(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("is not a command: it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// The program without its arguments and variables, which may contain a password.
pub fn shown_command(command: Option<&str>) -> String {
    let Some(command) = command else { return String::new() };
    let program = command.split_whitespace().find(|word| !word.contains('='));
    let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    program.filter(is_name).map_or_else(|| "(hidden)".to_owned(), |program| format!("{program} (hidden)"))
}

pub fn shown_path(path: Option<&PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

pub fn items<T>(text: &str, read: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(read).collect()
}

pub fn frame_ancestor(text: &str) -> Result<FrameAncestor, String> {
    FrameAncestor::parse(text).map_err(field_fault)
}

pub fn field_fault(fault: InvalidField) -> String {
    fault.0.to_owned()
}

/// A colour that can be read on this background.
pub fn accent(text: &str, background: Colour) -> Result<Option<Colour>, String> {
    Colour::parse_accent(text, background).map(Some).map_err(message)
}

/// Checked here so that an error names its flag. Parsed again where it is used.
pub fn allow_target(text: &str) -> Result<String, String> {
    text.parse::<AllowTarget>().map(|_| text.to_owned()).map_err(message)
}

/// As [`allow_target`].
pub fn deny_target(text: &str) -> Result<String, String> {
    text.parse::<DenyTarget>().map(|_| text.to_owned()).map_err(message)
}

/// A network in its canonical form, or a single address.
pub fn network(text: &str) -> Result<IpNet, String> {
    let single = text.parse::<IpAddr>().map(IpNet::from);
    let network = single.or_else(|_| text.parse::<IpNet>());
    let network = network.map_err(|_| "is not an address or a network like 10.0.0.0/8".to_owned())?;
    if network.trunc() == network { Ok(network) } else { Err(format!("did you mean {}?", network.trunc())) }
}

pub fn dns_server(text: &str) -> Result<SocketAddr, String> {
    const DNS_PORT: u16 = 53;
    text.parse()
        .or_else(|_| text.parse().map(|address| SocketAddr::new(address, DNS_PORT)))
        .map_err(|_| "is not an address like 127.0.0.1 or 127.0.0.1:5353".to_owned())
}

const SIZE_UNITS: [(&str, u64); 4] = [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("", 1)];

/// A size on the disk, in powers of ten.
/// A number of bytes with its unit.
pub fn bytes_of(text: &str) -> Option<u64> {
    SIZE_UNITS.iter().find_map(|(unit, bytes)| {
        let number = text.strip_suffix(unit)?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        number.parse::<u64>().ok().filter(|_| is_number)?.checked_mul(*bytes)
    })
}

pub fn disk_size(text: &str) -> Result<u64, String> {
    bytes_of(text)
        .filter(|bytes| *bytes >= limits::DISK_BUDGET_MIN)
        .ok_or_else(|| "is not a size of at least 100MB, like 500MB or 20GB".to_owned())
}

/// The size in the largest unit that divides it.
pub fn shown_size(bytes: u64) -> String {
    let unit = SIZE_UNITS.iter().find(|(_, unit)| bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// A number of bytes, or `off`.
pub fn byte_budget(text: &str) -> Result<Option<u64>, String> {
    if text == "off" {
        return Ok(None);
    }
    match text.parse() {
        Ok(bytes) if bytes >= limits::WORKSPACE_BYTES_MIN => Ok(Some(bytes)),
        _ => Err(format!("is neither off nor a number of bytes from {}", limits::WORKSPACE_BYTES_MIN)),
    }
}

pub fn http_url(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(text.to_owned()),
        _ => Err("is not a URL like https://hooks.example.com".to_owned()),
    }
}

pub fn database_url(text: &str) -> Result<DatabaseUrl, String> {
    DatabaseUrl::parse(text).map_err(message)
}

pub fn shown_url(url: Option<&DatabaseUrl>) -> String {
    url.map(ToString::to_string).unwrap_or_default()
}

pub fn pool_size(text: &str) -> Result<usize, String> {
    let (least, most) = (limits::DATABASE_CONNECTIONS_MIN, limits::DATABASE_CONNECTIONS_MAX);
    let size = text.parse().ok().filter(|size| (least..=most).contains(size));
    size.ok_or_else(|| format!("must be a whole number from {least} to {most}"))
}

pub fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration = parse_duration(text).map_err(message)?;
    if (least..=most).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("must be {} to {}", format_duration(least), format_duration(most)))
    }
}

pub fn count(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "must be a whole number of at least 1".to_owned())
}

pub fn rate_limit(text: &str) -> Result<Option<NonZeroU32>, String> {
    text.parse().map(NonZeroU32::new).map_err(|_| "must be a whole number, 0 or more".to_owned())
}

pub fn log_format(text: &str) -> Result<LogFormat, String> {
    [LogFormat::Text, LogFormat::Json]
        .into_iter()
        .find(|format| format.as_str() == text)
        .ok_or_else(|| "must be text or json".to_owned())
}

pub fn log_filter(text: &str) -> Result<String, String> {
    if telemetry::is_filter(text) {
        Ok(text.to_owned())
    } else {
        Err("is not a log filter like info or warn,postrider=debug".to_owned())
    }
}
