//! The audit log, as a customer asks it.

use postrider_domain::access::{Principal, needs};
use postrider_domain::audit::{AuditEntry, AuditFilter};
use postrider_domain::page::{Page, PageRequest};

use super::{Service, ServiceError};

impl Service {
    /// What was written in the caller's workspace, whoever wrote it.
    ///
    /// # Errors
    /// Without the scope.
    pub async fn list_audit(
        &self,
        principal: &Principal,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, ServiceError> {
        principal.require(needs::AUDIT_READ)?;
        Ok(self.store.list_audit(Some(principal.workspace_key), filter, page).await?)
    }
}
