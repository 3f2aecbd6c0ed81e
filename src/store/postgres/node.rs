//! The node's own tasks.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;
pub struct Node;
