//! Draws arrivals over time as SVG: for each run the deliveries per second, and the latencies from publish to arrival
//! on a logarithmic scale.
//!
//! The background is white, so that the drawing is readable on light and on dark pages.

use std::fmt::Write as _;

use super::series::Second;

/// The name of a run and its seconds.
pub struct PlottedRun {
    pub name: String,
    pub seconds: Vec<Second>,
}

const WIDTH: f64 = 960.0;
const HEADER: f64 = 56.0;
const RUN_HEIGHT: f64 = 190.0;
const PLOT_HEIGHT: f64 = 112.0;
const PLOT_WIDTH: f64 = 372.0;
const LEFT_AT: f64 = 76.0;
const RIGHT_AT: f64 = 556.0;
/// Grid lines of the plot of deliveries.
const STEPS: u32 = 4;

const INK: &str = "#1f2933";
const FAINT: &str = "#d9dee3";
const DELIVERED: &str = "#2f6fb0";
const MEDIAN: &str = "#2e8b57";
const TAIL: &str = "#c0532b";

/// Draws all runs.
pub fn draw(runs: &[PlottedRun]) -> String {
    let height = HEADER + RUN_HEIGHT * number(runs.len());
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"{INK}\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    legend(&mut svg, LEFT_AT, DELIVERED, "deliveries a second");
    legend(&mut svg, RIGHT_AT, MEDIAN, "publish to arrival, p50");
    legend(&mut svg, RIGHT_AT + 180.0, TAIL, "publish to arrival, p99");
    for (index, run) in runs.iter().enumerate() {
        let top = HEADER + RUN_HEIGHT * number(index) + 24.0;
        text(
            &mut svg,
            LEFT_AT,
            top - 8.0,
            "start",
            &format!("<tspan font-weight=\"600\">{}</tspan>", escape(&run.name)),
        );
        delivered(&mut svg, top, &run.seconds);
        latencies(&mut svg, top, &run.seconds);
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String, x: f64, colour: &str, label: &str) {
    let _ = writeln!(svg, "<rect x=\"{x}\" y=\"22\" width=\"18\" height=\"4\" fill=\"{colour}\"/>");
    text(svg, x + 26.0, 28.0, "start", label);
}

fn delivered(svg: &mut String, top: f64, seconds: &[Second]) {
    let most = seconds.iter().map(|second| second.delivered).max().unwrap_or(0);
    let step = round_step(most.div_ceil(u64::from(STEPS)));
    let scale = |value: f64| top + PLOT_HEIGHT - value / (real(step) * f64::from(STEPS)) * PLOT_HEIGHT;
    for line in 0..=STEPS {
        let value = step * u64::from(line);
        rule(svg, LEFT_AT, scale(real(value)), &format!("{}/s", short(value)));
    }
    time_axis(svg, LEFT_AT, top, seconds.len());
    let points = seconds.iter().map(|second| Some(scale(real(second.delivered))));
    curve(svg, LEFT_AT, DELIVERED, points);
}

fn latencies(svg: &mut String, top: f64, seconds: &[Second]) {
    let arrived = || seconds.iter().filter(|second| second.delivered > 0);
    let millis = |time: std::time::Duration| (time.as_secs_f64() * 1000.0).max(0.001);
    let lowest = arrived().map(|second| millis(second.p50)).fold(f64::INFINITY, f64::min);
    let highest = arrived().map(|second| millis(second.p99)).fold(0.0, f64::max);
    let (from, to) = decades(lowest, highest);
    let scale = |value: f64| top + PLOT_HEIGHT - (value.log10() - f64::from(from)) / f64::from(to - from) * PLOT_HEIGHT;
    for decade in from..=to {
        let value = 10_f64.powi(decade);
        rule(
            svg,
            RIGHT_AT,
            scale(value),
            &if decade < 3 { format!("{value} ms") } else { format!("{} s", value / 1000.0) },
        );
    }
    time_axis(svg, RIGHT_AT, top, seconds.len());
    let point = |second: &Second, time| (second.delivered > 0).then(|| scale(millis(time)));
    curve(svg, RIGHT_AT, MEDIAN, seconds.iter().map(|second| point(second, second.p50)));
    curve(svg, RIGHT_AT, TAIL, seconds.iter().map(|second| point(second, second.p99)));
}

/// The exponents of the powers of ten around both values, at least one apart.
fn decades(lowest: f64, highest: f64) -> (i32, i32) {
    if !(lowest.is_finite() && highest > 0.0) {
        return (0, 1);
    }
    #[expect(clippy::cast_possible_truncation, reason = "powers of ten that a time has in milliseconds")]
    let power = |value: f64| value as i32;
    let from = power(lowest.log10().floor());
    (from, power(highest.log10().ceil()).max(from + 1))
}

/// Rounds up to 1, 2 or 5 times a power of ten.
fn round_step(at_least: u64) -> u64 {
    let steps = std::iter::successors(Some(1_u64), |power| power.checked_mul(10))
        .flat_map(|power| [power, power * 2, power * 5]);
    steps.take(57).find(|step| *step >= at_least).unwrap_or(at_least)
}

fn rule(svg: &mut String, x: f64, y: f64, label: &str) {
    let _ = writeln!(svg, "<path d=\"M{x} {y:.1}h{PLOT_WIDTH}\" stroke=\"{FAINT}\" fill=\"none\"/>");
    text(svg, x - 8.0, y + 4.0, "end", label);
}

fn time_axis(svg: &mut String, x: f64, top: f64, seconds: usize) {
    let bottom = top + PLOT_HEIGHT;
    let _ = writeln!(svg, "<path d=\"M{x} {top}V{bottom}h{PLOT_WIDTH}\" stroke=\"{INK}\" fill=\"none\"/>");
    let step = usize::try_from(round_step((seconds as u64).div_ceil(8))).unwrap_or(1);
    for second in (0..=seconds).step_by(step) {
        let at = x + number(second) / number(seconds.max(1)) * PLOT_WIDTH;
        let _ = writeln!(svg, "<path d=\"M{at:.1} {bottom}v4\" stroke=\"{INK}\" fill=\"none\"/>");
        text(svg, at, bottom + 18.0, "middle", &format!("{second} s"));
    }
}

/// One point in the middle of each second, a gap where nothing arrived. An isolated point is a dot.
fn curve(svg: &mut String, x: f64, colour: &str, points: impl ExactSizeIterator<Item = Option<f64>>) {
    let width = PLOT_WIDTH / number(points.len().max(1));
    let (mut path, mut is_drawing) = (String::new(), false);
    for (index, point) in points.enumerate() {
        if let Some(y) = point {
            let at = x + (number(index) + 0.5) * width;
            let _ = if is_drawing { write!(path, "L{at:.1} {y:.1}") } else { write!(path, "M{at:.1} {y:.1}h0") };
        }
        is_drawing = point.is_some();
    }
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"2.5\" stroke-linejoin=\"round\" stroke-linecap=\"round\" \
         fill=\"none\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>");
}

