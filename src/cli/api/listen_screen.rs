//! What `postrider listen` prints: a line for each delivery and each answer, or NDJSON.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use postrider_domain::error_chain::Chain;
use postrider_domain::time::{Clock as _, Timestamp};
use postrider_local::client::ApiFailure;
use postrider_local::forward::{ForwardFault, ForwardTarget, LocalAnswer};
use postrider_local::listen::{Audience, Leased, ListenEvent};

use super::super::output;
use super::super::paint::{Look, Tone};
use super::listen::{Shown, secret_line};
use crate::clock::SystemClock;

pub struct ListenScreen {
    look: Look,
    shown: Shown,
    target: ForwardTarget,
    /// Hints that were given. Each is given once.
    hinted: Vec<&'static str>,
}

/// Bytes of a body that a hint shows.
const HINT_BYTES: usize = 500;

impl ListenScreen {
    pub fn new(look: Look, shown: Shown, target: &ForwardTarget) -> Self {
        Self { look, shown, target: target.clone(), hinted: Vec::new() }
    }

    /// The first line. Returns whether somebody may still read.
    pub fn ready(&self, id: &str, name: &str, events: &[String], secret: Option<&str>) -> anyhow::Result<bool> {
        let forward = self.target.url().as_str();
        if self.look.is_json {
            let mut ready = json!({
                "kind": "ready", "listenerId": id, "name": name, "events": events, "forward": forward,
            });
            if let Some(secret) = secret {
                ready["secret"] = secret.into();
            }
            return self.json(&ready);
        }
        if let Some(secret) = secret {
            secret_line(secret)?;
        }
        let ready = self.look.painted(Tone::Good, "ready");
        let line = format!("{ready}  {id}  {} → {forward}", self.look.painted(Tone::Plain, events.join(", ")));
        Ok(output::streamed_painted_line(line)?)
    }

    pub fn end(&self, handled: u64) -> anyhow::Result<bool> {
        if self.look.is_json {
            return self.json(&json!({ "kind": "end", "deliveries": handled }));
        }
        self.look.note(format_args!("{handled} deliveries were handled"));
        Ok(true)
    }

    fn json(&self, line: &Value) -> anyhow::Result<bool> {
        Ok(output::streamed_json_line(&line.to_string())?)
    }

    fn line(&self, tone: Tone, text: impl std::fmt::Display) -> anyhow::Result<bool> {
        let line = format!("{} {}", clock(SystemClock.now()), self.look.painted(tone, text));
        Ok(output::streamed_painted_line(line)?)
    }

    fn hint(&mut self, name: &'static str, text: impl std::fmt::Display) {
        if !self.hinted.contains(&name) {
            self.hinted.push(name);
            self.look.note(format_args!("  hint: {text}"));
        }
    }

    fn forwarding(&self, leased: &Leased) -> anyhow::Result<bool> {
        if self.look.is_json {
            return Ok(true);
        }
        let again = if leased.attempt > 1 { format!("  attempt {}", leased.attempt) } else { String::new() };
        let (kind, id) = (leased.event_type(), leased.header("webhook-id"));
        let mut going_on = self.line(Tone::Plain, format_args!("→ {kind} {id}{again}"))?;
        if self.shown != Shown::None {
            for (name, value) in leased.headers.iter() {
                let value = String::from_utf8_lossy(value.as_bytes());
                going_on &=
                    output::streamed_painted_line(self.look.painted(Tone::Soft, format_args!("  {name}: {value}")))?;
            }
        }
        if self.shown == Shown::Body {
            let body = String::from_utf8_lossy(&leased.body);
            going_on &= output::streamed_painted_line(self.look.painted(Tone::Soft, format_args!("  {body}")))?;
        }
        Ok(going_on)
    }

