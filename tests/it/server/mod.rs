//! The whole server: its catalogue, its clock, its disk, its metrics, its store on PostgreSQL, and its stop.

mod catalogue;
mod clock;
mod day;
mod disk;
mod metrics;
mod postgres;
pub mod session;
mod stop;
