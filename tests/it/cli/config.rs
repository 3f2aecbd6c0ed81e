//! `postrider config check`, and the precedence of flags, environment, file and defaults.

use std::path::Path;
use std::process::{Command, Output};

/// A working directory that may contain a settings file.
struct Desk(tempfile::TempDir);

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with_file(text: &str) -> Self {
        let desk = Self::new();
        std::fs::write(desk.path().join("postrider.toml"), text).unwrap();
        desk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .current_dir(self.path())
            .env_clear()
            .envs(environment.iter().copied())
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code: status.code(), out: text(stdout), err: text(stderr) }
    }

    /// The value and the source of a setting.
    fn check(&self, environment: &[(&str, &str)], arguments: &[&str], name: &str) -> (String, String) {
        let ran = self.run(environment, &[&["config", "check"], arguments].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let row = ran.out.lines().find(|line| line.split_whitespace().next() == Some(name)).expect(name);
        let mut columns = row.split("  ").map(str::trim).filter(|column| !column.is_empty()).skip(1);
        (columns.next().unwrap().to_owned(), columns.next().unwrap().to_owned())
    }
}

const FROM_FILE: &[&str] = &["--config", "postrider.toml"];

fn row(value: &str, source: &str) -> (String, String) {
    (value.to_owned(), source.to_owned())
}

#[test]
fn the_precedence_is_flag_environment_file_default() {
    let desk = Desk::with_file("# ours\nlisten = \"127.0.0.1:1\"\n");
    let environment = [("POSTRIDER_LISTEN", "127.0.0.1:2")];
    let with_flag = ["--config", "postrider.toml", "--listen", "127.0.0.1:3"];
    assert_eq!(desk.check(&[], &[], "listen"), row("127.0.0.1:8080", "default"));
    assert_eq!(desk.check(&[], FROM_FILE, "listen"), row("127.0.0.1:1", "file postrider.toml:2"));
    assert_eq!(desk.check(&environment, FROM_FILE, "listen"), row("127.0.0.1:2", "environment POSTRIDER_LISTEN"));
    assert_eq!(desk.check(&environment, &with_flag, "listen"), row("127.0.0.1:3", "flag --listen"));
    let named = [("POSTRIDER_CONFIG", "postrider.toml")];
    assert_eq!(desk.check(&named, &[], "listen"), row("127.0.0.1:1", "file postrider.toml:2"));
}

