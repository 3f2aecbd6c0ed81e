//! How the operator lets the portal look: brand, logo, accent colours, corners, font.
//!
//! A colour that would be hard to read on the page is refused, so that no setting breaks the pages for some readers.

use std::fmt;

use super::invalid_field::InvalidField;
use super::limits;

/// The look of the settings. What is absent stays as it is by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortalLook {
    pub brand: Option<PortalBrand>,
    pub logo: Option<PortalLogo>,
    pub accent_light: Option<Colour>,
    pub accent_dark: Option<Colour>,
    pub radius: Option<Radius>,
    pub font: Option<FontStack>,
}

/// The background of the pages in the light and in the dark scheme.
pub const PAGE_LIGHT: Colour = Colour([0xff, 0xff, 0xff]);
pub const PAGE_DARK: Colour = Colour([0x0f, 0x12, 0x16]);

/// The name on top of the pages, in place of that of the event catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalBrand(String);

impl PortalBrand {
    /// # Errors
    /// When it is empty, too long, or holds characters that steer text.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let is_plain = !text.chars().any(super::visible::is_unprintable) && text.trim() == text;
        if is_plain && (1..=limits::PORTAL_BRAND_CHARS).contains(&text.chars().count()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidField("must be a name of 1 to 64 characters on one line"))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A colour of three bytes: red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colour([u8; 3]);

/// Why a colour is no accent.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum InvalidAccent {
    #[error("must be a colour like #1457c0")]
    NotAColour,
    #[error("has a contrast of {ratio} : 1 against the page's background {background}, and needs at least 4.5 : 1")]
    LowContrast { ratio: Ratio, background: Colour },
}

/// The contrast of two colours, as WCAG defines it: from 1 to 21.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Ratio(f64);

/// The least contrast of text (WCAG 2.2, 1.4.3).
const TEXT_CONTRAST: Ratio = Ratio(4.5);

impl Colour {
    /// `#rgb` or `#rrggbb`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let byte = |digits: &str| u8::from_str_radix(digits, 16).ok();
        match digits.len() {
            // Each digit stands for two.
            3 => Some(Self([byte(&digits[..1])? * 17, byte(&digits[1..2])? * 17, byte(&digits[2..])? * 17])),
            6 => Some(Self([byte(&digits[..2])?, byte(&digits[2..4])?, byte(&digits[4..])?])),
            _ => None,
        }
    }

    /// A colour of links and buttons on this background.
    ///
    /// # Errors
    /// When it is no colour, or text in it is hard to read there.
    pub fn parse_accent(text: &str, background: Self) -> Result<Self, InvalidAccent> {
        let colour = Self::parse(text).ok_or(InvalidAccent::NotAColour)?;
        let ratio = colour.contrast(background);
        if ratio < TEXT_CONTRAST { Err(InvalidAccent::LowContrast { ratio, background }) } else { Ok(colour) }
    }

    pub fn contrast(self, other: Self) -> Ratio {
        let (one, other) = (self.luminance(), other.luminance());
        let (lighter, darker) = if one > other { (one, other) } else { (other, one) };
        Ratio((lighter + 0.05) / (darker + 0.05))
    }

    /// The relative luminance of WCAG: 0 for black, 1 for white.
    fn luminance(self) -> f64 {
        let [red, green, blue] = self.0.map(|byte| {
            let part = f64::from(byte) / 255.0;
            if part <= 0.040_45 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        });
        0.2126_f64.mul_add(red, 0.7152_f64.mul_add(green, 0.0722 * blue))
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

impl fmt::Display for Ratio {
    /// Rounded down, so that a ratio which is too low never looks like the least one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", (self.0 * 100.0).floor() / 100.0)
    }
}

/// The radius of corners in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Radius(u8);

impl Radius {
    /// # Errors
    /// When it is no whole number of pixels, or too large for a field.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let pixels = text.strip_suffix("px").unwrap_or(text).parse().ok().filter(|px| *px <= limits::PORTAL_RADIUS_PX);
        pixels.map(Self).ok_or(InvalidField("must be 0px to 24px"))
    }

    pub const fn pixels(self) -> u8 {
        self.0
    }
}

