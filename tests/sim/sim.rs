//! A world: the real engine, service and SQLite store on one thread, in paused time, through several lives that end by
//! power failures, kills and stops. Everything in it follows from the options and the script.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postrider_crypto::{MasterKey, Random};
use postrider_domain::access::{Mode, Principal, Scope, Scopes};
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::StoreTag;
use postrider_domain::limits;
use postrider_domain::rate_limit::RateLimits;
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_domain::time::Clock;
use postrider_domain::workspace::WorkspaceName;
use postrider_engine::{Engine, EngineParts, EngineSettings, LeasedAttempts};
use postrider_metrics::StoreMetrics;
use postrider_service::{CreateApiKey, Operator, Origin, Service, ServiceParts, adopt_catalogue, note_troubles};
use postrider_store::sealing::keyring::Keyring;
use postrider_store::{EndpointLimits, Meta, Store, StoreSeed};
use postrider_store_sqlite::{Drive, SqliteStore};

use crate::actors::Actors;
use crate::chance::Chance;
use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::entropy::SeededRandom;
use crate::ledger;
use crate::model::Model;
use crate::options::{Mode as WorldMode, Options};
use crate::receivers::{OpenGuard, Receivers};
use crate::script::{Act, Step, is_test, owners};
use crate::tally::{Tally, Trace};

/// What all lives share.
pub struct Sim {
    pub options: Options,
    state: Mutex<State>,
}

pub struct State {
    pub model: Model,
    pub trace: Trace,
    pub tally: Tally,
    pub chance: Chance,
    /// The first promise that was broken.
    pub violation: Option<String>,
    /// Counts the starts.
    pub life: u64,
    /// The faults have stopped.
    pub is_calm: bool,
    pub is_stopping: bool,
    /// Requests of callers that have no answer yet, by kind.
    pub under_way: Vec<&'static str>,
    /// The API keys of the owners, once they are made.
    pub api_keys: Vec<String>,
}

impl State {
    pub fn violate(&mut self, problem: String) {
        self.violation.get_or_insert(problem);
    }

    /// What is under way, for the table.
    pub fn states(&self) -> Vec<&'static str> {
        let mut states = self.under_way.clone();
        states.extend((self.model.in_flight > 0).then_some("attempt"));
        states.sort_unstable();
        states.dedup();
        if states.is_empty() { vec!["idle"] } else { states }
    }
}

/// How a world ended.
#[derive(Debug)]
pub struct Outcome {
    pub violation: Option<String>,
    pub hash: u64,
    pub last_lines: String,
    pub tally: Tally,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Power,
    Kill,
    Stop,
}

/// Runs a world on a thread of its own.
pub fn run(options: &Options, script: &[Step], is_shown: bool) -> Outcome {
    // SQLite's generator is the process's.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = memory_directory();
    watch_panics();
    let (options, script, root) = (options.clone(), script.to_vec(), directory.path().to_owned());
    let world = std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
        crate::entropy::seed(options.seed);
        live(options, &script, &root, is_shown)
    });
    let outcome = world.expect("a thread").join().unwrap_or_else(|_| Outcome {
        violation: None,
        hash: 0,
        last_lines: String::new(),
        tally: Tally::default(),
    });
    Outcome { violation: first_panic().or(outcome.violation), ..outcome }
}

/// A temporary directory in memory where the machine has one: the simulated disk needs no real flushes.
pub fn memory_directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    directory.expect("a temporary directory")
}

/// Panics in worlds, which the runtime would keep to itself.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());
const THREAD: &str = "world";

fn watch_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match std::thread::current().name() {
            Some(THREAD) => PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string()),
            _ => usual(panic),
        }));
    });
    PANICS.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

fn first_panic() -> Option<String> {
    PANICS.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
}

fn live(options: Options, script: &[Step], root: &Path, is_shown: bool) -> Outcome {
    let chance = Chance::of(options.seed ^ 0x0071_4e55);
    let state = State {
        model: Model::default(),
        trace: Trace::new(is_shown),
        tally: Tally { worlds: 1, ..Tally::default() },
        chance,
        violation: None,
        life: 0,
        is_calm: false,
        is_stopping: false,
        under_way: Vec::new(),
        api_keys: Vec::new(),
    };
    let sim = Arc::new(Sim { options, state: Mutex::new(state) });
    let mut before = Duration::ZERO;
    let mut rest = script.iter();
    let mut directory = root.join("0");
    loop {
        let life = Life::new(&sim, &directory, before);
        let (end, elapsed) = life.live(&mut rest);
        before = elapsed;
        let next = root.join((sim.state().life + 1).to_string());
        let is_over = rest.len() == 0;
        sim.change_lives(&life, end, &directory, &next);
        drop(life);
        let _ = std::fs::remove_dir_all(&directory);
        directory = next;
        if let Err(problem) = ledger::check(&sim, &directory, before, is_over && end == End::Stop) {
            sim.state().violate(problem);
        }
        if is_over || sim.state().violation.is_some() {
            break;
        }
    }
    let mut state = sim.state();
    state.tally.simulated = before;
    state.tally.events = state.model.events.iter().filter(|event| event.acknowledged_at.is_some()).count() as u64;
    state.tally.lives = state.life;
    Outcome {
        violation: state.violation.take(),
        hash: state.trace.hash,
        last_lines: state.trace.last_lines(),
        tally: std::mem::take(&mut state.tally),
    }
}

