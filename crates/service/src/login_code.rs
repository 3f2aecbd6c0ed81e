//! Login codes: how an operator at the machine signs in to the dashboard without an API key.

use std::fmt;

use postrider_domain::access::{Mode, OPERATIONS_KEY, Scope, Scopes};
use postrider_domain::audit::Author;
use postrider_domain::id::SessionId;
use postrider_domain::limits;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::NewLoginCode;

use crate::error::ServiceError;
use crate::operator::Operator;

/// What the session of a login code may do.
#[derive(Clone, Debug)]
pub struct CreateLoginCode {
    /// Name or id of the workspace. `None` means the server's own workspace.
    pub workspace: Option<String>,
    /// `None` means all scopes except `workspaces:manage`. In the server's own workspace it means all reading scopes.
    pub scopes: Option<Scopes>,
    pub mode: Mode,
}

/// A login code with its plaintext, which is shown only now.
pub struct LoginCode {
    pub code: String,
    pub expires_at: Timestamp,
    pub scopes: Scopes,
}

/// Shows everything but the code.
impl fmt::Debug for LoginCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginCode").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl Operator {
    /// Creates a code that signs in once, within [`limits::LOGIN_CODE_LIFETIME`].
    ///
    /// # Errors
    /// When there is no such workspace, or when its sessions cannot have these scopes or this mode.
    pub async fn create_login_code(&self, create: CreateLoginCode) -> Result<LoginCode, ServiceError> {
        let CreateLoginCode { workspace, scopes, mode } = create;
        let (workspace, is_operations) = self.workspace_of_session(workspace.as_deref()).await?;
        let scopes = if is_operations {
            scopes_in_operations(scopes, mode)?
        } else {
            scopes.unwrap_or_else(|| Scopes::of(&Scope::ALL).without(Scopes::of(&[Scope::WorkspacesManage])))
        };
        if !scopes.exist_in(mode) {
            return Err(ServiceError::unprocessable("scopes", "workspaces:manage exists only in live mode"));
        }
        let (code, hash) = self.service.new_login_code();
        let new = NewLoginCode {
            hash,
            session_id: SessionId::from_letters(self.service.random.alphanumeric()),
            tenant: Tenant { mode, ..workspace },
            scopes,
            lifetime: limits::LOGIN_CODE_LIFETIME,
            limit: limits::LOGIN_CODES_PER_WORKSPACE,
            author: Author { mode, ..Author::COMMAND_LINE },
        };
        let expires_at = self.store.create_login_code(new).await?.ok_or(ServiceError::NotFound)?;
        Ok(LoginCode { code, expires_at, scopes })
    }

    /// The tenant of the workspace, and whether it is the server's own.
    async fn workspace_of_session(&self, name_or_id: Option<&str>) -> Result<(Tenant, bool), ServiceError> {
        let operations = self.store.find_operations_workspace().await?;
        let live = |workspace| Tenant::whole(workspace, Mode::Live);
        let tenant = match (name_or_id, &operations) {
            (None, Some(operations)) => Some(live(operations.key)),
            (None, None) => None,
            (Some(text), _) => self.tenant(Some(text)).await?,
        };
        let tenant = tenant.ok_or(ServiceError::NotFound)?;
        Ok((tenant, operations.is_some_and(|operations| operations.key == tenant.workspace)))
    }
}

/// A session of the server's own workspace only reads, as its keys do.
fn scopes_in_operations(asked: Option<Scopes>, mode: Mode) -> Result<Scopes, ServiceError> {
    let allowed = Scopes::of(OPERATIONS_KEY);
    let scopes = asked.unwrap_or(allowed);
    if mode == Mode::Test {
        Err(ServiceError::unprocessable("mode", "the workspace \"operations\" has only live deliveries"))
    } else if allowed.contains_all(scopes) {
        Ok(scopes)
    } else {
        let fault = format!("a session of the workspace \"operations\" may have only {allowed}");
        Err(ServiceError::unprocessable("scopes", &fault))
    }
}
