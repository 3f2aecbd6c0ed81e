//! The options of commands that call a server, and the calls themselves.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;
use zeroize::Zeroizing;

use postrider_crypto::Random;
use postrider_domain::limits;
use postrider_local::client::{ApiFailure, BearerKey, Client, Method, ServerAddress};
use postrider_local::pages::{List, Page};
use postrider_local::reconnect::is_passing;

use super::super::environment::variable;
use super::super::exit::{Fault, code_of_failure};
use super::super::input;
use super::super::output;
use super::super::paint::{Look, OutputOptions};
use super::profile::Profile;

/// Which server, with which key. A key is never a flag: others see the arguments of a process.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct ApiOptions {
    /// Base URL of the server [default: that of the profile, or http://127.0.0.1:8080]
    #[arg(long, env = "POSTRIDER_URL", value_name = "URL")]
    url: Option<String>,
    /// File with the API key; - reads it from standard input [default: POSTRIDER_API_KEY, or the key of the profile]
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<String>,
    /// PEM file of certificates to trust beside the public ones.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print each request on standard error.
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    output: OutputOptions,
}

const DEFAULT_URL: &str = "http://127.0.0.1:8080";
const KEY_VARIABLE: &str = "POSTRIDER_API_KEY";

/// A server with a key, and the look of what is printed.
pub struct Session {
    pub look: Look,
    pub client: Client,
    pub random: Random,
    /// The base URL, without a slash at its end.
    base_url: String,
    is_verbose: bool,
}

/// How often a call is repeated that may succeed later.
const REPEATS: u32 = 2;

impl ApiOptions {
    /// # Errors
    /// When URL, key or certificates cannot be read, or there is no key.
    pub fn session(&self) -> anyhow::Result<Session> {
        let profile = Profile::load()?;
        let url = self.url.as_deref().filter(|url| !url.is_empty());
        let base_url = url.or(profile.url.as_deref()).unwrap_or(DEFAULT_URL).trim_end_matches('/').to_owned();
        let mut address = ServerAddress::parse(&base_url).map_err(|error| Fault::Usage(error.to_string()))?;
        let ca_file = self.ca_file.as_ref().or(profile.ca_file.as_ref());
        if let Some(path) = ca_file {
            let pem = std::fs::read(path).with_context(|| format!("cannot read the CA file {}", path.display()))?;
            address.trust(&pem).with_context(|| format!("cannot use the CA file {}", path.display()))?;
        }
        let key = self.key(&profile, &base_url)?;
        Ok(Session {
            look: self.output.look(),
            client: Client::at(address, &key),
            random: Random::default(),
            base_url,
            is_verbose: self.verbose,
        })
    }

    fn key(&self, profile: &Profile, base_url: &str) -> anyhow::Result<BearerKey> {
        let (text, source) = if let Some(path) = &self.api_key_file {
            (input::secret_file(path)?, "--api-key-file")
        } else if let Some(key) = variable(KEY_VARIABLE) {
            (Zeroizing::new(key), KEY_VARIABLE)
        } else {
            let text = profile.api_key.clone().ok_or_else(|| {
                Fault::NoAccess(format!(
                    "no API key: set {KEY_VARIABLE}, or name a file with --api-key-file (postrider keys create makes one)"
                ))
            })?;
            // A key must not go to another server than the one it is for.
            let is_for = profile.url.as_deref().is_none_or(|url| url.trim_end_matches('/') == base_url);
            if !is_for {
                return Err(Fault::NoAccess(format!(
                    "the key of the profile is for another server than {base_url}: set {KEY_VARIABLE} or --api-key-file"
                ))
                .into());
            }
            (text, "the profile")
        };
        BearerKey::parse(text.trim()).map_err(|error| Fault::Usage(format!("{source} holds no key: {error}")).into())
    }
}

#[derive(Deserialize)]
struct Envelope {
    data: Box<RawValue>,
}

