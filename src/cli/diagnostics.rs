//! Diagnostics as people, editors and scripts read them.

use std::io::{IsTerminal, Write};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use clap::ValueEnum;
use serde::Serialize;

use crate::config::Diagnostic;
use crate::config::code::Severity;
use crate::observe::colour;

/// How diagnostics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// With the line of the file and a mark under what is wrong, on standard error
    Full,
    /// One line each, on standard error
    Line,
    /// One JSON array on standard output, empty if nothing is wrong
    Json,
}

impl Format {
    /// What a person at a terminal reads, or a script.
    pub(super) fn of_stderr() -> Self {
        if std::io::stderr().is_terminal() { Format::Full } else { Format::Line }
    }
}

/// Writes all of them, and how many there are.
pub(super) fn write(diagnostics: &[Diagnostic], format: Format) {
    if format == Format::Json {
        println!("{}", json(diagnostics));
        return;
    }
    let mut text = String::new();
    for diagnostic in diagnostics {
        match format {
            Format::Full => text.push_str(&full(diagnostic, &renderer())),
            Format::Line | Format::Json => text.push_str(&diagnostic.to_string()),
        }
        text.push_str(if format == Format::Full { "\n\n" } else { "\n" });
    }
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let counts = [(errors, "error"), (diagnostics.len() - errors, "warning")];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts
        .map(|(count, what)| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
        .collect();
    if !counts.is_empty() {
        text.push_str(&counts.join(", "));
        text.push('\n');
    }
    // If standard error is closed, the exit code still tells the result.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn renderer() -> Renderer {
    match colour::is_wanted(&std::io::stderr()) {
        true => Renderer::styled(),
        false => Renderer::plain(),
    }
    .decor_style(DecorStyle::Ascii)
}

/// As rustc writes it: what, where, and what to do.
fn full(diagnostic: &Diagnostic, renderer: &Renderer) -> String {
    let level = match diagnostic.code.severity() {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(&diagnostic.message).id(diagnostic.code.name());
    let file = diagnostic.file.display().to_string();
    let mut group = Group::with_title(title);
    group = match &diagnostic.source {
        Some(line) => {
            let mark = AnnotationKind::Primary.span(span(line, diagnostic));
            let mark = mark.label((!diagnostic.path.is_empty()).then_some(&*diagnostic.path));
            let snippet = Snippet::source(line).line_start(diagnostic.line).path(file);
            group.element(snippet.annotation(mark))
        }
        None => {
            let place = Origin::path(file).line(diagnostic.line).char_column(diagnostic.column);
            group.element(place)
        }
    };
    if let Some(remedy) = &diagnostic.remedy {
        group = group.element(Level::HELP.message(remedy));
    }
    renderer.render(&[group])
}

/// The bytes of the line that are wrong.
fn span(line: &str, diagnostic: &Diagnostic) -> std::ops::Range<usize> {
    let byte = |column: usize| {
        let at = line.char_indices().nth(column.saturating_sub(1));
        at.map_or(line.len(), |(byte, _)| byte)
    };
    let start = byte(diagnostic.column);
    start..byte(diagnostic.end).max(start)
}

#[derive(Serialize)]
struct Written<'a> {
    severity: String,
    code: &'a str,
    file: std::borrow::Cow<'a, str>,
    line: usize,
    column: usize,
    end_column: usize,
    path: &'a str,
    message: &'a str,
    remedy: Option<&'a str>,
}

/// One JSON array.
pub(super) fn json(diagnostics: &[Diagnostic]) -> String {
    let written: Vec<_> = diagnostics
        .iter()
        .map(|diagnostic| Written {
            severity: diagnostic.code.severity().to_string(),
            code: diagnostic.code.name(),
            file: diagnostic.file.to_string_lossy(),
            line: diagnostic.line,
            column: diagnostic.column,
            end_column: diagnostic.end,
            path: &diagnostic.path,
            message: &diagnostic.message,
            remedy: diagnostic.remedy.as_deref(),
        })
        .collect();
    // Only text and numbers: this cannot fail.
    serde_json::to_string_pretty(&written).unwrap_or_default()
}