/// Fonts that the reader's system has: nothing is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FontStack {
    System,
    Humanist,
    Geometric,
    Grotesque,
    Rounded,
    Serif,
    Mono,
}

impl FontStack {
    pub const ALL: [Self; 7] =
        [Self::System, Self::Humanist, Self::Geometric, Self::Grotesque, Self::Rounded, Self::Serif, Self::Mono];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Humanist => "humanist",
            Self::Geometric => "geometric",
            Self::Grotesque => "grotesque",
            Self::Rounded => "rounded",
            Self::Serif => "serif",
            Self::Mono => "mono",
        }
    }

    /// # Errors
    /// When the name is none of [`Self::ALL`].
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        const FAULT: InvalidField =
            InvalidField("must be system, humanist, geometric, grotesque, rounded, serif or mono");
        Self::ALL.into_iter().find(|font| font.as_str() == text).ok_or(FAULT)
    }

    /// The value of `font-family`.
    pub const fn families(self) -> &'static str {
        match self {
            Self::System => {
                "system-ui, -apple-system, \"Segoe UI\", Roboto, \"Noto Sans\", \"DejaVu Sans\", sans-serif"
            }
            Self::Humanist => {
                "Seravek, \"Gill Sans Nova\", Ubuntu, Calibri, \"DejaVu Sans\", source-sans-pro, sans-serif"
            }
            Self::Geometric => "Avenir, Montserrat, Corbel, \"URW Gothic\", source-sans-pro, sans-serif",
            Self::Grotesque => "Inter, Roboto, \"Helvetica Neue\", \"Arial Nova\", \"Nimbus Sans\", Arial, sans-serif",
            Self::Rounded => {
                "ui-rounded, \"Hiragino Maru Gothic ProN\", Quicksand, Comfortaa, Manjari, \"Arial Rounded MT\", \
                 Calibri, source-sans-pro, sans-serif"
            }
            Self::Serif => "Charter, \"Bitstream Charter\", \"Sitka Text\", Cambria, serif",
            Self::Mono => {
                "ui-monospace, \"SF Mono\", \"Cascadia Code\", \"DejaVu Sans Mono\", Menlo, Consolas, monospace"
            }
        }
    }
}

/// The picture beside the brand. Pages show it as an image only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortalLogo {
    pub kind: LogoKind,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoKind {
    Png,
    Svg,
}

/// Why a file is no logo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLogo {
    #[error("has more than 65536 bytes")]
    TooLarge,
    #[error("is neither a PNG nor an SVG")]
    UnknownKind,
}

impl PortalLogo {
    /// Reads the kind from the content; a file's name says nothing sure.
    ///
    /// # Errors
    /// When it is too large or of another kind.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, InvalidLogo> {
        if bytes.len() > limits::PORTAL_LOGO_BYTES {
            return Err(InvalidLogo::TooLarge);
        }
        let kind = if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            LogoKind::Png
        } else if std::str::from_utf8(&bytes).is_ok_and(is_svg) {
            LogoKind::Svg
        } else {
            return Err(InvalidLogo::UnknownKind);
        };
        Ok(Self { kind, bytes })
    }
}

/// Whether the first element of a document is `svg`. What it holds runs nowhere: browsers run no script in an image.
fn is_svg(text: &str) -> bool {
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    for (open, close) in [("<?", "?>"), ("<!--", "-->"), ("<!", ">"), ("<!--", "-->")] {
        while let Some(inner) = rest.strip_prefix(open) {
            let Some((_, after)) = inner.split_once(close) else { return false };
            rest = after.trim_start();
        }
    }
    rest.strip_prefix("<svg").is_some_and(|after| after.starts_with([' ', '\t', '\n', '\r', '>', '/']))
}

