//! `/metrics`: the listener of its own, and the route on the listener of the API for those who have a token.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::{MetricsListen, Settings};
use crate::telemetry;
use postrider_api as api;
use postrider_crypto::{Random, equal_in_constant_time};
use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_domain::time::Clock;
use postrider_http::{Door, DoorLimits, Refusal};
use postrider_metrics::{Build, Format, Labels, Metrics, Only};
use postrider_source::SourceSettings;
use postrider_store::tally;

use super::error::StartError;

const PATH: &str = "/metrics";

/// The metrics of this process.
pub fn new(clock: &dyn Clock, sources: &[SourceSettings]) -> Metrics {
    // Label values live as long as the process does, and so do the few names of the settings.
    let name = |source: &SourceSettings| &*Box::leak(source.terms.name.as_str().to_owned().into_boxed_str());
    let sources = sources.iter().map(name).collect();
    let labels = Labels { refusals: api::refusal_codes(), sources, ..tally::labels() };
    let commit = option_env!("POSTRIDER_COMMIT").unwrap_or("unknown");
    let metrics = Metrics::new(&labels, Build { version: env!("CARGO_PKG_VERSION"), commit });
    let server = metrics.families.server.clone();
    #[expect(clippy::cast_precision_loss, reason = "milliseconds are below 2^53 for 280,000 years")]
    let started = clock.now().millis() as f64 / 1_000.0;
    server.start_time_seconds.set(Only, started);
    let before_scrape = metrics.families.engine.before_scrape.clone();
    before_scrape.run(move || server.log_lines_dropped.raise_to(Only, telemetry::lines_dropped()));
    metrics
}

/// Binds the address of the settings. `None` when it is off, or when the default address is taken.
///
/// # Errors
/// When an address that was asked for cannot be bound.
pub async fn bind(settings: &Settings) -> Result<Option<TcpListener>, StartError> {
    match settings.metrics.listen {
        MetricsListen::Off => Ok(None),
        MetricsListen::At(address) => {
            let bound = TcpListener::bind(address).await;
            bound.map(Some).map_err(|source| StartError::ListenForMetrics { address, source })
        }
        MetricsListen::Default => match TcpListener::bind(MetricsListen::DEFAULT).await {
            Ok(listener) => Ok(Some(listener)),
            Err(error) => {
                tracing::warn!(
                    address = %MetricsListen::DEFAULT,
                    error = %Chain(&error),
                    "cannot serve metrics on the default address; going on without. Choose another address or turn them \
                     off (--metrics-listen)"
                );
                Ok(None)
            }
        },
    }
}

/// Serves `/metrics` to everybody who can reach the listener.
pub fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    random: Random,
    clock: Arc<dyn Clock>,
    (stop, cut): (&CancellationToken, &CancellationToken),
) -> JoinHandle<()> {
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "serving metrics");
    }
    let router = Router::new()
        .route(PATH, get(answer))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "There is only /metrics here."))
        .with_state(metrics);
    let door =
        Door::new(DoorLimits::new(limits::METRICS_CONNECTIONS), Arc::new(|refused, _| refuse(refused)), random, clock);
    tokio::spawn(postrider_http::serve(listener, router, Arc::new(door), stop.clone(), cut.clone()))
}

/// The route of the listener of the API, for callers who have the token. Without a token there is no route.
///
/// # Errors
/// When the file of the token cannot be used.
pub fn guarded_route(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Router, StartError> {
    let Some(path) = &settings.metrics.token_file else { return Ok(Router::new()) };
    let fault = |source| StartError::MetricsToken { path: path.display().to_string(), source };
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(fault)?);
    let token = Zeroizing::new(text.trim().to_owned());
    if token.len() < limits::METRICS_TOKEN_BYTES_MIN {
        return Err(StartError::ShortMetricsToken { path: path.display().to_string() });
    }
    let guarded = Arc::new(Guarded { metrics: Arc::clone(metrics), token });
    Ok(Router::new().route(PATH, get(answer_guarded)).with_state(guarded))
}

struct Guarded {
    metrics: Arc<Metrics>,
    token: Zeroizing<String>,
}

async fn answer(State(metrics): State<Arc<Metrics>>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::accepted_by(accept);
    let headers = [(CONTENT_TYPE, format.content_type()), (CACHE_CONTROL, "no-store")];
    (headers, metrics.scrape(format)).into_response()
}

async fn answer_guarded(State(guarded): State<Arc<Guarded>>, headers: HeaderMap) -> Response {
    let given =
        headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '));
    let is_right = given.is_some_and(|(scheme, token)| {
        scheme.eq_ignore_ascii_case("bearer")
            && equal_in_constant_time(token.trim().as_bytes(), guarded.token.as_bytes())
    });
    if !is_right {
        let mut refusal =
            refusal(StatusCode::UNAUTHORIZED, "This needs the token of --metrics-token-file as a bearer token.");
        refusal.headers_mut().insert(WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
        return refusal;
    }
    answer(State(Arc::clone(&guarded.metrics)), headers).await
}

/// Refuses a request that does not reach the router.
fn refuse(refused: Refusal) -> Response {
    let status = match refused {
        Refusal::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Refusal::UriTooLong => StatusCode::URI_TOO_LONG,
        Refusal::HeadTooSlow => StatusCode::REQUEST_TIMEOUT,
        Refusal::MalformedHead | Refusal::Http2 => StatusCode::BAD_REQUEST,
    };
    refusal(status, "This listener answers GET /metrics over HTTP/1.1.")
}

/// For people and Prometheus, which read plain text.
fn refusal(status: StatusCode, text: &'static str) -> Response {
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], format!("{text}\n")).into_response()
}
