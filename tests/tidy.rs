//! Reads the source tree and holds it to the rules that a compiler does not know: who may import whom, which outside
//! crate may be named where, how long a file may be, what a test may not do, and that links lead somewhere.
//!
//! The tables below are the rules; `ARCHITECTURE.md` tells their reasons. Each check works on a text, so that the
//! tests at the foot can show that it is able to fail.

#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/rust.rs"]
mod rust;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rust::{Name, is_word, line_of, names, strip};

/// Who may import whom. A module that has no row may not exist. Every module may use itself.
const IMPORTS: &[(&str, &[&str])] = &[
    ("lib", &[]),
    ("main", &["cli"]),
    ("crypto", &[]),
    ("domain", &["crypto"]),
    ("clock", &["domain"]),
    ("config", &["domain"]),
    ("telemetry", &["config"]),
    ("store", &["domain"]),
    ("egress", &["domain", "telemetry", "crypto"]),
    ("engine", &["domain", "store", "egress", "telemetry", "crypto"]),
    ("service", &["domain", "store", "crypto", "telemetry", "engine::Waker", "engine::waker::Waker"]),
    ("api", &["domain", "service", "telemetry"]),
    ("dashboard", &["domain", "service", "telemetry"]),
    ("source", &["domain", "service", "telemetry"]),
    ("local", &["domain", "crypto"]),
    ("bench", &["domain", "local", "crypto", "store::sqlite::ceiling"]),
    ("server", ALL),
    (
        "cli",
        &[
            "crypto",
            "domain",
            "clock",
            "config",
            "telemetry",
            "store",
            "egress",
            "service",
            "source",
            "local",
            "bench",
            "server",
        ],
    ),
];

const ALL: &[&str] = &["*"];

/// Outside names and the only places under `src/` that may say them.
const FENCES: &[(&str, &[&str])] = &[
    ("rusqlite", &["store/sqlite"]),
    ("refinery", &["store/sqlite", "store/postgres"]),
    ("tokio_postgres", &["store/postgres"]),
    ("deadpool_postgres", &["store/postgres"]),
    ("tokio_postgres_rustls", &["store/postgres"]),
    ("hickory_resolver", &["egress"]),
    ("hyper::client", &["egress", "local", "bench"]),
    ("hyper_util::client", &["egress", "local", "bench"]),
    ("maud", &["dashboard"]),
    ("axum", &["api", "dashboard", "local", "server"]),
    ("clap", &["cli", "main"]),
    ("aws_lc_rs", &["crypto"]),
    ("jsonschema", &["domain/schema"]),
    ("indicatif", &["bench/progress", "cli/store"]),
];

/// Lines before the tests at a file's foot.
const LINES_PER_FILE_MAX: usize = 600;

/// The places where a test may let time pass: the bounded waiter, and the receiver that drips.
const MAY_SLEEP: &[&str] = &["tests/it/support/wait.rs", "tests/it/support/receiver/exchange.rs"];

/// What no Rust file may contain, and why.
const BANNED: &[(&str, &str)] = &[
    ("#[ignore", "a test is run or removed, never ignored"),
    ("todo!(", "no unfinished code is checked in"),
    ("unimplemented!(", "no unfinished code is checked in"),
    ("#[allow(", "use `#[expect(…, reason = \"…\")]`, which falls away with its cause"),
    ("#![allow(", "use `#![expect(…, reason = \"…\")]`, which falls away with its cause"),
];

#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.rule)
    }
}

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut violations = Vec::new();
    let mut rust_files = 0;
    for file in files_under(root) {
        let name = file.strip_prefix(root).expect("found below the root").to_string_lossy().replace('\\', "/");
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if name.ends_with(".rs") {
            rust_files += 1;
            violations.extend(check_rust(&name, &text));
        } else if name.ends_with(".md") {
            violations.extend(check_links(&name, &text, |target| root.join(target).exists()));
        }
    }
    let migrations = |store| file_names(&root.join("migrations").join(store));
    violations.extend(check_migrations(migrations("sqlite"), migrations("postgres")));
    assert!(rust_files > 5, "the tree was not found at {}", root.display());
    let report: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(report.is_empty(), "the tree is not tidy:\n{}", report.join("\n"));
}

