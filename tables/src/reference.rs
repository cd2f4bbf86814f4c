//! Generates the reference of the tables from their schemas, so that it cannot disagree with them.

use crate::{Column, ColumnType, Table, kind_name};

/// Returns the text of `docs/tables.md`.
pub fn reference_markdown() -> String {
    let mut page = String::from(
        "# Tables\n\n\
         Generated from `tables/src`; run `make generate` to update it.\n\n\
         Each table is a Delta table, a folder of Parquet files under the root, that any Delta reader opens. Times are \
         UTC in microseconds. Money is whole nano-units of the currency beside it. A column in bold is never null.\n",
    );
    for table in Table::ALL {
        page.push_str(&format!("\n## `{}`\n\n{}", table.name(), table.doc()));
        if let Some(column) = table.partition_column() {
            page.push_str(&format!(" Partitioned by `{column}`."));
        }
        page.push_str("\n\n| column | type | meaning |\n|---|---|---|\n");
        for column in table.columns() {
            row(&mut page, "", column);
        }
    }
    page
}

fn row(page: &mut String, prefix: &str, column: &Column) {
    let name = format!("{prefix}{}", column.name);
    let name = if column.required { format!("**`{name}`**") } else { format!("`{name}`") };
    let kind = match column.kind {
        ColumnType::List(_) => "list of records".to_owned(),
        kind => kind_name(kind),
    };
    page.push_str(&format!("| {name} | {kind} | {} |\n", column.doc.replace('|', "\\|")));
    if let ColumnType::List(fields) = column.kind {
        for field in fields {
            row(page, &format!("{}[].", column.name), field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_every_table_is_in_the_reference() {
        let page = reference_markdown();
        for table in Table::ALL {
            assert!(page.contains(&format!("## `{}`", table.name())));
            for column in table.columns() {
                assert!(page.contains(&format!("`{}`", column.name)), "{} lacks {}", table.name(), column.name);
            }
        }
    }
}
