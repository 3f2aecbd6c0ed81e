//! One world: a server on one disk, through several lives that end by power failures, kills and stops. All its choices
//! follow from its seed; only the timing of threads does not.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::chance::Chance;
use crate::disk::Disk;
use crate::ledger::{Ledger, attempt_of, must, order_of};
use crate::server::{self, EIO, EMFILE, ENOSPC, Ended, Fault, Power, Running, SHORT, Shared, Trigger};
use crate::support::app::text;
use crate::support::process::{command, path_text};
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::verify::verify_signature;
use crate::support::wait::{bounded, eventually_within};
use crate::tally::Tally;
use crate::upgrade;
use crate::workload::{self, Client};

const SCOPES: &[&str] = &[
    "--workspace",
    "Acme",
    "--scope",
    "webhooks:manage",
    "--scope",
    "webhooks:read",
    "--scope",
    "events:write",
    "--scope",
    "events:read",
    "--scope",
    "keys:manage",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Small events, many lives.
    Plain,
    /// Large events, so that checkpoints run and the log starts again.
    Large,
    /// The first start migrates a database of an earlier schema.
    Upgrade,
    /// `keys rotate-master` runs.
    MasterKey,
    /// Calls fail by schedule, too.
    Faults,
}

/// Everything that follows from the seed before the first start.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub seed: u64,
    pub kind: Kind,
    pub lives: usize,
    pub flush_us: usize,
    /// For the controls: flushes of such paths do nothing.
    pub lie: Option<&'static str>,
}

impl Options {
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed);
        let kinds = [Kind::Plain, Kind::Plain, Kind::Plain, Kind::Large, Kind::Upgrade, Kind::MasterKey, Kind::Faults];
        // The first seeds have one of each, so that a short run meets them all.
        let kind = kinds[usize::try_from(seed % 7).expect("below 7")];
        let lives = if kind == Kind::Large { 3 } else { 4 + chance.below(3) };
        Self { seed, kind, lives, flush_us: chance.pick(&[0, 500, 3000, 10_000]), lie: None }
    }
}

pub struct World {
    options: Options,
    disk: Disk,
    chance: Chance,
    ledger: Shared<Ledger>,
    receiver: Receiver,
    tally: Tally,
    /// The files of the master key that may open the store, the likeliest first. Empty: the one in the data directory.
    key_files: Vec<PathBuf>,
    _directory: TempDir,
}

/// Lives through a world.
///
/// # Errors
/// The first promise that was broken.
pub async fn run(options: Options) -> Result<Tally, String> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let receiver = Receiver::start().await;
    // About every fifth first attempt fails, so that retries are always pending too.
    receiver.decide(|request| {
        let unlucky = request.body.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 5 == 0;
        let first = request.header("scripe-delivery-attempt") == Some("1");
        Behaviour::status(if first && unlucky { 500 } else { 200 })
    });
    let mut world = World {
        disk: Disk::new(directory.path().to_owned()),
        chance: Chance::of(options.seed ^ 0x5eed),
        ledger: Shared::default(),
        receiver,
        tally: Tally::default(),
        key_files: Vec::new(),
        options,
        _directory: directory,
    };
    world.prepare();
    world.first_start().await?;
    for _ in 0..options.lives {
        world.life().await?;
    }
    world.finish().await?;
    Ok(world.tally)
}

impl World {
    fn prepare(&mut self) {
        let mut ledger = self.ledger.lock().expect("no holder panics");
        ledger.large = self.options.kind == Kind::Large;
        if self.options.kind == Kind::Upgrade {
            ledger.old_events = upgrade::create_earlier(&self.disk.data_dir(), &mut self.chance);
        }
        if self.options.kind == Kind::MasterKey {
            self.key_files = ["0f", "a7"].map(|digits| self.disk.root().join(digits)).to_vec();
            for (path, digits) in self.key_files.iter().zip(["0f", "a7"]) {
                std::fs::write(path, digits.repeat(32)).expect("a key file");
            }
        }
    }

