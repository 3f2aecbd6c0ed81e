//! Icons. Each stands beside a word that says the same, so screen readers skip it.

use maud::{Markup, PreEscaped, Render};

/// The inside of an SVG of 16 by 16 units, drawn with lines.
#[derive(Clone, Copy, Debug)]
pub struct Icon(&'static str);

pub const CHECK: Icon = Icon(r#"<path d="M3 8.5l3.5 3.5L13 4.5"/>"#);
pub const CROSS: Icon = Icon(r#"<path d="M4 4l8 8M12 4l-8 8"/>"#);
pub const CLOCK: Icon = Icon(r#"<circle cx="8" cy="8" r="6"/><path d="M8 4.5V8l2.5 1.5"/>"#);
pub const PAUSE: Icon = Icon(r#"<path d="M6 4v8M10 4v8"/>"#);
pub const OFF: Icon = Icon(r#"<path d="M8 2.5V8M4.5 4.5a5 5 0 1 0 7 0"/>"#);
pub const SKIP: Icon = Icon(r#"<path d="M3 4l6 4-6 4zM12 4v8"/>"#);
pub const WARNING: Icon = Icon(r#"<path d="M8 2.5l6 11H2zM8 7v3M8 11.8v.2"/>"#);
pub const FLASK: Icon = Icon(r#"<path d="M6.5 2.5h3M7 2.5V7l-3.5 6h9L9 7V2.5"/>"#);
pub const ARROW: Icon = Icon(r#"<path d="M3 8h10M9 4l4 4-4 4"/>"#);

impl Render for Icon {
    fn render(&self) -> Markup {
        PreEscaped(format!(
            r#"<svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">{}</svg>"#,
            self.0
        ))
    }
}
