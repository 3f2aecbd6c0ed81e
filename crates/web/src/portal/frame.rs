//! The frame of the portal's pages: a title, the sections, no search and no sign-out.

use maud::{Markup, html};

use postrider_domain::access::Mode;
use postrider_domain::time::Timestamp;

use crate::answer::Framing;
use crate::components::icon;
use crate::language::say;
use crate::layout::{self, Frame, Section};
use crate::site::Site;
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
            main #content tabindex="-1" data-stream={ (visit.base) "/live" } {
                (layout::notice(visit))
                (body)
            }
            (session(visit))
        },
    )
}

/// What the script tells the page around the frame: until when the session lasts, and who may hear it.
fn session(visit: &Visit) -> Markup {
    let expires_at = visit.principal.expires_at;
    html! {
        div #portal-session hidden data-base=(visit.base) data-portal={ (visit.site.prefix) "/portal/" }
            data-ancestors=(visit.framing.ancestors)
            data-seconds-left=[expires_at.map(|at| seconds_left(at, visit.now()))]
            data-expires-at=[expires_at]
            data-ended-text=(say!("Your session has ended. What you typed stays here until the session is renewed.")) {}
    }
}

/// Seconds until the session ends, at most a minute too few. They change once a minute: a page that is refreshed stays
/// the same in between.
fn seconds_left(expires_at: Timestamp, now: Timestamp) -> u64 {
    const MINUTE_MS: i64 = 60_000;
    let minutes = now.millis().div_euclid(MINUTE_MS) + i64::from(now.millis().rem_euclid(MINUTE_MS) > 0);
    expires_at.since(Timestamp::from_millis(minutes * MINUTE_MS)).as_secs()
}

/// As [`session`], for a page without one. `ended`: the page around should open a new one.
pub fn no_session(site: &Site, framing: &Framing, ended: bool) -> Markup {
    html! {
        div #portal-session hidden data-portal={ (site.prefix) "/portal/" } data-ancestors=(framing.ancestors)
            data-ended[ended] {}
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_session_is_told_by_the_minute() {
        let left = |now| seconds_left(Timestamp::from_millis(600_000), Timestamp::from_millis(now));
        assert_eq!([left(0), left(1), left(59_999), left(60_000)], [600, 540, 540, 540]);
        assert_eq!([left(540_001), left(600_000), left(900_000)], [0, 0, 0]);
    }
}