impl Session {
    /// The resource of a path, with its tokens as the server wrote them.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Box<RawValue>> {
        data_of(&self.call(Call { method: Method::GET, path, body: Body::Nothing, is_repeatable: true }).await?)
    }

    pub async fn page(&mut self, list: &List, limit: u32, cursor: Option<&str>) -> anyhow::Result<Page> {
        let path = list.path(limit, cursor);
        let call = Call { method: Method::GET, path: &path, body: Body::Nothing, is_repeatable: true };
        Ok(Page::read(&self.call(call).await?)?)
    }

    /// A write that is done once, however often it is sent.
    pub async fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<Box<RawValue>> {
        let body = Body::Value(body);
        data_of(&self.call(Call { method: Method::POST, path, body, is_repeatable: true }).await?)
    }

    /// As [`Self::post`], with a body that is written already.
    pub async fn post_raw(&mut self, path: &str, body: &RawValue) -> anyhow::Result<Box<RawValue>> {
        let body = Body::Raw(body);
        data_of(&self.call(Call { method: Method::POST, path, body, is_repeatable: true }).await?)
    }

    /// A write that the server does each time it is sent.
    pub async fn post_once(&mut self, path: &str, body: &Value) -> anyhow::Result<Box<RawValue>> {
        let body = Body::Value(body);
        data_of(&self.call(Call { method: Method::POST, path, body, is_repeatable: false }).await?)
    }

    pub async fn patch(&mut self, path: &str, body: &Value) -> anyhow::Result<Box<RawValue>> {
        let body = Body::Value(body);
        data_of(&self.call(Call { method: Method::PATCH, path, body, is_repeatable: true }).await?)
    }

    pub async fn delete(&mut self, path: &str) -> anyhow::Result<()> {
        let call = Call { method: Method::DELETE, path, body: Body::Nothing, is_repeatable: true };
        self.call(call).await.map(drop)
    }

    /// The page of the dashboard that shows a thing.
    pub fn page_url(&self, path: &str) -> String {
        format!("{}/dashboard{path}", self.base_url)
    }

    async fn call(&mut self, call: Call<'_>) -> anyhow::Result<Box<RawValue>> {
        let key: [u8; 32] = self.random.alphanumeric();
        let key = std::str::from_utf8(&key).context("a key in ASCII")?;
        let mut repeats = 0;
        loop {
            let began = Instant::now();
            let answer = self.attempt(&call, key).await;
            if self.is_verbose {
                let took = began.elapsed().as_millis();
                let outcome = answer.as_ref().map_or_else(described, |_| "ok".to_owned());
                output::note(format_args!("{} {} → {outcome}, {took} ms", call.method, call.path));
            }
            match answer {
                Err(failure) if call.is_repeatable && repeats < REPEATS && is_worth_repeating(&failure) => {
                    let wait = wait_asked(&failure);
                    self.look.note(format_args!("{}: asking again in {} s", described(&failure), wait.as_secs()));
                    tokio::time::sleep(wait).await;
                    repeats += 1;
                }
                Err(failure) => return Err(explained(failure)),
                Ok(answer) => return Ok(answer),
            }
        }
    }

    async fn attempt(&mut self, call: &Call<'_>, key: &str) -> Result<Box<RawValue>, ApiFailure> {
        let client = &mut self.client;
        match call.body {
            Body::Nothing if call.method == Method::GET => client.get_raw(call.path).await,
            Body::Nothing => client.write(call.method.clone(), call.path, None, key).await,
            Body::Value(body) => client.write(call.method.clone(), call.path, Some(body), key).await,
            Body::Raw(body) => client.post_raw(call.path, body, key).await,
        }
    }
}

struct Call<'c> {
    method: Method,
    path: &'c str,
    body: Body<'c>,
    /// Whether sending it twice does the same as sending it once.
    is_repeatable: bool,
}

enum Body<'c> {
    Nothing,
    Value(&'c Value),
    Raw(&'c RawValue),
}

fn data_of(answer: &RawValue) -> anyhow::Result<Box<RawValue>> {
    let Envelope { data } = serde_json::from_str(answer.get()).context("the answer has no data")?;
    Ok(data)
}

/// Not a server that cannot be reached: a person wants to hear of that at once.
fn is_worth_repeating(failure: &ApiFailure) -> bool {
    let is_away = matches!(failure, ApiFailure::Connect { .. } | ApiFailure::Timeout);
    is_passing(failure) && !is_away && wait_asked(failure) <= limits::CLIENT_RETRY_WAIT
}

fn wait_asked(failure: &ApiFailure) -> Duration {
    match failure {
        ApiFailure::Refused { retry_after: Some(wait), .. } => *wait,
        _ => Duration::from_secs(1),
    }
}

fn described(failure: &ApiFailure) -> String {
    match failure {
        ApiFailure::Refused { status, code, .. } => format!("{} {code}", status.as_u16()),
        other => other.to_string(),
    }
}

/// The error with the id by which the server's log is searched.
pub fn explained(failure: ApiFailure) -> anyhow::Error {
    let ApiFailure::Refused { request_id: Some(id), .. } = &failure else { return failure.into() };
    let (code, text) = (code_of_failure(&failure), format!("{failure} (request {id})"));
    Fault::Refused { code, text }.into()
}
