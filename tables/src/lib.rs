//! Table schemas.

pub use bellwether_lake::Table;
pub use bellwether_lake::schema::{
    Column, Kind as ColumnType, alerts, events, metrics, quarantine, releases, rolling_history,
};
