//! The table of settings: how each is called, read, shown and explained. Their meaning and defaults stand in `config.rs`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use url::Url;

use crate::config::{LogFormat, Settings};
use crate::telemetry;
use postrider_domain::database_url::DatabaseUrl;
use postrider_domain::duration::{format_duration, parse_duration};
use postrider_domain::limits;
use postrider_domain::proxy::ProxyUrl;

use postrider_egress::AllowTarget;

/// One setting as people know it.
#[derive(Debug)]
pub struct Setting {
    /// In the file.
    pub name: &'static str,
    pub flag: &'static str,
    pub env: &'static str,
    pub value_name: &'static str,
    pub help: &'static str,
    /// What counts when nothing is said, where the default has no text of its own.
    pub otherwise: Option<&'static str>,
    /// The flag may be repeated; elsewhere commas separate.
    pub is_list: bool,
    /// Commands that run no server need it too.
    pub is_of_data: bool,
    /// It tells how receivers are called.
    pub is_of_egress: bool,
    /// Never printed as it was given, not even where it is wrong.
    pub is_secret: bool,
    /// What `show` makes of a secret may be seen.
    pub is_shown_in_part: bool,
    pub read: fn(&mut Settings, &str) -> Result<(), String>,
    /// Empty when there is no value.
    pub show: fn(&Settings) -> String,
}

const PLAIN: Setting = Setting {
    name: "",
    flag: "",
    env: "",
    value_name: "",
    help: "",
    otherwise: None,
    is_list: false,
    is_of_data: false,
    is_of_egress: false,
    is_secret: false,
    is_shown_in_part: false,
    read: |_, _| Ok(()),
    show: |_| String::new(),
};

