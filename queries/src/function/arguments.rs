//! Arguments of the detection functions: their types, their documentation, and the values of a row.

use std::fmt::Display;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::{can_cast_types, cast};
use datafusion::arrow::datatypes::{DataType, Field, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::common::{DataFusionError, Result, exec_datafusion_err, plan_err};
use datafusion::logical_expr::Documentation;
use datafusion::logical_expr::scalar_doc_sections::DOC_SECTION_OTHER;

/// Type of an argument or of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArgumentKind {
    /// A float.
    Number,
    /// A whole number, not negative.
    Count,
    /// A list of floats.
    Numbers,
    /// A list of whole numbers, not negative.
    Counts,
    /// A text.
    Text,
    /// True or false.
    Fact,
    /// A sketch, as bytes.
    Sketch,
    /// A moment, microseconds UTC.
    Moment,
}

/// The signature and documentation of a function.
#[derive(Debug)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    /// Arguments: name, type, meaning.
    pub(super) arguments: &'static [(&'static str, ArgumentKind, &'static str)],
    /// Number of arguments that may not be left out.
    pub(super) required: usize,
    /// True if the function handles null arguments itself; otherwise one makes the result null.
    pub(super) nulls: bool,
    pub(super) doc: &'static str,
    pub(super) example: &'static str,
}

/// The columns of a batch, cast to the types of a spec.
pub(super) struct Columns {
    name: &'static str,
    nulls: bool,
    columns: Vec<ArrayRef>,
}

/// One row of [`Columns`].
#[derive(Clone, Copy)]
pub(super) struct ArgumentRow<'a> {
    columns: &'a Columns,
    row: usize,
}

// === impl ArgumentKind ===

impl ArgumentKind {
    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Number => DataType::Float64,
            Self::Count => DataType::Int64,
            Self::Numbers => DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true))),
            Self::Counts => DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true))),
            Self::Text => DataType::Utf8,
            Self::Fact => DataType::Boolean,
            Self::Sketch => DataType::Binary,
            Self::Moment => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Count => "a whole number",
            Self::Numbers => "a list of numbers",
            Self::Counts => "a list of whole numbers",
            Self::Text => "a text",
            Self::Fact => "true or false",
            Self::Sketch => "a sketch",
            Self::Moment => "a timestamp",
        }
    }
}

// === impl Spec ===

impl Spec {
    /// Returns the types that arguments are cast to.
    ///
    /// # Errors
    /// Too few or too many arguments, or an argument of the wrong type.
    pub(super) fn coerce(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        if found.len() < self.required || found.len() > self.arguments.len() {
            return plan_err!(
                "{} takes {}, not {} arguments; hint: {}",
                self.name,
                self.counts(),
                found.len(),
                self.syntax()
            );
        }
        let wanted = self.arguments.iter().zip(found).map(|((name, kind, _), found)| {
            let wanted = kind.data_type();
            // The engine casts too much: any text to a number, which then fails at its first row, and a value to a list.
            let text = matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
            let text_for_other = text && !matches!(kind, ArgumentKind::Text | ArgumentKind::Moment);
            let list = found.is_list() || found.is_null();
            let value_for_list = !list && matches!(kind, ArgumentKind::Numbers | ArgumentKind::Counts);
            if !can_cast_types(found, &wanted) || text_for_other || value_for_list {
                return plan_err!("{}: `{name}` is {}, not {found}; hint: {}", self.name, kind.name(), self.syntax());
            }
            Ok(wanted)
        });
        wanted.collect()
    }

    fn counts(&self) -> String {
        match (self.required, self.arguments.len()) {
            (least, most) if least == most => format!("{most}"),
            (least, most) => format!("{least} to {most}"),
        }
    }

    /// Returns the call with its arguments, those that may be left out in brackets.
    pub(super) fn syntax(&self) -> String {
        let mut text = format!("{}(", self.name);
        for (place, (name, _, _)) in self.arguments.iter().enumerate() {
            if place >= self.required {
                text.push('[');
            }
            if place > 0 {
                text.push_str(", ");
            }
            text.push_str(name);
        }
        text.push_str(&"]".repeat(self.arguments.len() - self.required));
        text.push(')');
        text
    }

