//! A lease decides which of several processes works, so that the others can stand by. It is a file under the root, which
//! its holder rewrites every second. Any process may take over a lease that was not rewritten for a while.
//!
//! It only saves work. If two processes both believe that they hold it, the logs of the tables keep them apart.

use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::root::Lake;
use crate::stored::{Stored, from_store};
use bellwether_base::Clock;
use bellwether_base::Result;

/// Folder of the leases under the root.
const FOLDER: &str = "_leases";

/// Time between two reads of a lease by a process that does not hold it.
const LOOK: Duration = Duration::from_millis(500);

/// Time between two heartbeats of the holder.
const BEAT: Duration = Duration::from_secs(1);

/// Time without a heartbeat after which the holder counts as dead: three missed heartbeats.
const EXPIRES: Duration = Duration::from_secs(3);

/// Time between claiming a lease and checking that no other process has claimed it at the same moment.
const SETTLES: Duration = Duration::from_millis(200);

/// A heartbeat: the content of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sign {
    holder: Uuid,
    beat: u64,
    at_micros: i64,
}

/// A lease, as seen by one process that competes for it.
pub struct Lease {
    store: Arc<dyn ObjectStore>,
    path: Path,
    clock: Arc<dyn Clock>,
    name: String,
    me: Uuid,
    /// Factor of all times.
    pace: u32,
}

impl Lake {
    /// Returns the lease with a name.
    pub fn lease(&self, name: &str) -> Lease {
        Lease {
            store: Arc::clone(self.objects()),
            path: self.base().join(FOLDER).join(format!("{}.json", name.replace('/', "-"))),
            clock: self.clock(),
            name: name.to_owned(),
            me: self.clock().unique_id(),
            pace: 1,
        }
    }
}

// === impl Lease ===

impl Lease {
    /// Renews the lease this many times as rarely, for work that may rest as much longer when its holder dies. Each renewal is
    /// a request that S3 charges for.
    #[must_use]
    pub fn slower(mut self, times: u32) -> Self {
        self.pace = times.max(1);
        self
    }

    /// Competes for the lease until stopped, and reports whether this process holds it; then releases it.
    pub async fn keep(self, held: watch::Sender<bool>, stop: CancellationToken) {
        let mut seen: Option<(Sign, i64)> = None;
        while !stop.is_cancelled() {
            let pause = if *held.borrow() { BEAT } else { LOOK } * self.pace;
            match self.turn(&held, &mut seen).await {
                Ok(()) => {}
                Err(error) => {
                    // Without heartbeats, another process may take over at any time.
                    tracing::warn!(lease = self.name, reason = %error.chain(), "cannot renew the lease");
                    held.send_replace(false);
                }
            }
            tokio::select! {
                biased; // Stopping wins over waiting.
                () = stop.cancelled() => {}
                () = self.clock.sleep(pause) => {}
            }
        }
        if held.send_replace(false)
            && let Err(error) = self.store.delete(&self.path).await
        {
            tracing::debug!(lease = self.name, %error, "cannot release the lease; it will expire");
        }
    }

    async fn turn(&self, held: &watch::Sender<bool>, seen: &mut Option<(Sign, i64)>) -> Result<()> {
        let found = self.look().await?;
        if *held.borrow() {
            return match found {
                Some(sign) if sign.holder == self.me => self.sign(sign.beat + 1).await,
                None => self.sign(0).await,
                Some(_) => {
                    tracing::info!(lease = self.name, "another process has taken over; standing by");
                    held.send_replace(false);
                    *seen = None;
                    Ok(())
                }
            };
        }
        if !self.is_free(found, seen) {
            return Ok(());
        }
        self.sign(0).await?;
        self.clock.sleep(SETTLES).await;
        if self.look().await?.is_some_and(|sign| sign.holder == self.me) {
            tracing::info!(lease = self.name, "lease acquired; starting work");
            held.send_replace(true);
        }
        Ok(())
    }

    /// Returns true if the lease has no holder, or if the holder's last heartbeat is too old.
    fn is_free(&self, found: Option<Sign>, seen: &mut Option<(Sign, i64)>) -> bool {
        let (now, expires) =
            (self.clock.now_micros(), i64::try_from((EXPIRES * self.pace).as_micros()).unwrap_or(i64::MAX));
        let Some(found) = found else { return true };
        // A fast clock of the holder could make an old heartbeat look recent for ever, so one that has not changed while
        // this process watched is old as well.
        let since = match seen.take() {
            Some((sign, since)) if sign == found => since,
            _ => now,
        };
        let free = now - since >= expires || now - found.at_micros >= expires;
        *seen = Some((found, since));
        free
    }

    async fn look(&self) -> Result<Option<Sign>> {
        match self.store.get(&self.path).await {
            // An incomplete or unreadable file is no heartbeat.
            Ok(found) => Ok(serde_json::from_slice(&found.bytes().await.stored()?).ok()),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(from_store(source)),
        }
    }

    async fn sign(&self, beat: u64) -> Result<()> {
        let sign = Sign { holder: self.me, beat, at_micros: self.clock.now_micros() };
        let text = serde_json::to_vec(&sign)
            .map_err(|source| bellwether_base::Error::bug("a lease cannot be written as JSON").with_source(source))?;
        self.store.put_opts(&self.path, PutPayload::from(text), PutMode::Overwrite.into()).await.stored()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_base::SystemClock;
    use object_store::memory::InMemory;

    async fn until(held: &watch::Receiver<bool>, wanted: bool, within: Duration) -> bool {
        let mut held = held.clone();
        tokio::time::timeout(within, held.wait_for(|held| *held == wanted)).await.is_ok()
    }

    fn keep(lake: &Lake) -> (watch::Receiver<bool>, tokio::task::JoinHandle<()>, CancellationToken) {
        let (sender, receiver) = watch::channel(false);
        let stop = CancellationToken::new();
        (receiver, tokio::spawn(lake.lease("aggregate/0").keep(sender, stop.clone())), stop)
    }

    #[tokio::test]
    async fn one_holds_it_and_another_takes_over_when_it_dies_or_gives_it_back() {
        let lake = Lake::on_store(Arc::new(InMemory::new()), Arc::new(SystemClock)).await.expect("opens");
        let (first, first_task, _) = keep(&lake);
        assert!(until(&first, true, Duration::from_secs(1)).await, "a lease that nobody holds is taken at once");
        let (second, second_task, second_stop) = keep(&lake);
        assert!(!until(&second, true, Duration::from_secs(4)).await, "it stands by while the holder lives");
        first_task.abort();
        assert!(until(&second, true, Duration::from_secs(4)).await, "it takes over within five seconds");
        let (third, _third_task, _) = keep(&lake);
        second_stop.cancel();
        second_task.await.expect("ends");
        assert!(until(&third, true, Duration::from_millis(1200)).await, "a released lease is free at once");
    }
}