/// Every setting, in the order of the help.
pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "data_dir",
        flag: "data-dir",
        env: "POSTRIDER_DATA_DIR",
        value_name: "DIR",
        help: "Directory of the database (unless --database-url), the master key and the admin socket; made when it does not exist",
        is_of_data: true,
        read: |settings, text| set(&mut settings.data_dir, path(text)),
        show: |settings| settings.data_dir.display().to_string(),
        ..PLAIN
    },
    Setting {
        name: "master_key_file",
        flag: "master-key-file",
        env: "POSTRIDER_MASTER_KEY_FILE",
        value_name: "FILE",
        help: "File with the master key as 64 hexadecimal digits",
        otherwise: Some("master.key in the data directory, made if new"),
        is_of_data: true,
        read: |settings, text| set(&mut settings.master_key_file, path(text).map(Some)),
        show: |settings| shown_path(settings.master_key_file.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "database_url",
        flag: "database-url",
        env: "POSTRIDER_DATABASE_URL",
        value_name: "URL",
        help: "PostgreSQL database that several nodes share, postgres://user[:password]@host:5432/database",
        otherwise: Some("SQLite in the data directory"),
        is_of_data: true,
        is_secret: true,
        is_shown_in_part: true,
        read: |settings, text| set(&mut settings.database.url, database_url(text).map(Some)),
        show: |settings| shown_url(settings.database.url.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "database_direct_url",
        flag: "database-direct-url",
        env: "POSTRIDER_DATABASE_DIRECT_URL",
        value_name: "URL",
        help: "The same database past a pooler, for LISTEN and migrations",
        otherwise: Some("none"),
        is_of_data: true,
        is_secret: true,
        is_shown_in_part: true,
        read: |settings, text| set(&mut settings.database.direct_url, database_url(text).map(Some)),
        show: |settings| shown_url(settings.database.direct_url.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "database_password_file",
        flag: "database-password-file",
        env: "POSTRIDER_DATABASE_PASSWORD_FILE",
        value_name: "FILE",
        help: "File with the database's password, instead of the URL",
        otherwise: Some("none"),
        is_of_data: true,
        read: |settings, text| set(&mut settings.database.password_file, path(text).map(Some)),
        show: |settings| shown_path(settings.database.password_file.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "database_ca_file",
        flag: "database-ca-file",
        env: "POSTRIDER_DATABASE_CA_FILE",
        value_name: "FILE",
        help: "PEM file of certificate authorities to trust for the database beside the public ones",
        otherwise: Some("none"),
        is_of_data: true,
        read: |settings, text| set(&mut settings.database.ca_file, path(text).map(Some)),
        show: |settings| shown_path(settings.database.ca_file.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "database_pool_size",
        flag: "database-pool-size",
        env: "POSTRIDER_DATABASE_POOL_SIZE",
        value_name: "COUNT",
        help: "Connections of this node to the database at most",
        is_of_data: true,
        read: |settings, text| set(&mut settings.database.pool_size, pool_size(text)),
        show: |settings| settings.database.pool_size.to_string(),
        ..PLAIN
    },
    Setting {
        name: "database_statement_timeout",
        flag: "database-statement-timeout",
        env: "POSTRIDER_DATABASE_STATEMENT_TIMEOUT",
        value_name: "TIME",
        help: "How long a statement may take before the database ends it",
        is_of_data: true,
        read: |settings, text| {
            let bounds = (limits::STATEMENT_TIMEOUT_MIN, limits::STATEMENT_TIMEOUT_MAX);
            set(&mut settings.database.statement_timeout, wait(text, bounds.0, bounds.1))
        },
        show: |settings| format_duration(settings.database.statement_timeout),
        ..PLAIN
    },
    Setting {
        name: "events",
        flag: "events",
        env: "POSTRIDER_EVENTS",
        value_name: "FILE",
        help: "Event catalogue to use instead of the one built in",
        otherwise: Some("the one built in"),
        is_of_data: true,
        read: |settings, text| set(&mut settings.events_file, path(text).map(Some)),
        show: |settings| shown_path(settings.events_file.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "listen",
        flag: "listen",
        env: "POSTRIDER_LISTEN",
        value_name: "ADDR:PORT",
        help: "Address and port of the API",
        read: |settings, text| set(&mut settings.listen, parsed(text, "is not an address like 127.0.0.1:8080")),
        show: |settings| settings.listen.to_string(),
        ..PLAIN
    },
    Setting {
        name: "public_url",
        flag: "public-url",
        env: "POSTRIDER_PUBLIC_URL",
        value_name: "URL",
        help: "Where callers reach the API, as it stands in the docs_url of errors",
        otherwise: Some("http://<listen>"),
        read: |settings, text| set(&mut settings.public_url, http_url(text).map(Some)),
        show: |settings| settings.public_url.clone().unwrap_or_default(),
        ..PLAIN
    },
    Setting {
        name: "allow_target",
        flag: "allow-target",
        env: "POSTRIDER_ALLOW_TARGET",
        value_name: "HOST|CIDR",
        help: "Host name, address or CIDR that may be called although it is not public, over plain http too. Repeatable",
        otherwise: Some("none"),
        is_list: true,
        is_of_egress: true,
        read: |settings, text| set(&mut settings.allow_targets, items(text, allow_target)),
        show: |settings| settings.allow_targets.join(","),
        ..PLAIN
    },
    Setting {
        name: "dns_server",
        flag: "dns-server",
        env: "POSTRIDER_DNS_SERVER",
        value_name: "ADDR",
        help: "Address of a DNS server to use instead of the system's; port 53 unless given. Repeatable",
        otherwise: Some("the system's"),
        is_list: true,
        is_of_egress: true,
        read: |settings, text| set(&mut settings.dns_servers, items(text, dns_server)),
        show: |settings| settings.dns_servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        ..PLAIN
    },
    Setting {
        name: "ca_file",
        flag: "ca-file",
        env: "POSTRIDER_CA_FILE",
        value_name: "FILE",
        help: "PEM file of certificate authorities to trust beside the public ones",
        otherwise: Some("none"),
        is_of_egress: true,
        read: |settings, text| set(&mut settings.ca_file, path(text).map(Some)),
        show: |settings| shown_path(settings.ca_file.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "egress_proxy",
        flag: "egress-proxy",
        env: "POSTRIDER_EGRESS_PROXY",
        value_name: "URL",
        help: "Forward proxy, http://[user:password@]host:port, that receivers are called through with CONNECT; the guard stays on",
        otherwise: Some("none"),
        is_of_egress: true,
        is_secret: true,
        read: |settings, text| set(&mut settings.egress_proxy, ProxyUrl::parse(text).map(Some).map_err(told)),
        show: |settings| settings.egress_proxy.as_ref().map(ToString::to_string).unwrap_or_default(),
        ..PLAIN
    },
    Setting {
        name: "retry_schedule",
        flag: "retry-schedule",
        env: "POSTRIDER_RETRY_SCHEDULE",
        value_name: "WAITS",
        help: "Waits after the first attempt, the second, and so on",
        read: |settings, text| set(&mut settings.retry_schedule, text.parse().map_err(told)),
        show: |settings| settings.retry_schedule.to_string(),
        ..PLAIN
    },
    Setting {
        name: "attempt_deadline",
        flag: "attempt-deadline",
        env: "POSTRIDER_ATTEMPT_DEADLINE",
        value_name: "TIME",
        help: "How long one attempt may last, from connecting to the last byte of the answer",
        read: |settings, text| {
            let most = limits::ATTEMPT_DEADLINE_MAX;
            set(&mut settings.attempt_deadline, wait(text, Duration::from_millis(100), most))
        },
        show: |settings| format_duration(settings.attempt_deadline),
        ..PLAIN
    },
    Setting {
        name: "operator_webhook_url",
        flag: "operator-webhook-url",
        env: "POSTRIDER_OPERATOR_WEBHOOK_URL",
        value_name: "URL",
        help: "Where you are told of endpoints that fail, pause, recover or are disabled, and of exhausted deliveries",
        otherwise: Some("nowhere"),
        read: |settings, text| set(&mut settings.operator_webhook_url, http_url(text).map(Some)),
        show: |settings| settings.operator_webhook_url.clone().unwrap_or_default(),
        ..PLAIN
    },
    Setting {
        name: "operator_webhook_secret_file",
        flag: "operator-webhook-secret-file",
        env: "POSTRIDER_OPERATOR_WEBHOOK_SECRET_FILE",
        value_name: "FILE",
        help: "File with the secret, whsec_…, that signs what goes to the operator webhook",
        otherwise: Some("operator-webhook.secret in the data directory, made if new"),
        read: |settings, text| set(&mut settings.operator_webhook_secret_file, path(text).map(Some)),
        show: |settings| shown_path(settings.operator_webhook_secret_file.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "retention",
        flag: "retention",
        env: "POSTRIDER_RETENTION",
        value_name: "TIME",
        help: "How long the log keeps an event and its deliveries once they are over",
        read: |settings, text| set(&mut settings.retention, wait(text, limits::RETENTION_MIN, limits::RETENTION_MAX)),
        show: |settings| format_duration(settings.retention),
        ..PLAIN
    },
    Setting {
        name: "stop_grace",
        flag: "stop-grace",
        env: "POSTRIDER_STOP_GRACE",
        value_name: "TIME",
        help: "How long a server that was told to stop waits for attempts under way",
        read: |settings, text| set(&mut settings.stop_grace, wait(text, Duration::ZERO, limits::STOP_GRACE_MAX)),
        show: |settings| format_duration(settings.stop_grace),
        ..PLAIN
    },
    Setting {
        name: "endpoints_per_project",
        flag: "endpoints-per-project",
        env: "POSTRIDER_ENDPOINTS_PER_PROJECT",
        value_name: "COUNT",
        help: "Endpoints that one project may have; those without a project count as one",
        read: |settings, text| set(&mut settings.endpoints_per_project, count(text)),
        show: |settings| settings.endpoints_per_project.to_string(),
        ..PLAIN
    },
    Setting {
        name: "endpoints_per_workspace",
        flag: "endpoints-per-workspace",
        env: "POSTRIDER_ENDPOINTS_PER_WORKSPACE",
        value_name: "COUNT",
        help: "Endpoints that one workspace may have",
        read: |settings, text| set(&mut settings.endpoints_per_workspace, count(text)),
        show: |settings| settings.endpoints_per_workspace.to_string(),
        ..PLAIN
    },
    Setting {
        name: "rate_limit_management",
        flag: "rate-limit-management",
        env: "POSTRIDER_RATE_LIMIT_MANAGEMENT",
        value_name: "COUNT",
        help: "Requests of one workspace in 60 seconds, publishes aside; 0 is without limit",
        read: |settings, text| set(&mut settings.rate_limits.management, rate_limit(text)),
        show: |settings| settings.rate_limits.management.map_or(0, NonZeroU32::get).to_string(),
        ..PLAIN
    },
    Setting {
        name: "rate_limit_publishing",
        flag: "rate-limit-publishing",
        env: "POSTRIDER_RATE_LIMIT_PUBLISHING",
        value_name: "COUNT",
        help: "Publishes of one workspace in 60 seconds, a batch counting as one; 0 is without limit",
        read: |settings, text| set(&mut settings.rate_limits.publishing, rate_limit(text)),
        show: |settings| settings.rate_limits.publishing.map_or(0, NonZeroU32::get).to_string(),
        ..PLAIN
    },
    Setting {
        name: "log_format",
        flag: "log-format",
        env: "POSTRIDER_LOG_FORMAT",
        value_name: "text|json",
        help: "Form of the log on standard error",
        read: |settings, text| set(&mut settings.log.format, log_format(text)),
        show: |settings| settings.log.format.as_str().to_owned(),
        ..PLAIN
    },
    Setting {
        name: "log",
        flag: "log",
        env: "POSTRIDER_LOG",
        value_name: "LEVEL",
        help: "What is logged: error, warn, info, debug or trace, also by module",
        read: |settings, text| set(&mut settings.log.filter, log_filter(text)),
        show: |settings| settings.log.filter.clone(),
        ..PLAIN
    },
];

impl Setting {
    /// # Errors
    /// Says what is wrong with the text.
    pub fn check(&self, text: &str) -> Result<(), String> {
        (self.read)(&mut Settings::default(), text)
    }

    /// The value for people's eyes.
    pub fn shown(&self, settings: &Settings) -> String {
        let value = (self.show)(settings);
        match (value.is_empty(), self.is_secret && !self.is_shown_in_part) {
            (true, _) => self.otherwise.unwrap_or("none").to_owned(),
            (false, true) => "(hidden)".to_owned(),
            (false, false) => value,
        }
    }

    pub fn help_with_default(&self, defaults: &Settings) -> String {
        format!("{} [default: {}]", self.help, self.shown(defaults))
    }
}

fn set<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

fn told(error: impl std::error::Error) -> String {
    error.to_string()
}

fn parsed<T: FromStr>(text: &str, fault: &str) -> Result<T, String> {
    text.parse().map_err(|_| fault.to_owned())
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("is not a path: it is empty".to_owned()) } else { Ok(text.into()) }
}

fn shown_path(path: Option<&PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

fn items<T>(text: &str, read: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(read).collect()
}

/// Checked here so that a mistake is told with its flag; read where it is used.
fn allow_target(text: &str) -> Result<String, String> {
    text.parse::<AllowTarget>().map(|_| text.to_owned()).map_err(told)
}

fn dns_server(text: &str) -> Result<SocketAddr, String> {
    const DNS_PORT: u16 = 53;
    text.parse()
        .or_else(|_| text.parse().map(|address| SocketAddr::new(address, DNS_PORT)))
        .map_err(|_| "is not an address like 127.0.0.1 or 127.0.0.1:5353".to_owned())
}

fn http_url(text: &str) -> Result<String, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(text.to_owned()),
        _ => Err("is not a URL like https://hooks.example.com".to_owned()),
    }
}

fn database_url(text: &str) -> Result<DatabaseUrl, String> {
    DatabaseUrl::parse(text).map_err(told)
}

fn shown_url(url: Option<&DatabaseUrl>) -> String {
    url.map(ToString::to_string).unwrap_or_default()
}

fn pool_size(text: &str) -> Result<usize, String> {
    let (least, most) = (limits::DATABASE_CONNECTIONS_MIN, limits::DATABASE_CONNECTIONS_MAX);
    let size = text.parse().ok().filter(|size| (least..=most).contains(size));
    size.ok_or_else(|| format!("is not a whole number from {least} to {most}"))
}

fn wait(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let wait = parse_duration(text).map_err(told)?;
    if (least..=most).contains(&wait) {
        Ok(wait)
    } else {
        Err(format!("must be {} to {}", format_duration(least), format_duration(most)))
    }
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "is not a whole number from 1".to_owned())
}

fn rate_limit(text: &str) -> Result<Option<NonZeroU32>, String> {
    text.parse().map(NonZeroU32::new).map_err(|_| "is not a whole number from 0".to_owned())
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    [LogFormat::Text, LogFormat::Json]
        .into_iter()
        .find(|format| format.as_str() == text)
        .ok_or_else(|| "is not text or json".to_owned())
}

fn log_filter(text: &str) -> Result<String, String> {
    if telemetry::is_filter(text) { Ok(text.to_owned()) } else { Err("is not a level or a list of them".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_reads_what_it_shows() {
        let defaults = Settings::default();
        for setting in SETTINGS {
            let shown = (setting.show)(&defaults);
            if setting.otherwise.is_none() {
                let mut settings = Settings::default();
                (setting.read)(&mut settings, &shown).unwrap();
                assert_eq!((setting.show)(&settings), shown, "{}", setting.name);
            } else {
                assert_eq!(shown, "", "{} has a default of its own", setting.name);
            }
        }
    }

    #[test]
    fn a_setting_has_one_name_in_three_spellings() {
        for setting in SETTINGS {
            assert_eq!(setting.flag, setting.name.replace('_', "-"));
            assert_eq!(setting.env, format!("POSTRIDER_{}", setting.name.to_uppercase()));
        }
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_its_reason() {
        let fault = |name: &str, text: &str| {
            let setting = SETTINGS.iter().find(|setting| setting.name == name).unwrap();
            setting.check(text).unwrap_err()
        };
        assert_eq!(fault("attempt_deadline", "2m"), "must be 100ms to 45s");
        assert_eq!(fault("endpoints_per_project", "0"), "is not a whole number from 1");
        assert_eq!(fault("public_url", "hooks.example.com"), "is not a URL like https://hooks.example.com");
        assert_eq!(fault("log", "postrider=loud"), "is not a level or a list of them");
        assert_eq!(fault("data_dir", ""), "is not a path: it is empty");
        assert_eq!(fault("database_pool_size", "3"), "is not a whole number from 4 to 200");
        assert_eq!(fault("database_statement_timeout", "2m"), "must be 1s to 1m");
    }

    #[test]
    fn a_secret_is_hidden_once_it_has_a_value() {
        let secret = Setting { is_secret: true, show: |settings| settings.log.filter.clone(), ..PLAIN };
        let mut settings = Settings::default();
        settings.log.filter = "hunter2".to_owned();
        assert_eq!(secret.shown(&settings), "(hidden)");
        settings.log.filter.clear();
        assert_eq!(secret.shown(&settings), "none");
    }
}