impl LogoKind {
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Svg => "svg",
        }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Svg => "image/svg+xml",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contrast_is_that_of_wcag() {
        let ratio = |one: &str, other: &str| Colour::parse(one).unwrap().contrast(Colour::parse(other).unwrap());
        assert_eq!(ratio("#000", "#fff").to_string(), "21.00");
        assert_eq!(ratio("#123456", "#123456").to_string(), "1.00");
        // The greys that are known as the last one that passes on white, and the first one that does not.
        assert_eq!(ratio("#767676", "#ffffff").to_string(), "4.54");
        assert_eq!(ratio("#777777", "#ffffff").to_string(), "4.47");
    }

    #[test]
    fn an_accent_is_refused_just_below_the_least_contrast() {
        assert_eq!(Colour::parse_accent("#767676", PAGE_LIGHT).unwrap().to_string(), "#767676");
        assert_eq!(
            Colour::parse_accent("#777", PAGE_LIGHT).unwrap_err().to_string(),
            "has a contrast of 4.47 : 1 against the page's background #ffffff, and needs at least 4.5 : 1"
        );
        assert!(Colour::parse_accent("#7fb2ff", PAGE_DARK).is_ok());
        assert!(Colour::parse_accent("#1457c0", PAGE_DARK).is_err(), "the light accent on the dark page");
        let almost = InvalidAccent::LowContrast { ratio: Ratio(4.499_9), background: PAGE_LIGHT };
        assert!(almost.to_string().starts_with("has a contrast of 4.49 : 1"), "{almost}");
        for bad in ["", "#", "#12", "#1234", "#12345g", "1457c0", "red", "#1457c0;}", "#ééé"] {
            assert_eq!(Colour::parse_accent(bad, PAGE_LIGHT), Err(InvalidAccent::NotAColour), "{bad}");
        }
    }

    #[test]
    fn radius_font_and_brand_have_edges() {
        for (text, pixels) in
            [("0", Some(0)), ("24px", Some(24)), ("25px", None), ("-1", None), ("1em", None), ("", None)]
        {
            assert_eq!(Radius::parse(text).ok().map(Radius::pixels), pixels, "{text}");
        }
        for font in FontStack::ALL {
            assert_eq!(FontStack::parse(font.as_str()), Ok(font));
        }
        assert!(FontStack::parse("Comic Sans MS").is_err());
        assert_eq!(PortalBrand::parse("Añb & Co.").unwrap().as_str(), "Añb & Co.");
        assert!(PortalBrand::parse(&"é".repeat(64)).is_ok());
        for bad in ["", " x", "a\nb", "a\u{202e}b", &"x".repeat(65)] {
            assert!(PortalBrand::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_logo_is_known_by_its_content() {
        let kind = |bytes: &[u8]| PortalLogo::parse(bytes.to_vec()).map(|logo| logo.kind);
        assert_eq!(kind(b"\x89PNG\r\n\x1a\n\0\0"), Ok(LogoKind::Png));
        for svg in [
            "<svg xmlns=\"http://www.w3.org/2000/svg\"/>",
            "\u{feff}<?xml version=\"1.0\"?>\n<!-- a --><!DOCTYPE svg>\n<svg>",
            "<!-- a --><!-- b -->\n<svg/>",
        ] {
            assert_eq!(kind(svg.as_bytes()), Ok(LogoKind::Svg), "{svg}");
        }
        for bad in [&b""[..], b"GIF89a", b"<html><svg>", b"<svgx>", b"\xff\xfe<svg>", b"<!-- <svg>", b"\x89PNG"] {
            assert_eq!(kind(bad), Err(InvalidLogo::UnknownKind), "{}", String::from_utf8_lossy(bad));
        }
        let mut largest = b"\x89PNG\r\n\x1a\n".to_vec();
        largest.resize(limits::PORTAL_LOGO_BYTES, 0);
        assert!(kind(&largest).is_ok());
        largest.push(0);
        assert_eq!(kind(&largest), Err(InvalidLogo::TooLarge));
    }
}
