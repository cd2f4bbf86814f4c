//! Tests of sessions, tenants and views over real tables.

mod common;
mod judges;
mod sessions;
mod tenants;
