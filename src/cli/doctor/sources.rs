//! What the doctor looks at in sources of events: the table, the rights and the settings of each outbox.

use std::time::Duration;

use crate::config::Settings;
use postrider_domain::error_chain::Chain;
use postrider_source::{Connection, check_outbox};

use super::report::Check;

const PATIENCE: Duration = Duration::from_secs(15);

/// A check for each outbox of the settings.
pub async fn outboxes(settings: &Settings) -> Vec<Check> {
    const NAME: &str = "outbox";
    let mut checks = Vec::new();
    for source in &settings.sources {
        #[cfg_attr(
            not(feature = "brokers"),
            expect(irrefutable_let_patterns, reason = "the other build has more kinds")
        )]
        let Connection::Outbox(outbox) = &source.connection else { continue };
        let name = &source.terms.name;
        checks.push(match tokio::time::timeout(PATIENCE, check_outbox(outbox)).await {
            Ok(Ok(faults)) if faults.is_empty() => Check::ok(NAME, format!("{name}: the table can be drained")),
            Ok(Ok(faults)) => {
                let advice = "mend it in the producer's database; `postrider outbox sql` prints the whole table";
                Check::fail(NAME, format!("{name}: {}", faults.join("; ")), advice)
            }
            Ok(Err(error)) => {
                let advice = "bring the database back, or correct url, password_file and ca_file of the source";
                Check::fail(NAME, format!("{name}: {}", Chain(&error)), advice)
            }
            Err(_) => Check::fail(NAME, format!("{name}: the database does not answer"), "look at the network to it"),
        });
    }
    checks
}
