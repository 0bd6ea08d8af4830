//! Prints rows and figures as a table, as JSON lines, or as CSV.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::Format;
use crate::record::column_names;
use crate::record::read::{Filter, RouteFigures, Stored};

/// The columns that a table shows.
const SHOWN: [&str; 11] = [
    "created_at",
    "status",
    "route",
    "method",
    "path",
    "consumer",
    "attempts",
    "duration_us",
    "rejection",
    "cause",
    "request_id",
];
const FIGURES: [&str; 7] =
    ["route", "requests", "rate_per_second", "success_percent", "p50_ms", "p95_ms", "p99_ms"];

type Object = Map<String, Value>;

pub(super) struct Printer {
    format: Format,
    /// The widths of the table's columns; they only grow.
    widths: Vec<usize>,
    begun: bool,
}

impl Printer {
    pub(super) fn new(format: Format) -> Self {
        Printer { format, widths: Vec::new(), begun: false }
    }

    pub(super) fn rows(&mut self, rows: &[Stored]) -> io::Result<()> {
        let objects: Vec<Object> =
            rows.iter().filter_map(|row| serde_json::from_slice(&row.to_json()).ok()).collect();
        match self.format {
            Format::Json => rows.iter().try_for_each(|row| {
                let mut line = row.to_json();
                line.push(b'\n');
                io::stdout().write_all(&line)
            }),
            Format::Csv => self.csv(&column_names().collect::<Vec<_>>(), &objects),
            Format::Table => self.table(&SHOWN, &objects),
        }
    }

    pub(super) fn figures(&mut self, figures: &[RouteFigures], asked: &Filter) -> io::Result<()> {
        let objects: Vec<Object> = figures.iter().filter_map(|of| object(of, asked)).collect();
        match self.format {
            Format::Json => {
                objects.into_iter().try_for_each(|o| writeln!(io::stdout(), "{}", Value::Object(o)))
            }
            Format::Csv => self.csv(&FIGURES, &objects),
            Format::Table => self.table(&FIGURES, &objects),
        }
    }

    /// RFC 4180.
    fn csv(&mut self, columns: &[&str], objects: &[Object]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !std::mem::replace(&mut self.begun, true) {
            write!(out, "{}\r\n", columns.join(","))?;
        }
        for object in objects {
            let cells: Vec<String> =
                columns.iter().map(|column| quoted(&text(object.get(*column)))).collect();
            write!(out, "{}\r\n", cells.join(","))?;
        }
        Ok(())
    }

    fn table(&mut self, columns: &[&str], objects: &[Object]) -> io::Result<()> {
        let mut lines: Vec<Vec<String>> = Vec::with_capacity(objects.len() + 1);
        if !std::mem::replace(&mut self.begun, true) {
            lines.push(columns.iter().map(|column| column.to_string()).collect());
            self.widths = vec![0; columns.len()];
        }
        let cell = |value: Option<&Value>| match value {
            None => "-".to_owned(),
            // Replaces control characters, so that a client's input cannot control the terminal.
            value => {
                text(value).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
            }
        };
        lines.extend(
            objects.iter().map(|object| columns.iter().map(|c| cell(object.get(*c))).collect()),
        );
        for line in &lines {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = io::stdout().lock();
        for line in lines {
            let cells: Vec<String> = line
                .iter()
                .zip(&self.widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

fn object(of: &RouteFigures, asked: &Filter) -> Option<Object> {
    // Without a time range, the rate covers the time from the first request to the last.
    let from = asked.since.unwrap_or(of.first);
    let to = asked.until.unwrap_or(if asked.since.is_some() { SystemTime::now() } else { of.last });
    let seconds = to.duration_since(from).unwrap_or_default().as_secs_f64();
    let rate = if seconds > 0.0 { of.requests as f64 / seconds } else { of.requests as f64 };
    let success = of.succeeded as f64 / of.requests.max(1) as f64 * 100.0;
    let [p50, p95, p99] = of.quantiles.map(millis);
    let value = json!({
        "route": of.route,
        "requests": of.requests,
        "rate_per_second": rounded(rate, 100.0),
        "success_percent": rounded(success, 100.0),
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
    });
    match value {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

fn millis(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1000.0, 1000.0)
}

fn rounded(number: f64, to: f64) -> f64 {
    (number * to).round() / to
}

fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}
