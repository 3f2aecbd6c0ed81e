//! What happens at a scrape: gauges are read from memory, then all families are written in the format that was asked
//! for.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads gauges right before a scrape. A reader must be quick: it reads memory, and must not wait or ask the store.
#[derive(Clone, Default)]
pub struct BeforeScrape(Arc<Mutex<Vec<Reader>>>);

type Reader = Box<dyn Fn() + Send + Sync>;

impl BeforeScrape {
    /// Runs `reader` before each scrape from now on. It must not keep alive what it reads, if that must end before the
    /// process does.
    pub fn run(&self, reader: impl Fn() + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(reader));
    }

    pub(crate) fn read_all(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|reader| reader());
    }
}

impl fmt::Debug for BeforeScrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BeforeScrape").finish_non_exhaustive()
    }
}

/// The format of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that a client likes best. Prometheus text if it does not say.
    pub fn accepted_by(accept: &str) -> Self {
        let quality_of = |wanted: &[&str]| {
            let items = accept.split(',').filter_map(|item| {
                let mut parts = item.split(';').map(str::trim);
                let kind = parts.next()?;
                let parameters: Vec<&str> = parts.collect();
                let version = parameters.iter().find_map(|parameter| parameter.strip_prefix("version="));
                let is_ours =
                    wanted[0] != OPEN_METRICS || version.is_none_or(|version| version.trim_matches('"') == "1.0.0");
                let quality = parameters.iter().find_map(|parameter| parameter.strip_prefix("q="));
                let quality = quality.map_or(Some(1.0), |quality| quality.parse::<f32>().ok())?;
                (is_ours && wanted.iter().any(|wanted| kind.eq_ignore_ascii_case(wanted))).then_some(quality)
            });
            items.fold(0.0, f32::max)
        };
        let open_metrics = quality_of(&[OPEN_METRICS]);
        if open_metrics > 0.0 && open_metrics >= quality_of(&["text/plain"]) { Self::OpenMetrics } else { Self::Text }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

const OPEN_METRICS: &str = "application/openmetrics-text";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_gets_open_metrics_and_a_browser_gets_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Format::accepted_by(prometheus), Format::OpenMetrics);
        for text in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=1.0.0;q=0.2, text/plain;q=0.9",
            "application/openmetrics-text;q=none",
        ] {
            assert_eq!(Format::accepted_by(text), Format::Text, "{text}");
        }
    }
}