fn check_rust(file: &str, text: &str) -> Vec<Violation> {
    let code = strip(text);
    let mut violations = Vec::from_iter(check_head(file, text));
    violations.extend(check_length(file, text));
    violations.extend(check_bans(file, &code));
    if let Some(path) = file.strip_prefix("src/") {
        let names = names(&code);
        violations.extend(check_imports(path, &names));
        violations.extend(check_fences(path, &names));
    }
    if file.starts_with("tests/") && !MAY_SLEEP.contains(&file) {
        violations.extend(check_sleeps(file, &code));
    }
    violations
}

/// Every file says at its head what it is.
fn check_head(file: &str, text: &str) -> Option<Violation> {
    (!text.starts_with("//!")).then(|| violation(file, 1, "a file begins with `//!`: what it is and why it exists"))
}

fn check_length(file: &str, text: &str) -> Option<Violation> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let tests_at = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
    let length = tests_at.unwrap_or(lines.len());
    let rule = format!("{length} lines before the tests; the limit is {LINES_PER_FILE_MAX}");
    (length > LINES_PER_FILE_MAX).then(|| violation(file, LINES_PER_FILE_MAX + 1, rule))
}

fn check_bans(file: &str, code: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (banned, reason) in BANNED {
        for (at, _) in code.match_indices(banned) {
            violations.push(violation(file, line_of(code, at), format!("`{banned}`: {reason}")));
        }
    }
    for (at, _) in code.match_indices("[expect(") {
        let attribute = code[at..].split(']').next().unwrap_or_default();
        if !attribute.contains("reason") {
            violations.push(violation(file, line_of(code, at), "`expect` tells its reason: `reason = \"…\"`"));
        }
    }
    violations
}

fn check_sleeps(file: &str, code: &str) -> Vec<Violation> {
    let sleeps = ["sleep(", "time::sleep;", "thread::sleep;"].map(|call| code.match_indices(call));
    let whole_words = sleeps.into_iter().flatten().filter(|(at, _)| !code[..*at].ends_with(is_word));
    let mut lines: Vec<usize> = whole_words.map(|(at, _)| line_of(code, at)).collect();
    lines.sort_unstable();
    lines.dedup();
    let rule = "a test waits for an event, never for time: use `support::wait`";
    lines.into_iter().map(|line| violation(file, line, rule)).collect()
}

/// `path` is the file's below `src/`.
fn check_imports(path: &str, names: &[Name]) -> Vec<Violation> {
    let file = format!("src/{path}");
    let module = top_module(path);
    let Some((_, allowed)) = IMPORTS.iter().find(|(row, _)| *row == module) else {
        return vec![violation(&file, 1, format!("`{module}` has no row in the import table"))];
    };
    let mut violations = Vec::new();
    for name in names {
        let Some(target) = own_target(path, &name.segments) else { continue };
        let is_allowed = allowed.iter().any(|entry| *entry == "*" || is_within(&target, entry));
        if target[0] == module || is_allowed {
            continue;
        }
        let rule = format!("`{module}` may not use `{}`; it may use: {}", target.join("::"), allowed.join(", "));
        violations.push(violation(&file, name.line, rule));
    }
    violations
}

/// The path from the crate's root, if the name is one of ours. `super` counts once it leads to the root.
fn own_target(path: &str, segments: &[String]) -> Option<Vec<String>> {
    match segments[0].as_str() {
        "crate" | "postrider" if segments.len() > 1 => Some(segments[1..].to_vec()),
        "super" => {
            let depth = path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
            let supers = segments.iter().take_while(|segment| *segment == "super").count();
            let rest = &segments[supers..];
            let is_module = rest.first().is_some_and(|first| IMPORTS.iter().any(|(row, _)| row == first));
            (supers >= depth && is_module).then(|| rest.to_vec())
        }
        _ => None,
    }
}