#[test]
fn every_setting_can_be_set_in_the_file() {
    let settings = [
        ("data_dir", "\"/srv/postrider\"", "/srv/postrider"),
        ("master_key_file", "\"/etc/key\"", "/etc/key"),
        ("database_url", "\"postgres://alice:hunter2@db/hooks\"", "postgres://alice:***@db/hooks"),
        ("database_direct_url", "\"postgres://alice@db:5433/hooks\"", "postgres://alice@db:5433/hooks"),
        ("database_password_file", "\"/etc/password\"", "/etc/password"),
        ("database_ca_file", "\"/etc/db.pem\"", "/etc/db.pem"),
        ("database_pool_size", "40", "40"),
        ("database_statement_timeout", "\"30s\"", "30s"),
        ("listen", "\"[::1]:80\"", "[::1]:80"),
        ("public_url", "\"https://hooks.example.com\"", "https://hooks.example.com"),
        ("tls_cert_file", "\"/etc/tls.pem\"", "/etc/tls.pem"),
        ("tls_key_file", "\"/etc/tls.key\"", "/etc/tls.key"),
        ("trusted_proxy", "[\"10.0.0.0/8\", \"::1\"]", "10.0.0.0/8,::1/128"),
        ("allow_target", "[\"10.0.0.0/8\", \"http://build.local:9000\"]", "10.0.0.0/8,http://build.local:9000"),
        ("deny_target", "[\"203.0.113.0/24\", \"admin.local\"]", "203.0.113.0/24,admin.local"),
        ("dns_server", "[\"127.0.0.53\", \"127.0.0.1:5353\"]", "127.0.0.53:53,127.0.0.1:5353"),
        ("ca_file", "\"/etc/ca.pem\"", "/etc/ca.pem"),
        ("operator_webhook_url", "\"https://ops.example.com/in\"", "https://ops.example.com/in"),
        ("operator_webhook_secret_file", "\"/etc/ops\"", "/etc/ops"),
        ("egress_proxy", "\"http://alice:hunter2@proxy.internal:3128\"", "(hidden)"),
        ("metrics_listen", "\"off\"", "off"),
        ("metrics_token_file", "\"/etc/metrics.token\"", "/etc/metrics.token"),
        ("otlp_endpoint", "\"https://otel.example.com/tenant\"", "https://otel.example.com/tenant"),
        ("otlp_ca_file", "\"/etc/otel.pem\"", "/etc/otel.pem"),
        ("trace_ratio", "0.05", "0.05"),
        ("trace_failures", "true", "on"),
        ("trace_forwarding", "\"off\"", "off"),
        ("retry_schedule", "[\"1s\", \"60s\", \"2h\"]", "1s,1m,2h"),
        ("attempt_deadline", "\"20s\"", "20s"),
        ("portal_frame_ancestors", "[\"https://app.example.com\"]", "https://app.example.com"),
        ("portal_brand", "\"Acme & Co.\"", "Acme & Co."),
        ("portal_logo", "\"/etc/logo.svg\"", "/etc/logo.svg"),
        ("portal_accent_light", "\"#767676\"", "#767676"),
        ("portal_accent_dark", "\"#9CF\"", "#99ccff"),
        ("portal_radius", "0", "0px"),
        ("portal_font", "\"serif\"", "serif"),
        ("retention", "\"7d\"", "168h"),
        ("max_disk", "\"20000MB\"", "20GB"),
        ("workspace_max_bytes", "\"1048576\"", "1048576"),
        ("retention_payloads", "\"1m\"", "1m"),
        ("retention_audit", "\"70d\"", "1680h"),
        ("retention_parked", "\"9d\"", "216h"),
        ("stop_grace", "\"1m\"", "1m"),
        ("endpoints_per_project", "7", "7"),
        ("endpoints_per_workspace", "9", "9"),
        ("rate_limit_management", "0", "0"),
        ("rate_limit_publishing", "60000", "60000"),
        ("log_format", "\"json\"", "json"),
        ("log", "\"warn,postrider=debug\"", "warn,postrider=debug"),
    ];
    let file: String = settings.iter().map(|(name, value, _)| format!("{name} = {value}\n")).collect();
    let desk = Desk::with_file(&file);
    for (index, (name, _, shown)) in settings.iter().enumerate() {
        let source = format!("file postrider.toml:{}", index + 1);
        assert_eq!(desk.check(&[], FROM_FILE, name), row(shown, &source), "{name}");
    }
    let all = desk.run(&[], &["config", "check"]).out;
    let names: Vec<&str> = all.lines().filter_map(|line| line.split_whitespace().next()).collect();
    for name in &names {
        let has_own_test = ["events", "master_key_command"].contains(name);
        assert!(has_own_test || settings.iter().any(|(known, ..)| known == name), "{name} is not tested");
    }
}

#[test]
fn variables_of_opentelemetry_stand_for_settings() {
    let desk = Desk::with_file("otlp_endpoint = \"http://file:4318\"\n");
    let named = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4318"), ("OTEL_TRACES_SAMPLER", "parentbased_always_on")];
    let expected = row("http://otel:4318", "environment OTEL_EXPORTER_OTLP_ENDPOINT");
    assert_eq!(desk.check(&named, FROM_FILE, "otlp_endpoint"), expected);
    assert_eq!(desk.check(&named, &[], "trace_ratio"), row("1", "environment OTEL_TRACES_SAMPLER"));
    let flags = ["--otlp-endpoint", "http://flag:4318", "--trace-ratio", "0.5"];
    assert_eq!(desk.check(&named, &flags, "otlp_endpoint"), row("http://flag:4318", "flag --otlp-endpoint"));
    assert_eq!(desk.check(&named, &flags, "trace_ratio"), row("0.5", "flag --trace-ratio"));
    for (name, value, fault) in [
        ("OTEL_TRACES_SAMPLER", "xray", "OTEL_TRACES_SAMPLER: must be always_on, always_off"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "otel:4317", "is not a base URL like http://127.0.0.1:4318"),
    ] {
        let ran = desk.run(&[(name, value)], &["config", "check"]);
        assert!(ran.code == Some(1) && ran.err.contains(fault), "{name} {value}: {}", ran.err);
    }
}

