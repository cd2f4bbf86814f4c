//! `bellwether candidates next`: a screen on which people review one candidate after another.
//!
//! * `screen`: the state of the screen, pure: keys and news go in, actions come out. `draw`: its picture.
//! * `worker`: takes candidates ahead of the reviewer, reads them, and sends decisions, beside the screen.
//!
//! The next candidate is at hand when one is decided, and no key waits for the broker. The terminal is restored however the loop
//! ends, also after a panic (by ratatui's hook).

mod draw;
mod screen;
mod worker;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use bellwether_base::{Error, Result};
use clap::Args;
use crossterm::event::{self, Event};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::screen::{Action, Screen};
use self::worker::{News, Order};
use super::desk::{Desk, DeskArgs};
use super::filter::FilterArgs;
use super::statement::now;
use super::{answer, minutes};

/// Longest wait for a key before the screen is redrawn.
const TICK: Duration = Duration::from_millis(100);

/// Longest wait at the end until all statements are sent. Candidates that are just being taken are read first.
const DRAIN: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  bellwether candidates next -c bellwether.toml --reviewer ana
  EDITOR='code --wait' bellwether candidates next -c bellwether.toml --reviewer ana --lease 30m

Each candidate is yours until the lease ends; it is prolonged while you work.
The screen shows its keys.")]
pub(crate) struct NextArgs {
    #[command(flatten)]
    desk: DeskArgs,
    #[command(flatten)]
    filter: FilterArgs,
    /// How long each candidate is reserved for you.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = minutes)]
    lease: Duration,
}

/// Runs the screen until the reviewer leaves it.
///
/// # Errors
/// `Config` if there is no terminal, or as [`Desk::open`]; `Unavailable` if the terminal is lost, or statements were not sent.
pub(super) async fn run(args: &NextArgs) -> Result<ExitCode> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Error::config("`bellwether candidates next` needs a terminal").with_hint(
            "without one, use `bellwether candidates take`, `show`, and `accept`, `edit`, `reject`, `unsure` or `skip`",
        ));
    }
    let desk = Desk::open(&args.desk).await?.of(&args.filter);
    let can_fetch = !desk.config.evals.fetch_content.is_empty();
    let mut screen = Screen::new(&desk.reviewer, args.lease, can_fetch, now());
    let (orders, received) = unbounded_channel();
    let (sender, mut news) = unbounded_channel();
    let worker = tokio::spawn(worker::work(desk, args.lease, received, sender));
    let mut terminal = open()?;
    let shown = show(&mut screen, &mut terminal, &orders, &mut news);
    ratatui::restore();
    drop(orders);
    crate::print(&screen.summary(now()))?;
    let drained = tokio::time::timeout(DRAIN, worker).await;
    while let Ok(one) = news.try_recv() {
        screen.receive(one, now());
    }
    shown?;
    let unsent = screen.unsent();
    if let Ok(Err(panic)) = drained {
        return Err(Error::bug("the worker beside the screen panicked").with_source(panic));
    }
    if !unsent.is_empty() {
        return Err(Error::unavailable(format!("not all statements were sent: {}", unsent.join(", ")))
            .with_hint("check `kafka.brokers`, and decide about these candidates again"));
    }
    if drained.is_err() {
        return Err(Error::unavailable("the candidates that were at hand could not be given back in time")
            .with_hint("nothing is lost: they are free again when their leases end"));
    }
    Ok(ExitCode::SUCCESS)
}

fn open() -> Result<ratatui::DefaultTerminal> {
    ratatui::try_init().map_err(|source| Error::unavailable("cannot use the terminal").with_source(source))
}

fn show(
    screen: &mut Screen,
    terminal: &mut ratatui::DefaultTerminal,
    orders: &UnboundedSender<Order>,
    news: &mut UnboundedReceiver<News>,
) -> Result<()> {
    let broken = |source: std::io::Error| Error::unavailable("lost the terminal").with_source(source);
    loop {
        terminal.draw(|frame| draw::draw(frame, screen, now())).map_err(broken)?;
        // Waiting for a key may block this worker thread; other threads serve the worker.
        if tokio::task::block_in_place(|| event::poll(TICK)).map_err(broken)?
            && let Event::Key(key) = event::read().map_err(broken)?
        {
            match screen.press(key, now()) {
                Action::Nothing => {}
                Action::Quit => return Ok(()),
                // A worker that has ended has said why.
                Action::Order(order) => drop(orders.send(*order)),
                Action::Edit(start) => {
                    ratatui::restore();
                    let written = tokio::task::block_in_place(|| answer::edited(&start));
                    *terminal = open()?;
                    screen.edited(written);
                }
            }
        }
        while let Ok(one) = news.try_recv() {
            screen.receive(one, now());
        }
    }
}