/// Abbreviates: 25k for 25,000.
fn short(value: u64) -> String {
    match value {
        0..1_000 => value.to_string(),
        1_000..1_000_000 => format!("{}k", real(value) / 1_000.0),
        _ => format!("{}M", real(value) / 1_000_000.0),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below what a double holds exactly")]
fn real(value: u64) -> f64 {
    value as f64
}

fn number(value: usize) -> f64 {
    real(value as u64)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn second(delivered: u64, p50: u64, p99: u64) -> Second {
        Second { delivered, p50: Duration::from_millis(p50), p99: Duration::from_millis(p99) }
    }

    #[test]
    fn each_run_has_a_name_three_curves_and_units() {
        let seconds = [second(24_000, 2, 8), second(0, 0, 0), second(25_500, 3, 1200)];
        let runs = ["single", "a < b"].map(|name| PlottedRun { name: name.to_owned(), seconds: seconds.to_vec() });
        let svg = draw(&runs);
        for expected in ["single", "a &lt; b", "30k/s", "10 ms", "10 s", "3 s", "deliveries a second"] {
            let label = format!(">{expected}<");
            assert!(svg.contains(&label), "{expected} in {svg}");
        }
        assert_eq!(svg.matches("stroke-width=\"2.5\"").count(), 6);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_run_without_arrivals_is_drawn_empty() {
        for seconds in [&[][..], &[second(0, 0, 0)]] {
            let svg = draw(&[PlottedRun { name: "none".to_owned(), seconds: seconds.to_vec() }]);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }

    #[test]
    fn a_second_without_arrivals_leaves_a_gap() {
        let mut svg = String::new();
        curve(&mut svg, 0.0, TAIL, [Some(1.0), Some(2.0), None, Some(3.0)].into_iter());
        assert_eq!((svg.matches('M').count(), svg.matches('L').count()), (2, 1), "{svg}");
    }

    #[test]
    fn scales_end_at_round_numbers() {
        assert_eq!([0, 1, 3, 5, 6, 21, 6_375].map(round_step), [1, 1, 5, 5, 10, 50, 10_000]);
        assert_eq!(
            [(2.0, 8.0), (2.0, 1200.0), (0.5, 0.5), (10.0, 10.0)].map(|(from, to)| decades(from, to)),
            [(0, 1), (0, 4), (-1, 0), (1, 2)]
        );
        assert_eq!([7, 2_500, 10_000, 2_000_000].map(short), ["7", "2.5k", "10k", "2M"]);
    }
}