    fn power(&mut self, trigger: Option<Trigger>) -> Power {
        let Options { flush_us, lie, .. } = self.options;
        Power { trigger, lie, flush_us, seed: self.chance.next(), ..Power::default() }
    }

    fn command(&self, arguments: &[&str], power: &Power) -> Command {
        let data_dir = self.disk.data_dir();
        let mut all = arguments.to_vec();
        all.extend(["--data-dir", path_text(&data_dir)]);
        if let Some(path) = self.key_files.first() {
            all.extend(["--master-key-file", path_text(path)]);
        }
        let mut command = command(&all);
        power.apply(&mut command, &self.disk);
        command
    }

    /// `keys create` until it succeeds: the directory, the database and the key file are made or migrated under it.
    async fn first_start(&mut self) -> Result<(), String> {
        let state = if self.options.kind == Kind::Upgrade { "upgrade" } else { "first start" };
        for attempt in 0..5 {
            let trigger = (attempt < 4).then(|| self.first_trigger());
            let power = self.power(trigger);
            let mut command = self.command(&[&["keys", "create", "--json"], SCOPES].concat(), &power);
            let output = bounded("a command that ends", command.output()).await.expect("a binary");
            let error = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                Some(0) => {
                    let made: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
                    self.ledger.lock().expect("no holder panics").key = Some(text(&made, "key"));
                    return if self.chance.one_in(2) { self.fail_power("after the first start") } else { Ok(()) };
                }
                // The process is killed, and the power fails later or never.
                Some(server::POWER_FAILED) if self.chance.one_in(4) => self.tally.count("kill", state),
                Some(server::POWER_FAILED) => self.fail_power(state)?,
                code => return Err(format!("the first start ended with {code:?} after {attempt} failures: {error}")),
            }
        }
        Err("the first start never ended".to_owned())
    }

    fn first_trigger(&mut self) -> Trigger {
        let suffix = self.chance.pick(&["*", "*", "*", "master.key", "master.key.new", "/", ".db", "-journal"]);
        let end = if suffix == "*" { 400 } else { 12 };
        Trigger { call: "*", suffix, n: self.chance.scaled(end), when: self.chance.below(3) }
    }

    fn serving_trigger(&mut self) -> Trigger {
        let (call, suffix, end) = match self.chance.below(10) {
            0..=3 => ("sync", "-wal", 200),
            4 | 5 => ("write", "-wal", 4000),
            6 => ("*", "*", 5000),
            7 => ("*", ".db", 400),
            8 => ("truncate", "*", 3),
            _ => self.chance.pick(&[("sync", ".db", 2), ("sync", "/", 3), ("unlink", "-wal", 1), ("create", "*", 4)]),
        };
        Trigger { call, suffix, n: self.chance.scaled(end), when: self.chance.below(3) }
    }

    fn fault(&mut self) -> Fault {
        let (call, suffix, errno, end) = self.chance.pick(&[
            ("write", "-wal", ENOSPC, 2000),
            ("write", "-wal", EIO, 2000),
            ("write", "-wal", SHORT, 2000),
            ("write", ".db", ENOSPC, 50),
            ("write", ".db", EIO, 50),
            ("write", ".db", SHORT, 50),
            ("sync", "-wal", EIO, 150),
            ("sync", ".db", EIO, 2),
            ("truncate", "*", EIO, 4),
            ("open", "*", EMFILE, 12),
            ("open", "*", EIO, 12),
            ("open", "*", ENOSPC, 12),
        ]);
        Fault { call, suffix, errno, from: self.chance.scaled(end), count: self.chance.scaled(64) }
    }

    /// Starts, works, and ends in one of the ways. Then the power may fail, and the database is checked.
    async fn life(&mut self) -> Result<(), String> {
        let trigger = (!self.chance.one_in(4)).then(|| self.serving_trigger());
        let mut power = self.power(trigger);
        if self.options.kind == Kind::Faults {
            power.fault = Some(self.fault());
        }
        let running = match self.start(&power).await {
            Ok(running) => running,
            Err(ended) if ended.lost_power() && self.chance.one_in(4) => {
                self.tally.count("kill", "start");
                return Ok(());
            }
            Err(ended) if ended.lost_power() => return self.fail_power("start"),
            // The start says why, and changes nothing. A later one succeeds.
            Err(ended) if power.fault.is_some() => {
                must!(ended.status.code() == Some(1), "a start with a fault ended with {ended:?}");
                self.tally.count("refused start", "start");
                return self.fail_power("start");
            }
            Err(ended) => return Err(format!("the server does not start: {ended:?}")),
        };
        let client = self.client(&running, power.fault.is_some());
        let mut rotation = None;
        if client.ensure_endpoint(&self.receiver.url("/")).await? {
            if self.options.kind == Kind::MasterKey && self.key_files.len() > 1 {
                let power = self.power(None);
                let mut command = self.command(&["keys", "rotate-master"], &power);
                command.arg("--new-key-file").arg(&self.key_files[1]);
                rotation = Some(tokio::spawn(async move { command.output().await }));
            }
            let goal = client.change(|ledger| ledger.events.len()) + self.goal();
            workload::run(&client, goal, &mut self.chance).await?;
        }
        let rotates = rotation.is_some();
        let stops = self.chance.one_in(2);
        running.signal(if stops { "-TERM" } else { "-KILL" });
        let ended = running.ended().await;
        if let Some(rotation) = rotation {
            let output = bounded("the change of the master key", rotation).await.expect("no panic").expect("a binary");
            // From then on the old key is refused.
            if output.status.success() {
                self.key_files.remove(0);
            }
        }
        self.end(&ended, stops, rotates, power.fault.is_some())
    }

    fn end(&mut self, ended: &Ended, stops: bool, rotates: bool, has_fault: bool) -> Result<(), String> {
        let last = ended.log.iter().any(|line| line.contains("\"message\":\"stopping\""));
        let state = match (rotates, last) {
            (true, _) => "master key",
            (false, true) => "stop",
            (false, false) => "serving",
        };
        let by_us = stops || ended.status.code().is_none();
        must!(by_us || ended.lost_power() || has_fault, "the server ended by itself: {ended:?}");
        must!(ended.status.code() != Some(87), "the shim failed: {ended:?}");
        must!(!ended.log.iter().any(|line| line.contains("panicked")), "a panic: {:?}", ended.log);
        if ended.lost_power() || !self.chance.one_in(5) {
            return self.fail_power(state);
        }
        // The page cache survives a kill. What no flush covered is still there, until a later power failure.
        self.tally.count(if ended.status.code().is_none() { "kill" } else { "stop" }, state);
        self.check_database()
    }

    fn goal(&mut self) -> usize {
        match self.options.kind {
            // 16 MiB of log start a checkpoint; at 64 MiB it starts again.
            Kind::Large => self.chance.pick(&[200, 200, 700]),
            _ => 20 + self.chance.below(60),
        }
    }

    fn client(&self, running: &Running, may_refuse: bool) -> Client {
        let key = self.ledger.lock().expect("no holder panics").key.clone().expect("a key");
        Client { caller: running.caller.key(&key), ledger: Shared::clone(&self.ledger), may_refuse }
    }

    /// Starts with the first key file that opens the store.
    async fn start(&mut self, power: &Power) -> Result<Running, Ended> {
        let mut command = server::serve(&self.disk, self.key_files.first().map(PathBuf::as_path));
        power.apply(&mut command, &self.disk);
        let ended = match server::start(command).await {
            Ok(running) => return Ok(running),
            Err(ended) => ended,
        };
        let wrong_key = !ended.lost_power() && self.key_files.len() > 1 && ended.status.code() == Some(1);
        if !wrong_key {
            return Err(ended);
        }
        // The change had ended when its answer was lost.
        self.key_files.remove(0);
        let mut command = server::serve(&self.disk, Some(&self.key_files[0]));
        power.apply(&mut command, &self.disk);
        server::start(command).await
    }

    fn fail_power(&mut self, state: &'static str) -> Result<(), String> {
        let loss = self.disk.cut_power(&mut self.chance);
        self.tally.power_failed(&loss, state);
        self.check_database().map_err(|violation| format!("after a power failure ({state}, {loss:?}): {violation}"))
    }

    fn check_database(&self) -> Result<(), String> {
        let ledger = self.ledger.lock().expect("no holder panics");
        ledger.check_database(&self.disk.data_dir(), &self.receiver.received())
    }

    /// A last life without failures: everything acknowledged arrives, and everything that holds is usable.
    async fn finish(&mut self) -> Result<(), String> {
        let power = self.power(None);
        let running = self.start(&power).await.map_err(|ended| format!("the last start failed: {ended:?}"))?;
        let client = self.client(&running, false);
        must!(client.ensure_endpoint(&self.receiver.url("/")).await?, "the endpoint cannot be made");
        workload::run(&client, client.change(|ledger| ledger.events.len()) + 3, &mut self.chance).await?;
        let pending = "/v1/webhook-deliveries?status=pending&limit=1";
        let done = || async { client.caller.get(pending).await.data(200).as_array().unwrap().is_empty().then_some(()) };
        eventually_within(std::time::Duration::from_secs(120), done, || "the last delivery".to_owned()).await;
        self.check_arrivals()?;
        self.check_registry(&client).await?;
        if let [_, new] = &self.key_files[..] {
            let mut command = self.command(&["keys", "rotate-master"], &power);
            let output = bounded("the change of the master key", command.arg("--new-key-file").arg(new).output()).await;
            let output = output.expect("a binary");
            must!(output.status.success(), "the change of the master key cannot end: {output:?}");
        }
        running.signal("-TERM");
        let ended = running.ended().await;
        must!(ended.status.success(), "the last stop: {ended:?}");
        must!(!self.disk.data_dir().join("postrider.db-wal").exists(), "the log is left after a stop");
        self.check_database()
    }

    fn check_arrivals(&self) -> Result<(), String> {
        let ledger = self.ledger.lock().expect("no holder panics");
        let (mut arrived, mut attempts) = (std::collections::BTreeSet::new(), std::collections::HashSet::new());
        for (number, request) in self.receiver.received().into_iter().enumerate() {
            must!(attempts.insert(attempt_of(&request)), "{:?} was made twice", attempt_of(&request));
            // A debug build needs seconds to sign all the large ones.
            if !ledger.large || number % 20 == 0 {
                let known = ledger.secrets.iter().any(|secret| verify_signature(secret, &request).is_ok());
                let is_signed = known || ledger.rotations_unanswered > 0;
                must!(is_signed, "no secret verifies {:?}", attempt_of(&request));
            }
            arrived.extend(order_of(&request));
        }
        let missing: Vec<_> = ledger.events.keys().filter(|id| !arrived.contains(*id)).collect();
        must!(missing.is_empty(), "acknowledged and never delivered: {missing:?}");
        Ok(())
    }

    async fn check_registry(&self, client: &Client) -> Result<(), String> {
        let (keys, replays) = client.change(|ledger| (ledger.keys.clone(), ledger.replays.clone()));
        for (id, (key, revoked)) in keys {
            let status = client.caller.key(&key).get("/v1/health/auth").await.status;
            let wrong = revoked.is_some_and(|revoked| status != if revoked { 401 } else { 200 });
            must!(!wrong, "the key {id} gets {status}; revoked: {revoked:?}");
        }
        for replay in replays {
            let status = client.caller.get(&format!("/v1/replays/{replay}")).await.status;
            must!(status == 200, "the replay {replay} gets {status}");
        }
        Ok(())
    }
}
