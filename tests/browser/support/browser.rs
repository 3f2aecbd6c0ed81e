//! One Chromium for all tests of this process. Each test has a context of its own, as an incognito window is: cookies
//! and caches are shared by the tabs of a context alone.
//!
//! Names that end with `.test` lead to this machine, and no other name leads anywhere.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

use serde_json::json;

use super::protocol::Connection;
use super::tab::{Tab, View};

/// The program to run, such as `chromium`. When it is set, tests fail that cannot run.
const VARIABLE: &str = "POSTRIDER_TEST_BROWSER";

/// Keeps the browser from calling its maker, which would be a request to another host.
const QUIET: &[&str] = &[
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    "--disable-quic",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
];

/// The rest of the command line.
const FLAGS: &[&str] = &[
    "--headless",
    "--remote-debugging-pipe",
    // Tests often run as root in a container, where Chromium has no sandbox.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--font-render-hinting=none",
    "--hide-scrollbars",
    "--ignore-certificate-errors",
    "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
];

/// A context of the shared browser. It ends with the value.
pub struct Browser {
    connection: Arc<Connection>,
    context: String,
}

/// The shared browser and the source of axe-core.
struct Shared {
    connection: Arc<Connection>,
    axe: String,
}

impl Browser {
    /// A new context. Returns `None` and prints a message to standard error when there is no browser.
    ///
    /// # Panics
    /// When there is no browser and [`VARIABLE`] is set.
    pub async fn open() -> Option<Self> {
        let connection = Arc::clone(&shared()?.connection);
        let made = connection.call(None, "Target.createBrowserContext", json!({"disposeOnDetach": true})).await;
        let context = made["browserContextId"].as_str().expect("an id").to_owned();
        Some(Self { connection, context })
    }

    /// A new tab.
    pub async fn tab(&self, view: View) -> Tab {
        let params = json!({"url": "about:blank", "browserContextId": self.context});
        let made = self.connection.call(None, "Target.createTarget", params).await;
        let target = made["targetId"].as_str().expect("an id").to_owned();
        Tab::attach(Arc::clone(&self.connection), target, view).await
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let params = json!({"browserContextId": self.context});
        drop(self.connection.send(None, "Target.disposeBrowserContext", params));
    }
}

/// The source of axe-core, which a tab runs.
pub fn axe() -> &'static str {
    &shared().expect("a browser that is open").axe
}

/// The directory for what the browser tests install and make: `browser` in the target directory.
pub fn directory() -> PathBuf {
    let mut directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    directory.pop();
    directory.join("browser")
}

fn shared() -> Option<&'static Shared> {
    static SHARED: OnceLock<Option<Shared>> = OnceLock::new();
    SHARED.get_or_init(start).as_ref()
}

fn start() -> Option<Shared> {
    #[expect(clippy::disallowed_methods, reason = "a setting of the tests, which no part of the product reads")]
    let named = std::env::var_os(VARIABLE);
    let is_needed = named.is_some();
    let program = named.map_or_else(|| PathBuf::from("chromium"), PathBuf::from);
    match prepare(program) {
        Ok(shared) => Some(shared),
        Err(missing) if is_needed => panic!("{missing}, and {VARIABLE} is set"),
        Err(missing) => {
            // Past the capture of the test harness, which would hide it.
            let message = format!("the browser tests are skipped: {missing}; .ci/browser installs what they need\n");
            std::io::stderr().write_all(message.as_bytes()).expect("standard error");
            None
        }
    }
}

fn prepare(program: PathBuf) -> Result<Shared, String> {
    let script = directory().join("node_modules/axe-core/axe.min.js");
    let axe = std::fs::read_to_string(&script).map_err(|error| format!("no {}: {error}", script.display()))?;
    let version = Command::new(&program).arg("--version").output();
    let found = version.is_ok_and(|output| output.status.success());
    if !found {
        return Err(format!("no program {}", program.display()));
    }
    // The shell gives the browser the pipes as descriptors 3 and 4, and removes the profile when it has ended.
    let profile = directory().join(format!("profile-{}", std::process::id()));
    let run = r#"trap '' INT; profile=$1; shift; "$@" 3<&0 4>&1 0</dev/null 1>/dev/null; rm -rf "$profile""#;
    let mut child = Command::new("sh")
        .args(["-c", run, "sh"])
        .arg(&profile)
        .arg(program)
        .args(FLAGS)
        .args(QUIET)
        .arg(format!("--user-data-dir={}", profile.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("no shell: {error}"))?;
    let (to_browser, from_browser) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    Ok(Shared { connection: Connection::new(to_browser, from_browser), axe })
}
