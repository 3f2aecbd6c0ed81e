//! Checks the source tree against rules that neither the compiler nor clippy knows: file heads and sizes, line widths,
//! test names, logged errors, sleeps in tests, paired migrations, and links.
//!
//! Dependencies between crates are not checked here, because the `Cargo.toml` of each crate limits them. Each check
//! takes a text, so that the tests at the foot can show that it fails.

#[path = "tidy/docs.rs"]
mod docs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The limit for the lines of a file before its tests.
const LINES_PER_FILE_MAX: usize = 600;

/// The only test files that may sleep: the bounded waiter, and the receiver that drips.
const MAY_SLEEP: &[&str] = &["tests/it/support/wait.rs", "tests/it/support/receiver/exchange.rs"];

/// Texts that no line of Rust may contain outside comments, with the reason.
const BANNED: &[(&str, &str)] = &[
    ("#[ignore", "a test is run or removed, never ignored"),
    ("%error", "a log shows the whole chain of causes: `error = %Chain(&error)`"),
];

/// The files that write a table: its name, then those below `crates/store-sqlite/src` and those below
/// `crates/store-postgres/src`. No other file writes it. Tests, and `copy.rs`, which copies every table, are left out.
const WRITERS: &[(&str, &[&str], &[&str])] = &[
    ("meta", &["meta/mod.rs", "stats.rs", "stored_bytes.rs"], &["meta/mod.rs", "stats.rs", "stored_bytes.rs"]),
    ("catalogues", &["meta/catalogue.rs"], &["meta/catalogue.rs"]),
    (
        "workspaces",
        &["publish/matching.rs", "registry/workspace.rs", "upkeep/ended.rs"],
        &["publish/matching.rs", "registry/workspace.rs", "upkeep/ended.rs"],
    ),
    ("dashboard_sessions", &["registry/session.rs"], &["registry/session.rs"]),
    ("login_codes", &["registry/session.rs"], &["registry/session.rs"]),
    ("api_keys", &["registry/api_key.rs", "upkeep/ended.rs"], &["registry/api_key.rs", "upkeep/ended.rs"]),
    (
        "portal_sessions",
        &["registry/portal_session.rs", "upkeep/ended.rs"],
        &["registry/portal_session.rs", "upkeep/ended.rs"],
    ),
    ("parked_messages", &["parked_message.rs", "upkeep/ended.rs"], &["parked_message.rs", "upkeep/ended.rs"]),
    ("paused_sources", &["parked_message.rs"], &["parked_message.rs"]),
    (
        "endpoints",
        &["queue/lease.rs", "registry/endpoint.rs", "registry/endpoint_options.rs", "upkeep/ended.rs"],
        &["queue/lease.rs", "registry/endpoint.rs", "registry/endpoint_options.rs", "upkeep/ended.rs"],
    ),
    ("endpoint_secrets", &["secrets.rs"], &["secrets.rs"]),
    ("endpoint_sealed", &["secrets.rs"], &["secrets.rs"]),
    ("endpoint_health", &["queue/endpoint_health.rs"], &["queue/endpoint_health.rs"]),
    (
        "events",
        &["publish/event.rs", "upkeep/payload.rs", "upkeep/retention.rs"],
        &["publish/event.rs", "upkeep/payload.rs", "upkeep/retention.rs"],
    ),
    (
        "deliveries",
        &["log/delivery.rs", "upkeep/retention.rs"],
        &["log/delivery.rs", "queue/outcome.rs", "upkeep/retention.rs"],
    ),
    (
        "attempts",
        &["log/attempt.rs", "upkeep/payload.rs", "upkeep/retention.rs"],
        &["log/attempt.rs", "upkeep/payload.rs", "upkeep/retention.rs"],
    ),
    (
        "due",
        &[
            "queue/due.rs",
            "queue/enqueue.rs",
            "queue/lease.rs",
            "queue/order.rs",
            "queue/outcome.rs",
            "queue/unsent.rs",
        ],
        &[
            "queue/due.rs",
            "queue/enqueue.rs",
            "queue/lease.rs",
            "queue/order.rs",
            "queue/outcome.rs",
            "queue/unsent.rs",
        ],
    ),
    ("lanes", &["queue/lane.rs"], &["queue/lane.rs"]),
    ("ordered_lanes", &["queue/order.rs"], &["queue/order.rs"]),
    ("late_payloads", &["upkeep/payload.rs"], &["upkeep/payload.rs"]),
    ("publish_keys", &["publish/event.rs", "upkeep/retention.rs"], &["publish/event.rs", "upkeep/retention.rs"]),
    ("idempotency", &["idempotency.rs"], &["idempotency.rs"]),
    ("replays", &["replay.rs", "upkeep/ended.rs"], &["replay.rs", "upkeep/ended.rs"]),
    (
        "erasures",
        &["erasure/files.rs", "erasure/mod.rs", "erasure/step.rs", "upkeep/ended.rs"],
        &["erasure/files.rs", "erasure/mod.rs", "erasure/step.rs", "upkeep/ended.rs"],
    ),
    ("erasure_filler", &["erasure/files.rs"], &[]),
    ("audit", &["log/audit.rs"], &["log/audit.rs"]),
    ("stored_bytes", &["stored_bytes.rs"], &["stored_bytes.rs"]),
    ("rollups", &["stats.rs"], &["stats.rs"]),
    ("nodes", &[], &["machinery/node.rs"]),
    ("server_run", &[], &["machinery/node.rs"]),
    ("rate_counts", &[], &["rate.rs"]),
];

