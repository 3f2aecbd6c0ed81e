//! `postrider doctor`: checks everything that a server with these settings needs. With a URL it shows why that is or is
//! not reachable, with `database` whether a database is usable.
//!
//! It works beside a running server and without one, and changes nothing. For calls it uses the guard, resolver and
//! connector of deliveries. It sends no HTTP request, and without a URL it calls no receiver.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::clock::SystemClock;
use crate::config::Settings;
use crate::server::egress_settings;
use postrider_domain::error_chain::Chain;
use postrider_domain::id::WorkspaceId;
use postrider_domain::target::{RefusalReason, Requester};
use postrider_egress::diagnosis::{AddressReport, Diagnosis, LookUp};
use postrider_egress::target::{Host, Scheme};
use postrider_egress::{AllowTarget, Egress, Probe, Protocol, TargetUrl};

use super::options::ServerOptions;
use super::output;

mod database;
mod machine;
mod report;
mod sources;
mod store;

use report::{Check, State};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DoctorOptions {
    /// URL of a receiver, to look at that alone.
    url: Option<String>,
    /// Judge the URL as for this workspace, with the rules for it alone.
    #[arg(long, value_name = "ORG_ID", requires = "url")]
    workspace: Option<WorkspaceId>,
    /// Print the checks as JSON.
    #[arg(long, conflicts_with = "url")]
    json: bool,
    #[command(flatten)]
    server: ServerOptions,
    #[command(subcommand)]
    other: Option<DoctorCommand>,
}

#[derive(Debug, Subcommand)]
enum DoctorCommand {
    /// Check whether a PostgreSQL database is usable, and how durable its commits are.
    Database(database::DatabaseOptions),
}

/// Fails if a check fails or the target is not reachable, so that the exit code shows it.
pub async fn run(options: DoctorOptions) -> anyhow::Result<()> {
    let DoctorOptions { url, workspace, json, server, other } = options;
    match (other, url) {
        (Some(DoctorCommand::Database(options)), _) => database::run(options).await,
        (None, Some(url)) => {
            let requester = Requester { workspace, endpoint: None };
            examine_target(&url, requester, &server.settings()?).await
        }
        (None, None) => examine_all(&server.settings()?, json).await,
    }
}

async fn examine_all(settings: &Settings, as_json: bool) -> anyhow::Result<()> {
    let checks = checks(settings).await;
    if as_json {
        report::print_json(&checks)?;
    } else {
        report::print_table(&checks)?;
    }
    match checks.iter().filter(|check| check.state == State::Fail).count() {
        0 => Ok(()),
        1 => bail!("a check failed"),
        failed => bail!("{failed} checks failed"),
    }
}

async fn checks(settings: &Settings) -> Vec<Check> {
    let is_sqlite = settings.database.url.is_none();
    let mut checks = vec![store::server(settings).await];
    checks.extend(machine::directory(&settings.data_dir, is_sqlite));
    checks.push(machine::open_files());
    checks.extend(machine::outbound(settings).await);
    if is_sqlite {
        checks.extend(store::sqlite(settings).await);
    } else {
        checks.extend(database::checks(settings).await);
        checks.extend(store::master_key(settings, None).await);
    }
    checks.extend(sources::outboxes(settings).await);
    checks
}

async fn examine_target(url: &str, requester: Requester, settings: &Settings) -> anyhow::Result<()> {
    let target = TargetUrl::parse(url).with_context(|| format!("cannot call {url}"))?;
    let egress = Egress::new(egress_settings(settings)?, Arc::new(SystemClock))?;
    let diagnosis = egress.diagnose(&target, requester).await;
    for line in report(&target, settings, &diagnosis) {
        output::line(line)?;
    }
    if diagnosis.is_reachable() {
        Ok(())
    } else {
        bail!("the target is not reachable");
    }
}

fn report(target: &TargetUrl, settings: &Settings, diagnosis: &Diagnosis) -> Vec<String> {
    let mut lines =
        vec![format!("scheme   {}", scheme(target, diagnosis)), format!("port     {}", port(target, diagnosis))];
    if target.url().fragment().is_some() {
        lines.push("fragment the API refuses a URL with a fragment".to_owned());
    }
    lines.push(format!("host     {}", host(target, diagnosis)));
    if let Some(proxy) = &settings.egress_proxy {
        lines.push(format!("proxy    {proxy}, which gets only the address, not the name"));
    }
    let width = diagnosis.addresses.iter().map(|report| report.address.to_string().len()).max().unwrap_or_default();
    let address = |report: &AddressReport| format!("  {:<width$}  {}", report.address, address(report));
    lines.extend(diagnosis.addresses.iter().map(address));
    lines.push(format!("verdict  {}", verdict(diagnosis)));
    lines.extend(remedy(target, diagnosis).map(|remedy| format!("         {remedy}")));
    lines
}

