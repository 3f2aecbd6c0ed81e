//! The charts of a period: of the whole workspace, and of one endpoint. The portal shows the latter.

use std::time::Duration;

use maud::{Markup, html};

use postrider_domain::attempt::{AttemptOutcome, Fault};
use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::id::EndpointId;
use postrider_domain::stats::{BucketSize, Counts, StatsSeries};
use postrider_domain::time::Timestamp;
use postrider_service::StatsQuery;

use crate::components::chart::{Chart, Series};
use crate::components::time;
use crate::language::{say, say_text};
use crate::list_query::PERIODS;
use crate::visit::Visit;

/// The period that the numbers are about.
pub struct Period {
    word: &'static str,
    title: &'static str,
    bucket: BucketSize,
    pub length: Duration,
}

impl Period {
    /// The one of the URL, or a day.
    pub fn of(visit: &Visit) -> Self {
        let asked = visit.query.text("period").unwrap_or("24h");
        let found = PERIODS.iter().find(|(word, ..)| *word == asked).unwrap_or(&PERIODS[1]);
        let (word, title, length) = *found;
        let bucket = match word {
            "1h" => BucketSize::Minute,
            "24h" | "7d" => BucketSize::Hour,
            _ => BucketSize::Day,
        };
        Self { word, title: title.text(), bucket, length }
    }

    /// The question about the workspace, or about one endpoint.
    pub fn query(&self, now: Timestamp, endpoint_id: Option<EndpointId>) -> StatsQuery {
        let since = Some(now.minus(self.length));
        StatsQuery { since, bucket: Some(self.bucket), endpoint_id, ..StatsQuery::default() }
    }

    /// The links to the periods of a page. They lead back to where they stand.
    pub fn links(&self, visit: &Visit, path: &str) -> Markup {
        html! {
            ul.presets #periods aria-label=(say!("Period")) {
                @for (word, title, _) in PERIODS {
                    li { a href=(visit.link(&format!("{path}?period={word}#periods"))) aria-current=[(word == self.word).then_some("true")] { (title.text()) } }
                }
            }
        }
    }

    /// That the counts do not reach back to the start of the period.
    pub fn incomplete(&self, series: &StatsSeries) -> Markup {
        html! {
            @if series.complete_since > series.period.since() {
                p.soft { (say!("{}: counted since {} only.", self.title, time::instant(series.complete_since))) }
            }
        }
    }
}

pub fn failed(counts: &Counts) -> u64 {
    by_fault(counts, Fault::Receiver)
}

fn by_fault(counts: &Counts, fault: Fault) -> u64 {
    counts.attempts.iter().filter(|(outcome, _)| outcome.fault() == fault).map(|(_, count)| count).sum()
}

pub fn millis(millis: u64) -> String {
    time::rough(Duration::from_millis(millis))
}

type ValueOf<'v> = &'v dyn Fn(&Counts) -> Option<u64>;

/// Attempts, deliveries, and how long first attempts waited.
pub fn charts(series: &StatsSeries) -> Markup {
    let starts: Vec<Timestamp> = series.buckets.iter().map(|bucket| bucket.start).collect();
    let line = |name: &'static str, class: &'static str, of: ValueOf<'_>| Series {
        name,
        class,
        values: series.buckets.iter().map(|bucket| of(&bucket.counts)).collect(),
    };
    let ended = |name, class, status| line(name, class, &|it| Some(it.ended_as(status)));
    let attempts = [
        line(say!("Delivered"), "chart-good", &|it| Some(it.attempts_of(AttemptOutcome::Delivered))),
        line(say!("Failed"), "chart-bad", &|it| Some(failed(it))),
        line(say!("Our faults"), "chart-waiting", &|it| Some(by_fault(it, Fault::Sender))),
    ];
    let deliveries = [
        ended(say!("Delivered"), "chart-good", DeliveryStatus::Delivered),
        ended(say!("Failed"), "chart-bad", DeliveryStatus::Failed),
        ended(say!("Not sent"), "chart-neutral", DeliveryStatus::Skipped),
    ];
    let waits = [
        line(say!("Half within"), "chart-good", &|it| it.first_attempts.percentile_ms(50)),
        line(say!("95 % within"), "chart-waiting", &|it| it.first_attempts.percentile_ms(95)),
    ];
    let chart = |title, sentence, series, unit| Chart { title, sentence, starts: &starts, series, unit };
    let [attempts_seen, ended_seen, waits_seen] = &sentences(&series.totals());
    html! {
        div.charts {
            (chart(say!("Attempts"), attempts_seen, &attempts[..], say!("attempts")).bars())
            (chart(say!("Deliveries"), ended_seen, &deliveries, say!("deliveries")).bars())
            (chart(say!("Wait for the first attempt"), waits_seen, &waits, "ms").lines())
        }
    }
}

/// What is to be seen in each of the charts.
fn sentences(totals: &Counts) -> [String; 3] {
    let number = |count: u64| count.to_string();
    let attempts = say_text!(
        "Attempts: {}, of which {} delivered, {} failed and {} could not be made by our own fault.",
        &number(totals.attempted()),
        &number(totals.attempts_of(AttemptOutcome::Delivered)),
        &number(failed(totals)),
        &number(by_fault(totals, Fault::Sender))
    );
    let ended = say_text!(
        "Deliveries made: {}. Ended: {} delivered, {} failed, {} not sent.",
        &number(totals.created),
        &number(totals.ended_as(DeliveryStatus::Delivered)),
        &number(totals.ended_as(DeliveryStatus::Failed)),
        &number(totals.ended_as(DeliveryStatus::Skipped))
    );
    let waits = match (totals.first_attempts.percentile_ms(50), totals.first_attempts.percentile_ms(95)) {
        (Some(half), Some(most)) => {
            say_text!("Half of the first attempts began within {}, 95 % within {}.", &millis(half), &millis(most))
        }
        _ => say!("No first attempt was made.").to_owned(),
    };
    [attempts, ended, waits]
}
