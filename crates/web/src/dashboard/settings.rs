//! The settings of this server: value, source and default. They are changed where they come from, not here.

use axum::response::Response;
use maud::html;

use postrider_domain::permission::Permission;

use crate::failure::Failure;
use crate::layout::Section;
use crate::visit::Visit;

pub async fn show(visit: Visit) -> Result<Response, Failure> {
    let sees_server = visit.may(Permission::WorkspacesManage);
    let body = html! {
        h1 { "Settings" }
        p { "What this server runs with. Secrets are not shown. To change a setting, change where it comes from and start the server again." }
        @if !sees_server {
            p.soft { "Some values concern the whole server, with all its workspaces. They are shown to a sign-in with " code { "workspaces:manage" } "." }
        }
        div.table tabindex="0" role="region" aria-label="Settings" {
            table.stack {
                caption { "Settings of this server" }
                thead { tr { th scope="col" { "Setting" } th scope="col" { "Value" } th scope="col" { "Source" } th scope="col" { "Default" } } }
                tbody {
                    @for setting in visit.site.settings.iter() {
                        @let is_hidden = setting.is_of_server && !sees_server;
                        tr {
                            th scope="row" data-label="Setting" { code { (setting.name) } span.sub { (setting.help) } }
                            td data-label="Value" { @if is_hidden { span.soft { "not shown" } } @else { (setting.value) } }
                            td data-label="Source" { (setting.source) }
                            td data-label="Default" { (setting.default) }
                        }
                    }
                }
            }
        }
        footer.api-call { "The same at the command line: " code { "postrider config check" } }
    };
    Ok(visit.page(Section::Settings, "", body))
}
