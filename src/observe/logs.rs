//! The process's own log, on standard error.
//!
//! Only the life cycle and what is wrong; nothing for a successful request. A thread of its own
//! writes the lines: a terminal or a pipe that takes nothing more holds no request up.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use env_logger::{Builder, Logger, Target, WriteStyle};
use log::{LevelFilter, Log, Metadata, Record};

use crate::condition::{Condition, QUIET};
use crate::config::log::{Format, Level, Log as Config};
use crate::observe::colour;
use crate::observe::json::{Object, TEXT};
use crate::time::Clock;

/// The most lines that wait for the thread.
const QUEUE: usize = 4096;
/// The longest message in bytes, in JSON.
const MESSAGE: usize = 16 * 1024;
/// The variable that counts instead of the configuration's level.
const VARIABLE: &str = "RUST_LOG";

/// The process's log, as those who may change it hold it. Cheap to clone.
#[derive(Clone)]
pub struct Logs(Arc<State>);

struct State {
    /// With the levels and the format in force.
    logger: ArcSwap<Logger>,
    settings: Mutex<Config>,
    sender: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

enum Line {
    Text(Vec<u8>),
    /// Its sender is dropped once all lines before it are written.
    Flush(#[allow(dead_code, reason = "dropping it is the answer")] SyncSender<()>),
}

impl Logs {
    /// Starts logging, with the default format and the level of `RUST_LOG`, else `info`.
    ///
    /// # Errors
    /// No thread can be started, or something else logs already.
    pub fn start() -> Result<Self, String> {
        let (sender, lines) = sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write(&lines, &counted))
            .map_err(|error| format!("no thread for the log: {error}"))?;
        let settings =
            Config { level: level_of_variable().unwrap_or_default(), ..Config::default() };
        let logger = ArcSwap::from_pointee(logger(&settings, &sender, &lost));
        let settings = Mutex::new(settings);
        let logs = Logs(Arc::new(State { logger, settings, sender, lost }));
        log::set_boxed_logger(Box::new(logs.clone())).map_err(|error| error.to_string())?;
        logs.admit();
        Ok(logs)
    }

    /// Logs as `config` says from now on. A level that was ordered before no longer counts.
    pub fn apply(&self, config: &Config) {
        let level = level_of_variable().unwrap_or_else(|| config.level.clone());
        self.change(Config { level, format: config.format });
    }

    /// Changes the level until the next reload.
    pub fn set_level(&self, level: Level) {
        let format = self.settings().format;
        self.change(Config { level, format });
    }

    /// The level in force.
    pub fn level(&self) -> Level {
        self.settings().level.clone()
    }

    /// Waits up to `limit` until all lines so far are written.
    pub fn flush(&self, limit: Duration) {
        let (written, done) = sync_channel(0);
        if self.0.sender.try_send(Line::Flush(written)).is_ok() {
            // Returns when the thread drops the sender; nothing is ever sent.
            let _ = done.recv_timeout(limit);
        }
    }

    fn change(&self, settings: Config) {
        let mut current = self.settings();
        if *current == settings {
            return;
        }
        self.0.logger.store(Arc::new(logger(&settings, &self.0.sender, &self.0.lost)));
        *current = settings;
        drop(current);
        self.admit();
    }

    /// Tells the `log` crate which levels need not be asked about.
    fn admit(&self) {
        log::set_max_level(self.0.logger.load().filter());
    }

    fn settings(&self) -> std::sync::MutexGuard<'_, Config> {
        self.0.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.logger.load().enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.0.logger.load().log(record);
    }

    fn flush(&self) {}
}

/// An invalid value counts as none: the process starts in any case.
fn level_of_variable() -> Option<Level> {
    Level::new(&std::env::var(VARIABLE).ok()?).ok()
}

fn logger(settings: &Config, sender: &SyncSender<Line>, lost: &Arc<AtomicU64>) -> Logger {
    let mut builder = Builder::new();
    // Pingora logs each failed request, and quotes up to 2 KiB of a malformed one, including any
    // credentials in it. Failures are in the metrics and in the record.
    builder.filter_module("pingora_proxy", LevelFilter::Off);
    builder.filter_module("pingora_core::server", LevelFilter::Warn);
    builder.filter_module("pingora_core::services", LevelFilter::Warn);
    builder.filter_module("pingora_core::connectors", LevelFilter::Error);
    builder.filter_module("pingora_core::protocols", LevelFilter::Error);
    builder.parse_filters(settings.level.as_str());
    let coloured = colour::is_wanted(&io::stderr());
    builder.write_style(if coloured { WriteStyle::Always } else { WriteStyle::Never });
    builder.target(Target::Pipe(Box::new(Queue { sender: sender.clone(), lost: lost.clone() })));
    match settings.format {
        Format::Text => {}
        Format::Json => {
            builder.format(|out, record| out.write_all(&json(record)));
        }
    }
    builder.build()
}

fn json(record: &Record<'_>) -> Vec<u8> {
    let mut line = Object::begin(Vec::with_capacity(256));
    line.time("time", SystemTime::now());
    line.text("level", record.level().as_str(), TEXT);
    line.text("target", record.target(), TEXT);
    line.text("message", &record.args().to_string(), MESSAGE);
    line.end()
}

/// Takes each line that env_logger writes.
struct Queue {
    sender: SyncSender<Line>,
    lost: Arc<AtomicU64>,
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Line::Text(line.to_vec())).is_err() {
            // Relaxed: a count.
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write(lines: &Receiver<Line>, lost: &AtomicU64) {
    let mut losing = Condition::default();
    loop {
        let line = match losing.is_met() {
            false => lines.recv().map_err(RecvTimeoutError::from),
            true => lines.recv_timeout(QUIET),
        };
        let over = match line {
            Ok(Line::Text(text)) => {
                // There is no other place to complain.
                let _ = io::stderr().write_all(&text);
                None
            }
            // What follows may not be waited for.
            Ok(Line::Flush(_written)) => losing.stop(),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let (now, lost) = (Clock::now(), lost.swap(0, Ordering::Relaxed));
        if lost > 0 && losing.met_times(lost, now) {
            let _ = writeln!(io::stderr(), "lines come too fast for the log, and are lost");
        }
        if let Some(over) = over.or_else(|| losing.over_after(QUIET, now)) {
            let _ = writeln!(io::stderr(), "no more lines of the log are lost {over}");
        }
    }
}
