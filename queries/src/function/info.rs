//! The documentation of a function, as the reference and `\functions` show it.

/// The kinds of functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FunctionKind {
    /// One value from the values of one row.
    Scalar,
    /// One value from many rows.
    Aggregate,
    /// One value from the rows around a row.
    Window,
    /// Rows, in FROM.
    Table,
}

impl FunctionKind {
    /// Returns its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Aggregate => "aggregate",
            Self::Window => "window",
            Self::Table => "table",
        }
    }
}

/// A function and its documentation.
#[derive(Clone, Debug)]
pub struct FunctionInfo {
    /// Name in SQL.
    pub name: String,
    /// Scalar, aggregate, window or table function.
    pub kind: FunctionKind,
    /// True for Bellwether's own functions, false for DataFusion's.
    pub own: bool,
    /// Call with its arguments.
    pub syntax: String,
    /// Description of its result.
    pub doc: String,
    /// Arguments with their meaning.
    pub arguments: Vec<(String, String)>,
    /// A statement to try.
    pub example: Option<String>,
}
