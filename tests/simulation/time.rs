//! Virtual time, which passes only when no task can run.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bellwether_base::Clock;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::random::Random;

/// A clock that the scheduler advances, and unique ids from the seed; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct VirtualClock(Arc<Mutex<Time>>);

#[derive(Debug)]
struct Time {
    now_micros: i64,
    timers: BTreeMap<(i64, u64), Waker>,
    given: u64,
    names: Random,
}

/// A wait for a timer; dropping it removes the timer.
struct Sleep {
    clock: VirtualClock,
    key: (i64, u64),
}

// === impl VirtualClock ===

impl VirtualClock {
    pub(crate) fn new(now_micros: i64, seed: u64) -> Self {
        let names = Random::new(seed, "names");
        Self(Arc::new(Mutex::new(Time { now_micros, timers: BTreeMap::new(), given: 0, names })))
    }

    /// Advances to the next timer and wakes its task; false if there is no timer.
    pub(crate) fn move_on(&self) -> bool {
        let mut time = self.time();
        let Some(((at, _), waker)) = time.timers.pop_first() else { return false };
        time.now_micros = time.now_micros.max(at);
        drop(time);
        waker.wake();
        true
    }

    fn time(&self) -> MutexGuard<'_, Time> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for VirtualClock {
    fn now_micros(&self) -> i64 {
        self.time().now_micros
    }

    fn sleep(&self, wait: Duration) -> BoxFuture<'static, ()> {
        let mut time = self.time();
        time.given += 1;
        let key = (time.now_micros + i64::try_from(wait.as_micros()).expect("a short wait"), time.given);
        drop(time);
        Box::pin(Sleep { clock: self.clone(), key })
    }

    /// Makes a UUID of version 7 from the time, a counter and the seed.
    fn unique_id(&self) -> Uuid {
        let mut time = self.time();
        time.given += 1;
        let millis = u128::try_from(time.now_micros / 1000).expect("after 1970");
        let chance = u128::from(time.names.next() >> 16);
        let counter = u128::from(time.given & 0xFFFF);
        let number =
            (millis << 80) | (7 << 76) | ((counter >> 4) << 64) | (0b10 << 62) | ((counter & 0xF) << 58) | chance;
        Uuid::from_u128(number)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut time = self.clock.time();
        if time.now_micros >= self.key.0 {
            time.timers.remove(&self.key);
            return Poll::Ready(());
        }
        time.timers.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.clock.time().timers.remove(&self.key);
    }
}
