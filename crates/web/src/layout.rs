//! The frame of a page: head, bar, search, notice.

use maud::{DOCTYPE, Markup, html};

use postrider_domain::access::Mode;
use postrider_domain::permission::Permission;
use postrider_domain::portal::Theme;

use crate::assets::{PORTAL_SCRIPT, SCRIPT, STYLE};
use crate::components::icon;
use crate::language::{self, say};
use crate::portal;
use crate::site::Site;
use crate::visit::Visit;

/// A section of the bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Overview,
    Deliveries,
    Events,
    Endpoints,
    EventTypes,
    Keys,
    Audit,
    Settings,
    Workspaces,
    Portal,
    /// The page is in none: an error, the result of a search.
    None,
}

impl Section {
    const BAR: [Self; 10] = [
        Self::Overview,
        Self::Deliveries,
        Self::Events,
        Self::Endpoints,
        Self::EventTypes,
        Self::Portal,
        Self::Keys,
        Self::Audit,
        Self::Settings,
        Self::Workspaces,
    ];

    pub fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Deliveries => say!("Deliveries"),
            Self::Events => "Events",
            Self::Endpoints => say!("Endpoints"),
            Self::EventTypes => say!("Event types"),
            Self::Keys => "Keys",
            Self::Audit => "Audit",
            Self::Settings => "Settings",
            Self::Workspaces => "Workspaces",
            Self::Portal => "Portal",
            Self::None => "",
        }
    }

    /// The path of its first page.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Overview | Self::None => "",
            Self::Deliveries => "/deliveries",
            Self::Events => "/events",
            Self::Endpoints => "/endpoints",
            Self::EventTypes => "/event-types",
            Self::Keys => "/keys",
            Self::Audit => "/audit",
            Self::Settings => "/settings",
            Self::Workspaces => "/workspaces",
            Self::Portal => "/portal-embed",
        }
    }

    /// What a visitor needs to open it. `None`: nothing but the session.
    pub const fn permission(self) -> Option<Permission> {
        match self {
            Self::Deliveries => Some(Permission::DeliveriesRead),
            Self::Events => Some(Permission::EventsRead),
            Self::Endpoints => Some(Permission::EndpointsRead),
            Self::Keys => Some(Permission::ApiKeysManage),
            Self::Audit => Some(Permission::AuditRead),
            Self::Workspaces => Some(Permission::WorkspacesManage),
            Self::Portal => Some(Permission::PortalCreate),
            Self::Overview | Self::EventTypes | Self::Settings | Self::None => None,
        }
    }
}

/// How a page looks, as the session and the URL say. The dashboard is as it is by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Whether it is a page of the portal, which looks as the settings say.
    pub is_portal: bool,
    pub theme: Theme,
    /// Without space around the content: the frame around the page has its own.
    pub is_flush: bool,
    /// Without the bar of the sections.
    pub is_without_bar: bool,
}

impl Look {
    /// The name on top of the page and at the end of its title.
    pub fn brand(self, site: &Site) -> &str {
        let own = site.portal.brand.as_deref().filter(|_| self.is_portal);
        own.unwrap_or_else(|| site.brand())
    }

    /// What the links of a page keep of its URL.
    pub fn kept(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let flush = self.is_flush.then_some(("gutters", "0"));
        flush.into_iter().chain(self.is_without_bar.then_some(("nav", "0")))
    }
}

/// What the frame of a page shows.
pub struct Frame<'v> {
    pub visit: &'v Visit,
    pub section: Section,
    pub title: &'v str,
}

impl Frame<'_> {
    /// Thing, section and brand.
    pub fn whole_title(&self) -> String {
        let parts = [self.title, self.section.title(), self.visit.look.brand(&self.visit.site)];
        let mut parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.dedup();
        parts.join(" · ")
    }
}

