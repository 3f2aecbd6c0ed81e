//! The output of `postrider dev`: lines of text, with colours only on a terminal.
//!
//! A row contains only parsed values, so that a sender cannot write control sequences to the user's terminal.

use std::io::{self, Write};
use std::time::Duration;

use postrider_domain::event_type::{Catalogue, EventTypeName};

use super::curl::Step;
use super::receiver::{Arrival, Signature};

/// Writes line by line and flushes each line.
#[derive(Debug)]
pub struct Screen<W> {
    out: W,
    colour: bool,
}

/// Widths of the table's columns, in characters.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    event_width: usize,
}

#[derive(Clone, Copy, Debug)]
enum Colour {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

const UNKNOWN_EVENT: &str = "(unknown)";
const ATTEMPT_WIDTH: usize = 7;
const SIGNATURE_WIDTH: usize = 13;
const TOOK_WIDTH: usize = 18;

impl<W: Write> Screen<W> {
    /// Set `colour` only if `out` is a terminal.
    pub fn new(out: W, colour: bool) -> Self {
        Self { out, colour }
    }

    /// Writes one line.
    ///
    /// # Errors
    /// As every method here, when `out` cannot be written.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        // In one write, because `out` may take or drop each write as a whole.
        self.out.write_all(format!("{text}\n").as_bytes())?;
        self.out.flush()
    }

    /// Writes the head of the table.
    ///
    /// # Errors
    /// See [`Screen::line`].
    pub fn table(&mut self, catalogue: &Catalogue) -> io::Result<Table> {
        let names = catalogue.types().iter().map(|event| event.name.as_str().len());
        let table = Table { event_width: names.chain([UNKNOWN_EVENT.len()]).max().unwrap_or_default() };
        let head = table.row("event", "attempt", &format!("{:<SIGNATURE_WIDTH$}", "signature"), "publish to arrival");
        let head = self.in_colour(Colour::Dim, &head);
        self.line(&head)?;
        Ok(table)
    }

    /// Writes one arrival. `took` is the time since its publish.
    ///
    /// # Errors
    /// See [`Screen::line`].
    pub fn arrival(&mut self, table: Table, arrival: &Arrival, took: Option<Duration>) -> io::Result<()> {
        let (colour, signature, fault) = match arrival.signature {
            Signature::Verified => (Colour::Green, "✓ verified", None),
            Signature::Refused(fault) => (Colour::Red, "✗ refused", Some(fault)),
            Signature::Unchecked => (Colour::Yellow, "– not checked", None),
        };
        let signature = self.in_colour(colour, &format!("{signature:<SIGNATURE_WIDTH$}"));
        let event = arrival.event_type.as_ref().map_or(UNKNOWN_EVENT, EventTypeName::as_str);
        let attempt = arrival.attempt.map_or_else(|| "–".to_owned(), |attempt| attempt.to_string());
        let took = took.map_or_else(|| "–".to_owned(), in_millis);
        let mut row = table.row(event, &attempt, &signature, &took);
        if let Some(fault) = fault {
            row.push_str(&format!("  {fault}"));
        }
        self.line(&row)
    }

    /// Writes the summary: times of the arrived events, names of the missing ones.
    ///
    /// # Errors
    /// See [`Screen::line`].
    pub fn summary(&mut self, took: &[Duration], missing: &[EventTypeName], waited: Duration) -> io::Result<()> {
        let (arrived, published) = (took.len(), took.len() + missing.len());
        let mut text = format!("{arrived} of {published} events arrived with a valid signature");
        if let Some(times) = times(took) {
            text.push_str(&times);
        }
        let colour = if missing.is_empty() { Colour::Green } else { Colour::Red };
        let text = self.in_colour(colour, &format!("{text}."));
        self.line(&text)?;
        if !missing.is_empty() {
            let names: Vec<&str> = missing.iter().map(EventTypeName::as_str).collect();
            self.line(&format!("Missing after {} s: {}.", waited.as_secs(), names.join(", ")))?;
            self.line("The delivery log shows the reason: list the newest deliveries as shown below.")?;
        }
        Ok(())
    }

