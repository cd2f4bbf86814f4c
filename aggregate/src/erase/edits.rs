//! Which rows go, or change, in the tables beside `events`.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, MapArray, RecordBatch, StringViewArray, StructArray,
};
use arrow::datatypes::{DataType, Int64Type};
use bellwether_base::{Error, Result};
use bellwether_lake::{Edit, Edited, Tokens};

use super::contributions::of_tenant;
use super::subject::split;

/// Removes rejected messages that name an identifier.
pub(super) struct QuarantineEdit(pub(super) Tokens);

/// Replaces identifiers in the texts of alerts, of their deliveries and of actions on them, and removes those of a tenant.
pub(super) struct AlertsEdit {
    pub(super) tokens: Tokens,
    pub(super) tenant: Option<String>,
}

/// Removes candidates for review that name an identifier, and those of a tenant.
pub(super) struct CandidatesEdit {
    pub(super) tokens: Tokens,
    pub(super) tenant: Option<String>,
}

/// Removes the rows of a tenant.
pub(super) struct TenantEdit {
    tenant: String,
    /// Only rows that were made of versions of `events` before this one.
    before: Option<i64>,
    columns: Vec<&'static str>,
}

// === impl QuarantineEdit ===

impl QuarantineEdit {
    fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let mut texts = Vec::new();
        for name in QUARANTINE_TEXTS {
            let column = rows.column_by_name(name).and_then(|column| column.as_string_view_opt());
            texts.push(column.ok_or_else(|| Error::bug(format!("rows of `quarantine` lack column `{name}`")))?);
        }
        let names = |row: usize| texts.iter().any(|text| self.0.are_in(text.value(row).as_bytes()));
        Ok((0..rows.num_rows()).map(|row| Some(names(row))).collect())
    }
}

/// Columns of `quarantine` with text from the message.
const QUARANTINE_TEXTS: [&str; 3] = ["pointer", "message", "head"];

impl Edit for QuarantineEdit {
    fn columns(&self) -> Option<&[&'static str]> {
        Some(&QUARANTINE_TEXTS)
    }

    fn touches(&self, rows: &RecordBatch) -> Result<bool> {
        Ok(self.mask(rows)?.true_count() > 0)
    }

    fn edit(&self, rows: &RecordBatch) -> Result<Edited> {
        split(rows, &self.mask(rows)?)
    }
}

// === impl CandidatesEdit ===

impl CandidatesEdit {
    fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let mut mask = match &self.tenant {
            Some(tenant) => of_tenant(rows, tenant)?,
            None => BooleanArray::from(vec![false; rows.num_rows()]),
        };
        for column in rows.columns() {
            let Some(texts) = column.as_string_view_opt() else { continue };
            let named = |text: Option<&str>| text.is_some_and(|text| self.tokens.are_in(text.as_bytes()));
            mask = mask.iter().zip(texts).map(|(goes, text)| Some(goes == Some(true) || named(text))).collect();
        }
        Ok(mask)
    }
}

impl Edit for CandidatesEdit {
    fn columns(&self) -> Option<&[&'static str]> {
        Some(&["tenant", "run_id", "signature"])
    }

    fn touches(&self, rows: &RecordBatch) -> Result<bool> {
        Ok(self.mask(rows)?.true_count() > 0)
    }

    fn edit(&self, rows: &RecordBatch) -> Result<Edited> {
        split(rows, &self.mask(rows)?)
    }
}

// === impl AlertsEdit ===

impl AlertsEdit {
    fn goes(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        match &self.tenant {
            Some(tenant) => of_tenant(rows, tenant),
            None => Ok(BooleanArray::from(vec![false; rows.num_rows()])),
        }
    }
}

impl Edit for AlertsEdit {
    fn columns(&self) -> Option<&[&'static str]> {
        None
    }

    fn touches(&self, rows: &RecordBatch) -> Result<bool> {
        let named = rows.columns().iter().any(|column| self.tokens.are_in_column(column));
        Ok(named || self.goes(rows)?.true_count() > 0)
    }

    fn edit(&self, rows: &RecordBatch) -> Result<Edited> {
        let edited = split(rows, &self.goes(rows)?)?;
        let columns = edited.stay.columns().iter().map(|column| self.replaced(column));
        let stay = RecordBatch::try_new(edited.stay.schema(), columns.collect::<Result<_>>()?)?;
        let changed = |row: &usize| stay.slice(*row, 1) != edited.stay.slice(*row, 1);
        let changed = (0..stay.num_rows()).filter(changed).count();
        Ok(Edited { stay, changed, ..edited })
    }
}

impl AlertsEdit {
    /// Returns a column with `erased` in place of each identifier in its texts.
    fn replaced(&self, column: &ArrayRef) -> Result<ArrayRef> {
        if !self.tokens.are_in_column(column) {
            return Ok(Arc::clone(column));
        }
        Ok(match column.data_type() {
            DataType::Utf8View => {
                let texts = column.as_string_view().iter();
                let texts =
                    texts.map(|text| text.map(|text| self.tokens.replaced(text).unwrap_or_else(|| text.to_owned())));
                Arc::new(texts.collect::<StringViewArray>())
            }
            DataType::Struct(_) => Arc::new(self.replaced_fields(column.as_struct())?),
            DataType::List(field) => {
                let list = column.as_list::<i32>();
                let values = self.replaced(list.values())?;
                Arc::new(ListArray::try_new(Arc::clone(field), list.offsets().clone(), values, list.nulls().cloned())?)
            }
            DataType::Map(field, ordered) => {
                let map = column.as_map();
                let entries = self.replaced_fields(map.entries())?;
                let (field, offsets) = (Arc::clone(field), map.offsets().clone());
                Arc::new(MapArray::try_new(field, offsets, entries, map.nulls().cloned(), *ordered)?)
            }
            other => return Err(Error::bug(format!("texts of type {other} cannot be replaced"))),
        })
    }

    fn replaced_fields(&self, record: &StructArray) -> Result<StructArray> {
        let columns = record.columns().iter().map(|field| self.replaced(field)).collect::<Result<Vec<_>>>()?;
        Ok(StructArray::try_new(record.fields().clone(), columns, record.nulls().cloned())?)
    }
}

// === impl TenantEdit ===

impl TenantEdit {
    /// Removes all rows of a tenant.
    pub(super) fn all(tenant: &str) -> Self {
        Self { tenant: tenant.to_owned(), before: None, columns: vec!["tenant"] }
    }

    /// Removes the partial rows of a tenant that were made of versions of `events` before one. Later rows are of later events.
    pub(super) fn partials(tenant: &str, before: i64) -> Self {
        Self { tenant: tenant.to_owned(), before: Some(before), columns: vec!["tenant", "events_to"] }
    }

    fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let mask = of_tenant(rows, &self.tenant)?;
        let Some(before) = self.before else { return Ok(mask) };
        let events_to = rows.column_by_name("events_to").ok_or_else(|| Error::bug("rows lack column `events_to`"))?;
        let events_to = events_to.as_primitive::<Int64Type>().values();
        Ok(mask.iter().zip(events_to).map(|(ours, to)| Some(ours == Some(true) && *to <= before)).collect())
    }
}

impl Edit for TenantEdit {
    fn columns(&self) -> Option<&[&'static str]> {
        Some(&self.columns)
    }

    fn touches(&self, rows: &RecordBatch) -> Result<bool> {
        Ok(self.mask(rows)?.true_count() > 0)
    }

    fn edit(&self, rows: &RecordBatch) -> Result<Edited> {
        split(rows, &self.mask(rows)?)
    }
}
