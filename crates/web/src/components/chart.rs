//! Charts: SVG from the server. Each stands in a figure with a sentence that says what is to be seen, and with the
//! numbers in a table that can be opened.
//!
//! A chart is stretched to the width of the page, so no text is in it: the ends of the axes stand around it.

use std::time::Duration;

use maud::{Markup, html};

use postrider_domain::time::Timestamp;

use super::time;
use crate::language::{say, say_text};

/// The units of a chart. Widths are shares of it.
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 100.0;

/// One value in each bucket.
pub struct Series {
    pub name: &'static str,
    /// The class that gives it its colour.
    pub class: &'static str,
    /// `None` where there is no value.
    pub values: Vec<Option<u64>>,
}

pub struct Chart<'c> {
    pub title: &'c str,
    /// What is to be seen.
    pub sentence: &'c str,
    /// The start of each bucket.
    pub starts: &'c [Timestamp],
    pub series: &'c [Series],
    pub unit: &'c str,
}

impl Chart<'_> {
    /// Bars that stand on each other.
    pub fn bars(&self) -> Markup {
        let sum = |index: usize| -> u64 { self.series.iter().map(|series| at(series, index)).sum() };
        let highest = (0..self.starts.len()).map(sum).max().unwrap_or_default();
        let width = WIDTH / count(self.starts.len());
        let bar = |index: usize, below: u64, value: u64, class: &str| {
            let (height, under) = (scaled(value, highest), scaled(below, highest));
            html! {
                rect class=(class) x=(units(count(index) * width + width * 0.1)) y=(units(HEIGHT - under - height)) width=(units(width * 0.8)) height=(units(height)) {}
            }
        };
        self.figure(
            highest,
            html! {
                @for index in 0..self.starts.len() {
                    @for (place, series) in self.series.iter().enumerate() {
                        @let below = self.series.iter().take(place).map(|lower| at(lower, index)).sum();
                        @if at(series, index) > 0 { (bar(index, below, at(series, index), series.class)) }
                    }
                }
            },
        )
    }

    /// Lines. Where a value is missing, the line is broken.
    pub fn lines(&self) -> Markup {
        let values = self.series.iter().flat_map(|series| series.values.iter().flatten());
        let highest = values.copied().max().unwrap_or_default();
        let width = WIDTH / count(self.starts.len());
        let path = |series: &Series| {
            let mut path = String::new();
            let mut is_drawing = false;
            for (index, value) in series.values.iter().enumerate() {
                if let Some(value) = value {
                    let (x, y) = (units((count(index) + 0.5) * width), units(HEIGHT - scaled(*value, highest)));
                    path.push_str(&format!("{}{x} {y}", if is_drawing { "L" } else { "M" }));
                    if !is_drawing {
                        // A value that stands alone is a short line, else it would not be seen.
                        path.push_str(&format!("h{}", units(width * 0.3)));
                    }
                }
                is_drawing = value.is_some();
            }
            path
        };
        self.figure(
            highest,
            html! { @for series in self.series { path class={ "chart-line " (series.class) } d=(path(series)) {} } },
        )
    }

    /// The value at the upper edge. Milliseconds are said as a duration.
    fn top(&self, highest: u64) -> String {
        match self.unit {
            "ms" => time::rough(Duration::from_millis(highest)),
            unit => format!("{highest} {unit}"),
        }
    }

    fn figure(&self, highest: u64, marks: Markup) -> Markup {
        html! {
            figure.chart-figure {
                figcaption {
                    h3 { (self.title) }
                    p { (self.sentence) }
                    p.legend { @for series in self.series { span.phase-name { span class={ "phase-mark " (series.class) } aria-hidden="true" {} (series.name) } } }
                }
                p.chart-top aria-hidden="true" { (self.top(highest)) }
                svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(self.sentence) {
                    line.chart-axis x1="0" x2=(WIDTH) y1=(HEIGHT) y2=(HEIGHT) {}
                    (marks)
                }
                @if let (Some(first), Some(last)) = (self.starts.first(), self.starts.last()) {
                    p.chart-ends aria-hidden="true" { span { (time::instant(*first)) } span { (time::instant(*last)) } }
                }
                details { summary { (say!("The numbers")) } (self.numbers()) }
            }
        }
    }

    fn numbers(&self) -> Markup {
        html! {
            div.table tabindex="0" role="region" aria-label=(say_text!("{}, the numbers", self.title)) {
                table {
                    caption { (say!("{}, in {}", self.title, self.unit)) }
                    thead { tr { th scope="col" { (say!("From")) } @for series in self.series { th.number scope="col" { (series.name) } } } }
                    tbody {
                        @for (index, start) in self.starts.iter().enumerate().rev() {
                            tr {
                                th scope="row" { (time::instant(*start)) }
                                @for series in self.series {
                                    td.number { @match series.values.get(index).copied().flatten() { Some(value) => (value), None => "–" } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn at(series: &Series, index: usize) -> u64 {
    series.values.get(index).copied().flatten().unwrap_or_default()
}

/// The height of a value. The highest takes the whole chart.
fn scaled(value: u64, highest: u64) -> f64 {
    if highest == 0 { 0.0 } else { as_float(value) / as_float(highest) * HEIGHT }
}

fn as_float(value: u64) -> f64 {
    // Counts above 4 billion are drawn alike; a chart cannot show the difference.
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

fn count(value: usize) -> f64 {
    as_float(u64::try_from(value).unwrap_or(u64::MAX))
}

/// Units of the chart with one decimal.
fn units(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart<'c>(starts: &'c [Timestamp], series: &'c [Series]) -> Chart<'c> {
        Chart { title: "Attempts", sentence: "Three attempts, one failed.", starts, series, unit: "attempts" }
    }

    #[test]
    fn bars_stand_on_each_other_and_the_numbers_are_in_a_table() {
        let starts = [0, 60_000].map(Timestamp::from_millis);
        let series = [
            Series { name: "Delivered", class: "chart-good", values: vec![Some(2), Some(0)] },
            Series { name: "Failed", class: "chart-bad", values: vec![Some(2), None] },
        ];
        let drawn = chart(&starts, &series).bars().into_string();
        assert!(
            drawn.contains(r#"<rect class="chart-good" x="50.0" y="50.0" width="400.0" height="50.0">"#),
            "{drawn}"
        );
        assert!(drawn.contains(r#"<rect class="chart-bad" x="50.0" y="0.0" width="400.0" height="50.0">"#), "{drawn}");
        assert!(drawn.contains(r#"<td class="number">2</td>"#) && drawn.contains("–"), "{drawn}");
        assert!(drawn.contains("aria-label=\"Three attempts, one failed.\""));
    }

    #[test]
    fn a_line_is_broken_where_there_is_no_value() {
        let starts = [0, 1, 2, 3].map(Timestamp::from_millis);
        let series = [Series { name: "p50", class: "chart-good", values: vec![Some(10), Some(5), None, Some(10)] }];
        let drawn = chart(&starts, &series).lines().into_string();
        assert!(drawn.contains("d=\"M125.0 0.0h75.0L375.0 50.0M875.0 0.0h75.0\""), "{drawn}");
    }

    #[test]
    fn a_chart_of_nothing_has_no_bar_and_divides_by_nothing() {
        let drawn = chart(&[], &[]).bars().into_string();
        assert!(!drawn.contains("NaN") && !drawn.contains("<rect"), "{drawn}");
        let starts = [Timestamp::from_millis(0)];
        let series = [Series { name: "p50", class: "chart-good", values: vec![Some(0)] }];
        assert!(!chart(&starts, &series).lines().into_string().contains("NaN"));
    }
}