fn check_fences(path: &str, names: &[Name]) -> Vec<Violation> {
    let file = format!("src/{path}");
    let mut violations = Vec::new();
    for name in names {
        for (fenced, places) in FENCES {
            let is_inside = places.iter().any(|place| is_in_place(path, place));
            if is_within(&name.segments, fenced) && !is_inside {
                let rule = format!("`{fenced}` may be named only in: {}", places.join(", "));
                violations.push(violation(&file, name.line, rule));
            }
        }
    }
    violations
}

/// Whether a path is the entry or lies below it: `domain::time::Clock` lies within `domain`.
fn is_within(segments: &[String], entry: &str) -> bool {
    let mut entry = entry.split("::");
    let mut segments = segments.iter();
    entry.all(|part| segments.next().is_some_and(|segment| segment == part))
}

/// Whether `src/{path}` is the file or lies in the folder that `place` names.
fn is_in_place(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn top_module(path: &str) -> &str {
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

/// Each store's migrations are numbered without a gap, and each number means the same in both.
fn check_migrations(sqlite: Option<Vec<String>>, postgres: Option<Vec<String>>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut numbers = |store: &str, files: Option<Vec<String>>| -> Option<BTreeMap<usize, String>> {
        let mut numbered = BTreeMap::new();
        for name in files? {
            let file = format!("migrations/{store}/{name}");
            match migration_number(&name) {
                None => violations.push(violation(&file, 1, "a migration is named NNNN_name.sql")),
                Some(number) => {
                    if let Some(other) = numbered.insert(number, file.clone()) {
                        violations.push(violation(&file, 1, format!("has the same number as {other}")));
                    }
                }
            }
        }
        for (expected, (number, file)) in (1..).zip(&numbered) {
            if *number != expected {
                violations.push(violation(file, 1, format!("migration {expected:04} is missing before this one")));
                break;
            }
        }
        Some(numbered)
    };
    let (sqlite, postgres) = (numbers("sqlite", sqlite), numbers("postgres", postgres));
    if let (Some(sqlite), Some(postgres)) = (sqlite, postgres) {
        for (here, there, store) in [(&sqlite, &postgres, "postgres"), (&postgres, &sqlite, "sqlite")] {
            let unpaired = here.iter().filter(|(number, _)| !there.contains_key(number));
            violations.extend(unpaired.map(|(_, file)| violation(file, 1, format!("has no pair in {store}"))));
        }
    }
    violations
}

fn migration_number(name: &str) -> Option<usize> {
    let (number, title) = name.strip_suffix(".sql")?.split_once('_')?;
    let is_title = !title.is_empty() && title.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if number.len() == 4 && is_title { number.parse().ok() } else { None }
}

/// `exists` is asked for paths relative to the repository's root.
fn check_links(file: &str, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<Violation> {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut violations = Vec::new();
    let mut in_code = false;
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in link_targets(content) {
            let target = target.split('#').next().unwrap_or_default();
            let is_elsewhere = target.is_empty() || target.contains("://") || target.starts_with("mailto:");
            if !is_elsewhere && !exists(&normal(&folder.join(target))) {
                violations.push(violation(file, line, format!("the link to `{target}` leads nowhere")));
            }
        }
    }
    violations
}

/// The targets of `[text](target "title")` and `[label]: target` in one line, code spans left out.
fn link_targets(line: &str) -> Vec<String> {
    let text: String = line.split('`').step_by(2).collect::<Vec<_>>().join("code");
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let mut targets: Vec<String> = inline.map(str::to_owned).collect();
    if let Some((label, target)) = text.trim_start().split_once("]: ")
        && label.starts_with('[')
    {
        targets.extend(target.split_whitespace().next().map(str::to_owned));
    }
    targets
}

fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::Normal(name) => normal.push(name),
            _ => {}
        }
    }
    normal
}

fn violation(file: &str, line: usize, rule: impl Into<String>) -> Violation {
    Violation { file: file.to_owned(), line, rule: rule.into() }
}

