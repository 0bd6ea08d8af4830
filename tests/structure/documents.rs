//! What documentation repeats of the code: tables of modules, the steps of a request, state charts.

use std::collections::BTreeSet;
use std::path::Path;

use portcullis::policy::order;

use super::imports::{Source, Sources};

/// The names in the first column of a file's table of modules, if it has one.
pub fn modules(text: &str) -> Option<BTreeSet<&str>> {
    let is_head = |line: &&str| {
        ["file", "module", "room"].iter().any(|what| line.starts_with(&format!("//! | {what} |")))
    };
    let mut lines = text.lines();
    lines.find(is_head)?;
    let rows = lines.skip(1).map_while(|line| line.strip_prefix("//! |"));
    let first = rows.filter_map(|row| row.split('|').next());
    let names = first.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    Some(names.filter(|name| !["tests", "fuzzing"].contains(name)).collect())
}

/// The modules that a file names, but for those of tests.
fn named(source: &Source) -> BTreeSet<&str> {
    let names = source.code().filter_map(|line| {
        let (visibility, name) = line.strip_suffix(';')?.split_once("mod ")?;
        let is_item = ["", "pub "].contains(&visibility) || visibility.starts_with("pub(");
        is_item.then_some(name)
    });
    names.filter(|name| !["tests", "fuzzing"].contains(name)).collect()
}

/// Files whose table of modules does not name exactly the modules of the file.
pub fn incomplete(sources: &Sources) -> Vec<String> {
    let list = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
    let mut wrong = Vec::new();
    for (_, source) in sources.iter() {
        let Some(table) = modules(&source.text) else { continue };
        let modules = named(source);
        if table != modules {
            let (path, table, modules) = (source.path.display(), list(&table), list(&modules));
            wrong.push(format!("{path}: its table has {table}; its modules are {modules}"));
        }
    }
    wrong
}

/// The steps that the table in `docs/architecture.md` has: their numbers, lists and names.
pub fn steps(page: &str) -> Vec<String> {
    let rows = page.lines().skip_while(|line| !line.starts_with("| | list | step |")).skip(2);
    let mut list = "";
    rows.take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let ["", number, of, name, ..] = cells[..] else { panic!("not a step: {row}") };
            if !of.is_empty() {
                list = of;
            }
            format!("{number} {list} {name}")
        })
        .collect()
}

/// The same, as `policy::order` has them.
pub fn steps_in_code() -> Vec<String> {
    let caller = order::CALLER.map(|step| ("CALLER", step.name()));
    let call = order::CALL.map(|step| ("CALL", step.name()));
    let steps = caller.into_iter().chain(call).zip(1..);
    steps.map(|((list, name), number)| format!("{number} {list} {name}")).collect()
}

/// The state charts of `docs/architecture.md`, each behind the file that has the same one.
pub fn charts(page: &str) -> Vec<(&str, String)> {
    let (_, section) = page.split_once("\n## State charts\n").expect("state charts");
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let charts = section.split("\n**").skip(1).map(|chart| {
        let (_, file) = chart.split_once("(`").expect("a file");
        let (file, _) = file.split_once('`').expect("the end of its name");
        let blocks = fenced(chart.lines());
        let [block] = &blocks[..] else { panic!("not one chart: {chart}") };
        (file, block.clone())
    });
    charts.collect()
}

/// Charts of the page that the file which is to have the same one does not have.
pub fn strange_charts(page: &str, sources: &Sources) -> Vec<String> {
    let mut strange = Vec::new();
    for (file, chart) in charts(page) {
        let path = Path::new(file);
        let is_it = |source: &Source| path.strip_prefix("src").is_ok_and(|p| p == source.path);
        match sources.iter().find(|(_, source)| is_it(source)) {
            Some((_, source)) if fenced(comments(&source.text)).contains(&chart) => {}
            Some(_) => {
                strange.push(format!("{file}: no chart in it is that of docs/architecture.md"));
            }
            None => strange.push(format!("{file}: there is no such file")),
        }
    }
    strange
}

/// The lines of a file's documentation.
fn comments(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim_start);
    let comments = lines.filter_map(|l| l.strip_prefix("//!").or_else(|| l.strip_prefix("///")));
    comments.map(|line| line.strip_prefix(' ').unwrap_or(line))
}

/// Fenced blocks, without spaces at the ends of their lines.
fn fenced<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<Vec<&str>> = None;
    for line in lines {
        match (&mut open, line.starts_with("```")) {
            (None, true) => open = Some(Vec::new()),
            (Some(_), true) => blocks.extend(open.take().map(|lines| lines.join("\n"))),
            (Some(lines), false) => lines.push(line.trim_end()),
            (None, false) => {}
        }
    }
    blocks
}
