//! One connection: its session, its prepared statements, and the answers to its messages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Schema};
use bellwether_base::Result;
use bellwether_queries::{PgType, Prepared, ScalarValue, Session, SessionSettings, split};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::command::Command;
use super::failure::Failure;
use super::keys::Key;
use super::message::{Bind, Request, Target, Transaction, put_count};
use super::portal::{End, Portal, Running, State, Statement, Work, columns, text_column};
use super::startup::{Admitted, welcome};
use super::value::unknown_type;
use super::wire::{MESSAGE_BYTES, PART_BYTES, Received, Wire};
use crate::access::Caller;
use crate::listener::Connection;
use crate::recorded::Recorded;
use crate::refused::Refused;
use crate::start::Asker;

/// How statements are named in the audit log, as endpoints are.
const ENDPOINT: &str = "postgres";

/// Time after which a connection that asks nothing ends: it takes the place of another.
const IDLE: Duration = Duration::from_secs(60 * 60);

/// Most prepared statements of a connection, and most that have values.
const MOST_STATEMENTS: usize = 1000;
const MOST_PORTALS: usize = 100;

/// A client that was admitted.
pub(super) struct Client {
    shared: Shared,
    wire: Wire,
    connection: Connection,
    caller: Caller,
    token: Option<String>,
    session: Session,
    key: Key,
    statements: BTreeMap<String, Arc<Statement>>,
    portals: BTreeMap<String, Portal>,
    transaction: Transaction,
    /// After an error, messages are left out up to the next `Sync`.
    is_skipping: bool,
}

// === impl Client ===

impl Client {
    /// Opens the session of a client.
    ///
    /// # Errors
    /// `Config` if its tenant is empty; `Unavailable` if the system has no random numbers.
    pub(super) fn new(shared: Shared, admitted: Admitted, connection: Connection) -> Result<Self> {
        let Admitted { wire, caller, token } = admitted;
        let settings = SessionSettings { postgres: true, ..shared.server.session_settings(&caller) };
        let session = shared.server.engine.session(settings)?;
        let key = shared.keys.add(session.canceller())?;
        Ok(Self {
            shared,
            wire,
            connection,
            caller,
            token,
            session,
            key,
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            transaction: Transaction::None,
            is_skipping: false,
        })
    }

    /// Answers messages until the client goes, or `stop` is cancelled.
    pub(super) async fn serve(mut self, stop: CancellationToken) {
        welcome(&mut self.wire, (self.key.process, self.key.secret));
        self.wire.replies.ready(self.transaction);
        if self.wire.flush().await.is_err() {
            return;
        }
        let mut idle_at = Instant::now() + IDLE;
        loop {
            let until = self.first_deadline().map_or(idle_at, |deadline| deadline.min(idle_at));
            let received = tokio::select! {
                biased; // Stopping wins over new messages.
                () = stop.cancelled() => {
                    return self.part(Failure::new("57P01", "the server is stopping")).await;
                }
                received = self.wire.receive(until) => received,
            };
            let (letter, answered) = match received {
                Received::Message(b'X', _) | Received::Gone => return,
                Received::Message(letter, body) => (letter, Box::pin(self.answer(letter, &body)).await),
                Received::TooLong(letter) => {
                    let message = format!("the message is longer than {} KiB", MESSAGE_BYTES >> 10);
                    let hint = "shorten the statement, or put long lists into a table of their own";
                    (letter, Err(Failure::new("54000", message).with_hint(hint).into()))
                }
                Received::Nothing if Instant::now() >= idle_at => {
                    return self.part(Failure::new("57P05", "the connection was idle for an hour")).await;
                }
                Received::Nothing => {
                    self.end_late();
                    continue;
                }
            };
            match answered {
                Ok(()) if self.wire.replies.0.len() < PART_BYTES => {}
                Ok(()) => {
                    if self.wire.flush().await.is_err() {
                        return;
                    }
                }
                Err(End::Gone) => return,
                Err(End::Failed(failure)) if failure.is_fatal => return self.part(failure).await,
                Err(End::Failed(failure)) => {
                    if self.fail(letter, &failure).await.is_err() {
                        return;
                    }
                }
            }
            idle_at = Instant::now() + IDLE;
        }
    }

    /// Sends a last error.
    async fn part(mut self, failure: Failure) {
        self.wire.replies.failure(&failure.fatal());
        self.wire.end().await;
    }

