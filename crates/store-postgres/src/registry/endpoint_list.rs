//! Lists of endpoints, and their names and addresses for rows of the log.

use tokio_postgres::Row;

use postrider_domain::endpoint::{Endpoint, EndpointFilter, EndpointLabel};
use postrider_domain::id::EndpointId;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::tenant::Tenant;
use postrider_store::column::mode_code;
use postrider_store::registry::endpoint::{is_in_state, url_ranges};

use super::endpoint::{ENDPOINT_COLUMNS, SHOWN_FROM, shown_from_row};
use crate::log::conditions::Conditions;
use crate::machinery::column::{get, int, parsed};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::queue::endpoint_health::HEALTH_COLUMNS;

/// Host and port of a URL in its canonical form: what stands between `//` and the first of `/` and `?`. The latter is
/// written as a number, because it marks a value in a condition.
const AUTHORITY: &str = "split_part(split_part(split_part(url, '//', 2), '/', 1), chr(63), 1)";

pub async fn list(
    session: &Session,
    tenant: Tenant,
    filter: &EndpointFilter,
    page: PageRequest,
) -> Result<Page<Endpoint>, PgError> {
    let mut conditions = of_tenant(tenant);
    conditions.and_text("deleted_at IS NULL");
    conditions.and("key < ?", page.before().as_i64());
    conditions.and_any_text("project_id", filter.project_ids.iter().map(|project| project.as_str().to_owned()));
    if let Some(is_active) = filter.is_active {
        conditions.and("is_active = ?", is_active);
    }
    if !filter.event_types.is_empty() {
        let names: Vec<String> = filter.event_types.iter().map(ToString::to_string).collect();
        conditions.and("string_to_array(events, ' ') && ?", names);
    }
    if let Some(event) = filter.not_reached_by {
        let reached = "key NOT IN (SELECT endpoint_key FROM deliveries WHERE event_key = ?)";
        conditions.and(reached, event.key().as_i64());
    }
    if let Some(are_listeners) = filter.are_listeners {
        conditions.and_text(if are_listeners { "last_seen_at IS NOT NULL" } else { "last_seen_at IS NULL" });
    }
    if let Some(condition) = is_in_state(&filter.states) {
        conditions.and_text(&condition);
    }
    if let Some(text) = &filter.text {
        // As SQLite: only ASCII letters have a lower case here.
        let texts = format!("strpos(lower((name || chr(10) || {AUTHORITY}) COLLATE \"C\"), ?) > 0");
        conditions.and(&texts, text.as_str().to_owned());
    }
    let limit = conditions.value(i64::from(page.limit()) + 1);
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, {HEALTH_COLUMNS} {SHOWN_FROM} WHERE {} ORDER BY key DESC LIMIT {limit}",
        conditions.text()
    );
    let rows = session.query(&sql, &conditions.values()).await?;
    let items = rows.iter().map(shown_from_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |endpoint| endpoint.key))
}

/// Deleted endpoints too: the log still refers to them.
pub async fn labels(session: &Session, tenant: Tenant, ids: &[EndpointId]) -> Result<Vec<EndpointLabel>, PgError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut conditions = Conditions::default();
    // Only the index of the ids fits.
    conditions.and("workspace_key + 0 = ?", tenant.workspace.as_i64());
    conditions.and("mode + 0 = ?", mode_code(tenant.mode));
    if let Some(project) = tenant.project {
        conditions.and("COALESCE(project_id, '') = ?", project.as_str().to_owned());
    }
    conditions.and_any_text("id", ids.iter().map(ToString::to_string));
    let sql = format!("SELECT {LABEL_COLUMNS} FROM endpoints WHERE {}", conditions.text());
    let rows = session.query(&sql, &conditions.values()).await?;
    rows.iter().map(label_from_row).collect()
}

pub async fn of_host(session: &Session, tenant: Tenant, host: &str, limit: u32) -> Result<Vec<EndpointLabel>, PgError> {
    const START: &str = "substr(url, 1, 300) COLLATE \"C\"";
    let mut found = Vec::new();
    for (start, behind) in url_ranges(host) {
        let mut conditions = of_tenant(tenant);
        conditions.and_text("deleted_at IS NULL");
        conditions.and(&format!("{START} >= ?"), start);
        conditions.and(&format!("{START} < ?"), behind);
        let limit = conditions.value(i64::from(limit));
        let sql = format!(
            "SELECT {LABEL_COLUMNS}, key FROM endpoints WHERE {} ORDER BY {START} LIMIT {limit}",
            conditions.text()
        );
        for row in session.query(&sql, &conditions.values()).await? {
            found.push((int(&row, "key")?, label_from_row(&row)?));
        }
    }
    found.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
    Ok(found.into_iter().map(|(_, label)| label).take(limit.try_into().unwrap_or(usize::MAX)).collect())
}

const LABEL_COLUMNS: &str = "id, name, url, deleted_at IS NOT NULL AS is_deleted";

fn of_tenant(tenant: Tenant) -> Conditions {
    let mut conditions = Conditions::default();
    conditions.and("workspace_key = ?", tenant.workspace.as_i64());
    conditions.and("mode = ?", mode_code(tenant.mode));
    if let Some(project) = tenant.project {
        conditions.and("project_id = ?", project.as_str().to_owned());
    }
    conditions
}

fn label_from_row(row: &Row) -> Result<EndpointLabel, PgError> {
    Ok(EndpointLabel {
        id: parsed(row, "id")?,
        name: get(row, "name")?,
        url: get(row, "url")?,
        is_deleted: get(row, "is_deleted")?,
    })
}