    /// Writes the commands to try, each under its title as a shell comment.
    ///
    /// # Errors
    /// See [`Screen::line`].
    pub fn steps(&mut self, steps: &[Step]) -> io::Result<()> {
        let heading = self.in_colour(Colour::Bold, "Try next, in another terminal:");
        self.line(&heading)?;
        for step in steps {
            let title = self.in_colour(Colour::Dim, &format!("# {}", step.title));
            self.line(&format!("\n{title}\n{}", step.command))?;
        }
        Ok(())
    }

    fn in_colour(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Bold => 1,
            Colour::Dim => 2,
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Table {
    /// `signature` must be padded by the caller, because colour codes have a length but no width.
    fn row(self, event: &str, attempt: &str, signature: &str, took: &str) -> String {
        let event_width = self.event_width;
        format!("{event:<event_width$}  {attempt:>ATTEMPT_WIDTH$}  {signature}  {took:>TOOK_WIDTH$}")
    }
}

fn times(took: &[Duration]) -> Option<String> {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let (fastest, slowest) = (*sorted.first()?, *sorted.last()?);
    let median = sorted[sorted.len() / 2];
    let [fastest, median, slowest] = [fastest, median, slowest].map(in_millis);
    Some(format!("; from publish to arrival: fastest {fastest}, median {median}, slowest {slowest}"))
}

fn in_millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

#[cfg(test)]
mod tests {
    use super::super::verify::VerifyFault;
    use super::*;
    use postrider_domain::time::Timestamp;

    fn arrival(event: Option<&str>, signature: Signature) -> Arrival {
        Arrival {
            event_id: None,
            delivery_id: None,
            event_type: event.map(EventTypeName::from_stored),
            attempt: event.map(|_| 1),
            signature,
            at: Timestamp::default(),
            body_bytes: 2,
        }
    }

    fn shown(colour: bool, draw: impl FnOnce(&mut Screen<&mut Vec<u8>>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        draw(&mut Screen::new(&mut out, colour)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_is_aligned_and_a_refusal_has_its_reason() {
        let text = shown(false, |screen| {
            let table = screen.table(&Catalogue::built_in().unwrap())?;
            let took = Some(Duration::from_millis(12));
            screen.arrival(table, &arrival(Some("post.created"), Signature::Verified), took)?;
            screen.arrival(table, &arrival(Some("job.failed"), Signature::Unchecked), took)?;
            screen.arrival(table, &arrival(None, Signature::Refused(VerifyFault::WrongSignature)), None)
        });
        insta::assert_snapshot!(text, @"
        event              attempt  signature      publish to arrival
        post.created             1  ✓ verified                  12 ms
        job.failed               1  – not checked               12 ms
        (unknown)                –  ✗ refused                       –  no v1 signature matches the secret and the body
        ");
    }

    #[test]
    fn colour_changes_no_text() {
        let draw = |screen: &mut Screen<&mut Vec<u8>>| {
            let table = screen.table(&Catalogue::built_in().unwrap())?;
            screen.arrival(table, &arrival(Some("post.created"), Signature::Verified), None)
        };
        let (plain, coloured) = (shown(false, draw), shown(true, draw));
        assert!(!plain.contains('\x1b') && coloured.contains("\x1b[32m✓ verified   \x1b[0m"), "{coloured:?}");
        let stripped = [1, 2, 31, 32, 33, 0].iter().fold(coloured, |text, n| text.replace(&format!("\x1b[{n}m"), ""));
        assert_eq!(stripped, plain);
    }

    #[test]
    fn a_summary_has_the_times_and_the_missing_events() {
        let took = [30, 10, 20].map(Duration::from_millis);
        let missing = ["post.created", "job.failed"].map(EventTypeName::from_stored);
        let waited = Duration::from_secs(10);
        insta::assert_snapshot!(shown(false, |screen| screen.summary(&took, &[], waited)), @"3 of 3 events arrived with a valid signature; from publish to arrival: fastest 10 ms, median 20 ms, slowest 30 ms.");
        insta::assert_snapshot!(shown(false, |screen| screen.summary(&[], &missing, waited)), @"
        0 of 2 events arrived with a valid signature.
        Missing after 10 s: post.created, job.failed.
        The delivery log shows the reason: list the newest deliveries as shown below.
        ");
    }
}