fn scheme(target: &TargetUrl, diagnosis: &Diagnosis) -> &'static str {
    match (target.scheme(), diagnosis.verdict) {
        (Scheme::Https, _) => "https",
        (Scheme::Http, Ok(())) => "http, permitted because every address is allowed",
        (Scheme::Http, Err(_)) => "http, permitted only if every address is allowed",
    }
}

fn port(target: &TargetUrl, diagnosis: &Diagnosis) -> String {
    let port = target.port();
    match (diagnosis.odd_port, diagnosis.verdict) {
        (false, _) => port.to_string(),
        (true, Ok(())) => {
            format!("{port}, a port of another protocol; permitted because every address is allowed")
        }
        (true, Err(_)) => {
            format!("{port}, a port of another protocol; permitted only if every address is allowed")
        }
    }
}

fn host(target: &TargetUrl, diagnosis: &Diagnosis) -> String {
    let host = target.host();
    match &diagnosis.look_up {
        Ok(LookUp::Literal) => format!("{host}, an IP address"),
        Ok(LookUp::Resolved { in_time }) => {
            let count = diagnosis.addresses.len();
            let plural = if count == 1 { "" } else { "es" };
            format!("{host}, {count} address{plural}, looked up in {}", millis(*in_time))
        }
        Err(error) => format!("{host}: {}", Chain(error)),
    }
}

fn address(report: &AddressReport) -> String {
    let class = &report.class;
    let mut parts = Vec::new();
    if class.judged_as != report.address {
        parts.push(format!("judged as {}", class.judged_as));
    }
    match (class.refusal, &report.exception) {
        _ if report.denial.is_some() => parts.extend(report.denial.iter().map(|rule| format!("denied by {rule}"))),
        (Some(reason), None) => parts.push(format!("refused as {reason}: {} is {}", class.block, class.source)),
        (Some(reason), Some(rule)) => parts.push(format!("{reason}, allowed by {rule}")),
        (None, Some(rule)) => parts.push(format!("public, and allowed by {rule}")),
        (None, None) => parts.push("public".to_owned()),
    }
    match &report.probe {
        Some(probe) => parts.extend(probed(probe)),
        None => parts.push("not tried".to_owned()),
    }
    parts.join("; ")
}

fn probed(probe: &Probe) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(connect) = probe.phases.connect {
        parts.push(format!("connected in {}", millis(connect)));
    }
    if let Some(tls) = probe.phases.tls {
        parts.push(format!("TLS in {}", millis(tls)));
    }
    parts.push(match &probe.result {
        Ok(Protocol::Http1) => "HTTP/1.1".to_owned(),
        Ok(Protocol::Http2) => "HTTP/2".to_owned(),
        Err(error) => format!("{} (after {})", Chain(error), millis(probe.phases.total)),
    });
    parts
}

fn verdict(diagnosis: &Diagnosis) -> String {
    let works = |report: &&AddressReport| report.probe.as_ref().is_some_and(|probe| probe.result.is_ok());
    let (working, all) = (diagnosis.addresses.iter().filter(works).count(), diagnosis.addresses.len());
    match diagnosis.verdict {
        Err(RefusalReason::Unresolvable) => "not reachable: the name does not resolve to an address".to_owned(),
        Err(RefusalReason::PlainHttp) => "not reachable: plain http is refused".to_owned(),
        Err(RefusalReason::Denied) => {
            "not reachable: the operator denies it (--deny-target), whatever is allowed".to_owned()
        }
        Err(RefusalReason::Port) => "not reachable: the port is refused".to_owned(),
        Err(reason) => format!("not reachable: refused as {reason}; one refused address is enough to refuse the host"),
        Ok(()) if working == 0 => "not reachable: allowed, but no connection succeeded".to_owned(),
        Ok(()) if working < all => format!("reachable: {working} of {all} addresses work; one is enough"),
        Ok(()) => "reachable".to_owned(),
    }
}

/// The flags that would allow the target, if any would.
fn remedy(target: &TargetUrl, diagnosis: &Diagnosis) -> Option<String> {
    if diagnosis.missing.is_empty() {
        return None;
    }
    let flags = |target: &AllowTarget| format!("--allow-target {target}");
    let rules: Vec<String> = diagnosis.missing.iter().map(flags).collect();
    let by_name = match target.host() {
        Host::Name(name) => format!(", or any address of the name: --allow-target {name}"),
        Host::Address(_) => String::new(),
    };
    Some(format!("to allow it: {}{by_name}", rules.join(" ")))
}

fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
