//! `postrider verify`: whether a captured webhook verifies, and if not, why.
//!
//! It calls no server. What is found and how it is said stands in `domain::verification`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use postrider_domain::time::{Clock as _, Timestamp};
use postrider_domain::verification::capture::{Captured, read_capture};
use postrider_domain::verification::text::{self, Advice, FRAMEWORKS};
use postrider_domain::verification::{
    Finding, Presented, Step, Verdict, Verification, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, Weight, verify,
};

use crate::clock::SystemClock;

use super::exit::Fault;
use super::input;
use super::instant::{duration, instant};
use super::output;
use super::paint::{Look, OutputOptions, Tone};

#[derive(Debug, Args)]
pub struct VerifyOptions {
    /// File with the secret that the receiver verifies with; - reads it from standard input.
    #[arg(long, value_name = "FILE")]
    secret_file: String,
    /// File with the secret of before a rotation, or of another endpoint. Repeatable.
    #[arg(long = "previous-secret-file", value_name = "FILE")]
    previous_secret_files: Vec<String>,
    /// File with the request: raw HTTP, an entry of a HAR file or a line of NDJSON; - reads standard input.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["delivery", "signature"])]
    request: Option<String>,
    /// File with a delivery, as `deliveries get --output json` prints it: its last request. Needs --body.
    #[arg(long, value_name = "FILE", conflicts_with = "request", requires = "body")]
    delivery: Option<String>,
    /// The header webhook-id.
    #[arg(long, conflicts_with_all = ["request", "delivery"])]
    id: Option<String>,
    /// The header webhook-timestamp.
    #[arg(long, allow_hyphen_values = true, conflicts_with_all = ["request", "delivery"])]
    timestamp: Option<String>,
    /// The header webhook-signature.
    #[arg(long, conflicts_with_all = ["request", "delivery"], requires_all = ["id", "timestamp", "body"])]
    signature: Option<String>,
    /// The body that arrived: @FILE, - for standard input, or the text itself.
    #[arg(long, value_name = "BODY")]
    body: Option<String>,
    /// The signature that the receiver's own code computed: says how it was made.
    #[arg(long, value_name = "SIGNATURE")]
    computed: Option<String>,
    /// How far the timestamp may be from the clock.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = DEFAULT_TOLERANCE)]
    tolerance: Duration,
    /// Verify as if it were this time, as in 2h (ago) or 2026-05-15T08:21:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = instant)]
    at: Option<Timestamp>,
    #[command(flatten)]
    output: OutputOptions,
}

/// As `limits::TIMESTAMP_TOLERANCE`.
const DEFAULT_TOLERANCE: &str = "5m";

pub fn run(options: VerifyOptions) -> anyhow::Result<()> {
    let look = options.output.look();
    check_standard_input(&options)?;
    let secret = input::secret_file(&options.secret_file)?;
    let previous: anyhow::Result<Vec<Zeroizing<String>>> =
        options.previous_secret_files.iter().map(|path| input::secret_file(path)).collect();
    let previous = previous?;
    let previous: Vec<&str> = previous.iter().map(|secret| secret.as_str()).collect();
    let Captured { headers, body } = captured(&options)?;
    let body = body.ok_or_else(|| usage("the request has no body: give it with --body @FILE"))?;
    let presented = Presented {
        secret: &secret,
        other_secrets: &previous,
        headers: &headers,
        body: &body,
        is_pasted: false,
        computed: options.computed.as_deref(),
        tolerance: options.tolerance,
    };
    let verification = verify(&presented, options.at.unwrap_or_else(|| SystemClock.now()));
    if look.is_json {
        output::json_line(&in_json(&verification).to_string())?;
    } else {
        show(&verification, look)?;
    }
    if verification.verdict == Verdict::Verifies { Ok(()) } else { Err(Fault::Shown.into()) }
}

/// Only one of the inputs can be read from standard input.
fn check_standard_input(options: &VerifyOptions) -> anyhow::Result<()> {
    let single =
        [Some(&options.secret_file), options.request.as_ref(), options.delivery.as_ref(), options.body.as_ref()];
    let given = single.into_iter().flatten().chain(&options.previous_secret_files).filter(|path| *path == "-").count();
    if given > 1 { Err(usage("only one of the files can be -, standard input")) } else { Ok(()) }
}

