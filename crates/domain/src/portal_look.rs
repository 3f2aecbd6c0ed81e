//! How an operator makes the portal look like his product: name, logo, accent colours, corners, font.

use std::fmt;

use super::invalid_field::InvalidField;

/// The settings of the look. What is not set stays as the server's own pages have it.
#[derive(Clone, Debug, Default)]
pub struct PortalLook {
    pub brand: Option<String>,
    pub logo: Option<Logo>,
    pub accent_light: Option<Accent>,
    pub accent_dark: Option<Accent>,
    /// The radius of corners, in pixels.
    pub radius: Option<u8>,
    pub font: PortalFont,
}

/// An image, shown by `img` alone: a script inside an SVG does not run there.
#[derive(Clone, Debug)]
pub struct Logo {
    pub content_type: &'static str,
    pub bytes: Vec<u8>,
}

impl Logo {
    /// # Errors
    /// When the file is larger than 64 KiB, or neither PNG nor SVG.
    pub fn read(bytes: Vec<u8>) -> Result<Self, InvalidField> {
        if bytes.len() > LOGO_BYTES {
            return Err(InvalidField("is larger than 64 KiB"));
        }
        let text = bytes.trim_ascii_start();
        let is_svg = std::str::from_utf8(&bytes).is_ok_and(|text| text.contains("<svg"))
            && (text.starts_with(b"<svg") || text.starts_with(b"<?xml") || text.starts_with(b"<!--"));
        let content_type = match () {
            () if bytes.starts_with(b"\x89PNG\r\n\x1a\n") => "image/png",
            () if is_svg => "image/svg+xml",
            () => return Err(InvalidField("is neither a PNG nor an SVG")),
        };
        Ok(Self { content_type, bytes })
    }
}

const LOGO_BYTES: usize = 64 * 1024;

/// A colour of links and buttons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accent {
    red: u8,
    green: u8,
    blue: u8,
}

/// The grounds on which an accent stands in the style sheet of the pages: page, panel, and the text on a button.
const LIGHT_GROUNDS: [Accent; 3] = [Accent::of(0xff_ffff), Accent::of(0xf6_f7f9), Accent::of(0xff_ffff)];
const DARK_GROUNDS: [Accent; 3] = [Accent::of(0x0f_1216), Accent::of(0x17_1b21), Accent::of(0x0b_1220)];

/// What WCAG 2 asks of text (1.4.3).
const CONTRAST_MIN: f64 = 4.5;

impl Accent {
    const fn of(hex: u32) -> Self {
        let [_, red, green, blue] = hex.to_be_bytes();
        Self { red, green, blue }
    }

    /// An accent for light pages.
    ///
    /// # Errors
    /// When the text is no colour, or its contrast is below 4.5 : 1.
    pub fn for_light(text: &str) -> Result<Self, String> {
        Self::parse(text)?.check(&LIGHT_GROUNDS)
    }

    /// An accent for dark pages.
    ///
    /// # Errors
    /// When the text is no colour, or its contrast is below 4.5 : 1.
    pub fn for_dark(text: &str) -> Result<Self, String> {
        Self::parse(text)?.check(&DARK_GROUNDS)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6);
        let hex = digits.filter(|digits| digits.bytes().all(|c| c.is_ascii_hexdigit()));
        let hex = hex.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        hex.map(Self::of).ok_or_else(|| "must be a colour like #1457c0".to_owned())
    }

    fn check(self, grounds: &[Self]) -> Result<Self, String> {
        let worst = grounds.iter().map(|ground| contrast(self, *ground)).fold(f64::INFINITY, f64::min);
        if worst >= CONTRAST_MIN {
            Ok(self)
        } else {
            // Rounded down: 4.5 must not be shown for what is refused.
            Err(format!("has a contrast of {:.1} : 1 to its ground, below 4.5 : 1", (worst * 10.0).floor() / 10.0))
        }
    }

    /// The relative luminance of WCAG 2.
    fn luminance(self) -> f64 {
        let linear = |channel: u8| {
            let value = f64::from(channel) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(self.red) + 0.7152 * linear(self.green) + 0.0722 * linear(self.blue)
    }
}

fn contrast(one: Accent, other: Accent) -> f64 {
    let (one, other) = (one.luminance(), other.luminance());
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

impl fmt::Display for Accent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

/// Stacks of fonts that systems have. No font is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortalFont {
    #[default]
    System,
    Humanist,
    Geometric,
    Serif,
}

impl PortalFont {
    pub const ALL: [Self; 4] = [Self::System, Self::Humanist, Self::Geometric, Self::Serif];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Humanist => "humanist",
            Self::Geometric => "geometric",
            Self::Serif => "serif",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|font| font.as_str() == text)
    }

    /// As CSS has it.
    pub const fn stack(self) -> &'static str {
        match self {
            Self::System => r#"system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif"#,
            Self::Humanist => r#"Seravek, "Gill Sans Nova", Ubuntu, Calibri, "DejaVu Sans", sans-serif"#,
            Self::Geometric => r#"Avenir, Montserrat, Corbel, "URW Gothic", source-sans-pro, sans-serif"#,
            Self::Serif => r#"Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif"#,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accent_that_is_hard_to_read_is_refused() {
        assert!(Accent::for_light("#1457c0").is_ok() && Accent::for_dark("#7fb2ff").is_ok());
        assert_eq!(Accent::for_light("#ffffff").unwrap_err(), "has a contrast of 1.0 : 1 to its ground, below 4.5 : 1");
        assert!(Accent::for_dark("#1457c0").is_err() && Accent::for_light("#7fb2ff").is_err());
        for bad in ["", "1457c0", "#1457c", "#1457cg", "red", "#1457c0;}"] {
            assert!(Accent::for_light(bad).is_err(), "{bad}");
        }
        assert!((contrast(Accent::of(0), Accent::of(0xff_ffff)) - 21.0).abs() < 1e-9);
    }

    #[test]
    fn a_logo_is_a_small_png_or_svg() {
        assert_eq!(Logo::read(b"\x89PNG\r\n\x1a\nrest".to_vec()).unwrap().content_type, "image/png");
        assert_eq!(Logo::read(b"<svg xmlns='x'/>".to_vec()).unwrap().content_type, "image/svg+xml");
        for bad in [&b"<html><svg>"[..], b"GIF89a", b"", &[0; LOGO_BYTES + 1]] {
            assert!(Logo::read(bad.to_vec()).is_err());
        }
    }
}