/// The rules of colours and pixels themselves are tested where they are.
#[test]
fn a_look_that_breaks_the_portal_is_refused() {
    let desk = Desk::with_file("[portal]\naccent_light = \"#777777\"\n");
    let ran = desk.run(&[], &["config", "check", "--config", "postrider.toml"]);
    let fault = "portal_accent_light: has a contrast of 4.47 : 1 against the page's background #ffffff";
    assert!(ran.code == Some(1) && ran.err.contains(fault), "{}", ran.err);
    for (flag, value, fault) in [
        ("--portal-accent-dark", "#1457c0", "against the page's background #0f1216, and needs at least 4.5 : 1"),
        ("--portal-accent-light", "red", "must be a colour like #1457c0"),
        ("--portal-radius", "25px", "must be 0px to 24px"),
        ("--portal-font", "Papyrus", "must be system, humanist"),
        ("--portal-brand", "", "must be a name of 1 to 64 characters"),
    ] {
        let ran = desk.run(&[], &["config", "check", flag, value]);
        assert!(ran.code == Some(2) && ran.err.contains(fault), "{flag} {value}: {}", ran.err);
    }
}

#[test]
fn the_proxy_password_is_never_printed() {
    let desk = Desk::new();
    let good = [("POSTRIDER_EGRESS_PROXY", "http://alice:hunter2@proxy.internal:3128")];
    let expected = row("(hidden)", "environment POSTRIDER_EGRESS_PROXY");
    assert_eq!(desk.check(&good, &[], "egress_proxy"), expected);
    let help = desk.run(&good, &["serve", "--help"]);
    assert!(help.out.contains("POSTRIDER_EGRESS_PROXY") && !help.out.contains("hunter2"), "{}", help.out);
    let bad = "https://alice:hunter2@proxy.internal:3128";
    for (environment, flags) in [
        (&[("POSTRIDER_EGRESS_PROXY", bad)][..], &["config", "check"][..]),
        (&[][..], &["config", "check", "--egress-proxy", bad][..]),
    ] {
        let ran = desk.run(environment, flags);
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.contains("egress_proxy: is not a proxy like") && !ran.err.contains("alice"), "{}", ran.err);
    }
}

#[test]
fn a_list_from_a_stronger_source_replaces_the_whole_list() {
    let desk = Desk::with_file("allow_target = [\"10.0.0.0/8\"]");
    let flags =
        ["--config", "postrider.toml", "--allow-target", "127.0.0.1", "--allow-target", "build.local,other.local"];
    let expected = row("127.0.0.1,build.local,other.local", "flag --allow-target");
    assert_eq!(desk.check(&[], &flags, "allow_target"), expected);
    assert_eq!(desk.check(&[], &[], "allow_target"), row("none", "default"));
}

#[test]
fn a_fault_in_the_file_is_reported_with_its_line() {
    for (file, expected) in [
        ("listen = \"127.0.0.1:1\"\n\ncolour = \"red\"\n", "postrider.toml:3: \"colour\" is not a setting"),
        ("[server]\nlisten = \"127.0.0.1:1\"\n", "postrider.toml:1: \"server\" is not a setting"),
        ("listen = \"nowhere\"", "postrider.toml:1: listen: is not an address"),
        ("retry_schedule = [\"1s\",\n \"soon\"]", "postrider.toml:1: retry_schedule: \"soon\" is not a duration"),
        ("stop_grace = 1.5", "postrider.toml:1: stop_grace: \"1.5\" is not a duration"),
        ("stop_grace = 1979-05-27", "postrider.toml:1: stop_grace: must be a string"),
        ("listen = ", "postrider.toml is not TOML"),
        ("listen = \"[::1]:1\"\nlisten = \"[::1]:2\"", "postrider.toml is not TOML"),
    ] {
        let ran = Desk::with_file(file).run(&[], &["config", "check", "--config", "postrider.toml"]);
        assert_eq!(ran.code, Some(1), "{file}: {}", ran.out);
        assert!(ran.err.contains(expected), "{file}: {}", ran.err);
    }
    let ran = Desk::new().run(&[], &["config", "check", "--config", "gone.toml"]);
    assert!(ran.code == Some(1) && ran.err.contains("cannot read the settings file gone.toml"), "{}", ran.err);
}