fn captured(options: &VerifyOptions) -> anyhow::Result<Captured> {
    let body = options.body.as_deref().map(input::bytes).transpose()?;
    let Some(path) = options.request.as_ref().or(options.delivery.as_ref()) else {
        let given = [
            (WEBHOOK_ID, &options.id),
            (WEBHOOK_TIMESTAMP, &options.timestamp),
            (WEBHOOK_SIGNATURE, &options.signature),
        ];
        let headers = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        return Ok(Captured { headers: headers.collect(), body });
    };
    let captured = read_capture(&input::file(path)?).map_err(|fault| usage(&format!("{path} {fault}")))?;
    Ok(Captured { body: body.or(captured.body), ..captured })
}

fn usage(text: &str) -> anyhow::Error {
    Fault::Usage(text.to_owned()).into()
}

fn show(verification: &Verification, look: Look) -> anyhow::Result<()> {
    let mut shown = None;
    for finding in &verification.findings {
        let (mark, tone) = match finding.weight() {
            Weight::Good => ("✓", Tone::Good),
            Weight::Note => ("·", Tone::Soft),
            Weight::Fault => ("✗", Tone::Bad),
        };
        let step = finding.step();
        let title = if shown == Some(step) { "" } else { text::step(step) };
        shown = Some(step);
        let mark = look.painted(tone, mark);
        output::painted_line(format_args!("{title:<15}{mark} {}", look.painted(Tone::Plain, text::sentence(finding))))?;
    }
    let tone = if verification.verdict == Verdict::Verifies { Tone::Good } else { Tone::Bad };
    output::painted_line("")?;
    output::painted_line(look.painted(tone, text::headline(verification.verdict)))?;
    for advice in advice(&verification.findings) {
        output::painted_line(format_args!("\n{}:", advice.title()))?;
        for (framework, code) in FRAMEWORKS.iter().zip(advice.code()) {
            output::painted_line(format_args!("  {framework:<9}{}", look.painted(Tone::Soft, code)))?;
        }
    }
    Ok(())
}

/// Each advice once, in the order of the findings.
fn advice(findings: &[Finding]) -> Vec<Advice> {
    let mut given = Vec::new();
    for advice in findings.iter().filter_map(text::advice) {
        if !given.contains(&advice) {
            given.push(advice);
        }
    }
    given
}

fn in_json(verification: &Verification) -> Value {
    let findings: Vec<Value> = verification
        .findings
        .iter()
        .map(|finding| {
            let weight = match finding.weight() {
                Weight::Good => "good",
                Weight::Note => "note",
                Weight::Fault => "fault",
            };
            json!({"step": step(finding.step()), "weight": weight, "text": text::sentence(finding).to_string()})
        })
        .collect();
    let advice: Vec<Value> = advice(&verification.findings)
        .into_iter()
        .map(|advice| {
            let code: serde_json::Map<String, Value> =
                FRAMEWORKS.iter().zip(advice.code()).map(|(name, code)| ((*name).to_owned(), code.into())).collect();
            json!({"title": advice.title(), "code": code})
        })
        .collect();
    json!({
        "kind": "verification",
        "verdict": verdict(verification.verdict),
        "findings": findings,
        "advice": advice,
    })
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Verifies => "verifies",
        Verdict::OnlyTime => "only_time",
        Verdict::OnlyForm => "only_form",
        Verdict::CauseFound => "cause_found",
        Verdict::Unexplained => "unexplained",
        Verdict::Incomplete => "incomplete",
    }
}

const fn step(step: Step) -> &'static str {
    match step {
        Step::Secret => "secret",
        Step::Headers => "headers",
        Step::Timestamp => "timestamp",
        Step::Signatures => "signatures",
        Step::Cause => "cause",
        Step::Computed => "computed",
    }
}

#[cfg(test)]
mod tests {
    use postrider_domain::duration::format_duration;
    use postrider_domain::limits;

    use super::*;

    #[test]
    fn the_default_tolerance_is_that_of_libraries() {
        assert_eq!(format_duration(limits::TIMESTAMP_TOLERANCE), DEFAULT_TOLERANCE);
    }
}
