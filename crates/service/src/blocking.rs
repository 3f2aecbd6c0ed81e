//! Long computations, which must not hold up the threads that answer requests.

use crate::error::ServiceError;

/// Runs `work` on a thread for blocking work.
///
/// # Errors
/// The error of `work`, or [`ServiceError::Internal`] when it panics.
pub async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| ServiceError::Internal { source: Box::new(error) })?
}
