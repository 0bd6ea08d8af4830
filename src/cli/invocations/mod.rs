//! `portcullis invocations`: reads the record, also while the gateway writes it.

mod print;

use std::collections::HashMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use uuid::Uuid;

use self::print::Printer;
use super::File;
use crate::config::Config;
use crate::record::read::{Filter, Reader, Stored};
use crate::units::Timespan;

/// Time between two reads with `--follow`.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long after its request a row may appear and still be shown by `--follow`.
const LATE: Duration = Duration::from_secs(300);
/// A row is shown once its request has ended, or has lasted this long.
const UNFINISHED: Duration = Duration::from_secs(10);
const FOLLOWED: u32 = 10_000;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Options {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Rate, share of successes and durations by route
    #[command(after_help = super::examples::STATS)]
    Stats(Selection),
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    selection: Selection,
    /// Show so many of the latest ones
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u32,
    /// Go on with those to come
    #[arg(short, long)]
    follow: bool,
}

#[derive(Debug, Args)]
struct Selection {
    #[command(flatten)]
    file: File,
    /// From then on: `15m` ago, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<Time>,
    /// Before then
    #[arg(long, value_name = "TIME")]
    until: Option<Time>,
    /// Of this route
    #[arg(long)]
    route: Option<String>,
    /// Answered so: 503, 5xx or 400-499
    #[arg(long)]
    status: Option<Statuses>,
    /// Of this consumer
    #[arg(long)]
    consumer: Option<String>,
    /// The one with this id
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    /// One JSON object a line
    Json,
    Csv,
}

/// A time, given as such or as a distance from now.
#[derive(Debug, Clone, Copy)]
struct Time(SystemTime);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(time) = humantime::parse_rfc3339_weak(text) {
            return Ok(Time(time));
        }
        let ago: Timespan = text.parse().map_err(|_| {
            "expected a time such as 2026-01-31T12:00:00Z, or how long ago: 15m, 24h".to_owned()
        })?;
        let time = SystemTime::now().checked_sub(*ago).filter(|time| *time >= UNIX_EPOCH);
        time.map(Time).ok_or_else(|| "longer ago than time can tell".to_owned())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Statuses(u16, u16);

impl FromStr for Statuses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            if let Some(class) = text.strip_suffix("xx") {
                let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
                return Some(Statuses(class * 100, class * 100 + 99));
            }
            let status = |text: &str| text.parse().ok().filter(|s| (100..=599).contains(s));
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some(Statuses(status(first)?, status(last)?)).filter(|s| s.0 <= s.1)
        };
        parse().ok_or_else(|| {
            "expected a status from 100 to 599, a class from 1xx to 5xx, or a range: 503, 5xx, 400-499"
                .to_owned()
        })
    }
}

impl Selection {
    fn filter(&self) -> Filter {
        Filter {
            since: self.since.map(|time| time.0),
            until: self.until.map(|time| time.0),
            route: self.route.clone(),
            status: self.status.map(|statuses| (statuses.0, statuses.1)),
            consumer: self.consumer.clone(),
            request_id: self.request_id.clone(),
        }
    }
}

