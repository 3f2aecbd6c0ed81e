//! The audit log of a workspace.

use postrider_domain::access::Principal;
use postrider_domain::audit::{AuditEntry, AuditFilter};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::Permission;

use crate::error::ServiceError;
use crate::service::Service;

impl Service {
    /// The writes in the caller's workspace, by all authors. A test key reads only those of test keys.
    ///
    /// # Errors
    /// Without the scope.
    pub async fn list_audit(
        &self,
        principal: &Principal,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, ServiceError> {
        principal.require(Permission::AuditRead)?;
        Ok(self.store.list_audit(Some(principal.tenant), filter, page).await?)
    }
}
