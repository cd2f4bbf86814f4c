//! What a page says, and the services that carry it.
//!
//! * [`page`]: a page about one alert with its evidence, as a structure that every sink renders in its own form.
//! * [`sink`]: the interface of a sink, and what it answers.
//!
//! Rules: a sink decides nothing. Whether, when and where a page is sent is decided by its caller, which also keeps what the sink
//! answered. Text of a page comes from events, so that every sink escapes it for its format.

pub mod page;
pub mod sink;

pub use page::Page;
pub use sink::{Failure, Notice, Receipt, Sink};
