//! The whole server: its catalogue, its clock, its store on PostgreSQL, and its stop.

mod catalogue;
mod clock;
mod postgres;
pub mod session;
mod stop;