/// Words that no comment and no page may contain: each has a plain term (`STYLE.md`, which quotes some).
const UNPLAIN: &[&str] = &["by and by", "the way out", "whoever", "household", "comes to nothing", "outrun", "is dear"];

const COLUMNS_MAX: usize = 120;

const TEST_NAME_CHARS_MAX: usize = 60;

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
            violations.extend(check_named_functions(&name, &text, |file| fs::read_to_string(root.join(file)).ok()));
            if name != "STYLE.md" {
                let lines = (1..).zip(text.lines());
                violations.extend(lines.filter_map(|(number, line)| check_words(&name, number, line)));
            }
        }
    }
    for store in ["sqlite", "postgres"] {
        violations.extend(check_writers(root, store));
    }
    let migrations = |store| file_names(&root.join("migrations").join(store));
    violations.extend(check_migrations(migrations("sqlite"), migrations("postgres")));
    assert!(rust_files > 5, "the tree was not found at {}", root.display());
    let report: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(report.is_empty(), "the tree is not tidy:\n{}", report.join("\n"));
}

fn check_rust(file: &str, text: &str) -> Vec<Violation> {
    let mut violations = Vec::from_iter(check_head(file, text));
    violations.extend(check_length(file, text));
    if file == file!() {
        // The tables and tests below quote what they ban.
        return violations;
    }
    violations.extend(check_lines(file, text));
    violations.extend(check_prints(file, text));
    if file.starts_with("tests/") && !MAY_SLEEP.contains(&file) {
        violations.extend(check_sleeps(file, text));
    }
    violations
}

/// Every file begins with a `//!` head.
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

fn check_lines(file: &str, text: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let code = code_of(line);
        for (banned, reason) in BANNED {
            if code.contains(banned) {
                violations.push(violation(file, number, format!("`{banned}`: {reason}")));
            }
        }
        if line.chars().count() > COLUMNS_MAX && is_comment(line) {
            violations.push(violation(file, number, format!("a comment is at most {COLUMNS_MAX} columns wide")));
        }
        if is_comment(line) {
            violations.extend(check_words(file, number, line));
        }
        let name = code.split("fn ").nth(1).and_then(|rest| rest.split(['(', '<']).next()).unwrap_or_default();
        if name.len() > TEST_NAME_CHARS_MAX {
            violations.push(violation(file, number, format!("a name has at most {TEST_NAME_CHARS_MAX} letters")));
        }
    }
    violations
}

