//! A table of aligned columns, with colours only on a terminal.

use std::fmt;
use std::io::IsTerminal;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

pub struct Table {
    head: Vec<String>,
    rows: Vec<(bool, Vec<String>)>,
}

impl Table {
    pub fn new(head: &[&str]) -> Self {
        Table { head: head.iter().map(|&name| name.to_owned()).collect(), rows: Vec::new() }
    }

    /// A row with as many cells as the head has; `good` decides its colour.
    pub fn push(&mut self, good: bool, cells: Vec<String>) {
        self.rows.push((good, cells));
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|cell| cell.chars().count()).collect();
        for (_, cells) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let widths = self.widths();
        line(f, &self.head, &widths, coloured.then_some(BOLD))?;
        for (good, cells) in &self.rows {
            let colour = if *good { GREEN } else { RED };
            line(f, cells, &widths, coloured.then_some(colour))?;
        }
        Ok(())
    }
}

fn line(
    f: &mut fmt::Formatter<'_>,
    cells: &[String],
    widths: &[usize],
    colour: Option<&str>,
) -> fmt::Result {
    let mut text = String::from("  ");
    for (cell, &width) in cells.iter().zip(widths) {
        text.push_str(&format!("{cell:width$}  "));
    }
    match colour {
        Some(colour) => writeln!(f, "{colour}{}{PLAIN}", text.trim_end()),
        None => writeln!(f, "{}", text.trim_end()),
    }
}
