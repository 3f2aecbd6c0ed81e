//! Access of commands to a store: through the admin socket of a running server, or by opening the store.

use std::sync::Arc;

use anyhow::{Context, bail};

use crate::clock::SystemClock;
use crate::config::Settings;
use crate::server::admin::{self, AdminError, AdminRequest, AdminResponse, Listing};
use crate::server::{Components, OpenedFor};
use postrider_domain::limits;

use super::options::DataOptions;

/// Sends the request to the server that holds the data directory. Without one, opens the store.
pub async fn perform(data: &DataOptions, request: AdminRequest) -> anyhow::Result<AdminResponse> {
    Access::new(data)?.perform_once(request).await
}

/// The way to a store for several requests. Opens the store at most once.
pub struct Access {
    settings: Settings,
    /// The store, once no server was found.
    opened: Option<Components>,
}

impl Access {
    pub fn new(data: &DataOptions) -> anyhow::Result<Self> {
        Ok(Self::of(data.settings()?))
    }

    pub const fn of(settings: Settings) -> Self {
        Self { settings, opened: None }
    }

    /// Performs a single request.
    pub async fn perform_once(mut self, request: AdminRequest) -> anyhow::Result<AdminResponse> {
        let response = self.perform(request).await;
        self.close().await;
        response
    }

    pub async fn perform(&mut self, request: AdminRequest) -> anyhow::Result<AdminResponse> {
        if let Some(components) = &self.opened {
            return Ok(admin::execute(&components.operator, request).await);
        }
        match admin::ask(&self.settings.admin_socket_path(), &request).await {
            Ok(response) => return Ok(response),
            Err(AdminError::NoServer) => {}
            Err(error) => return Err(error).context("cannot send the request to the running server"),
        }
        let components = Components::open(&self.settings, Arc::new(SystemClock), OpenedFor::Command).await?;
        let response = admin::execute(&components.operator, request).await;
        self.opened = Some(components);
        Ok(response)
    }

    /// Takes one step of the erasures if no server does: then the store is open here. Returns whether it did something.
    pub async fn advance_erasures(&self) -> anyhow::Result<bool> {
        let Some(components) = &self.opened else { return Ok(false) };
        Ok(components.operator.advance_erasures().await?.is_some_and(|done| done > 0))
    }

    /// Whether a server performs the requests.
    pub const fn has_server(&self) -> bool {
        self.opened.is_none()
    }

    pub async fn close(self) {
        if let Some(components) = self.opened {
            components.close().await;
        }
    }
}

/// Fetches all items page by page, or the newest `most` items.
pub async fn list<T>(
    data: &DataOptions,
    what: Listing,
    workspace: Option<String>,
    most: Option<usize>,
    items_of: impl Fn(AdminResponse) -> anyhow::Result<(Vec<T>, Option<String>)>,
) -> anyhow::Result<Vec<T>> {
    let (mut all, mut cursor) = (Vec::new(), None);
    let mut access = Access::new(data)?;
    loop {
        let left = most.map_or(u32::MAX, |most| u32::try_from(most - all.len()).unwrap_or(u32::MAX));
        let limit = left.min(limits::PAGE_MAX);
        let (since, until) = (None, None);
        let request = AdminRequest::List { what, workspace: workspace.clone(), limit, cursor, since, until };
        let (items, next) = items_of(access.perform(request).await?)?;
        all.extend(items);
        cursor = next;
        if cursor.is_none() || most.is_some_and(|most| all.len() >= most) {
            access.close().await;
            return Ok(all);
        }
    }
}

/// The error for any answer but the expected one: usually a refusal.
pub fn unexpected<T>(response: AdminResponse) -> anyhow::Result<T> {
    match response {
        AdminResponse::Refused { message } => bail!("{message}"),
        other => bail!("unexpected answer of the server: {other:?}"),
    }
}
