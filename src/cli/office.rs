//! How a command reaches a store, and how it prints a list.

use std::sync::Arc;

use anyhow::{Context, bail};

use crate::clock::SystemClock;
use crate::server::admin::{self, AdminError, AdminRequest, AdminResponse, Listing};
use crate::server::{Office, OpenedFor};
use postrider_domain::limits;

use super::options::DataOptions;

/// Asks the server that runs on this machine, or opens the store when there is none.
pub async fn perform(data: &DataOptions, request: AdminRequest) -> anyhow::Result<AdminResponse> {
    let settings = data.settings()?;
    match admin::ask(&settings.admin_socket_path(), &request).await {
        Ok(response) => return Ok(response),
        Err(AdminError::NoServer) => {}
        Err(error) => return Err(error).context("asking the running server"),
    }
    let office = Office::open(&settings, Arc::new(SystemClock), OpenedFor::Command).await?;
    let response = admin::execute(&office.operator, request).await;
    office.close().await;
    Ok(response)
}

/// Everything there is, page by page, or the newest `most` of it.
pub async fn list<T>(
    data: &DataOptions,
    what: Listing,
    workspace: Option<String>,
    most: Option<usize>,
    items_of: impl Fn(AdminResponse) -> anyhow::Result<(Vec<T>, Option<String>)>,
) -> anyhow::Result<Vec<T>> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let left = most.map_or(u32::MAX, |most| u32::try_from(most - all.len()).unwrap_or(u32::MAX));
        let limit = left.min(limits::PAGE_MAX);
        let request = AdminRequest::List { what, workspace: workspace.clone(), limit, cursor };
        let (items, next) = items_of(perform(data, request).await?)?;
        all.extend(items);
        cursor = next;
        if cursor.is_none() || most.is_some_and(|most| all.len() >= most) {
            return Ok(all);
        }
    }
}

/// For answers of another kind than was asked for: a refusal, told as the command's failure.
pub fn unexpected<T>(response: AdminResponse) -> anyhow::Result<T> {
    match response {
        AdminResponse::Refused { message } => bail!("{message}"),
        other => bail!("the server answered something else than was asked: {other:?}"),
    }
}

/// Prints a table whose columns are as wide as they must be. An empty cell is a dash.
pub fn print_rows<const COLUMNS: usize>(heads: &[&str; COLUMNS], rows: impl IntoIterator<Item = [String; COLUMNS]>) {
    let mut table = vec![heads.map(str::to_owned)];
    table.extend(rows);
    let mut widths = [0; COLUMNS];
    for row in &mut table {
        for (cell, width) in row.iter_mut().zip(&mut widths) {
            if cell.is_empty() {
                "-".clone_into(cell);
            }
            *width = cell.chars().count().max(*width);
        }
    }
    for row in table {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        println!("{}", line.trim_end());
    }
}