    /// Sends an error; the connection goes on.
    async fn fail(&mut self, letter: u8, failure: &Failure) -> std::io::Result<()> {
        self.wire.replies.failure(failure);
        if self.transaction == Transaction::Open {
            self.transaction = Transaction::Failed;
        }
        if Request::is_extended(letter) {
            self.is_skipping = true;
        } else {
            self.wire.replies.ready(self.transaction);
        }
        self.wire.flush().await
    }

    /// Answers one message.
    async fn answer(&mut self, letter: u8, body: &[u8]) -> Result<(), End> {
        if self.is_skipping && letter != b'S' {
            return Ok(());
        }
        match Request::read(letter, body)? {
            Request::Query(text) => {
                self.end_portal("");
                self.query(&text).await?;
                self.ready().await
            }
            Request::Sync => {
                self.is_skipping = false;
                if self.transaction == Transaction::None {
                    self.end_portals();
                }
                self.ready().await
            }
            Request::Parse { name, sql, types } => self.parse(name, sql, types).await,
            Request::Bind(bind) => Ok(self.bind(bind)?),
            Request::Describe(target, name) => Ok(self.describe(target, &name)?),
            Request::Execute { portal, most } => self.execute(portal, most).await,
            Request::Close(target, name) => {
                match target {
                    Target::Statement => drop(self.statements.remove(&name)),
                    Target::Portal => self.end_portal(&name),
                }
                self.wire.replies.add_bare(b'3');
                Ok(())
            }
            Request::Flush => self.wire.flush().await.map_err(|_| End::Gone),
            Request::Password(_) => Err(Failure::protocol("no password was asked for").into()),
            Request::Terminate => Err(End::Gone),
        }
    }

    async fn ready(&mut self) -> Result<(), End> {
        self.wire.replies.ready(self.transaction);
        self.wire.flush().await.map_err(|_| End::Gone)
    }

    /// Runs the statements of a text, one after another.
    async fn query(&mut self, text: &str) -> Result<(), End> {
        let statements = split(text).map_err(Failure::from)?;
        if statements.is_empty() {
            self.wire.replies.add_bare(b'I');
        }
        for sql in statements {
            if let Some(command) = Command::read(&sql)? {
                if let Command::Show { name, .. } = &command {
                    self.wire.replies.columns(&[text_column(name)]);
                }
                self.command(&command)?;
                continue;
            }
            let mut running = self.run(&sql, None, &[]).await?;
            self.wire.replies.columns(&columns(running.schema(), &[])?);
            running.send(&mut self.wire, u64::MAX).await?;
            self.wire.replies.complete(&running.tag());
        }
        Ok(())
    }

    /// Runs a statement about the connection.
    fn command(&mut self, command: &Command) -> Result<(), Failure> {
        if !matches!(command, Command::End(_) | Command::RollbackTo) {
            self.check_transaction()?;
        }
        let tag = match command {
            Command::Begin(tag) => {
                self.transaction = Transaction::Open;
                tag
            }
            Command::End(tag) => {
                let has_failed = self.transaction == Transaction::Failed;
                self.transaction = Transaction::None;
                self.end_portals();
                if has_failed { "ROLLBACK" } else { tag }
            }
            Command::RollbackTo if self.transaction == Transaction::None => {
                return Err(Failure::new("25P01", "there is no transaction"));
            }
            Command::RollbackTo => {
                self.transaction = Transaction::Open;
                "ROLLBACK"
            }
            Command::Show { value, .. } => {
                self.wire.replies.add(b'D', |body| {
                    put_count(body, 1);
                    body.extend_from_slice(&u32::try_from(value.len()).unwrap_or(0).to_be_bytes());
                    body.extend_from_slice(value.as_bytes());
                });
                "SHOW"
            }
            Command::Deallocate(None) => {
                self.statements.clear();
                "DEALLOCATE ALL"
            }
            Command::Deallocate(Some(name)) => {
                self.statements.remove(name).ok_or_else(|| unknown_statement(name))?;
                "DEALLOCATE"
            }
            Command::Nothing(tag) => tag,
        };
        self.wire.replies.complete(tag);
        Ok(())
    }

    fn check_transaction(&self) -> Result<(), Failure> {
        if self.transaction != Transaction::Failed {
            return Ok(());
        }
        let message = "the transaction has failed, and further statements are left out";
        Err(Failure::new("25P02", message).with_hint("end it with ROLLBACK"))
    }

