//! Delivery of alerts: the role that follows `alerts` and sends pages by routes.
//!
//! * [`settings`]: the section `[deliver]` of a configuration. [`route`]: routes and maintenance windows; [`matcher`] and [`hours`]:
//!   their conditions.
//! * `ledger`: the firings that follow from the rows of `alerts`. `incident`: these as incidents with keys.
//! * [`inhibit`]: alerts that explain others. [`hands`]: the interface to silences and acknowledgements.
//! * [`planner`]: decides what is sent, where and when. `destination`: what a sink knows of a group of incidents.
//! * [`outbox`]: rows of `deliveries`.
//! * [`page`]: pages of incidents, and the interface of a builder of evidence. `builds`: evidence that is being made. `send`: sends
//!   one message.
//! * `announce`: new releases, for sinks that show changes beside incidents.
//! * `deliverer`: the role.
//!
//! Rules: each transition that a route wants is sent at least once, under one key for each incident, and the last state that is sent
//! is the present one. What is to be sent is committed before it is sent. A sink that fails delays no other, and is never turned off.
//! This crate knows no vendor and no protocol: sinks do.

mod announce;
mod builds;
mod deliverer;
mod destination;
pub mod hands;
pub mod hours;
mod incident;
pub mod inhibit;
mod ledger;
pub mod matcher;
mod metrics;
pub mod outbox;
pub mod page;
pub mod planner;
pub mod route;
mod send;
pub mod settings;

pub use deliverer::{Deliver, DeliverSetup, Deliverer, run};
pub use hands::{Acknowledgement, Hands, NoHands, Silences};
pub use page::{PageBuilder, RowOnly};
pub use send::{NO_EVIDENCE, within};
pub use settings::DeliverSettings;