/// Every file of the repository, sorted; build output and hidden folders are none of it.
fn files_under(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("a readable folder").map(|entry| entry.expect("a readable entry").path()).collect();
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_symlink() || name.starts_with('.') || name == "target" || name == "node_modules" {
            continue;
        }
        if entry.is_dir() {
            files.extend(files_under(&entry));
        } else {
            files.push(entry);
        }
    }
    files
}

/// `None` when there is no such folder.
fn file_names(folder: &Path) -> Option<Vec<String>> {
    let entries = fs::read_dir(folder).ok()?;
    Some(entries.map(|entry| entry.expect("a readable entry").file_name().to_string_lossy().into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(violations: &[Violation]) -> Vec<String> {
        violations.iter().map(ToString::to_string).collect()
    }

    fn of_source(file: &str, body: &str) -> Vec<String> {
        rules(&check_rust(file, &format!("//! Head.\n{body}")))
    }

    #[test]
    fn an_import_outside_the_table_is_found_however_it_is_written() {
        for body in [
            "use crate::engine::worker::Worker;",
            "use crate::{domain::time, engine::worker};",
            "fn f() { crate::engine::run(); }",
            "use super::super::engine::worker;",
            "use super::super::{domain::id, engine};",
            "pub(crate) use crate::engine as motor;",
        ] {
            let found = of_source("src/api/event.rs", body);
            assert_eq!(found.len(), 1, "{body}: {found:?}");
            assert!(found[0].starts_with("src/api/event.rs:2: `api` may not use `engine"), "{found:?}");
        }
    }

    #[test]
    fn what_the_table_allows_passes() {
        for (file, body) in [
            ("src/api/event.rs", "use crate::{api::error, domain::id, service::{event, key}};\nuse super::error;"),
            ("src/service/event.rs", "use crate::engine::Waker;\nuse crate::store::Store;"),
            ("src/server.rs", "use crate::{api, engine, store};"),
            ("src/main.rs", "use postrider::cli;"),
            ("src/lib.rs", "pub mod engine;"),
            ("src/domain/time.rs", "// use crate::engine;\nconst A: &str = \"crate::engine\"; /* crate::store */"),
            (
                "src/egress/connector.rs",
                "fn f<'a>(c: char) -> bool { c == '\"' || c == '\\'' }\nuse crate::domain::id;",
            ),
        ] {
            assert_eq!(of_source(file, body), [""; 0], "{file}");
        }
    }

    #[test]
    fn the_front_doors_have_rules_too() {
        assert_eq!(of_source("src/service/event.rs", "use crate::engine::{Waker, worker};").len(), 1);
        assert_eq!(of_source("src/main.rs", "use postrider::engine;").len(), 1);
        assert_eq!(of_source("src/cli/serve.rs", "use crate::api;").len(), 1);
        let unknown = of_source("src/misc.rs", "");
        assert_eq!(unknown, ["src/misc.rs:1: `misc` has no row in the import table"]);
    }

    #[test]
    fn an_outside_crate_stays_within_its_fence() {
        for (inside, outside, body) in [
            ("store/sqlite/event.rs", "store/page.rs", "use rusqlite::Connection;"),
            ("store/sqlite.rs", "store/sqlite_more.rs", "fn f(c: &rusqlite::Connection) {}"),
            ("store/sqlite/mod.rs", "server.rs", "use refinery;"),
            ("egress/client.rs", "engine/worker.rs", "use hyper::{body::Incoming, client::conn::http1};"),
            ("bench/load.rs", "api/mod.rs", "use hyper_util::client::legacy::Client;"),
            ("dashboard/pages/home.rs", "api/mod.rs", "fn f() { maud::html! {} }"),
            ("server.rs", "service/event.rs", "use axum::Router;"),
            ("cli/mod.rs", "config.rs", "#[derive(clap::Parser)] struct A;"),
            ("crypto.rs", "domain/secret.rs", "fn f() { ::aws_lc_rs::init() }"),
            ("egress/resolver.rs", "service/endpoint.rs", "use hickory_resolver::Resolver;"),
            ("store/postgres/mod.rs", "store/sqlite/mod.rs", "use tokio_postgres::Client;"),
        ] {
            assert_eq!(of_source(&format!("src/{inside}"), body), [""; 0], "{body}");
            let found = of_source(&format!("src/{outside}"), body);
            assert!(found.len() == 1 && found[0].contains("may be named only in"), "{body}: {found:?}");
        }
        let provider = "use rustls::crypto::{aws_lc_rs, CryptoProvider};\nuse hyper::body::Incoming;";
        assert_eq!(of_source("src/egress/tls.rs", provider), [""; 0]);
    }

    #[test]
    fn a_file_has_a_head_and_a_limit() {
        assert_eq!(rules(check_head("src/a.rs", "use b;\n").as_slice()).len(), 1);
        let long = "//! Head.\n".to_owned() + &"fn f() {}\n".repeat(600);
        assert!(check_length("src/a.rs", &long).unwrap().rule.starts_with("601 lines"));
        let tested = "fn f() {}\n".repeat(600) + "#[cfg(test)]\nmod tests {\n" + &"//\n".repeat(500) + "}\n";
        assert_eq!(check_length("src/a.rs", &tested), None);
    }

    #[test]
    fn what_is_banned_is_found_in_code_and_not_in_texts() {
        for body in [
            "#[ignore = \"slow\"]",
            "fn f() { todo!() }",
            "fn f() { unimplemented!(\"x\") }",
            "#[allow(dead_code)]",
            "#![allow(dead_code)]",
            "#[expect(dead_code)]",
        ] {
            assert_eq!(of_source("tests/it/a.rs", body).len(), 1, "{body}");
        }
        let fine = "#[expect(dead_code, reason = \"x\")]\nconst A: &str = \"todo!()\"; // #[ignore]\n";
        assert_eq!(of_source("src/domain/a.rs", fine), [""; 0]);
    }

    #[test]
    fn only_the_waiter_and_the_drip_may_sleep() {
        let body = "async fn f() {\n tokio::time::sleep(SECOND).await;\n}";
        assert_eq!(of_source("tests/it/a.rs", body).len(), 1);
        assert!(of_source("tests/it/a.rs", body)[0].starts_with("tests/it/a.rs:3: a test waits for an event"));
        assert_eq!(of_source("tests/it/a.rs", "use std::thread::sleep;").len(), 1);
        assert_eq!(of_source("tests/it/support/wait.rs", body), [""; 0]);
        assert_eq!(
            of_source("tests/it/a.rs", "async fn f() { clock.sleep_until(at).await; clock.until_asleep(2); }"),
            [""; 0]
        );
    }

    #[test]
    fn migrations_are_numbered_without_a_gap_and_paired() {
        let files = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let check = |sqlite: &[&str], postgres: &[&str]| rules(&check_migrations(files(sqlite), files(postgres)));
        assert_eq!(check(&["0001_start.sql", "0002_more.sql"], &["0002_more.sql", "0001_begin.sql"]), [""; 0]);
        assert_eq!(check(&["0001_a.sql", "0002_b.sql"], &["0001_a.sql"]).len(), 1);
        assert_eq!(check(&["0001_a.sql", "0003_b.sql"], &["0001_a.sql", "0003_b.sql"]).len(), 2);
        assert_eq!(check(&["0001_a.sql", "0001_b.sql"], &["0001_a.sql"]).len(), 1);
        assert_eq!(check(&["1_a.sql", "0001_a.txt", "0001_.sql"], &[]).len(), 3);
        assert_eq!(rules(&check_migrations(files(&["0001_a.sql"]), None)), [""; 0]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let text = "[a](there.md#part) [b](../README.md \"title\") [c](gone.md)\n\
                    [d](https://example.com/x) [e](#here) `[f](code.md)` [g](mailto:a@b.c)\n\
                    ```\n[h](block.md)\n```\n[i]: missing.md\n";
        let exists = |path: &Path| path == Path::new("docs/there.md") || path == Path::new("README.md");
        let found = rules(&check_links("docs/a.md", text, exists));
        assert_eq!(
            found,
            ["docs/a.md:1: the link to `gone.md` leads nowhere", "docs/a.md:6: the link to `missing.md` leads nowhere"]
        );
    }
}
