//! `--watch`: the status again and again, until Ctrl-C. In place on a terminal; one after the other into a pipe or file.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::graph::History;
use super::screen::Screen;
use super::table::render_with;
use super::{Args, Look};
use crate::cli::{Exit, out};

/// Watches until told to stop, or until nobody reads any more. The last state is left on the terminal.
pub(super) async fn watch(args: &Args, interval: Duration) -> anyhow::Result<Exit> {
    let mut signals = [signal_of(SignalKind::interrupt())?, signal_of(SignalKind::terminate())?];
    let [interrupt, terminate] = &mut signals;
    let screen = (io::stdout().is_terminal() && !args.json).then(Screen::open).transpose()?;
    let mut watch = Watch { args, screen, history: History::default(), frame: String::new(), exit: Exit::Fine };
    tokio::select! {
        done = watch.repeat(interval) => done?,
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    if watch.screen.take().is_some() {
        out::bytes(watch.frame.as_bytes())?;
    }
    Ok(watch.exit)
}

fn signal_of(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot handle signals")
}

struct Watch<'a> {
    args: &'a Args,
    screen: Option<Screen>,
    history: History,
    /// What was shown last.
    frame: String,
    exit: Exit,
}

impl Watch<'_> {
    async fn repeat(&mut self, interval: Duration) -> anyhow::Result<()> {
        loop {
            let next = Instant::now() + interval;
            let mut look = self.args.look().await;
            self.exit = look.exit;
            for status in &mut look.found {
                self.history.note(std::time::Instant::now(), status);
            }
            if !self.show(&look)? {
                return Ok(());
            }
            sleep_until(next).await;
        }
    }

    /// Whether anybody still reads it.
    fn show(&mut self, look: &Look) -> anyhow::Result<bool> {
        let Some(screen) = &self.screen else {
            look.errors.iter().for_each(out::error);
            let text = self.args.text(&look.found)?;
            return out::is_read(if self.args.json { text } else { text + "\n" }.as_bytes());
        };
        self.frame = self.frame_of(look);
        screen.show(&self.frame)?;
        Ok(true)
    }

    fn frame_of(&self, look: &Look) -> String {
        let tables = look.found.iter().map(|status| {
            let interface = &status.interface.name;
            render_with(status, |connection, tunnel| self.history.graphs(interface, connection, tunnel))
        });
        let errors = look.errors.iter().map(|error| format!("{error}\n"));
        tables.chain(errors).collect::<Vec<_>>().join("\n")
    }
}
