//! The stores: what every back end promises, and what one back end alone does.

mod conformance;
mod copy;
mod fixture;
mod nodes;
mod postgres;
mod postgres_days;
mod postgres_lanes;
mod postgres_upgrade;
mod sqlite;
