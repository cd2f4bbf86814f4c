//! The statements that run now: who sees them, and who may cancel them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bellwether_queries::Canceller;
use serde::Serialize;

use crate::access::Caller;
use crate::token::Scope;

/// Longest shown text of a statement, characters.
const SHOWN_CHARACTERS: usize = 1000;

/// The statements that run now, by the id of their request.
#[derive(Default)]
pub(crate) struct Running(Mutex<BTreeMap<String, Statement>>);

/// A statement that runs.
struct Statement {
    caller: Caller,
    sql: String,
    started_at: String,
    canceller: Canceller,
}

/// A statement as it is listed.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    id: String,
    caller: String,
    sql: String,
    started_at: String,
}

// === impl Statement ===

impl Statement {
    fn is_visible_to(&self, caller: &Caller) -> bool {
        caller.scope == Scope::Admin || (caller.name == self.caller.name && caller.tenant == self.caller.tenant)
    }
}

// === impl Running ===

impl Running {
    pub(crate) fn add(&self, id: &str, caller: &Caller, sql: &str, started_at: String, canceller: Canceller) {
        let sql = sql.chars().take(SHOWN_CHARACTERS).collect();
        self.lock().insert(id.to_owned(), Statement { caller: caller.clone(), sql, started_at, canceller });
    }

    pub(crate) fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Returns the statements that a caller may see.
    pub(crate) fn list(&self, caller: &Caller) -> Vec<Listed> {
        let statements = self.lock();
        let visible = statements.iter().filter(|(_, statement)| statement.is_visible_to(caller));
        let listed = visible.map(|(id, statement)| Listed {
            id: id.clone(),
            caller: statement.caller.name.to_string(),
            sql: statement.sql.clone(),
            started_at: statement.started_at.clone(),
        });
        listed.collect()
    }

    /// Cancels a statement that the caller may see; returns false if there is none.
    pub(crate) fn cancel(&self, id: &str, caller: &Caller) -> bool {
        let statements = self.lock();
        let found = statements.get(id).filter(|statement| statement.is_visible_to(caller));
        if let Some(statement) = found {
            statement.canceller.cancel();
        }
        found.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Statement>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