pub(super) fn invocations(options: &Options) -> ExitCode {
    let selection = match &options.what {
        Some(What::Stats(selection)) => selection,
        None => &options.list.selection,
    };
    let config = match Config::at(&selection.file.location()) {
        Ok((config, _)) => config,
        Err(diagnostics) => {
            super::diagnostics::write(&diagnostics, super::diagnostics::Format::of_stderr());
            return ExitCode::from(super::FAILED);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        let reader = Reader::open(&config.record)?;
        runtime.block_on(async {
            check_route(&reader, selection, &config).await?;
            match &options.what {
                Some(What::Stats(selection)) => stats(&reader, selection).await,
                None => list(&reader, &options.list).await,
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("portcullis: {error}");
            ExitCode::from(super::FAILED)
        }
    }
}

/// Refuses a route that is neither in the file nor in the record, as it is probably misspelt.
async fn check_route(
    reader: &Reader,
    selection: &Selection,
    config: &Config,
) -> Result<(), String> {
    let Some(wanted) = &selection.route else { return Ok(()) };
    if config.routes.contains_key(wanted) {
        return Ok(());
    }
    let recorded = reader.routes().await?;
    if recorded.contains(wanted) {
        return Ok(());
    }
    let list = |names: Vec<&str>| match names.join(", ") {
        none if none.is_empty() => "none".to_owned(),
        names => names,
    };
    let in_file = list(config.routes.keys().map(String::as_str).collect());
    // Rows of requests without a route have an empty name.
    let earlier =
        recorded.iter().filter(|name| !name.is_empty() && !config.routes.contains_key(*name));
    let earlier = list(earlier.map(String::as_str).collect());
    let file = selection.file.config.display();
    Err(format!(
        "--route {wanted}: there is no such route; those of {file}: {in_file}; in the record besides: \
         {earlier}"
    ))
}

async fn list(reader: &Reader, options: &List) -> Result<(), String> {
    let filter = options.selection.filter();
    let mut printer = Printer::new(options.selection.format);
    // Read before the latest rows, so that no row falls between those and the ones to follow.
    let mut seen = HashMap::new();
    if options.follow {
        new_rows(reader, &filter, &mut seen).await?;
    }
    let rows = reader.latest(&filter, options.limit).await?;
    seen.extend(rows.iter().map(|row| (row.id(), row.created_at())));
    let mut closed = gone(printer.rows(&rows))?;
    while options.follow && !closed {
        tokio::time::sleep(INTERVAL).await;
        closed = gone(printer.rows(&new_rows(reader, &filter, &mut seen).await?))?;
    }
    Ok(())
}

/// The recent rows that were not seen before.
async fn new_rows(
    reader: &Reader,
    filter: &Filter,
    seen: &mut HashMap<Uuid, SystemTime>,
) -> Result<Vec<Stored>, String> {
    let now = SystemTime::now();
    let of_late = now.checked_sub(LATE);
    seen.retain(|_, at| Some(*at) >= of_late);
    let filter = Filter { since: filter.since.max(of_late), ..filter.clone() };
    let mut rows = reader.latest(&filter, FOLLOWED).await?;
    rows.retain(|row| {
        let age = now.duration_since(row.created_at()).unwrap_or_default();
        let finished = row.completed || age > UNFINISHED;
        finished && seen.insert(row.id(), row.created_at()).is_none()
    });
    Ok(rows)
}

async fn stats(reader: &Reader, selection: &Selection) -> Result<(), String> {
    let filter = selection.filter();
    let figures = reader.figures(&filter).await?;
    gone(Printer::new(selection.format).figures(&figures, &filter)).map(drop)
}

/// Whether the reader of the output has closed it.
fn gone(printed: io::Result<()>) -> Result<bool, String> {
    match printed.and_then(|()| io::stdout().flush()) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_a_class_or_a_range() {
        assert_eq!("503".parse(), Ok(Statuses(503, 503)));
        assert_eq!("5xx".parse(), Ok(Statuses(500, 599)));
        assert_eq!("400-404".parse(), Ok(Statuses(400, 404)));
        for wrong in [
            "", "xx", "0xx", "6xx", "9xx", "12xx", "500-400", "a-b", "-", "0", "99", "600",
            "400-999",
        ] {
            assert!(wrong.parse::<Statuses>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_is_a_date_or_a_distance() {
        assert!("2026-01-31T12:00:00Z".parse::<Time>().is_ok());
        let ago: Time = "15m".parse().expect("a distance");
        assert!(ago.0.elapsed().expect("in the past") >= Duration::from_secs(900));
        for wrong in ["", "yesterday", "15", "99999999999999y"] {
            assert!(wrong.parse::<Time>().is_err(), "{wrong}");
        }
    }
}
