//! Where log lines go: the journal with fields under systemd, else a human on standard error.

use std::io::{self, IsTerminal as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;

use anyhow::{Context as _, bail};
use tracing::level_filters::LevelFilter;
use tracing::{enabled, info};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, registry, reload};

/// The environment variables that set the level, first one first.
const VARIABLES: [&str; 2] = ["LINKSPAN_LOG", "RUST_LOG"];

const DEFAULT: &str = "info";

/// What is logged, changeable.
#[derive(Debug)]
pub struct Level {
    filter: reload::Handle<EnvFilter, Registry>,
    text: Mutex<String>,
}

impl Level {
    /// As it was set: a level, or directives.
    #[must_use]
    pub fn text(&self) -> String {
        self.text.lock().map(|text| text.clone()).unwrap_or_default()
    }

    /// Logs what `text` says from now on.
    ///
    /// # Errors
    /// When it makes no sense; all is as before then.
    pub fn set(&self, text: &str) -> anyhow::Result<()> {
        let text = text.trim();
        let filter = filter_of(text)?;
        let tell = || info!(level = text, "the log level is changed");
        // By the more talkative of the two.
        let before = enabled!(tracing::Level::INFO);
        if before {
            tell();
        }
        self.filter.reload(filter)?;
        if !before {
            tell();
        }
        if let Ok(mut held) = self.text.lock() {
            text.clone_into(&mut held);
        }
        Ok(())
    }
}

/// Sets up the log of this process: `filter` (a level, or directives as in `RUST_LOG`), else $LINKSPAN_LOG, else
/// $RUST_LOG, else "info".
///
/// # Errors
/// When the filter makes no sense, or a log is set up already.
pub fn init(filter: Option<&str>) -> anyhow::Result<Level> {
    let from_environment =
        || VARIABLES.iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let text = filter.map(str::to_owned).or_else(from_environment).unwrap_or_else(|| DEFAULT.to_owned());
    let (filter, handle) = reload::Layer::new(filter_of(&text)?);
    let layer = match journal() {
        Some(journal) => journal.boxed(),
        None => terminal(io::stderr).boxed(),
    };
    let subscriber = registry().with(layer.with_filter(filter));
    tracing::subscriber::set_global_default(subscriber).context("the log is set up already")?;
    Ok(Level { filter: handle, text: Mutex::new(text) })
}

/// Whether `text` can be a `filter`.
///
/// # Errors
/// Why it cannot.
pub fn check(text: &str) -> anyhow::Result<()> {
    filter_of(text).map(drop)
}

/// The directives in `text`, and silence from the libraries unless they are named in it. boringtun tells the normal
/// course of things as warnings and errors ("CONNECTION_EXPIRED"); what matters of it, we tell ourselves.
fn filter_of(text: &str) -> anyhow::Result<EnvFilter> {
    let no_level = || format!("not a log level: \"{text}\" (error, warn, info, debug, trace)");
    // A word alone would be taken for the name of a library, and silence all others.
    let words = text.split(',').filter(|part| !part.contains(['=', '[']));
    // tracing-subscriber 0.3.23 cuts directives between any two bytes, and panics where these are one character.
    if !text.is_ascii() {
        bail!(no_level());
    }
    for word in words {
        // Nothing at all would pass for "error".
        if word.trim().is_empty() {
            bail!(no_level());
        }
        word.trim().parse::<LevelFilter>().with_context(no_level)?;
    }
    let mut filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::OFF.into())
        .with_regex(false)
        .parse(text)
        .with_context(no_level)?;
    for library in ["boringtun", "hyper", "hyper_util", "mio", "netlink_proto", "tokio"] {
        if !text.contains(library) {
            filter = filter.add_directive(format!("{library}=off").parse()?);
        }
    }
    Ok(filter)
}

/// One line an event, without the name of the module; colours only where they show.
fn terminal<S, W>(writer: W) -> impl Layer<S> + Send + Sync
where
    S: tracing::Subscriber + for<'a> registry::LookupSpan<'a>,
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    fmt::layer().compact().with_target(false).with_ansi(io::stderr().is_terminal()).with_writer(writer)
}

/// The journal, if standard error goes there. Fields are LINKSPAN_TUNNEL and so on.
fn journal() -> Option<tracing_journald::Layer> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let stderr = std::fs::metadata("/dev/stderr").ok()?;
    if !is_stream(&stream, stderr.dev(), stderr.ino()) {
        return None;
    }
    let mut priorities = PriorityMappings::new();
    priorities.info = Priority::Informational;
    priorities.debug = Priority::Debug;
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_field_prefix(Some("LINKSPAN".to_owned())).with_priority_mappings(priorities))
}

/// Whether $JOURNAL_STREAM, "device:inode", names this file (systemd.exec(5)).
fn is_stream(stream: &str, device: u64, inode: u64) -> bool {
    stream == format!("{device}:{inode}")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{debug, error, info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_level_changes_while_it_runs_and_nonsense_changes_nothing() {
        let lines = Lines::default();
        let writer = lines.clone();
        let (filter, handle) = reload::Layer::new(filter_of("warn").unwrap());
        let level = Level { filter: handle, text: Mutex::new("warn".to_owned()) };
        let layer = terminal(move || writer.clone()).with_filter(filter);
        tracing::subscriber::with_default(registry().with(layer), || {
            debug!("first");
            level.set(" debug\n").unwrap();
            debug!("second");
            level.set("loud").unwrap_err();
            debug!("third");
            assert_eq!(level.text(), "debug");
            level.set("warn").unwrap();
            debug!("fourth");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let said = ["first", "second", "third", "fourth"].map(|word| text.contains(word));
        assert_eq!(said, [false, true, true, false], "{text}");
        let told = text.lines().filter(|line| line.contains("the log level is changed")).count();
        assert_eq!(told, 2, "each change once, there and back: {text}");
    }

    /// What is logged under `filter`, as on a terminal.
    fn logged(filter: &str, events: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = terminal(move || writer.clone()).with_filter(filter_of(filter).unwrap());
        tracing::subscriber::with_default(registry().with(layer), events);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_line_has_level_message_and_fields_but_no_module() {
        let text = logged("info", || info!(tunnel = "a", "tunnel is up"));
        assert!(text.contains("INFO tunnel is up tunnel=\"a\"\n"), "{text}");
        assert!(!text.contains("linkspan::"), "{text}");
    }

    #[test]
    fn the_filter_sets_the_level() {
        let events = || {
            debug!("fine");
            warn!("bad");
        };
        assert!(!logged("info", events).contains("fine"));
        assert!(logged("debug", events).contains("fine"));
        assert!(!logged("error", events).contains("bad"));
    }

    #[test]
    fn boringtun_is_silent_unless_named() {
        let events = || error!(target: "boringtun::noise::timers", "CONNECTION_EXPIRED");
        assert_eq!(logged("info", events), "");
        assert_eq!(logged("trace", events), "");
        assert!(logged("info,boringtun=debug", events).contains("CONNECTION_EXPIRED"));
    }

    #[test]
    fn a_filter_without_sense_is_refused() {
        for text in ["linkspan=loud", "loud", "info,loud", "", "l[{} I\u{fffd}\u{fffd}=1"] {
            assert!(check(text).unwrap_err().to_string().contains("not a log level"), "{text}");
        }
        for text in ["info", "WARN", "off", "info,boringtun=debug"] {
            assert!(check(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn the_journal_is_used_only_if_standard_error_is_its_stream() {
        assert!(is_stream("9:1234", 9, 1234));
        assert!(!is_stream("9:1234", 9, 1235));
        assert!(!is_stream("", 9, 1234));
    }
}