    fn answered(&mut self, leased: &Leased, answer: Result<&LocalAnswer, &ForwardFault>) -> anyhow::Result<bool> {
        if self.look.is_json {
            return self.json(&event_json(leased, answer));
        }
        let path = self.target.path();
        let going_on = match answer {
            Ok(local) => {
                let (status, took) = (local.status, local.took.as_millis());
                let tone = if (200..300).contains(&status) { Tone::Good } else { Tone::Bad };
                self.line(tone, format_args!("← {status} POST {path} {took} ms"))?
            }
            Err(fault) => self.line(Tone::Bad, format_args!("← failed POST {path}: {}", Chain(fault)))?,
        };
        match answer.map(|local| (local.status, local)) {
            Ok((300..=399, local)) => {
                let to = local.location.clone().unwrap_or_else(|| "another URL".to_owned());
                self.hint("redirect", format_args!("redirects are not followed: --forward the final URL, {to}"));
            }
            Ok((400 | 401 | 403, _)) => self.hint(
                "refused",
                "if the handler checks signatures: it must use the raw body and the secret of this listener \
                 (--print-secret)",
            ),
            Ok((500..=599, local)) if !local.body.is_empty() => {
                let body = String::from_utf8_lossy(&local.body[..local.body.len().min(HINT_BYTES)]).into_owned();
                self.look.note(format_args!("  {body}"));
            }
            _ => {}
        }
        Ok(going_on)
    }

    fn note_or_json(&self, text: impl std::fmt::Display, line: &Value) -> anyhow::Result<bool> {
        if self.look.is_json {
            return self.json(line);
        }
        self.look.note(text);
        Ok(true)
    }
}

impl Audience for ListenScreen {
    type Fault = anyhow::Error;

    fn show(&mut self, event: ListenEvent<'_>) -> anyhow::Result<bool> {
        match event {
            ListenEvent::Forwarding(leased) => self.forwarding(leased),
            ListenEvent::Answered(leased, answer) => self.answered(leased, answer),
            ListenEvent::NotGenuine(leased, fault) => self.note_or_json(
                format_args!("{} was not passed on: {fault}", leased.delivery_id),
                &json!({ "kind": "not_genuine", "deliveryId": leased.delivery_id, "fault": fault }),
            ),
            ListenEvent::LocalDown(fault) => {
                let text = Chain(fault).to_string();
                self.note_or_json(
                    format_args!("{text}: is the server running? Deliveries wait until it is there"),
                    &json!({ "kind": "local_down", "fault": text }),
                )
            }
            ListenEvent::LocalUp { after } => self.note_or_json(
                format_args!("{} is there again after {} s", self.target.address(), after.as_secs()),
                &json!({ "kind": "local_up", "seconds": after.as_secs() }),
            ),
            ListenEvent::Reconnecting(failure) => {
                let reason = reason(failure);
                self.note_or_json(
                    format_args!("{reason}: trying again; what comes meanwhile waits on the server"),
                    &json!({ "kind": "reconnecting", "reason": reason }),
                )
            }
            ListenEvent::Reconnected { after, waited } => self.note_or_json(
                format_args!("back after {} s, {waited} waited", after.as_secs()),
                &json!({ "kind": "reconnected", "seconds": after.as_secs(), "waited": waited }),
            ),
            ListenEvent::LeaseLost(delivery_id) => self.note_or_json(
                format_args!("{delivery_id} took longer than its lease: it may arrive twice"),
                &json!({ "kind": "lease_lost", "deliveryId": delivery_id }),
            ),
        }
    }
}

fn reason(failure: &ApiFailure) -> String {
    match failure {
        ApiFailure::Refused { status, code, .. } => format!("the server answers {} {code}", status.as_u16()),
        other => other.to_string(),
    }
}

/// A whole delivery with its answer: `postrider verify --delivery` reads it, too.
fn event_json(leased: &Leased, answer: Result<&LocalAnswer, &ForwardFault>) -> Value {
    let headers: Map<String, Value> = leased
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned().into()))
        .collect();
    let mut line = json!({
        "kind": "event",
        "eventType": leased.event_type(),
        "eventId": leased.header("webhook-id"),
        "deliveryId": leased.delivery_id,
        "attempt": leased.attempt,
        "headers": headers,
        "body_b64": BASE64_STANDARD.encode(&leased.body),
    });
    match answer {
        Ok(local) => {
            line["status"] = local.status.into();
            line["ms"] = u64::try_from(local.took.as_millis()).unwrap_or(u64::MAX).into();
        }
        Err(fault) => line["error"] = Chain(fault).to_string().into(),
    }
    line
}

/// The time of day in UTC.
fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(11..19).unwrap_or(&text).to_owned()
}