    /// Checks that the client may still ask: a token may have been revoked meanwhile.
    fn check_token(&self) -> Result<(), Failure> {
        let holder = self.shared.server.access.holder(self.token.as_deref());
        if holder.map_err(|refused| Failure::from(refused).fatal())? == self.caller {
            return Ok(());
        }
        Err(Failure::new("28000", "the token has changed").with_hint("connect again").fatal())
    }

    /// Starts a statement.
    async fn run(
        &mut self,
        sql: &str,
        prepared: Option<(&Prepared, &[ScalarValue])>,
        forms: &[i16],
    ) -> Result<Running, End> {
        self.check_transaction()?;
        self.check_token()?;
        let (server, session) = (&self.shared.server, &self.session);
        let deadline = Instant::now() + server.settings.timeout + server.settings.patience;
        let slot = self.wire.hold(server.slot()).await.ok_or(End::Gone)?.map_err(Failure::from)?;
        let mut recorded =
            Recorded::begin(server, &self.caller, &self.connection, (ENDPOINT, sql)).map_err(Failure::from)?;
        recorded.run(sql, session.canceller());
        let work = async {
            match prepared {
                None => session.execute(sql).await,
                Some((prepared, values)) => session.execute_prepared(prepared, values).await,
            }
        };
        let answer = match self.wire.hold(Box::pin(work)).await.ok_or(End::Gone)? {
            Ok(answer) => answer,
            Err(error) => return Err(Failure::from(recorded.refuse(Refused::from(error))).into()),
        };
        let first = sql.split_whitespace().next().unwrap_or_default();
        let tag = ["EXPLAIN", "SHOW"].into_iter().find(|word| first.eq_ignore_ascii_case(word)).unwrap_or("SELECT");
        Ok(Running::new(recorded, slot, answer, forms, deadline)?.tagged(tag))
    }

    async fn parse(&mut self, name: String, sql: String, declared: Vec<u32>) -> Result<(), End> {
        if !name.is_empty() && self.statements.contains_key(&name) {
            return Err(Failure::new("42P05", format!("there is a prepared statement `{name}` already")).into());
        }
        if self.statements.len() >= MOST_STATEMENTS {
            let message = format!("the connection has {MOST_STATEMENTS} prepared statements, which is the most");
            return Err(Failure::new("54000", message).with_hint("send DEALLOCATE ALL").into());
        }
        let statements = split(&sql).map_err(Failure::from)?;
        let work = match (statements.as_slice(), Command::read(&sql)?) {
            ([], _) => Work::Nothing,
            ([_], Some(command)) => Work::Command(command),
            ([one], None) => Work::Query(self.prepare(one, &declared).await?),
            _ => return Err(Failure::new("42601", "a prepared statement can be but one statement").into()),
        };
        self.statements.insert(name, Arc::new(Statement { sql, work, declared }));
        self.wire.replies.add_bare(b'1');
        Ok(())
    }

    async fn prepare(&mut self, sql: &str, declared: &[u32]) -> Result<Prepared, End> {
        self.check_transaction()?;
        self.check_token()?;
        let kind = |(place, oid): (usize, &u32)| match *oid {
            0 | 705 => Ok(None),
            oid => PgType::parameter(oid).map(Some).ok_or_else(|| unknown_type(place, oid)),
        };
        let kinds: Vec<Option<DataType>> = declared.iter().enumerate().map(kind).collect::<Result<_, _>>()?;
        let (server, caller, connection) = (&self.shared.server, &self.caller, &self.connection);
        let asker = Asker { server, caller, connection, endpoint: ENDPOINT };
        let work = Box::pin(asker.prepare(&self.session, sql, &kinds));
        let prepared = self.wire.hold(work).await.ok_or(End::Gone)?;
        prepared.map_err(|refused| Failure::from(refused).into())
    }

