//! Folds partial rows of `metrics` and its roll-ups, by the one definition of the metrics crate, for maintenance.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bellwether_base::{Error, Result};
use bellwether_lake::Fold;
use bellwether_metrics::Window;
use bellwether_tables::Table;

use crate::sql;

/// Folds the partial rows of one window and group into one.
#[derive(Clone, Copy, Debug, Default)]
pub struct PartialsFold;

#[async_trait]
impl Fold for PartialsFold {
    async fn fold(&self, table: Table, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let window = match table {
            Table::Metrics => Window::Minute,
            Table::MetricsHourly => Window::Hour,
            Table::MetricsDaily => Window::Day,
            _ => return Err(Error::bug(format!("rows of `{}` are no partials", table.name()))),
        };
        let key = bellwether_metrics::KEY.join(", ");
        let text = format!("SELECT * FROM ({}) ORDER BY {key}", bellwether_metrics::partials_sql(window));
        let answer = sql::over(&sql::session(), "metrics", table.arrow_schema(), rows, &text).await?;
        Ok(vec![sql::rows_of(table, &answer, &[])?])
    }
}
