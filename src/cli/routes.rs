//! `portcullis routes`: the routes in the order of matching, with what each asks of a request.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::File;
use crate::config::load::KeyPath;
use crate::config::route::Serve;
use crate::config::steps::{self, Asked};
use crate::config::{Config, Route, Sources};
use crate::routing::conditions::{Condition, Test};
use crate::routing::precedence::{self, Row};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: File,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// What the operator chose; what every route asks by default is left out
    Table,
    /// One JSON object a line, with every step
    Json,
}

/// `LISTENER` is left out if no route names one, and `WHEN` if no route has conditions.
const COLUMNS: [&str; 8] =
    ["LISTENER", "HOST", "PATH", "METHODS", "WHEN", "ROUTE", "UPSTREAM", "ASKS"];

pub(super) fn routes(options: &Options) -> ExitCode {
    let (config, sources) = match Config::at(&options.file.location()) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            super::diagnostics::write(&diagnostics, super::diagnostics::Format::of_stderr());
            return ExitCode::from(super::FAILED);
        }
    };
    let named: Vec<(&String, &Route)> =
        config.routes.iter().map(|(name, route)| (name, &**route)).collect();
    let matches = named.iter().enumerate().map(|(index, (_, route))| (index, &route.matches));
    let rows = precedence::rows(matches);
    let shown = rows.iter().map(|row| {
        let (name, route) = named[row.route];
        (row, name.as_str(), route)
    });
    let printed = match options.format {
        Format::Table => table(&config, shown),
        Format::Json => lines(&config, &sources, shown),
    };
    super::written(printed)
}

type Shown<'a> = (&'a Row<'a>, &'a str, &'a Route);

fn table<'a>(config: &Config, rows: impl Iterator<Item = Shown<'a>>) -> io::Result<()> {
    let mut lines = vec![COLUMNS.map(str::to_owned)];
    let (mut are_conditional, mut name_listeners) = (false, false);
    lines.extend(rows.map(|(row, name, route)| {
        are_conditional |= !row.conditions.is_empty();
        name_listeners |= row.listener.is_some();
        [
            row.listener.unwrap_or("*").to_owned(),
            host(row),
            path(row),
            methods(row).join(","),
            conditions(row),
            name.to_owned(),
            target(route),
            asks(config, name, route),
        ]
        .map(|cell| cell.chars().map(visible).collect())
    }));
    let mut widths = [0; COLUMNS.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = io::stdout().lock();
    for line in lines {
        let shown = line.iter().zip(widths).enumerate();
        let shown = shown.filter(|(column, _)| match COLUMNS[*column] {
            "LISTENER" => name_listeners,
            "WHEN" => are_conditional,
            _ => true,
        });
        let cells = shown.map(|(_, (cell, width))| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn lines<'a>(
    config: &Config,
    sources: &Sources,
    rows: impl Iterator<Item = Shown<'a>>,
) -> io::Result<()> {
    let rows: Vec<_> = rows
        .map(|(row, name, route)| (row, name, route, steps::of_route(config, name, route)))
        .collect();
    let keys: Vec<KeyPath> =
        rows.iter().flat_map(|(.., steps)| steps).filter_map(|asked| asked.key.clone()).collect();
    // In the order of the steps that have a key.
    let mut decided = sources.decided(&keys).into_iter();
    let mut out = io::stdout().lock();
    for (row, name, route, steps) in rows {
        let steps: Vec<_> = steps
            .into_iter()
            .map(|Asked { step, values, key, chosen }| {
                let decided = key.and_then(|_| decided.next());
                let (key, place) = decided.map(|d| (d.key.to_string(), d.place)).unzip();
                json!({ "step": step, "values": values, "key": key, "place": place, "chosen": chosen })
            })
            .collect();
        let line = json!({
            "listener": row.listener,
            "scheme": row.scheme,
            "host": row.host.map(ToString::to_string),
            "path": path(row),
            "methods": row.methods.values().map(|_| methods(row)),
            "conditions": row.conditions.iter().map(condition).collect::<Vec<_>>(),
            "route": name,
            "upstream": route.upstream,
            "serve": route.serve.map(Serve::as_str),
            "respond": route.respond.as_ref().map(|respond| respond.status),
            "redirect": route.redirect.as_ref().map(|redirect| redirect.status),
            "steps": steps,
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// With its scheme, if the route names one: `http://*`.
fn host(row: &Row<'_>) -> String {
    let host = row.host.map_or_else(|| "*".to_owned(), ToString::to_string);
    match row.scheme {
        Some(scheme) => format!("{}://{host}", scheme.as_str()),
        None => host,
    }
}

fn path(row: &Row<'_>) -> String {
    row.path.map_or_else(|| "/*".to_owned(), ToString::to_string)
}

fn methods(row: &Row<'_>) -> Vec<String> {
    match row.methods.values() {
        None => vec!["*".to_owned()],
        Some(verbs) => verbs.iter().map(ToString::to_string).collect(),
    }
}

/// What else a request must have: `header x-version = 2 and cookie beta`.
fn conditions(row: &Row<'_>) -> String {
    match row.conditions.is_empty() {
        true => "*".to_owned(),
        false => row.conditions.iter().map(Condition::to_string).collect::<Vec<_>>().join(" and "),
    }
}

fn condition(Condition { place, test }: &Condition) -> Value {
    let (test, value) = match test {
        Test::Exact(text) => ("exact", json!(text)),
        Test::Prefix(text) => ("prefix", json!(text)),
        Test::Present => ("present", json!(true)),
        Test::Absent => ("present", json!(false)),
        Test::Named(names) => {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            return json!({ "in": place.kind(), "any_of": names });
        }
    };
    json!({ "in": place.kind(), "name": place.name(), test: value })
}

fn target(route: &Route) -> String {
    let own = || {
        let page = route.serve.map(|serve| format!("({})", serve.as_str()));
        let respond = route.respond.as_ref().map(|respond| format!("(respond {})", respond.status));
        let redirect = route.redirect.as_ref();
        page.or(respond)
            .or_else(|| redirect.map(|redirect| format!("(redirect {})", redirect.status)))
    };
    match &route.upstream {
        Some(upstream) => upstream.to_string(),
        None => own().unwrap_or_default(),
    }
}

/// The steps that the operator chose: `credentials: partners; bulkhead: 64`.
fn asks(config: &Config, name: &str, route: &Route) -> String {
    let chosen = steps::of_route(config, name, route).into_iter().filter(|asked| asked.chosen);
    let texts = chosen.map(|asked| format!("{}: {}", asked.step, asked.values.join(", ")));
    texts.collect::<Vec<_>>().join("; ")
}

/// Control characters of a file must not reach the terminal.
fn visible(c: char) -> char {
    if c.is_control() { '\u{fffd}' } else { c }
}