impl Sim {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a life: its tasks are gone, and the next life finds what the disk has.
    fn change_lives(&self, life: &Life, end: End, directory: &Path, next: &Path) {
        let mut state = self.state();
        let fault = match end {
            End::Power => "power failure",
            End::Kill => "kill",
            End::Stop => "stop",
        };
        let mut states = state.states();
        if life.disk.failed() > 0 {
            states = vec!["failed disk"];
        }
        state.tally.count(fault, &states);
        state.trace.note(life.elapsed(), &format!("{fault} {states:?}"));
        state.life += 1;
        state.is_stopping = false;
        state.under_way.clear();
        state.model.in_flight = 0;
        state.model.endpoints.iter_mut().for_each(|endpoint| endpoint.in_flight = 0);
        state.model.seen.values_mut().for_each(|seen| seen.is_in_flight = false);
        if end == End::Stop {
            std::fs::rename(directory, next).expect("a directory");
        } else {
            // A disk whose flush failed has lost something, whatever ends the process.
            let power_fails = end == End::Power || life.disk.failed() > 0;
            life.disk.copy_to(next, power_fails).expect("a copy of the disk");
        }
    }
}

/// One process: from its start to its end.
struct Life {
    sim: Arc<Sim>,
    // Dropped with all its tasks.
    runtime: tokio::runtime::Runtime,
    clock: SimClock,
    disk: SimDisk,
}

/// What a life is made of, once it has started.
pub struct Parts {
    pub sim: Arc<Sim>,
    pub service: Arc<Service>,
    pub principals: Vec<Principal>,
    pub clock: SimClock,
    pub disk: SimDisk,
}

