//! Flags that several commands share, each also an environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::config::{DEFAULT_DATA_DIR, DEFAULT_LISTEN, DEFAULT_LOG_FILTER, LogFormat, LogSettings, Settings};
use crate::domain::retry::RetrySchedule;
use crate::egress::AllowTarget;

#[derive(Debug, Args)]
pub struct DataOptions {
    /// Directory of the database and the master key; made when it does not exist.
    #[arg(long, env = "POSTRIDER_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// File with the master key as 64 hexadecimal digits [default: master.key in the data directory, made if new]
    #[arg(long, env = "POSTRIDER_MASTER_KEY_FILE", value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ServerOptions {
    #[command(flatten)]
    pub data: DataOptions,

    /// Address and port of the API.
    #[arg(long, env = "POSTRIDER_LISTEN", default_value = DEFAULT_LISTEN, value_name = "ADDR:PORT")]
    pub listen: SocketAddr,

    /// Where callers reach the API, as it stands in the docs_url of errors [default: http://<listen>]
    #[arg(long, env = "POSTRIDER_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,

    /// Host name, address or CIDR that may be called although it is not public, over plain http too. Repeatable.
    #[arg(long, env = "POSTRIDER_ALLOW_TARGET", value_delimiter = ',', value_name = "HOST|CIDR", value_parser = allow_target)]
    pub allow_target: Vec<String>,

    /// Address of a DNS server to use instead of the system's; port 53 unless given. Repeatable.
    #[arg(long, env = "POSTRIDER_DNS_SERVER", value_delimiter = ',', value_name = "ADDR", value_parser = dns_server)]
    pub dns_server: Vec<SocketAddr>,

    /// PEM file of certificate authorities to trust beside the public ones.
    #[arg(long, env = "POSTRIDER_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Waits after the first attempt, the second, and so on.
    #[arg(long, env = "POSTRIDER_RETRY_SCHEDULE", default_value_t, value_name = "WAITS")]
    pub retry_schedule: RetrySchedule,

    #[command(flatten)]
    pub log: LogOptions,
}

#[derive(Debug, Args)]
pub struct LogOptions {
    /// Form of the log on standard error.
    #[arg(long, env = "POSTRIDER_LOG_FORMAT", default_value = "text", value_name = "text|json", value_parser = log_format)]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace, also by module.
    #[arg(long, env = "POSTRIDER_LOG", default_value = DEFAULT_LOG_FILTER, value_name = "LEVEL")]
    pub log: String,
}

impl DataOptions {
    pub fn settings(&self, listen: SocketAddr) -> Settings {
        Settings { master_key_file: self.master_key_file.clone(), ..Settings::new(self.data_dir.clone(), listen) }
    }
}

impl ServerOptions {
    pub fn settings(self) -> Settings {
        let settings = self.data.settings(self.listen);
        Settings {
            public_url: self.public_url,
            allow_targets: self.allow_target,
            dns_servers: self.dns_server,
            ca_file: self.ca_file,
            retry_schedule: self.retry_schedule,
            log: self.log.settings(),
            ..settings
        }
    }
}

impl LogOptions {
    pub fn settings(self) -> LogSettings {
        LogSettings { format: self.log_format, filter: self.log }
    }
}

/// Checked here so that a mistake is told with its flag; read where it is used.
fn allow_target(text: &str) -> Result<String, String> {
    text.parse::<AllowTarget>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn dns_server(text: &str) -> Result<SocketAddr, String> {
    const DNS_PORT: u16 = 53;
    text.parse()
        .or_else(|_| text.parse().map(|address| SocketAddr::new(address, DNS_PORT)))
        .map_err(|_| "is not an address like 127.0.0.1 or 127.0.0.1:5353".to_owned())
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("is not text or json".to_owned()),
    }
}
