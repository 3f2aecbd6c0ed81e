//! The registry: workspaces, their API keys, and the endpoints of their customers.

pub mod api_key;
pub mod endpoint;
mod endpoint_list;
pub mod endpoint_options;
pub mod portal_session;
pub mod session;
pub mod workspace;
