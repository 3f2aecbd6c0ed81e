//! A scrape as Prometheus sees it: series with their values.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::caller::Caller;

/// The series of one scrape in the format 0.0.4.
#[derive(Clone, Debug)]
pub struct Scrape {
    pub text: String,
    series: BTreeMap<String, f64>,
}

impl Scrape {
    pub async fn of(address: SocketAddr) -> Self {
        let reply = Caller::stranger(address).get("/metrics").await;
        assert_eq!(reply.status, 200);
        let text = String::from_utf8(reply.body.to_vec()).expect("text in UTF-8");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (in_order(name), value.parse().expect("a number"))
        });
        Self { series: series.collect(), text }
    }

    /// The value of a series, as in `postrider_attempts_total{outcome="timeout"}`. `None` if it is absent.
    pub fn find(&self, series: &str) -> Option<f64> {
        self.series.get(&in_order(series)).copied()
    }

    /// The value of a series that must be there.
    #[track_caller]
    pub fn value(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("no {series} in\n{}", self.text))
    }

    /// The sum of all series of a family.
    pub fn sum(&self, family: &str) -> f64 {
        let of_family = |name: &&String| name.split('{').next() == Some(family);
        self.series.iter().filter(|(name, _)| of_family(name)).map(|(_, value)| value).sum()
    }

    /// The names and labels of all series.
    pub fn names(&self) -> Vec<&str> {
        self.series.keys().map(String::as_str).collect()
    }
}

/// The series with its labels in the order of their names. No label value of ours holds a comma or a brace.
fn in_order(series: &str) -> String {
    let Some((name, labels)) = series.split_once('{') else { return series.to_owned() };
    let mut labels: Vec<&str> = labels.trim_end_matches('}').split(',').collect();
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}
