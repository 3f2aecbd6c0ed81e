//! The table of settings: names, help, parser and printer of each. Their meaning and defaults are in `config.rs`.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::config::Settings;
use postrider_domain::duration::format_duration;
use postrider_domain::limits;
use postrider_domain::proxy::ProxyUrl;

use super::portal_settings;
use super::setting_value::{
    allow_target, byte_budget, command, count, database_url, deny_target, disk_size, dns_server, duration, http_url,
    items, log_filter, log_format, message, metrics_listen, network, parsed, path, pool_size, rate_limit, set,
    shown_command, shown_path, shown_size, shown_url,
};
use super::trace_settings;

/// One setting as users see it.
#[derive(Debug)]
pub struct Setting {
    /// Its name in the settings file.
    pub name: &'static str,
    pub flag: &'static str,
    pub env: &'static str,
    pub value_name: &'static str,
    pub help: &'static str,
    /// Describes the default, for a setting whose default has no value to print.
    pub otherwise: Option<&'static str>,
    /// The flag may be repeated. In other sources the items are separated by commas.
    pub is_list: bool,
    /// Commands that open a store also take it.
    pub is_of_data: bool,
    /// Commands that call receivers also take it.
    pub is_of_egress: bool,
    /// Never printed as given, not even in errors.
    pub is_secret: bool,
    /// The output of `show` contains no secret part and may be printed.
    pub is_shown_in_part: bool,
    pub read: fn(&mut Settings, &str) -> Result<(), String>,
    /// Prints the value. Empty if there is none.
    pub show: fn(&Settings) -> String,
}

