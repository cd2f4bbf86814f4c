//! The commands of Flight SQL: what a descriptor or a ticket asks for.

use bytes::Bytes;
use prost::Message;

use super::message::{
    Any, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTables, CommandGetXdbcTypeInfo,
    CommandPreparedStatementQuery, CommandStatementQuery, TicketStatementQuery,
};
use crate::refused::{Answered, Refused};

/// A command.
#[derive(Debug)]
pub(super) enum Command {
    /// The rows of a statement.
    Statement(String),
    /// The rows of a prepared statement, by its handle.
    Prepared(Bytes),
    /// The rows of a statement that was asked for, by its handle.
    Ticket(Bytes),
    Catalogue(Catalogue),
}

/// A description of the server, of its tables or of its types.
#[derive(Debug)]
pub(super) enum Catalogue {
    Server(CommandGetSqlInfo),
    Types(CommandGetXdbcTypeInfo),
    Catalogs,
    Schemas(CommandGetDbSchemas),
    Tables(CommandGetTables),
    TableTypes,
    /// Primary keys, of which there are none, as of the following.
    PrimaryKeys,
    /// Foreign keys: exported, imported, or between two tables.
    ForeignKeys,
}

// === impl Command ===

impl Command {
    /// Reads a command.
    pub(super) fn read(bytes: &[u8]) -> Answered<Self> {
        let unknown =
            || Refused::bad("the request holds no command of Flight SQL").with_hint("use a client of Arrow Flight SQL");
        let any = Any::decode(bytes).map_err(|_| unknown())?;
        let name = any.name().ok_or_else(unknown)?;
        let catalogue = match name {
            "CommandStatementQuery" => {
                let asked: CommandStatementQuery = decode(&any)?;
                refuse_transaction(asked.transaction_id.as_ref())?;
                return Ok(Self::Statement(asked.query));
            }
            "CommandPreparedStatementQuery" => {
                return Ok(Self::Prepared(decode::<CommandPreparedStatementQuery>(&any)?.prepared_statement_handle));
            }
            "TicketStatementQuery" => return Ok(Self::Ticket(decode::<TicketStatementQuery>(&any)?.statement_handle)),
            "CommandGetSqlInfo" => Catalogue::Server(decode(&any)?),
            "CommandGetXdbcTypeInfo" => Catalogue::Types(decode(&any)?),
            "CommandGetCatalogs" => Catalogue::Catalogs,
            "CommandGetDbSchemas" => Catalogue::Schemas(decode(&any)?),
            "CommandGetTables" => Catalogue::Tables(decode(&any)?),
            "CommandGetTableTypes" => Catalogue::TableTypes,
            "CommandGetPrimaryKeys" => Catalogue::PrimaryKeys,
            "CommandGetExportedKeys" | "CommandGetImportedKeys" | "CommandGetCrossReference" => Catalogue::ForeignKeys,
            "CommandStatementUpdate" | "CommandPreparedStatementUpdate" | "CommandStatementIngest" => {
                return Err(only_reads());
            }
            other => return Err(Refused::unsupported(format!("the command `{other}` is not supported"))),
        };
        Ok(Self::Catalogue(catalogue))
    }
}

// === impl Catalogue ===

impl Catalogue {
    /// Returns how it is named in the audit log, as an endpoint.
    pub(super) fn endpoint(&self) -> &'static str {
        match self {
            Self::Server(_) => "flight GetSqlInfo",
            Self::Types(_) => "flight GetXdbcTypeInfo",
            Self::Catalogs => "flight GetCatalogs",
            Self::Schemas(_) => "flight GetDbSchemas",
            Self::Tables(_) => "flight GetTables",
            Self::TableTypes => "flight GetTableTypes",
            Self::PrimaryKeys => "flight GetPrimaryKeys",
            Self::ForeignKeys => "flight GetForeignKeys",
        }
    }
}

/// Reads the message in a message of any type.
pub(super) fn decode<M: Message + Default>(any: &Any) -> Answered<M> {
    M::decode(&*any.value).map_err(|_| Refused::bad(format!("`{}` is malformed", any.name().unwrap_or("the request"))))
}

/// Refuses a statement in a transaction.
pub(super) fn refuse_transaction(id: Option<&Bytes>) -> Answered<()> {
    match id {
        None => Ok(()),
        Some(id) if id.is_empty() => Ok(()),
        Some(_) => Err(no_transactions()),
    }
}

/// There are no transactions.
pub(super) fn no_transactions() -> Refused {
    Refused::unsupported("there are no transactions").with_hint("each statement sees the newest tables; use autocommit")
}

/// Somebody wants to write.
pub(super) fn only_reads() -> Refused {
    Refused::unsupported("the server only reads: updates and ingestion are refused")
        .with_hint("send a query; `bellwether ingest` writes the tables")
}