fn check_words(file: &str, number: usize, line: &str) -> Option<Violation> {
    let text = line.to_lowercase();
    let found = UNPLAIN.iter().find(|words| text.contains(*words))?;
    Some(violation(file, number, format!("`{found}`: use the plain term")))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// A line without its comment. A `//` inside a string counts as a comment too, which can only hide a violation.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// In `tests/sim` time is paused: a sleep there is a step of the simulation.
fn check_sleeps(file: &str, text: &str) -> Vec<Violation> {
    if file.starts_with("tests/sim/") {
        return Vec::new();
    }
    let rule = "a test waits for an event, never for time: use `support::wait`";
    let is_sleep = |line: &str| {
        let code = code_of(line);
        code.contains("time::sleep") || code.contains("thread::sleep") || code.trim_start().starts_with("sleep(")
    };
    let lines = (1..).zip(text.lines()).filter(|(_, line)| is_sleep(line));
    lines.map(|(number, _)| violation(file, number, rule)).collect()
}

/// `println!` and its like panic when the stream is closed, and wait when nobody reads it. Tests may use them.
fn check_prints(file: &str, text: &str) -> Vec<Violation> {
    let is_product = file.starts_with("src/") || file.starts_with("crates/");
    if !is_product || file.ends_with("machinery/plans.rs") {
        return Vec::new();
    }
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let prints = |line: &str| ["println!(", "eprintln!(", "print!(", "eprint!("].iter().any(|it| line.contains(it));
    let lines = (1..).zip(code.lines()).filter(|(_, line)| prints(code_of(line)));
    let rule = "a print panics when the stream is closed: use `cli::output` or `LossyWriter`";
    lines.map(|(number, _)| violation(file, number, rule)).collect()
}

/// Compares a back end with [`WRITERS`], in both directions.
fn check_writers(root: &Path, store: &str) -> Vec<Violation> {
    let folder = format!("crates/store-{store}/src");
    let tables: Vec<&str> = WRITERS.iter().map(|(table, ..)| *table).collect();
    let mut written = BTreeMap::new();
    for path in files_under(&root.join(&folder)) {
        let name =
            path.strip_prefix(root.join(&folder)).expect("found below the folder").to_string_lossy().into_owned();
        let is_left_out = name == "copy.rs" || name == "machinery/plans.rs" || name.ends_with("tests.rs");
        if name.ends_with(".rs") && !is_left_out {
            let text = fs::read_to_string(&path).expect("a source file");
            written.insert(name, tables_written(&text, &tables));
        }
    }
    let rows =
        WRITERS.iter().map(|(table, sqlite, postgres)| (*table, if store == "sqlite" { *sqlite } else { *postgres }));
    rows.flat_map(|(table, files)| compare_writers(&folder, &written, table, files)).collect()
}

fn compare_writers(
    folder: &str,
    written: &BTreeMap<String, BTreeSet<String>>,
    table: &str,
    files: &[&str],
) -> Vec<Violation> {
    let writers = written.iter().filter(|(_, tables)| tables.contains(table)).map(|(file, _)| file.as_str());
    let (found, listed): (BTreeSet<&str>, BTreeSet<&str>) = (writers.collect(), files.iter().copied().collect());
    let differs = |file: &str, rule: String| violation(&format!("{folder}/{file}"), 1, rule);
    let extra =
        found.difference(&listed).map(|file| differs(file, format!("writes `{table}` and is not listed for it")));
    let missing =
        listed.difference(&found).map(|file| differs(file, format!("is listed for `{table}` and writes none")));
    extra.chain(missing).collect()
}

/// The tables that the SQL of a file writes, its tests left out. A table whose name is put in at run time is not seen.
fn tables_written(text: &str, tables: &[&str]) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let words: Vec<&str> = code
        .lines()
        .map(code_of)
        .flat_map(|line| line.split(|c: char| !is_word(c)))
        .filter(|word| !word.is_empty())
        .collect();
    let writes = |before: &[&str]| matches!(before, [.., "DELETE", "FROM"] | [.., "INTO" | "UPDATE"]);
    (0..words.len())
        .filter(|&at| tables.contains(&words[at]) && writes(&words[..at]))
        .map(|at| words[at].to_owned())
        .collect()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The migrations of each store are numbered without a gap, and each number exists in both stores.
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

/// `exists` takes a path relative to the root of the repository.
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

/// A link whose text is the name of a function leads to a file with that function, such as the test of a promise.
/// `read` takes a path relative to the root of the repository.
fn check_named_functions(file: &str, text: &str, read: impl Fn(&Path) -> Option<String>) -> Vec<Violation> {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    let mut violations = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        for link in content.split("[`").skip(1) {
            let Some((name, rest)) = link.split_once("`](") else { continue };
            let target = rest.split(')').next().unwrap_or_default();
            let is_function =
                name.contains('_') && name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit());
            if !is_function || !target.ends_with(".rs") {
                continue;
            }
            let found = read(&normal(&folder.join(target))).is_some_and(|code| code.contains(&format!("fn {name}(")));
            if !found {
                violations.push(violation(file, line, format!("`{name}` is not in `{target}`")));
            }
        }
    }
    violations
}

/// The targets of `[text](target "title")` and `[label]: target` in one line, outside code spans.
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

