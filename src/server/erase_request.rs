//! The requests of the admin socket about erasures.

use serde::{Deserialize, Serialize};

use postrider_domain::endpoint::ProjectId;
use postrider_domain::erasure::{Erasure, ErasureTarget, PendingDeliveries};
use postrider_service::{Operator, ServiceError};

use super::admin::{AdminResponse, with_causes};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EraseWhat {
    /// The id of an event.
    Event(String),
    Project {
        id: String,
        /// A name or an id.
        workspace: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErasureListed {
    pub id: String,
    /// The event, the project or the endpoint.
    pub target: String,
    pub mode: String,
    pub pending: String,
    pub status: String,
    pub events: u64,
    pub attempts: u64,
    pub cancelled: u64,
    pub answers: u64,
    pub waiting: u64,
    pub needs_compact: bool,
    pub created_at: String,
    pub completed_at: Option<String>,
}

impl From<Erasure> for ErasureListed {
    fn from(erasure: Erasure) -> Self {
        Self {
            id: erasure.id.to_string(),
            target: match &erasure.target {
                ErasureTarget::Event(id) => id.to_string(),
                ErasureTarget::Project(project) => project.as_str().to_owned(),
                ErasureTarget::Endpoint(id) => id.to_string(),
            },
            mode: erasure.mode.as_str().to_owned(),
            pending: erasure.pending.as_str().to_owned(),
            status: erasure.status.as_str().to_owned(),
            events: erasure.events,
            attempts: erasure.attempts,
            cancelled: erasure.cancelled,
            answers: erasure.answers,
            waiting: erasure.waiting,
            needs_compact: erasure.needs_compact,
            created_at: erasure.id.created_at().to_string(),
            completed_at: erasure.completed_at.map(|at| at.to_string()),
        }
    }
}

pub async fn erase(operator: &Operator, what: EraseWhat, pending: &str) -> Result<AdminResponse, String> {
    let pending = PendingDeliveries::parse(pending).map_err(|error| format!("--pending {error}"))?;
    let erasures = match what {
        EraseWhat::Event(text) => {
            let id = text.parse().map_err(|_| format!("{text:?} is not the id of an event; one looks like evt_…"))?;
            let erased = operator.erase_event(id, pending).await;
            vec![erased.map_err(|error| not_found_or(error, || format!("there is no event {id}")))?]
        }
        EraseWhat::Project { id, workspace } => {
            let project = ProjectId::parse(&id).map_err(|error| format!("the project's id {error}"))?;
            let erased = operator.erase_project(&workspace, &project, pending).await;
            erased.map_err(|error| {
                not_found_or(error, || {
                    format!("there is no workspace {workspace:?}: `postrider workspaces list` shows them")
                })
            })?
        }
    };
    Ok(AdminResponse::Erasures { items: erasures.into_iter().map(ErasureListed::from).collect() })
}

pub async fn erasure(operator: &Operator, id: &str) -> Result<AdminResponse, String> {
    let id = id.parse().map_err(|_| format!("{id:?} is not the id of an erasure; one looks like era_…"))?;
    let found = operator.get_erasure(id).await;
    let found = found.map_err(|error| not_found_or(error, || format!("there is no erasure {id}")))?;
    Ok(AdminResponse::Erasures { items: vec![found.into()] })
}

fn not_found_or(error: ServiceError, not_found: impl FnOnce() -> String) -> String {
    match error {
        ServiceError::NotFound => not_found(),
        other => with_causes(other),
    }
}