    fn bind(&mut self, bind: Bind) -> Result<(), Failure> {
        let Bind { portal, statement, formats, values, results } = bind;
        let statement = self.statements.get(&statement).ok_or_else(|| unknown_statement(&statement))?;
        let statement = Arc::clone(statement);
        self.end_portal("");
        if self.portals.contains_key(&portal) {
            return Err(Failure::new("42P03", format!("there is a portal `{portal}` already")));
        }
        if self.portals.len() >= MOST_PORTALS {
            return Err(Failure::new("54000", format!("the connection has {MOST_PORTALS} portals, which is the most")));
        }
        let values = statement.values(&formats, &values)?;
        self.portals.insert(portal, Portal { statement, values, forms: results, state: State::New });
        self.wire.replies.add_bare(b'2');
        Ok(())
    }

    fn describe(&mut self, target: Target, name: &str) -> Result<(), Failure> {
        let no_forms: &[i16] = &[];
        let (statement, forms) = match target {
            Target::Statement => {
                let statement = self.statements.get(name).ok_or_else(|| unknown_statement(name))?;
                self.wire.replies.parameters(&statement.parameters());
                (statement, no_forms)
            }
            Target::Portal => {
                let portal = self.portals.get(name).ok_or_else(|| unknown_portal(name))?;
                (&portal.statement, portal.forms.as_slice())
            }
        };
        match statement.columns(forms)? {
            Some(columns) => self.wire.replies.columns(&columns),
            None => self.wire.replies.add_bare(b'n'),
        }
        Ok(())
    }

    async fn execute(&mut self, name: String, most: u32) -> Result<(), End> {
        let mut portal = self.portals.remove(&name).ok_or_else(|| unknown_portal(&name))?;
        let done = self.advance(&mut portal, most).await;
        if done.is_err() {
            portal.state = State::Ended;
        }
        self.portals.insert(name, portal);
        done
    }

    async fn advance(&mut self, portal: &mut Portal, most: u32) -> Result<(), End> {
        let statement = Arc::clone(&portal.statement);
        let prepared = match &statement.work {
            Work::Nothing => {
                self.wire.replies.add_bare(b'I');
                return Ok(());
            }
            Work::Command(command) => return Ok(self.command(command)?),
            Work::Query(prepared) => prepared,
        };
        let mut running = match std::mem::replace(&mut portal.state, State::Ended) {
            State::New => {
                let running =
                    self.run(&statement.sql, Some((prepared, portal.values.as_slice())), &portal.forms).await?;
                check_columns(prepared.schema(), running.schema())?;
                Box::new(running)
            }
            State::Running(running) => running,
            State::Ended => {
                self.wire.replies.complete("SELECT 0");
                return Ok(());
            }
        };
        let most = if most == 0 { u64::MAX } else { most.into() };
        if running.send(&mut self.wire, most).await? {
            self.wire.replies.complete(&running.tag());
        } else {
            self.wire.replies.add_bare(b's');
            portal.state = State::Running(running);
        }
        Ok(())
    }

    /// Ends a portal that the client needs no more.
    fn end_portal(&mut self, name: &str) {
        if let Some(Portal { state: State::Running(mut running), .. }) = self.portals.remove(name) {
            running.recorded.status = Some(200);
        }
    }

    fn end_portals(&mut self) {
        for name in self.portals.keys().cloned().collect::<Vec<_>>() {
            self.end_portal(&name);
        }
    }

    /// Returns when the first of the portals that wait for their client has waited long enough.
    fn first_deadline(&self) -> Option<Instant> {
        let deadline = |portal: &Portal| match &portal.state {
            State::Running(running) => Some(running.deadline),
            _ => None,
        };
        self.portals.values().filter_map(deadline).min()
    }

    /// Ends portals whose client does not ask for further rows, because others wait for their place.
    fn end_late(&mut self) {
        let now = Instant::now();
        self.portals.retain(|_, portal| !matches!(&portal.state, State::Running(running) if running.deadline <= now));
    }
}

fn unknown_statement(name: &str) -> Failure {
    Failure::new("26000", format!("there is no prepared statement `{name}`"))
}

fn unknown_portal(name: &str) -> Failure {
    Failure::new("34000", format!("there is no portal `{name}`, or it waited for too long"))
}

/// Checks that an answer has the columns that were described to its client.
fn check_columns(told: &Schema, found: &Schema) -> Result<(), Failure> {
    let kinds = |schema: &Schema| -> Vec<PgType> {
        schema.fields().iter().map(|field| PgType::of(field.data_type())).collect()
    };
    if kinds(told) == kinds(found) {
        return Ok(());
    }
    Err(Failure::new("0A000", "the columns of the prepared statement have changed").with_hint("prepare it again"))
}
