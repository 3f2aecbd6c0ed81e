//! The settings of the portal, a part of the table of settings.

use postrider_domain::portal_look::{FontStack, PAGE_DARK, PAGE_LIGHT, PortalBrand, Radius};

use super::setting_value::{accent, field_fault, frame_ancestor, items, path, set, shown_path};
use super::settings::{PLAIN, Setting};

pub const FRAME_ANCESTORS: Setting = Setting {
    name: "portal_frame_ancestors",
    flag: "portal-frame-ancestors",
    env: "POSTRIDER_PORTAL_FRAME_ANCESTORS",
    value_name: "ORIGIN",
    help: "Origin whose pages may show the portal in a frame, like https://app.example.com. Repeatable",
    otherwise: Some("none"),
    is_list: true,
    read: |settings, text| set(&mut settings.portal.frame_ancestors, items(text, frame_ancestor)),
    show: |settings| settings.portal.frame_ancestors.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    ..PLAIN
};

pub const BRAND: Setting = Setting {
    name: "portal_brand",
    flag: "portal-brand",
    env: "POSTRIDER_PORTAL_BRAND",
    value_name: "TEXT",
    help: "Name on top of the portal",
    otherwise: Some("the brand of the event catalogue"),
    read: |settings, text| {
        set(&mut settings.portal.look.brand, PortalBrand::parse(text).map(Some).map_err(field_fault))
    },
    show: |settings| settings.portal.look.brand.as_ref().map(|brand| brand.as_str().to_owned()).unwrap_or_default(),
    ..PLAIN
};

pub const LOGO: Setting = Setting {
    name: "portal_logo",
    flag: "portal-logo",
    env: "POSTRIDER_PORTAL_LOGO",
    value_name: "FILE",
    help: "Logo beside the name, a PNG or SVG of at most 64 KiB",
    otherwise: Some("none"),
    read: |settings, text| set(&mut settings.portal.logo_file, path(text).map(Some)),
    show: |settings| shown_path(settings.portal.logo_file.as_ref()),
    ..PLAIN
};

pub const ACCENT_LIGHT: Setting = Setting {
    name: "portal_accent_light",
    flag: "portal-accent-light",
    env: "POSTRIDER_PORTAL_ACCENT_LIGHT",
    value_name: "COLOUR",
    help: "Colour of the portal's links and buttons on a light page, like #1457c0",
    otherwise: Some("#1457c0"),
    read: |settings, text| set(&mut settings.portal.look.accent_light, accent(text, PAGE_LIGHT)),
    show: |settings| settings.portal.look.accent_light.map(|colour| colour.to_string()).unwrap_or_default(),
    ..PLAIN
};

pub const ACCENT_DARK: Setting = Setting {
    name: "portal_accent_dark",
    flag: "portal-accent-dark",
    env: "POSTRIDER_PORTAL_ACCENT_DARK",
    value_name: "COLOUR",
    help: "The same on a dark page, like #7fb2ff",
    otherwise: Some("#7fb2ff"),
    read: |settings, text| set(&mut settings.portal.look.accent_dark, accent(text, PAGE_DARK)),
    show: |settings| settings.portal.look.accent_dark.map(|colour| colour.to_string()).unwrap_or_default(),
    ..PLAIN
};

pub const RADIUS: Setting = Setting {
    name: "portal_radius",
    flag: "portal-radius",
    env: "POSTRIDER_PORTAL_RADIUS",
    value_name: "PIXELS",
    help: "Radius of the portal's corners, 0px to 24px",
    otherwise: Some("8px"),
    read: |settings, text| set(&mut settings.portal.look.radius, Radius::parse(text).map(Some).map_err(field_fault)),
    show: |settings| settings.portal.look.radius.map(|radius| format!("{}px", radius.pixels())).unwrap_or_default(),
    ..PLAIN
};

pub const FONT: Setting = Setting {
    name: "portal_font",
    flag: "portal-font",
    env: "POSTRIDER_PORTAL_FONT",
    value_name: "NAME",
    help: "Font of the portal: system, humanist, geometric, grotesque, rounded, serif or mono",
    otherwise: Some("system"),
    read: |settings, text| set(&mut settings.portal.look.font, FontStack::parse(text).map(Some).map_err(field_fault)),
    show: |settings| settings.portal.look.font.map(|font| font.as_str().to_owned()).unwrap_or_default(),
    ..PLAIN
};