/// The whole page of a visitor with a session.
pub fn render(frame: &Frame<'_>, body: Markup) -> Markup {
    if !frame.visit.is_operator() {
        return portal::render(frame, body);
    }
    let Frame { visit, section, .. } = frame;
    let brand = visit.site.brand();
    document(
        &visit.site,
        &visit.look,
        &frame.whole_title(),
        html! {
            a.skip href="#content" { "Skip to the content" }
            header.bar {
                div.bar-row {
                    a.brand href=(visit.link("")) { (brand) }
                    @if visit.principal.tenant.mode == Mode::Test { span.badge.badge-test { (icon::FLASK) "Test mode" } }
                    (switch(visit))
                    form.search role="search" action=(visit.link("/search")) method="get" {
                        label.visually-hidden for="search" { "Find an id, an externalId or a host" }
                        input #search type="search" name="q" placeholder="Find an id, an externalId or a host" autocomplete="off" spellcheck="false" value=(visit.query.text("q").filter(|_| *section == Section::None).unwrap_or_default());
                        button type="submit" { "Find" }
                    }
                    form.sign-out action=(visit.link("/logout")) method="post" { button.quiet type="submit" { "Sign out" } }
                }
                nav.sections aria-label="Sections" {
                    @for item in Section::BAR {
                        @if item.permission().is_none_or(|permission| visit.may(permission)) {
                            a href=(visit.link(item.path())) aria-current=[(item == *section).then_some("page")] { (item.title()) }
                        }
                    }
                }
            }
            main #content tabindex="-1" data-stream={ (visit.base) "/live" } {
                (notice(visit))
                (body)
            }
        },
    )
}

/// The workspace, and the way to another one.
fn switch(visit: &Visit) -> Markup {
    let Some(workspaces) = &visit.workspaces else { return html! {} };
    html! {
        @if workspaces.others.is_empty() {
            a.workspace href=(visit.link("/workspaces")) { span.visually-hidden { "Workspace " } (workspaces.own) }
        } @else {
            form.switch action=(visit.link("/switch")) method="post" {
                label.visually-hidden for="switch" { "Workspace" }
                select #switch name="workspace" {
                    option value=(visit.principal.workspace_id) selected { (workspaces.own) }
                    @for (id, name) in &workspaces.others { option value=(id) { (name) } }
                }
                button.quiet type="submit" { "Switch" span.visually-hidden { " the workspace" } }
            }
        }
    }
}

/// A page without a visitor: signing in, or an error before that.
pub fn bare(site: &Site, look: &Look, title: &str, body: Markup) -> Markup {
    let brand = look.brand(site);
    document(
        site,
        look,
        &format!("{title} · {brand}"),
        html! {
            main.bare #content {
                p.brand { (logo(site, look)) (brand) }
                (body)
            }
        },
    )
}

/// The logo of the settings. The brand stands beside it, so it needs no words.
pub fn logo(site: &Site, look: &Look) -> Markup {
    let path = site.portal.logo_path().filter(|_| look.is_portal);
    html! { @if let Some(path) = path { img src={ (site.prefix) (path) } alt=""; } }
}

/// A page from its doctype to its end.
pub fn document(site: &Site, look: &Look, title: &str, body: Markup) -> Markup {
    let theme = Some(look.theme).filter(|theme| *theme != Theme::Auto).map(Theme::as_str);
    html! {
        (DOCTYPE)
        html lang=(language::locale().as_str()) data-theme=[theme] {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="stylesheet" href={ (site.prefix) (STYLE.path()) };
                @if let Some(path) = site.portal.style_path().filter(|_| look.is_portal) { link rel="stylesheet" href={ (site.prefix) (path) }; }
                link rel="icon" href="data:,";
                script src={ (site.prefix) (SCRIPT.path()) } defer {}
                @if look.is_portal { script src={ (site.prefix) (PORTAL_SCRIPT.path()) } defer {} }
            }
            body.flush[look.is_flush]
                data-copied=(say!("Copied")) data-select=(say!("Select and copy it"))
                data-signed-out=(say!("You are signed out. Load the page again."))
                data-upgraded=(say!("The server has been upgraded. Load the page again."))
                { (body) }
        }
    }
}

/// What the last POST has done, by the field `done` of the URL. Its words are ours: a link cannot put text on a page.
pub fn notice(visit: &Visit) -> Markup {
    let text = match visit.query.text("done").unwrap_or_default() {
        "created" => say!("Created."),
        "saved" => say!("Saved."),
        "tested" => say!("A test is on its way."),
        "deleted" => say!("Deleted."),
        "revoked" => "Revoked. The key stops working within 5 seconds.",
        "erasing" => "The content is being erased. This page says so once it is gone.",
        "retried" => say!("Queued again. The retry is a delivery of its own."),
        "skipped" => "Skipped. The order goes on with the next delivery.",
        "enabled" => say!("Switched on. What was waiting goes on."),
        "disabled" => say!("Switched off. New events are recorded as skipped; queued deliveries wait."),
        "started" => say!("Started."),
        "stopped" => say!("Stopped."),
        "ended" => "Ended. The session shows nothing any more.",
        "switched" => "You are in this workspace now.",
        "signed-in" => "You are signed in.",
        _ => return html! {},
    };
    html! { div.notice role="status" { (icon::CHECK) p { (text) } } }
}
