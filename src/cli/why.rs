//! `portcullis why`: the story of one request, from the running gateway, its log, or the record.

mod story;

use std::fs::File as LogFile;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use super::File;
use super::running::{Place, Running, encoded};
use crate::config::{Config, Sources};
use crate::observe::colour;
use crate::record::read::{Filter, Reader};

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The id that the client got: `X-Request-Id`, or `request_id` in its problem
    #[arg(value_name = "REQUEST_ID")]
    id: String,
    #[command(flatten)]
    file: File,
    /// Look in this access log (JSON), and nowhere else; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    /// What was found, as one JSON object
    Json,
}

/// What is known of a request, and from where.
struct Found {
    facts: Map<String, Value>,
    from: String,
}

pub(super) fn why(options: &Options) -> ExitCode {
    // Needed only to say which line of the file decided, and where the record is.
    let loaded = Config::at(&options.file.location()).ok();
    let found = match &options.log {
        Some(log) => in_log(log, &options.id),
        None => {
            let gateway = options.place.running(loaded.as_ref().map(|(config, _)| &config.admin));
            let found = gateway.and_then(|gateway| in_gateway(&gateway, &options.id));
            found.or_else(|unasked| match in_record(loaded.as_ref(), &options.id) {
                Ok(found) => Ok(found),
                Err(unread) => Err(format!("{unasked}; {unread}")),
            })
        }
    };
    let found = match found {
        Ok(found) => found,
        Err(reason) => {
            eprintln!("portcullis: request {} was not found: {reason}", options.id);
            return ExitCode::FAILURE;
        }
    };
    let mut out = io::stdout().lock();
    let written = match options.format {
        Format::Json => writeln!(out, "{}", Value::Object(found.facts)),
        Format::Text => {
            let coloured = colour::is_wanted(&io::stdout());
            let decided = decided(&found.facts, loaded.as_ref());
            out.write_all(
                story::tell(&found.facts, &found.from, decided.as_deref(), coloured).as_bytes(),
            )
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The running gateway remembers the latest failures and slow requests.
fn in_gateway(gateway: &Running, id: &str) -> Result<Found, String> {
    let answer = gateway.ask("GET", &format!("/requests/{}", encoded(id)))?;
    if answer.status != 200 {
        return Err(format!("the gateway at {gateway} does not remember it"));
    }
    let facts = serde_json::from_slice(&answer.body)
        .map_err(|_| format!("what answers at {gateway} is not a gateway's admin listener"))?;
    Ok(Found { facts, from: format!("the running gateway, {gateway}") })
}

fn in_log(path: &Path, id: &str) -> Result<Found, String> {
    let shown = path.display();
    let unread = |error: io::Error| format!("{shown} cannot be read: {error}");
    let reader: Box<dyn BufRead> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(BufReader::new(LogFile::open(path).map_err(unread)?)),
    };
    // The id is searched for as text first: most lines are of other requests.
    let (mut found, mut lines, mut parsed) = (None, 0, 0);
    for line in reader.split(b'\n') {
        let line = line.map_err(unread)?;
        lines += 1;
        let is_near = memchr::memmem::find(&line, id.as_bytes()).is_some();
        if !is_near && parsed > 0 {
            continue;
        }
        let Ok(Value::Object(facts)) = serde_json::from_slice(&line) else { continue };
        parsed += 1;
        if facts.get("portcullis.request_id").and_then(Value::as_str) == Some(id) {
            found = Some(facts);
        }
    }
    match found {
        Some(facts) => Ok(Found { facts, from: format!("{shown}") }),
        None if lines > 0 && parsed == 0 => {
            Err(format!("{shown} is not an access log in JSON (access_log.format: json)"))
        }
        None => Err(format!("it is not in {shown}")),
    }
}

/// The record says less: what became of the request, not of each attempt.
fn in_record(loaded: Option<&(Config, Sources)>, id: &str) -> Result<Found, String> {
    let Some((config, _)) = loaded else {
        return Err(
            "the record was not read, because the configuration is invalid (-c FILE)".into()
        );
    };
    let reader = Reader::open(&config.record)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let filter = Filter { request_id: Some(id.to_owned()), ..Filter::default() };
    let rows = runtime.block_on(reader.latest(&filter, 1))?;
    let Some(row) = rows.first() else { return Err("it is not in the record".into()) };
    let facts: Map<String, Value> =
        serde_json::from_slice(&row.to_json()).map_err(|error| error.to_string())?;
    Ok(Found { facts: story::of_row(facts), from: "the record".to_owned() })
}

/// The key of the configuration that decided, with its place in the file.
fn decided(facts: &Map<String, Value>, loaded: Option<&(Config, Sources)>) -> Option<String> {
    let mut key = story::key_of(facts)?;
    let Some((config, sources)) = loaded else { return Some(key) };
    if was_first_byte(facts, config) {
        key = key.replace("timeout.attempt", "timeout.first_byte");
    }
    let decided = sources.decided(&[key.as_str().into()]);
    decided.first().map(|decided| format!("{}: {}", decided.place, decided.key))
}

/// Whether an attempt ended because its response had not begun in time. The log says which limit
/// that was; the record does not, and there it follows from the status that never came.
fn was_first_byte(facts: &Map<String, Value>, config: &Config) -> bool {
    let is_absent = |name: &str| facts.get(name).is_none_or(Value::is_null);
    let route = facts.get("portcullis.route").and_then(Value::as_str);
    let timeout = route.and_then(|route| config.routes.get(route)).map(|route| &route.timeout);
    is_absent("portcullis.limit")
        && is_absent("portcullis.upstream_status")
        && timeout.is_some_and(|timeout| timeout.first_byte().is_some())
}
