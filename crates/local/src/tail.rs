//! Deliveries as they end, by asking the API again and again.
//!
//! The API lists deliveries by their creation, and a delivery may end days after it. So two things are watched: what
//! was created since the last look, and the deliveries that were pending then.
//!
//! A delivery is reported once, and none is left out: a look that fails changes nothing but what it has reported. A
//! delivery may become visible some time after its creation, so each look reads a little further back than the last one
//! reached, and some looks read a minute back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use postrider_domain::limits;
use postrider_domain::time::Timestamp;

use super::client::{ApiFailure, Client, StatusCode};
use super::pages::List;

/// What is known of the log, and what was reported of it.
#[derive(Debug)]
pub struct Tail {
    filters: List,
    /// Everything created before this was read. `None`: nothing was read yet.
    reached: Option<Timestamp>,
    /// Whether deliveries that ended before the first look are reported: those created from this instant on.
    since: Option<Timestamp>,
    /// Deliveries that have not ended, with their creation.
    pending: BTreeMap<String, Timestamp>,
    /// Deliveries that need no report any more, by creation, as far back as a look may read again.
    done: BTreeSet<(Timestamp, String)>,
    /// Looks since the last one that read far back.
    looks: u32,
    /// Pages that the last look read.
    pages: u32,
    ended: Vec<Ended>,
}

/// A delivery that has ended.
#[derive(Debug)]
pub struct Ended {
    pub id: String,
    pub completed_at: Timestamp,
    /// As the API shows it in a list.
    pub delivery: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    id: String,
    status: String,
    created_at: String,
    completed_at: Option<String>,
}

#[derive(Deserialize)]
struct Single {
    data: Box<RawValue>,
}

const DELIVERIES: &str = "/v1/webhook-deliveries";
/// How far each look reads behind what was reached: longer than a commit usually takes.
const OVERLAP: Duration = Duration::from_secs(2);
/// How far some looks read behind it: longer than a commit takes on a server with too much to do, or whose nodes'
/// clocks differ.
const FAR_OVERLAP: Duration = Duration::from_secs(60);
/// One look of so many reads far back.
const FAR_EVERY: u32 = 20;
/// The wait between two looks, and for each page that the last one read: half of the default rate limit.
const WAIT: Duration = Duration::from_secs(1);
const WAIT_PER_PAGE: Duration = Duration::from_millis(100);

impl Tail {
    /// Watches deliveries that pass the filters. With `since`, also those that have ended, if they were created since.
    pub fn new(filters: &[(&str, String)], since: Option<Timestamp>) -> Self {
        let list = filters.iter().fold(List::new(DELIVERIES), |list, (name, value)| list.filter(name, value.as_str()));
        Self {
            filters: list,
            reached: since,
            since,
            pending: BTreeMap::new(),
            done: BTreeSet::new(),
            looks: 0,
            pages: 0,
            ended: Vec::new(),
        }
    }

    /// Looks once. [`Tail::take_ended`] has what ended, also after a failure.
    ///
    /// # Errors
    /// When a request fails. The next look goes on from there.
    pub async fn look(&mut self, client: &mut Client) -> Result<(), ApiFailure> {
        self.pages = 0;
        match self.reached {
            None => self.start(client).await,
            Some(reached) => {
                self.read_new(client, reached).await?;
                self.read_pending(client).await
            }
        }
    }

