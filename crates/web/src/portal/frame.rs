//! The frame of the portal's pages: a title, the sections, no search and no sign-out.

use maud::{Markup, html};

use postrider_domain::access::Mode;

use crate::components::icon;
use crate::language::say;
use crate::layout::{self, Frame, Section};
use crate::visit::Visit;

const SECTIONS: [Section; 3] = [Section::Endpoints, Section::Deliveries, Section::EventTypes];

/// The whole page of a customer.
pub fn render(frame: &Frame<'_>, body: Markup) -> Markup {
    let Frame { visit, section, .. } = frame;
    let brand = visit.look.brand(&visit.site);
    layout::document(
        &visit.site,
        &visit.look,
        &frame.whole_title(),
        html! {
            a.skip href="#content" { (say!("Skip to the content")) }
            @if visit.look.is_without_bar {
                (test_badge(visit))
            } @else {
                header.bar {
                    div.bar-row {
                        a.brand href=(visit.link("")) { (layout::logo(&visit.site, &visit.look)) (brand) }
                        (test_badge(visit))
                    }
                    nav.sections aria-label=(say!("Sections")) {
                        @for item in SECTIONS {
                            @if item.permission().is_none_or(|permission| visit.may(permission)) {
                                a href=(visit.link(path(item))) aria-current=[(item == *section).then_some("page")] { (item.title()) }
                            }
                        }
                    }
                }
            }
            main #content tabindex="-1" {
                (layout::notice(visit))
                (body)
            }
        },
    )
}

fn test_badge(visit: &Visit) -> Markup {
    html! { @if visit.principal.tenant.mode == Mode::Test { span.badge.badge-test { (icon::FLASK) (say!("Test mode")) } } }
}

/// The first page of a section.
const fn path(section: Section) -> &'static str {
    match section {
        Section::EventTypes => "/events",
        other => other.path(),
    }
}