impl Life {
    fn new(sim: &Arc<Sim>, directory: &Path, before: Duration) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime");
        let clock = runtime.block_on(async { SimClock::after(before) });
        let chance = sim.state().chance.fork();
        let disk = SimDisk::new(directory, chance, sim.options.flush_ms);
        Self { sim: Arc::clone(sim), runtime, clock, disk }
    }

    fn elapsed(&self) -> Duration {
        self.runtime.block_on(async { self.clock.elapsed() })
    }

    /// Takes steps from the script until one ends this life.
    fn live(&self, rest: &mut std::slice::Iter<'_, Step>) -> (End, Duration) {
        let end = self.runtime.block_on(async {
            let (parts, engine, store) = self.start().await;
            let actors = Actors(Arc::new(parts));
            actors.reconcile().await;
            let mut end = None;
            while end.is_none() && self.sim.state().violation.is_none() {
                let Some(step) = rest.next() else { break };
                tokio::time::sleep(Duration::from_millis(step.after_ms)).await;
                end = match step.act {
                    Act::Power => Some(End::Power),
                    Act::Kill => Some(End::Kill),
                    Act::Stop => Some(End::Stop),
                    _ => {
                        actors.take(step).await;
                        None
                    }
                };
                // A server whose disk failed is restarted sooner or later.
                if self.disk.failed() > 0 && self.sim.state().chance.one_in(3) {
                    end = Some(End::Power);
                }
            }
            if end.is_none() && self.sim.options.mode == WorldMode::Liveness && self.disk.failed() == 0 {
                actors.come_to_rest().await;
            }
            let end = end.unwrap_or(if self.disk.failed() > 0 { End::Power } else { End::Stop });
            if end == End::Stop {
                self.sim.state().is_stopping = true;
                engine.stop(limits::STOP_GRACE).await;
                actors.wait_for_answers().await;
                drop(actors);
                drop(store);
                // The writer's task ends by itself, and closes the database.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            end
        });
        (end, self.elapsed())
    }

    async fn start(&self) -> (Parts, Engine, Arc<SqliteStore>) {
        let options = &self.sim.options;
        let life = self.sim.state().life;
        let random = Random::of(Arc::new(SeededRandom::of(options.seed ^ life << 48)));
        let clock: Arc<dyn Clock> = Arc::new(self.clock);
        let seed = StoreSeed {
            version: env!("CARGO_PKG_VERSION"),
            tag: StoreTag::from_u32(7),
            node: u16::try_from(life % 512).expect("nine bits"),
        };
        let drive = Drive::Tasks(Arc::new(self.disk.clone()));
        let (directory, metrics) = (self.disk.directory(), StoreMetrics::default());
        let store = SqliteStore::open_driven(directory, Arc::clone(&clock), seed, metrics, drive).await;
        let store = Arc::new(store.expect("a start"));
        let meta: Arc<dyn Meta> = store.clone();
        let keyring = Keyring::of_store(&meta, vec![MasterKey::new(&[7; 32])], &random).await.expect("the same key");
        let keyring = Arc::new(keyring);
        let catalogue = Arc::new(adopt_catalogue(store.as_ref(), Catalogue::BUILT_IN).await.expect("a catalogue"));
        let schedule = RetrySchedule::from_seconds(&options.schedule).expect("a schedule");
        let service_store: Arc<dyn Store> = store.clone();
        let settings = engine_settings(options, &catalogue, schedule.clone());
        let attempts = LeasedAttempts::new(store.clone(), Arc::clone(&keyring), random.clone(), &settings);
        let (service, operator) = ServiceParts {
            store: Arc::clone(&service_store),
            guard: Arc::new(OpenGuard),
            keyring: Arc::clone(&keyring),
            catalogue: Arc::clone(&catalogue),
            clock: Arc::clone(&clock),
            random: random.clone(),
            endpoint_limits: EndpointLimits { per_project: 500, per_workspace: 500 },
            rate_limits: RateLimits { management: None, publishing: None },
            retry_schedule: schedule,
            portal_frame_ancestors: Vec::new(),
            retention: Duration::from_secs(options.retention_s),
            metrics: Default::default(),
            tracing: Default::default(),
            sources: Vec::new(),
            is_restored_copy: false,
            attempts: Arc::new(attempts),
        }
        .build();
        note_troubles(service_store.as_ref(), clock.now()).await.expect("a note");
        let receivers = Receivers { sim: Arc::clone(&self.sim), clock: self.clock, life };
        let engine = Engine::start(EngineParts {
            store: store.clone(),
            transport: Arc::new(receivers),
            clock,
            keyring,
            random,
            settings,
            metrics: Default::default(),
            tracing: Default::default(),
            gauges: None,
        });
        let principals = principals(&self.sim, &service, &operator).await;
        let (sim, disk) = (Arc::clone(&self.sim), self.disk.clone());
        (Parts { sim, service, principals, clock: self.clock, disk }, engine, store)
    }
}

fn engine_settings(options: &Options, catalogue: &Catalogue, schedule: RetrySchedule) -> EngineSettings {
    EngineSettings {
        brand: catalogue.brand.clone(),
        schedule,
        attempt_deadline: Duration::from_millis(options.attempt_deadline_ms),
        retention: Duration::from_secs(options.retention_s),
        payload_retention: Duration::from_secs(options.payload_retention_s),
        // The reserve is a tenth.
        max_disk: Some(limits::DISK_BUDGET_MIN),
        slots: options.slots,
        slots_per_endpoint: options.slots_per_endpoint,
        ..EngineSettings::default()
    }
}

/// The callers of this life. The first life makes their keys.
async fn principals(sim: &Sim, service: &Arc<Service>, operator: &Operator) -> Vec<Principal> {
    let mut principals = Vec::new();
    for owner in 0..owners(&sim.options) {
        let known = sim.state().api_keys.get(owner).cloned();
        let key = match known {
            Some(key) => key,
            None => {
                let name = WorkspaceName::parse(["Acme", "Bolt"][owner % 2]).expect("a name");
                let mode = if is_test(owner) { Mode::Test } else { Mode::Live };
                let scopes =
                    Scopes::of(&[Scope::WebhooksManage, Scope::WebhooksRead, Scope::EventsWrite, Scope::EventsRead]);
                let create = CreateApiKey { name: None, mode, scopes, expires_at: None };
                let made = operator.create_api_key(name, create).await.expect("a key");
                let key = made.secret.reveal().to_owned();
                sim.state().api_keys.push(key.clone());
                key
            }
        };
        let origin = Origin { request_id: None, address: None, route: "simulation" };
        principals.push(service.authenticate(Some(&key), origin).await.expect("a key that was acknowledged"));
    }
    principals
}

/// The files of a directory that may hold content.
pub fn files(directory: &Path) -> [PathBuf; 2] {
    ["postrider.db", "postrider.db-wal"].map(|name| directory.join(name))
}