#[test]
fn a_bad_flag_or_variable_is_reported_with_its_flag() {
    let desk = Desk::new();
    let ran = desk.run(&[], &["serve", "--attempt-deadline", "1h"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("--attempt-deadline") && ran.err.contains("must be 100ms to 45s"), "{}", ran.err);
    let ran = desk.run(&[("POSTRIDER_LISTEN", "x")], &["config", "check"]);
    assert!(ran.code == Some(2) && ran.err.contains("--listen"), "{}", ran.err);
}

#[test]
fn the_help_shows_the_defaults() {
    let help = Desk::new().run(&[], &["serve", "--help"]).out;
    for expected in [
        "[default: 127.0.0.1:8080]",
        "[default: ./postrider-data]",
        "[default: 5s,5m,30m,2h,5h,10h,14h,20h,24h]",
        "[default: 15s]",
        "[default: master.key in the data directory, created if missing]",
        "[default: info]",
        "POSTRIDER_CONFIG",
    ] {
        assert!(help.contains(expected), "{expected} is missing in:\n{help}");
    }
}

#[test]
fn offline_commands_take_the_data_directory_from_the_file() {
    let desk = Desk::with_file("data_dir = \"kept\"\nlisten = \"127.0.0.1:1\"\n");
    let create = ["keys", "create", "--workspace", "Acme", "--json", "--config", "postrider.toml"];
    let ran = desk.run(&[], &create);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("\"scripe_sk_live_"), "{}", ran.out);
    assert!(desk.path().join("kept/postrider.db").exists());
    // A command without `--events` uses the catalogue that the store was created with.
    let events = "version = 2\n[brand]\nname = 'acme'\n[[event]]\nname = 'a.b'\ndescription = ''\nschema = '{}'\nexample = '{}'\n";
    std::fs::write(desk.path().join("events.toml"), events).unwrap();
    let other = ["keys", "create", "--workspace", "Acme", "--json", "--data-dir", "other"];
    let ran = desk.run(&[("POSTRIDER_EVENTS", "events.toml")], &other);
    assert!(ran.out.contains("\"acme_sk_live_"), "{}{}", ran.out, ran.err);
    let ran = desk.run(&[], &other);
    assert!(ran.out.contains("\"acme_sk_live_"), "{}{}", ran.out, ran.err);
}

#[test]
fn the_event_catalogue_is_checked_too() {
    let desk = Desk::new();
    std::fs::write(desk.path().join("events.toml"), "version = 1").unwrap();
    let ran = desk.run(&[], &["config", "check", "--events", "events.toml"]);
    assert!(ran.code == Some(1) && ran.err.contains("contains no event"), "{}", ran.err);
}

#[test]
fn the_command_of_the_master_key_is_shown_without_arguments() {
    let desk = Desk::with_file("master_key_command = \"/usr/bin/vault read token=hunter2\"\n");
    let shown = desk.check(&[], FROM_FILE, "master_key_command");
    assert_eq!(shown, row("/usr/bin/vault (hidden)", "file postrider.toml:1"));
    let given = [("POSTRIDER_MASTER_KEY_COMMAND", "TOKEN=hunter2 /usr/bin/vault read key")];
    let (shown, _) = desk.check(&given, &[], "master_key_command");
    assert_eq!(shown, "/usr/bin/vault (hidden)");
    let (shown, _) = desk.check(&[("POSTRIDER_MASTER_KEY_COMMAND", "(echo hunter2)")], &[], "master_key_command");
    assert_eq!(shown, "(hidden)");
    let help = desk.run(&given, &["serve", "--help"]);
    assert!(!help.out.contains("hunter2"), "{}", help.out);
    let ran = desk.run(&given, &["config", "check", "--master-key-file", "k"]);
    assert!(ran.code == Some(1) && ran.err.contains("exclude each other"), "{}", ran.err);
    let ran = desk.run(&[], &["config", "check", "--master-key-command", " "]);
    assert!(ran.code == Some(1) && ran.err.contains("is not a command: it is empty"), "{}", ran.err);
}
