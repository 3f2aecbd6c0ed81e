//! Lists of endpoints, and their names and addresses for rows of the log.

use rusqlite::{Connection, Row, params_from_iter};

use postrider_domain::endpoint::{Endpoint, EndpointFilter, EndpointLabel};
use postrider_domain::id::EndpointId;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::tenant::Tenant;
use postrider_store::column::mode_code;
use postrider_store::registry::endpoint::{is_in_state, url_ranges};

use super::endpoint::{ENDPOINT_COLUMNS, SHOWN_FROM, shown_from_row};
use crate::log::conditions::Conditions;
use crate::machinery::column::parsed;
use crate::queue::endpoint_health::HEALTH_COLUMNS;

/// Host and port of a URL in its canonical form: what stands between `//` and the first of `/` and `?`.
const AUTHORITY: &str = "substr(substr(url, instr(url, '//') + 2), 1,
        instr(replace(substr(url, instr(url, '//') + 2), '?', '/') || '/', '/') - 1)";

pub fn list(
    connection: &Connection,
    tenant: Tenant,
    filter: &EndpointFilter,
    page: PageRequest,
) -> Result<Page<Endpoint>, rusqlite::Error> {
    let mut conditions = of_tenant(tenant);
    conditions.and_text("deleted_at IS NULL");
    conditions.and("key < ?", page.before().as_i64());
    conditions.and_any("project_id", filter.project_ids.iter().map(|project| project.as_str().to_owned()));
    if let Some(is_active) = filter.is_active {
        conditions.and("is_active = ?", is_active);
    }
    conditions.and_one(
        "instr(' ' || events || ' ', ' ' || ? || ' ') > 0",
        filter.event_types.iter().map(ToString::to_string),
    );
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
        let texts = format!("instr(lower(name) || char(10) || lower({AUTHORITY}), ?) > 0");
        conditions.and(&texts, text.as_str().to_owned());
    }
    conditions.push(i64::from(page.limit()) + 1);
    let Conditions { text, values } = conditions;
    let sql =
        format!("SELECT {ENDPOINT_COLUMNS}, {HEALTH_COLUMNS} {SHOWN_FROM} WHERE {text} ORDER BY key DESC LIMIT ?");
    let items = connection
        .prepare_cached(&sql)?
        .query_map(params_from_iter(values), shown_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |endpoint| endpoint.key))
}

/// Deleted endpoints too: the log still refers to them.
pub fn labels(
    connection: &Connection,
    tenant: Tenant,
    ids: &[EndpointId],
) -> Result<Vec<EndpointLabel>, rusqlite::Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut conditions = of_tenant(tenant);
    conditions.and_any("id", ids.iter().map(ToString::to_string));
    let Conditions { text, values } = conditions;
    connection
        .prepare_cached(&format!("SELECT {LABEL_COLUMNS} FROM endpoints INDEXED BY {UNIQUE_ID} WHERE {text}"))?
        .query_map(params_from_iter(values), label_from_row)?
        .collect()
}

pub fn of_host(
    connection: &Connection,
    tenant: Tenant,
    host: &str,
    limit: u32,
) -> Result<Vec<EndpointLabel>, rusqlite::Error> {
    let mut found = Vec::new();
    for (start, behind) in url_ranges(host) {
        let mut conditions = of_tenant(tenant);
        conditions.and_text("deleted_at IS NULL");
        conditions.and("substr(url, 1, 300) >= ?", start);
        conditions.and("substr(url, 1, 300) < ?", behind);
        conditions.push(limit);
        let Conditions { text, values } = conditions;
        let sql =
            format!("SELECT {LABEL_COLUMNS}, key FROM endpoints INDEXED BY endpoints_by_url WHERE {text} LIMIT ?");
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement
            .query_map(params_from_iter(values), |row| Ok((row.get::<_, i64>("key")?, label_from_row(row)?)))?;
        found.extend(rows.collect::<Result<Vec<_>, _>>()?);
    }
    found.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
    Ok(found.into_iter().map(|(_, label)| label).take(limit.try_into().unwrap_or(usize::MAX)).collect())
}

/// The index of the column `id`, which is unique.
const UNIQUE_ID: &str = "sqlite_autoindex_endpoints_1";
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

fn label_from_row(row: &Row<'_>) -> Result<EndpointLabel, rusqlite::Error> {
    Ok(EndpointLabel {
        id: parsed(row, "id")?,
        name: row.get("name")?,
        url: row.get("url")?,
        is_deleted: row.get("is_deleted")?,
    })
}