    pub(super) fn documentation(&self) -> Documentation {
        let start = Documentation::builder(DOC_SECTION_OTHER, self.doc, self.syntax()).with_sql_example(self.example);
        let arguments = self.arguments.iter();
        arguments.fold(start, |text, (name, _, meaning)| text.with_argument(*name, *meaning)).build()
    }

    /// Casts the columns of a batch. From SQL they already have the types of [`Spec::coerce`]; the cast is free then.
    pub(super) fn columns(&'static self, arrays: &[ArrayRef]) -> Result<Columns> {
        let casts = self.arguments.iter().zip(arrays).map(|((_, kind, _), array)| Ok(cast(array, &kind.data_type())?));
        Ok(Columns { name: self.name, nulls: self.nulls, columns: casts.collect::<Result<_>>()? })
    }
}

// === impl Columns ===

impl Columns {
    /// Returns a row; `None` if a null argument makes its result null.
    pub(super) fn row(&self, row: usize) -> Option<ArgumentRow<'_>> {
        let known = self.nulls || self.columns.iter().all(|column| column.is_valid(row));
        known.then_some(ArgumentRow { columns: self, row })
    }
}

// === impl ArgumentRow ===

impl<'a> ArgumentRow<'a> {
    fn column(&self, place: usize) -> Option<&'a ArrayRef> {
        self.columns.columns.get(place).filter(|column| column.is_valid(self.row))
    }

    fn absent(&self, place: usize) -> DataFusionError {
        exec_datafusion_err!("{}: argument {} is null", self.columns.name, place + 1)
    }

    pub(super) fn number_or(&self, place: usize, left_out: f64) -> f64 {
        self.column(place).map_or(left_out, |column| column.as_primitive::<Float64Type>().value(self.row))
    }

    pub(super) fn number(&self, place: usize) -> f64 {
        self.number_or(place, f64::NAN)
    }

    pub(super) fn count_or(&self, place: usize, left_out: u64) -> Result<u64> {
        let Some(column) = self.column(place) else { return Ok(left_out) };
        let value = column.as_primitive::<Int64Type>().value(self.row);
        u64::try_from(value).map_err(|_| self.wrong(format_args!("`{value}` is negative; it must be a count")))
    }

    pub(super) fn count(&self, place: usize) -> Result<u64> {
        self.count_or(place, 0)
    }

    pub(super) fn numbers(&self, place: usize) -> Result<Vec<f64>> {
        let list = self.column(place).ok_or_else(|| self.absent(place))?.as_list::<i32>().value(self.row);
        let list = list.as_primitive::<Float64Type>();
        Ok(list.iter().map(|value| value.unwrap_or(0.0)).collect())
    }

    /// Returns the same as [`ArgumentRow::numbers`]; `None` for null.
    pub(super) fn numbers_or_none(&self, place: usize) -> Result<Option<Vec<f64>>> {
        self.column(place).map(|_| self.numbers(place)).transpose()
    }

    pub(super) fn counts(&self, place: usize) -> Result<Vec<u64>> {
        let list = self.column(place).ok_or_else(|| self.absent(place))?.as_list::<i32>().value(self.row);
        let counts = list.as_primitive::<Int64Type>().iter().map(|value| {
            let value = value.unwrap_or(0);
            u64::try_from(value).map_err(|_| self.wrong(format_args!("`{value}` is negative; it must be a count")))
        });
        counts.collect()
    }

    pub(super) fn text(&self, place: usize) -> &'a str {
        self.column(place).map_or("", |column| column.as_string::<i32>().value(self.row))
    }

    /// Returns true or false; `None` for null.
    pub(super) fn fact(&self, place: usize) -> Option<bool> {
        self.column(place).map(|column| column.as_boolean().value(self.row))
    }

    pub(super) fn bytes(&self, place: usize) -> &'a [u8] {
        self.column(place).map_or(&[], |column| column.as_binary::<i32>().value(self.row))
    }

    /// Returns a moment, in microseconds since the epoch.
    pub(super) fn moment(&self, place: usize) -> Option<i64> {
        self.column(place).map(|column| column.as_primitive::<TimestampMicrosecondType>().value(self.row))
    }

    /// Makes an error that names the function.
    pub(super) fn wrong(&self, what: impl Display) -> DataFusionError {
        exec_datafusion_err!("{}: {what}", self.columns.name)
    }
}
