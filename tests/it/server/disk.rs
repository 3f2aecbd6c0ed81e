//! A disk that gets full and has room again. The server has a small file system of its own, in a mount namespace, and
//! this process fills it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::process::Command;

use crate::support::app::text;
use crate::support::caller::Caller;
use crate::support::process::{Serving, create_key, path_text, serve};
use crate::support::wait::eventually;

const SCOPES: &[&str] = &["--workspace", "Acme", "--scope", "events:write", "--scope", "events:read"];

/// A server whose data directory is on a file system of 200 MiB.
struct SmallDisk {
    server: Serving,
    /// The data directory, as this process reaches it.
    data_dir: PathBuf,
    _mount: tempfile::TempDir,
}

impl SmallDisk {
    async fn start(arguments: &[&str]) -> Self {
        let mount = tempfile::tempdir().unwrap();
        let data_dir = mount.path().join("data");
        let serving = serve(&data_dir, arguments);
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let mount_and_serve = "mount -t tmpfs -o size=200m tmpfs \"$0\" && exec \"$@\"";
        command.args(["--mount", "sh", "-c", mount_and_serve, path_text(mount.path())]);
        command.arg(serving.as_std().get_program()).args(serving.as_std().get_args());
        command.kill_on_drop(true);
        let server = Serving::of(command).await;
        let inside = PathBuf::from(format!("/proc/{}/root", server.id()));
        let data_dir = inside.join(data_dir.strip_prefix("/").unwrap());
        Self { server, data_dir, _mount: mount }
    }

    fn filler(&self) -> PathBuf {
        self.data_dir.with_file_name("filler")
    }

    /// Takes what the file system has left.
    fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        let block = vec![1; 1 << 16];
        while file.write_all(&block).is_ok() {}
    }

    fn has_reserve(&self) -> bool {
        self.data_dir.join("reserve").exists()
    }
}

async fn publish(caller: &Caller) -> (u16, serde_json::Value) {
    let reply = caller.post("/v1/events", json!({"type": "post.created", "data": {}})).await;
    (reply.status, reply.json())
}

async fn until_publish_answers(caller: &Caller, status: u16) -> serde_json::Value {
    let answered = || async {
        let (answered, body) = publish(caller).await;
        (answered == status).then_some(body)
    };
    eventually(&format!("a publish that is answered {status}"), answered).await
}

#[tokio::test]
async fn a_full_disk_refuses_publishes_until_it_has_room() {
    let disk = SmallDisk::start(&[]).await;
    let key = text(&create_key(&disk.data_dir, SCOPES).await, "key");
    let caller = disk.server.caller().key(&key);
    let first = publish(&caller).await;
    assert_eq!(first.0, 202, "{}", first.1);
    eventually("the reserve", || async { disk.has_reserve().then_some(()) }).await;

    disk.fill();
    let refused = until_publish_answers(&caller, 503).await;
    assert_eq!(refused["error"]["code"], "service_unavailable");
    assert_eq!(refused["error"]["details"]["reason"], "disk_full");
    eventually("the end of the reserve", || async { (!disk.has_reserve()).then_some(()) }).await;
    caller.get("/v1/events").await.data(200);
    let health = caller.get("/v1/health").await.json();
    assert!(["full", "stopped"].contains(&health["disk"].as_str().unwrap_or_default()), "{health}");

    std::fs::remove_file(disk.filler()).unwrap();
    until_publish_answers(&caller, 202).await;
    assert!(caller.get("/v1/health").await.json()["disk"] != "full");
    eventually("the reserve again", || async { disk.has_reserve().then_some(()) }).await;
    let log = disk.server.log().join("\n");
    assert!(log.contains("the disk is full: publishes are refused") || log.contains("no delivery is claimed"), "{log}");
    assert!(log.contains("the disk has room again"), "{log}");
}

#[tokio::test]
async fn a_budget_counts_as_the_disk_does() {
    let disk = SmallDisk::start(&["--max-disk", "100MB"]).await;
    let key = text(&create_key(&disk.data_dir, SCOPES).await, "key");
    let caller = disk.server.caller().key(&key);
    let data = json!({"type": "post.created", "data": {"text": "x".repeat(200_000)}});
    let mut refused = None;
    for _ in 0..2_000 {
        let reply = caller.post("/v1/events", data.clone()).await;
        if reply.status == 503 {
            refused = Some(reply.json());
            break;
        }
    }
    let refused = refused.expect("a publish beyond the budget");
    assert_eq!(refused["error"]["details"]["reason"], "disk_full");
    assert!(taken(&disk.data_dir) < 150_000_000, "{}", taken(&disk.data_dir));
}

/// The bytes of all files in a directory.
fn taken(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}
