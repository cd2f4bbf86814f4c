//! What a page says, and the services that carry it.
//!
//! * [`page`]: a page about one alert with its evidence, as a structure that every sink renders in its own form.
//! * [`sink`]: the interface of a sink, and what it answers; below it one file for each sink.
//! * [`settings`]: the settings of a sink, and the sink that is made of them.
//! * [`ping`]: pings of a service that raises an alarm without them.
//! * [`secret`]: secrets in files and the environment.
//! * `render`: a page in words, once for all sinks; [`terminal`] shows it.
//!
//! Rules: a sink decides nothing. Whether, when and where a page is sent is decided by its caller, which also keeps what the sink
//! answered. Text of a page comes from events, so that every sink escapes it for its format. A message that is too long for a service
//! is shortened, not refused.

mod address;
mod document;
mod duration;
mod http;
pub mod page;
pub mod ping;
mod render;
pub mod secret;
pub mod settings;
pub mod sink;
mod text;
mod time;

pub use page::Page;
pub use ping::{Ping, PingSettings};
pub use render::terminal;
pub use secret::Secret;
pub use settings::SinkSettings;
pub use sink::slack::slack_message;
pub use sink::{Failure, Notice, Receipt, ReleaseNotice, RollbackNotice, Sink};
