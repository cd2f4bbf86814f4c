//! The loop of every role that follows a table by version.
//!
//! A role implements [`Follower`]: it opens on the newest snapshot of the tables and then takes one step after another.
//! A step reads the log entries that are new, and appends the rows that follow from them in one commit, together with
//! the advance of an application that says how far the follower has read. [`Runner`] does the rest:
//!
//! * It holds the lease, and lets the follower stand by while another process holds it.
//! * It opens the follower again after another process has committed, or after storage was unavailable, with back-off.
//! * It ends the role when it is stopped, or once the role has caught up.
//! * It reports the next version to [`FollowMetrics`] and [`FollowHealth`]; [`Lag`] measures what is still to be read.
//!
//! [`Cursor`] reads a log entry by entry, and [`Append`] commits rows with their advances. Time comes from the
//! [`Clock`](bellwether_base::Clock) only, so that a simulation can drive everything here.
//!
//! Rules: all state of a follower is a function of the tables, so that it may be dropped at any moment. Nothing here
//! decides which commit wins: the log of the target table does.
//!
//! # The smallest follower
//!
//! It reads `events` and keeps in `releases` how far it has read.
//!
//! ```
//! use async_trait::async_trait;
//! use bellwether_base::Result;
//! use bellwether_follow::{Append, Cursor, FollowMetrics, Follower, Runner, Step, Until};
//! use bellwether_lake::{Advance, CommitLog, Lake, Snapshot, StorageOptions};
//! use bellwether_tables::Table;
//! use prometheus::Registry;
//!
//! const APP: &str = "example/0";
//!
//! struct Example {
//!     lake: Lake,
//!     metrics: FollowMetrics,
//!     events: Cursor,
//!     on: Snapshot,
//! }
//!
//! #[async_trait]
//! impl Follower for Example {
//!     type Setup = (Lake, FollowMetrics);
//!
//!     async fn open((lake, metrics): &Self::Setup) -> Result<Self> {
//!         let on = lake.log(Table::Releases).load().await?;
//!         let events = Cursor::new(lake.log(Table::Events), on.next(APP).unwrap_or(0));
//!         Ok(Self { lake: lake.clone(), metrics: metrics.clone(), events, on })
//!     }
//!
//!     async fn step(&mut self) -> Result<Step> {
//!         let Some(entry) = self.events.entry(0).await? else { return Ok(Step::CaughtUp) };
//!         let next = entry.version + 1;
//!         let append = Append {
//!             table: Table::Releases,
//!             on: &self.on,
//!             rows: None, // The rows that follow from `entry`.
//!             advances: vec![Advance { app_id: APP.to_owned(), expected: self.on.next(APP), next }],
//!             operation: "example",
//!             facts: serde_json::Map::new(),
//!         };
//!         self.on = append.commit(&self.lake, &self.metrics).await?;
//!         self.events.advance_to(next);
//!         Ok(Step::More)
//!     }
//!
//!     fn next_version(&self) -> i64 {
//!         self.events.next_version()
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! # let folder = tempfile::tempdir().expect("a folder");
//! # let lake = Lake::open(folder.path().to_str().expect("UTF-8"), &StorageOptions::default()).await?;
//! let metrics = FollowMetrics::register(&Registry::new(), "example", Table::Events, None)?;
//! let runner = Runner { until: Until::caught_up(), ..Runner::new("example", lake.clock(), metrics.clone()) };
//! runner.run::<Example>(&(lake.clone(), metrics)).await?;
//! assert_eq!(lake.log(Table::Releases).load().await?.next(APP), Some(1));
//! # Ok(())
//! # }
//! ```

mod append;
mod cursor;
mod health;
mod lag;
mod leadership;
mod metrics;
mod runner;

pub use append::{Append, land};
pub use cursor::Cursor;
pub use health::FollowHealth;
pub use lag::Lag;
pub use metrics::{FollowMetrics, MetricRegistrar};
pub use runner::{Follower, Runner, Step, Until};