/// Every file of the repository, sorted, without build output and hidden folders.
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
    fn a_file_has_a_head_and_a_limit() {
        assert_eq!(rules(check_head("src/a.rs", "use b;\n").as_slice()).len(), 1);
        let long = "//! Head.\n".to_owned() + &"fn f() {}\n".repeat(600);
        assert!(check_length("src/a.rs", &long).unwrap().rule.starts_with("601 lines"));
        let tested = "fn f() {}\n".repeat(600) + "#[cfg(test)]\nmod tests {\n" + &"//\n".repeat(500) + "}\n";
        assert_eq!(check_length("src/a.rs", &tested), None);
    }

    #[test]
    fn a_banned_line_is_found_in_code_only() {
        for body in ["#[ignore = \"slow\"]", "tracing::warn!(%error, \"it failed\");"] {
            assert_eq!(of_source("tests/it/a.rs", body).len(), 1, "{body}");
        }
        let fine = "tracing::warn!(error = %Chain(&error), \"it failed\"); // not %error, alone\n";
        assert_eq!(of_source("crates/domain/src/a.rs", fine), [""; 0]);
    }

    #[test]
    fn a_print_is_found_in_the_product_only() {
        let found = of_source("crates/domain/src/a.rs", "fn f() { eprintln!(\"x\") } // println!(\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(of_source("src/a.rs", "#[cfg(test)]\nmod tests { fn f() { println!(\"x\") } }\n"), [""; 0]);
        assert_eq!(of_source("docs/samples/a.rs", "fn f() { println!(\"x\") }\n"), [""; 0]);
    }

    #[test]
    fn a_word_with_a_plain_term_is_found_in_comments() {
        let found = of_source("src/a.rs", "/// Whoever asks is answered by and by.");
        assert_eq!(found, ["src/a.rs:2: `by and by`: use the plain term"]);
        assert_eq!(of_source("src/a.rs", "const A: &str = \"whoever\";"), [""; 0]);
    }

    #[test]
    fn a_long_comment_and_a_long_name_are_found() {
        let (widest, too_wide) = (format!("// {}", "é".repeat(117)), format!("/// {}", "é".repeat(117)));
        assert_eq!(of_source("src/a.rs", &widest), [""; 0]);
        assert_eq!(of_source("src/a.rs", &too_wide), ["src/a.rs:2: a comment is at most 120 columns wide"]);
        assert_eq!(of_source("src/a.rs", &format!("fn {}() {{}}", "a".repeat(60))), [""; 0]);
        let long = of_source("src/a.rs", &format!("    async fn {}() {{}}", "a".repeat(61)));
        assert_eq!(long, ["src/a.rs:2: a name has at most 60 letters"]);
    }

    #[test]
    fn only_the_waiter_and_the_dripping_receiver_may_sleep() {
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
    fn a_table_written_in_the_wrong_file_is_found() {
        let sql = "const A: &str = \"INSERT INTO due (x) VALUES (1) ON CONFLICT DO UPDATE SET y = 1\";\n\
                   const B: &str = \"DELETE\n FROM lanes\"; // UPDATE events\n\
                   const C: &str = \"SELECT 1 FROM events FOR UPDATE\";\n\
                   #[cfg(test)]\nmod tests { const D: &str = \"UPDATE events SET z = 1\"; }\n";
        let written = tables_written(sql, &["due", "lanes", "events"]);
        assert_eq!(written, BTreeSet::from(["due".to_owned(), "lanes".to_owned()]));
        let written = BTreeMap::from([("log/mod.rs".to_owned(), written)]);
        let compare = |table, files: &[&str]| rules(&compare_writers("src", &written, table, files));
        assert_eq!(compare("due", &["log/mod.rs"]), [""; 0]);
        assert_eq!(compare("due", &[]), ["src/log/mod.rs:1: writes `due` and is not listed for it"]);
        assert_eq!(compare("events", &["a.rs"]), ["src/a.rs:1: is listed for `events` and writes none"]);
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
    fn a_named_function_that_is_not_there_is_found() {
        let text = "[`a_promise_is_kept`](../tests/a.rs), [`Type`](../tests/a.rs), [`a_b`](b.md)\n\
                    [`a_promise_is_broken`](../tests/a.rs)\n[`a_promise_is_lost`](../tests/b.rs)\n";
        let read =
            |path: &Path| (path == Path::new("tests/a.rs")).then(|| "async fn a_promise_is_kept() {}".to_owned());
        assert_eq!(
            rules(&check_named_functions("docs/a.md", text, read)),
            [
                "docs/a.md:2: `a_promise_is_broken` is not in `../tests/a.rs`",
                "docs/a.md:3: `a_promise_is_lost` is not in `../tests/b.rs`"
            ]
        );
    }

    #[test]
    fn a_broken_link_is_found() {
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