pub const PLAIN: Setting = Setting {
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
        help: "Directory of the SQLite database, the master key and the admin socket. Created if it does not exist",
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
        help: "File with the master key, 64 hexadecimal digits",
        otherwise: Some("master.key in the data directory, created if missing"),
        is_of_data: true,
        read: |settings, text| set(&mut settings.master_key_file, path(text).map(Some)),
        show: |settings| shown_path(settings.master_key_file.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "master_key_command",
        flag: "master-key-command",
        env: "POSTRIDER_MASTER_KEY_COMMAND",
        value_name: "COMMAND",
        help: "Shell command that prints the master key, instead of --master-key-file. Runs at each start",
        otherwise: Some("none"),
        is_of_data: true,
        is_secret: true,
        is_shown_in_part: true,
        read: |settings, text| set(&mut settings.master_key_command, command(text).map(Some)),
        show: |settings| shown_command(settings.master_key_command.as_deref()),
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
        help: "URL of the same database without a pooler in between, for LISTEN and migrations",
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
        help: "File with the password of the database. Overrides a password in the URL",
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
        help: "PEM file of certificate authorities to trust for the database in addition to the public ones",
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
        help: "Maximum number of connections of this node to the database",
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
        help: "Time after which the database cancels a statement",
        is_of_data: true,
        read: |settings, text| {
            let bounds = (limits::STATEMENT_TIMEOUT_MIN, limits::STATEMENT_TIMEOUT_MAX);
            set(&mut settings.database.statement_timeout, duration(text, bounds.0, bounds.1))
        },
        show: |settings| format_duration(settings.database.statement_timeout),
        ..PLAIN
    },
    Setting {
        name: "events",
        flag: "events",
        env: "POSTRIDER_EVENTS",
        value_name: "FILE",
        help: "TOML file of the event catalogue",
        otherwise: Some("the built-in catalogue"),
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
        help: "Base URL under which callers reach the API, used in the docs_url of errors",
        otherwise: Some("http://<listen>"),
        read: |settings, text| set(&mut settings.public_url, http_url(text).map(Some)),
        show: |settings| settings.public_url.clone().unwrap_or_default(),
        ..PLAIN
    },
    Setting {
        name: "tls_cert_file",
        flag: "tls-cert-file",
        env: "POSTRIDER_TLS_CERT_FILE",
        value_name: "FILE",
        help: "PEM file of the API's certificate chain. The API then speaks TLS only. Read again on SIGHUP and when it changes",
        otherwise: Some("none: plain HTTP"),
        read: |settings, text| set(&mut settings.tls_cert_file, path(text).map(Some)),
        show: |settings| shown_path(settings.tls_cert_file.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "tls_key_file",
        flag: "tls-key-file",
        env: "POSTRIDER_TLS_KEY_FILE",
        value_name: "FILE",
        help: "PEM file of the private key of the API's certificate",
        otherwise: Some("none: plain HTTP"),
        read: |settings, text| set(&mut settings.tls_key_file, path(text).map(Some)),
        show: |settings| shown_path(settings.tls_key_file.as_ref()),
        ..PLAIN
    },
    Setting {
        name: "trusted_proxy",
        flag: "trusted-proxy",
        env: "POSTRIDER_TRUSTED_PROXY",
        value_name: "CIDR",
        help: "Address or CIDR of a proxy whose X-Forwarded-For and Forwarded name the caller. Repeatable",
        otherwise: Some("none"),
        is_list: true,
        read: |settings, text| set(&mut settings.trusted_proxies, items(text, network)),
        show: |settings| settings.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        ..PLAIN
    },
    Setting {
        name: "allow_target",
        flag: "allow-target",
        env: "POSTRIDER_ALLOW_TARGET",
        value_name: "RULE",
        help: "Host to allow although it is not public, also over plain http: a name, address or CIDR, as in \
               10.20.0.0/16, http://10.1.2.3:9000 or hooks.local=workspace:org_… (scheme, port and workspace narrow it). \
               Repeatable",
        otherwise: Some("none"),
        is_list: true,
        is_of_egress: true,
        read: |settings, text| set(&mut settings.allow_targets, items(text, allow_target)),
        show: |settings| settings.allow_targets.join(","),
        ..PLAIN
    },
    Setting {
        name: "deny_target",
        flag: "deny-target",
        env: "POSTRIDER_DENY_TARGET",
        value_name: "HOST|CIDR",
        help: "Host name, address or CIDR that is never called, whatever is allowed. Repeatable",
        otherwise: Some("none"),
        is_list: true,
        is_of_egress: true,
        read: |settings, text| set(&mut settings.deny_targets, items(text, deny_target)),
        show: |settings| settings.deny_targets.join(","),
        ..PLAIN
    },
    Setting {
        name: "dns_server",
        flag: "dns-server",
        env: "POSTRIDER_DNS_SERVER",
        value_name: "ADDR",
        help: "DNS server to use instead of the system's, ADDR or ADDR:PORT (default port 53). Repeatable",
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
        help: "PEM file of certificate authorities to trust for receivers in addition to the public ones",
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
        help: "Forward proxy for calls to receivers, http://[user:password@]host:port. It must support CONNECT. The guard stays active",
        otherwise: Some("none"),
        is_of_egress: true,
        is_secret: true,
        read: |settings, text| set(&mut settings.egress_proxy, ProxyUrl::parse(text).map(Some).map_err(message)),
        show: |settings| settings.egress_proxy.as_ref().map(ToString::to_string).unwrap_or_default(),
        ..PLAIN
    },
    Setting {
        name: "metrics_listen",
        flag: "metrics-listen",
        env: "POSTRIDER_METRICS_LISTEN",
        value_name: "ADDR:PORT|off",
        help: "Address and port of /metrics, which is for everybody who can reach them, or off",
        read: |settings, text| set(&mut settings.metrics.listen, metrics_listen(text)),
        show: |settings| settings.metrics.listen.to_string(),
        ..PLAIN
    },
    Setting {
        name: "metrics_token_file",
        flag: "metrics-token-file",
        env: "POSTRIDER_METRICS_TOKEN_FILE",
        value_name: "FILE",
        help: "File with a bearer token for /metrics on the listener of the API",
        otherwise: Some("none: no /metrics there"),
        read: |settings, text| set(&mut settings.metrics.token_file, path(text).map(Some)),
        show: |settings| shown_path(settings.metrics.token_file.as_ref()),
        ..PLAIN
    },
    trace_settings::OTLP_ENDPOINT,
    trace_settings::OTLP_CA_FILE,
    trace_settings::TRACE_RATIO,
    trace_settings::TRACE_FAILURES,
    trace_settings::TRACE_FORWARDING,
    Setting {
        name: "retry_schedule",
        flag: "retry-schedule",
        env: "POSTRIDER_RETRY_SCHEDULE",
        value_name: "WAITS",
        help: "Waits after the first attempt, the second, and so on, separated by commas",
        read: |settings, text| set(&mut settings.retry_schedule, text.parse().map_err(message)),
        show: |settings| settings.retry_schedule.to_string(),
        ..PLAIN
    },
    Setting {
        name: "attempt_deadline",
        flag: "attempt-deadline",
        env: "POSTRIDER_ATTEMPT_DEADLINE",
        value_name: "TIME",
        help: "Deadline of one attempt, from connecting to the last byte of the answer",
        read: |settings, text| {
            let bounds = (limits::ATTEMPT_DEADLINE_MIN, limits::ATTEMPT_DEADLINE_MAX);
            set(&mut settings.attempt_deadline, duration(text, bounds.0, bounds.1))
        },
        show: |settings| format_duration(settings.attempt_deadline),
        ..PLAIN
    },
    Setting {
        name: "operator_webhook_url",
        flag: "operator-webhook-url",
        env: "POSTRIDER_OPERATOR_WEBHOOK_URL",
        value_name: "URL",
        help: "URL that receives operational events about failing, paused, disabled and recovered endpoints and exhausted deliveries",
        otherwise: Some("none"),
        read: |settings, text| set(&mut settings.operator_webhook_url, http_url(text).map(Some)),
        show: |settings| settings.operator_webhook_url.clone().unwrap_or_default(),
        ..PLAIN
    },
    Setting {
        name: "operator_webhook_secret_file",
        flag: "operator-webhook-secret-file",
        env: "POSTRIDER_OPERATOR_WEBHOOK_SECRET_FILE",
        value_name: "FILE",
        help: "File with the secret, whsec_…, that signs operational events",
        otherwise: Some("operator-webhook.secret in the data directory, created if missing"),
        read: |settings, text| set(&mut settings.operator_webhook_secret_file, path(text).map(Some)),
        show: |settings| shown_path(settings.operator_webhook_secret_file.as_ref()),
        ..PLAIN
    },
    portal_settings::FRAME_ANCESTORS,
    portal_settings::BRAND,
    portal_settings::LOGO,
    portal_settings::ACCENT_LIGHT,
    portal_settings::ACCENT_DARK,
    portal_settings::RADIUS,
    portal_settings::FONT,
    Setting {
        name: "retention",
        flag: "retention",
        env: "POSTRIDER_RETENTION",
        value_name: "TIME",
        help: "How long the log keeps an event and its deliveries after they have ended",
        read: |settings, text| {
            set(&mut settings.retention, duration(text, limits::RETENTION_MIN, limits::RETENTION_MAX))
        },
        show: |settings| format_duration(settings.retention),
        ..PLAIN
    },
    Setting {
        name: "retention_payloads",
        flag: "retention-payloads",
        env: "POSTRIDER_RETENTION_PAYLOADS",
        value_name: "TIME",
        help: "How long the data of events and the headers and bodies of attempts are kept, at most as long as --retention",
        otherwise: Some("as --retention"),
        read: |settings, text| {
            let kept = duration(text, limits::RETENTION_MIN, limits::RETENTION_MAX);
            set(&mut settings.payload_retention, kept.map(Some))
        },
        show: |settings| settings.payload_retention.map(format_duration).unwrap_or_default(),
        ..PLAIN
    },
    Setting {
        name: "retention_audit",
        flag: "retention-audit",
        env: "POSTRIDER_RETENTION_AUDIT",
        value_name: "TIME",
        help: "How long the audit log keeps an entry, and how long a revoked or expired API key can still be looked up",
        read: |settings, text| {
            set(&mut settings.audit_retention, duration(text, limits::RETENTION_MIN, limits::RETENTION_MAX))
        },
        show: |settings| format_duration(settings.audit_retention),
        ..PLAIN
    },
    Setting {
        name: "retention_parked",
        flag: "retention-parked",
        env: "POSTRIDER_RETENTION_PARKED",
        value_name: "TIME",
        help: "How long a message of a source is kept that could not become an event",
        read: |settings, text| {
            set(&mut settings.parked_retention, duration(text, limits::RETENTION_MIN, limits::RETENTION_MAX))
        },
        show: |settings| format_duration(settings.parked_retention),
        ..PLAIN
    },
    Setting {
        name: "stop_grace",
        flag: "stop-grace",
        env: "POSTRIDER_STOP_GRACE",
        value_name: "TIME",
        help: "How long a stopping server waits for running attempts",
        read: |settings, text| set(&mut settings.stop_grace, duration(text, Duration::ZERO, limits::STOP_GRACE_MAX)),
        show: |settings| format_duration(settings.stop_grace),
        ..PLAIN
    },
    Setting {
        name: "endpoints_per_project",
        flag: "endpoints-per-project",
        env: "POSTRIDER_ENDPOINTS_PER_PROJECT",
        value_name: "COUNT",
        help: "Maximum number of endpoints of a project in each mode. Endpoints without a project count as one project",
        read: |settings, text| set(&mut settings.endpoints_per_project, count(text)),
        show: |settings| settings.endpoints_per_project.to_string(),
        ..PLAIN
    },
    Setting {
        name: "endpoints_per_workspace",
        flag: "endpoints-per-workspace",
        env: "POSTRIDER_ENDPOINTS_PER_WORKSPACE",
        value_name: "COUNT",
        help: "Maximum number of endpoints of a workspace in each mode",
        read: |settings, text| set(&mut settings.endpoints_per_workspace, count(text)),
        show: |settings| settings.endpoints_per_workspace.to_string(),
        ..PLAIN
    },
    Setting {
        name: "max_disk",
        flag: "max-disk",
        env: "POSTRIDER_MAX_DISK",
        value_name: "SIZE",
        help: "Most bytes that the database, its log and a reserve may take on the disk, as in 500MB or 20GB",
        otherwise: Some("what the file system has"),
        read: |settings, text| set(&mut settings.max_disk, disk_size(text).map(Some)),
        show: |settings| settings.max_disk.map(shown_size).unwrap_or_default(),
        ..PLAIN
    },
    Setting {
        name: "workspace_max_bytes",
        flag: "workspace-max-bytes",
        env: "POSTRIDER_WORKSPACE_MAX_BYTES",
        value_name: "BYTES",
        help: "Maximum number of bytes that a workspace stores as events, attempts and remembered answers, or off",
        read: |settings, text| set(&mut settings.workspace_max_bytes, byte_budget(text)),
        show: |settings| settings.workspace_max_bytes.map_or_else(|| "off".to_owned(), |max| max.to_string()),
        ..PLAIN
    },
    Setting {
        name: "rate_limit_management",
        flag: "rate-limit-management",
        env: "POSTRIDER_RATE_LIMIT_MANAGEMENT",
        value_name: "COUNT",
        help: "Requests of a workspace in 60 seconds, without publishes. 0 means no limit",
        read: |settings, text| set(&mut settings.rate_limits.management, rate_limit(text)),
        show: |settings| settings.rate_limits.management.map_or(0, NonZeroU32::get).to_string(),
        ..PLAIN
    },
    Setting {
        name: "rate_limit_publishing",
        flag: "rate-limit-publishing",
        env: "POSTRIDER_RATE_LIMIT_PUBLISHING",
        value_name: "COUNT",
        help: "Publishes of a workspace in 60 seconds. A batch counts as one. 0 means no limit",
        read: |settings, text| set(&mut settings.rate_limits.publishing, rate_limit(text)),
        show: |settings| settings.rate_limits.publishing.map_or(0, NonZeroU32::get).to_string(),
        ..PLAIN
    },
    Setting {
        name: "log_format",
        flag: "log-format",
        env: "POSTRIDER_LOG_FORMAT",
        value_name: "text|json",
        help: "Format of the log on standard error",
        read: |settings, text| set(&mut settings.log.format, log_format(text)),
        show: |settings| settings.log.format.as_str().to_owned(),
        ..PLAIN
    },
    Setting {
        name: "log",
        flag: "log",
        env: "POSTRIDER_LOG",
        value_name: "FILTER",
        help: "Log filter: error, warn, info, debug or trace, also by target, as in warn,postrider_engine=debug",
        read: |settings, text| set(&mut settings.log.filter, log_filter(text)),
        show: |settings| settings.log.filter.clone(),
        ..PLAIN
    },
];

impl Setting {
    /// # Errors
    /// When the text is invalid. Returns the problem as the end of a sentence.
    pub fn check(&self, text: &str) -> Result<(), String> {
        (self.read)(&mut Settings::default(), text)
    }

    /// The value as it is shown to users. A secret is hidden.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_parses_what_it_shows() {
        let defaults = Settings::default();
        for setting in SETTINGS {
            let shown = (setting.show)(&defaults);
            if setting.otherwise.is_none() {
                let mut settings = Settings::default();
                (setting.read)(&mut settings, &shown).unwrap();
                assert_eq!((setting.show)(&settings), shown, "{}", setting.name);
            } else {
                assert_eq!(shown, "", "{} has a described default", setting.name);
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
        assert_eq!(fault("endpoints_per_project", "0"), "must be a whole number of at least 1");
        assert_eq!(fault("public_url", "hooks.example.com"), "is not a URL like https://hooks.example.com");
        assert_eq!(fault("log", "postrider=loud"), "is not a log filter like info or warn,postrider=debug");
        assert_eq!(fault("data_dir", ""), "is not a path: it is empty");
        for text in ["99999999", "99MB", "1.5GB", "10GiB", "-1GB", "GB", "", "99999999999TB"] {
            assert_eq!(fault("max_disk", text), "is not a size of at least 100MB, like 500MB or 20GB", "{text}");
        }
        assert_eq!(fault("database_pool_size", "3"), "must be a whole number from 4 to 200");
        assert_eq!(fault("database_statement_timeout", "2m"), "must be 1s to 1m");
    }

    #[test]
    fn the_value_of_a_secret_is_hidden() {
        let secret = Setting { is_secret: true, show: |settings| settings.log.filter.clone(), ..PLAIN };
        let mut settings = Settings::default();
        settings.log.filter = "hunter2".to_owned();
        assert_eq!(secret.shown(&settings), "(hidden)");
        settings.log.filter.clear();
        assert_eq!(secret.shown(&settings), "none");
    }
}
