//! Rows of an answer as values of a type.

use bellwether_base::{Error, Result};
use bellwether_lake::values_of;
use serde::de::DeserializeOwned;

use crate::session::Session;

// === impl Session ===

impl Session {
    /// Runs a statement and returns its rows as values of a type, whose fields have the names of the columns. Times are
    /// microseconds since the epoch.
    ///
    /// # Errors
    /// As [`Session::execute`]; `Bug` if the type has other fields than the statement has columns.
    pub async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>> {
        let mut all = Vec::new();
        for batch in Box::pin(self.execute(sql)).await?.collect().await? {
            all.extend(values_of(&batch).map_err(|source| {
                Error::bug("the answer of a statement has other columns than expected").with_source(source)
            })?);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::{Session, SessionSettings};

    #[derive(Debug, PartialEq, Deserialize)]
    struct Row {
        at: Option<i64>,
        share: f64,
        names: Vec<String>,
    }

    #[tokio::test]
    async fn rows_have_the_types_of_their_fields() {
        let session = Session::in_memory(SessionSettings::default()).expect("opens");
        let sql = "SELECT TIMESTAMP '1970-01-01T00:00:01Z' AS at, 0.1 AS share, ['a', 'b'] AS names \
                   UNION ALL SELECT NULL, 0.5, [] ORDER BY share";
        let rows: Vec<Row> = session.rows(sql).await.expect("runs");
        let names = vec!["a".to_owned(), "b".to_owned()];
        let expected =
            [Row { at: Some(1_000_000), share: 0.1, names }, Row { at: None, share: 0.5, names: Vec::new() }];
        assert_eq!(rows, expected);
        let none: Vec<Row> = session.rows("SELECT 1 AS share WHERE false").await.expect("runs");
        assert!(none.is_empty());
        session.rows::<Row>("SELECT 1 AS other").await.expect_err("has other columns");
    }
}