    /// The deliveries that ended since the last call, in the order of their ends.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        self.ended.sort_by(|a, b| (a.completed_at, &a.id).cmp(&(b.completed_at, &b.id)));
        std::mem::take(&mut self.ended)
    }

    /// How long to wait before the next look.
    pub fn wait(&self) -> Duration {
        WAIT.max(WAIT_PER_PAGE * self.pages)
    }

    /// The first look without `since`: what is pending now, and how far the log goes.
    async fn start(&mut self, client: &mut Client) -> Result<(), ApiFailure> {
        // First, so that what is created from here on is new at the next look.
        let newest = List::new(DELIVERIES).page(client, 1, None).await?;
        self.pages += 1;
        let reached = match newest.data.first() {
            Some(newest) => Seen::read(newest)?.created()?,
            None => Timestamp::default(),
        };
        let pending = self.filters.clone().filter("status", "pending");
        for (seen, _) in self.read(client, &pending).await? {
            self.pending.insert(seen.id.clone(), seen.created()?);
        }
        let recent = self.filters.clone().filter("since", behind(reached, FAR_OVERLAP).to_string());
        for (seen, _) in self.read(client, &recent).await? {
            let created = seen.created()?;
            // What was pending a moment ago is reported at the next look.
            if seen.has_ended() && created <= reached && !self.pending.contains_key(&seen.id) {
                self.done.insert((created, seen.id));
            }
        }
        self.reached = Some(reached);
        Ok(())
    }

    /// What was created since the last look.
    async fn read_new(&mut self, client: &mut Client, reached: Timestamp) -> Result<(), ApiFailure> {
        let is_far = self.looks.is_multiple_of(FAR_EVERY);
        let from = behind(reached, if is_far { FAR_OVERLAP } else { OVERLAP });
        let from = self.since.map_or(from, |since| from.max(since));
        let list = self.filters.clone().filter("since", from.to_string());
        let mut newest = reached;
        for (seen, delivery) in self.read(client, &list).await? {
            let created = seen.created()?;
            newest = newest.max(created);
            if self.done.contains(&(created, seen.id.clone())) {
                continue;
            }
            if seen.has_ended() {
                self.report(seen, delivery)?;
            } else {
                self.pending.insert(seen.id, created);
            }
        }
        self.looks += 1;
        self.reached = Some(newest);
        let forgotten = behind(newest, FAR_OVERLAP);
        self.done.retain(|(created, _)| *created >= forgotten);
        Ok(())
    }

    /// Which of the deliveries that were pending have ended.
    async fn read_pending(&mut self, client: &mut Client) -> Result<(), ApiFailure> {
        let Some(oldest) = self.pending.values().min() else { return Ok(()) };
        let list = self.filters.clone().filter("status", "pending").filter("since", oldest.to_string());
        let still: BTreeSet<String> = self.read(client, &list).await?.into_iter().map(|(seen, _)| seen.id).collect();
        let gone: Vec<String> = self.pending.keys().filter(|id| !still.contains(*id)).cloned().collect();
        for id in gone {
            match client.get_raw(&format!("{DELIVERIES}/{id}")).await {
                Ok(answer) => {
                    let Single { data } = serde_json::from_str(answer.get()).map_err(unreadable)?;
                    let seen = Seen::read(&data)?;
                    if seen.has_ended() {
                        self.report(seen, as_in_lists(&data)?)?;
                    }
                }
                // Retention took it, or it was erased.
                Err(ApiFailure::Refused { status: StatusCode::NOT_FOUND, .. }) => drop(self.pending.remove(&id)),
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    fn report(&mut self, seen: Seen, delivery: Box<RawValue>) -> Result<(), ApiFailure> {
        let created = seen.created()?;
        let completed_at = seen.completed_at.as_deref().map(instant).transpose()?.unwrap_or(created);
        self.pending.remove(&seen.id);
        self.done.insert((created, seen.id.clone()));
        self.ended.push(Ended { id: seen.id, completed_at, delivery });
        Ok(())
    }

    /// All pages of a list.
    async fn read(&mut self, client: &mut Client, list: &List) -> Result<Vec<(Seen, Box<RawValue>)>, ApiFailure> {
        let (mut all, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = list.page(client, limits::PAGE_MAX, cursor.as_deref()).await?;
            self.pages += 1;
            cursor = page.next_cursor().map(str::to_owned);
            for delivery in page.data {
                all.push((Seen::read(&delivery)?, delivery));
            }
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }
}

impl Seen {
    fn read(delivery: &RawValue) -> Result<Self, ApiFailure> {
        serde_json::from_str(delivery.get()).map_err(unreadable)
    }

    fn has_ended(&self) -> bool {
        self.status != "pending"
    }

    fn created(&self) -> Result<Timestamp, ApiFailure> {
        instant(&self.created_at)
    }
}

/// The instant so long before another, but none that the API refuses.
fn behind(at: Timestamp, distance: Duration) -> Timestamp {
    at.minus(distance).max(Timestamp::default())
}

/// A single delivery without what lists leave out.
fn as_in_lists(delivery: &RawValue) -> Result<Box<RawValue>, ApiFailure> {
    let mut members: Map<String, Value> = serde_json::from_str(delivery.get()).map_err(unreadable)?;
    members.shift_remove("attempts");
    members.shift_remove("explanation");
    RawValue::from_string(Value::Object(members).to_string()).map_err(unreadable)
}

fn instant(text: &str) -> Result<Timestamp, ApiFailure> {
    Timestamp::parse(text).map_err(|error| unreadable(serde::de::Error::custom(error)))
}

fn unreadable(source: serde_json::Error) -> ApiFailure {
    ApiFailure::Unreadable { status: StatusCode::OK, source }
}
