//! Makes several named things of one that is written once, for each name of a list.
//!
//! ```text
//! upstreams:
//!   mesh: {each: ["orders,billing"], endpoints: ["http://{name}:80"]}
//! ```
//!
//! stands for an upstream `orders` and an upstream `billing`, and `mesh` where names of upstreams are listed
//! for both. What is made is at the place of what it was made from, so mistakes in it are found there.

use std::collections::{BTreeMap, HashMap};

use super::MAX_VALUES;
use super::findings::Findings;
use super::node::{Element, Entry, Fits, Node, Origin, Text, Value};
use super::path::KeyPath;
use crate::config::code::Code;

/// What stands for the name in every text of a template.
const NAME: &str = "{name}";
/// The most things that are made of a template.
const MAX_MADE: usize = 1000;
/// The longest name, as of a host.
const MAX_NAME: usize = 253;

/// Which things may be written once for several names.
#[derive(Debug)]
pub struct Templates {
    /// The section of the things.
    pub section: &'static str,
    /// The key of a thing that lists the names; it is a template then.
    pub list: &'static str,
    /// Where the name of a template stands for the names of all that it makes: the keys from the root; `*` is
    /// any name.
    pub uses: &'static [&'static str],
}

/// What was made, by the name of the template.
type Made = BTreeMap<String, Vec<String>>;

impl Templates {
    /// Puts what they make in the place of the templates in `tree`.
    pub(super) fn expand(&self, tree: &mut Node, findings: &mut Findings) {
        let mut made = Made::new();
        if let Some(things) = tree.own_mut(self.section) {
            self.make(things, &mut made, findings);
        }
        list(tree, self.uses, &made);
    }

    fn make(&self, things: &mut Node, made: &mut Made, findings: &mut Findings) {
        let Value::Mapping(entries) = &mut things.value else { return };
        let is_template = |entry: &Entry| {
            let path = KeyPath::root().key(self.section).key(&entry.key).key(self.list);
            entry.node.own_entries().iter().any(|own| own.key == self.list)
                || findings.left_out(&path).is_some()
        };
        if !entries.iter().any(is_template) {
            return;
        }
        let are_templates: Vec<bool> = entries.iter().map(is_template).collect();
        let mut known: HashMap<String, Origin> = HashMap::new();
        // Also the names of templates, by which all that they make is meant.
        known.extend(entries.iter().map(|entry| (entry.key.clone(), entry.key_origin)));
        let mut left = MAX_VALUES;
        for (mut entry, is_template) in std::mem::take(entries).into_iter().zip(are_templates) {
            if !is_template {
                entries.push(entry);
                continue;
            }
            let path = KeyPath::root().key(self.section).key(&entry.key);
            let names = self.names_of(&mut entry, &path, findings);
            let of_each = values(&entry.node);
            left = left.saturating_sub(of_each.saturating_mul(names.len()));
            if left == 0 {
                let message = format!("makes more than {MAX_VALUES} values with those before it");
                findings.record(&path, entry.key_origin, Code::TooManyValues, message);
                findings.prune(path);
                continue;
            }
            let mut of_template = Vec::with_capacity(names.len());
            for (name, place) in names {
                if let Some(first) = known.insert(name.clone(), place) {
                    findings.record_repeated(&path, &name, place, first);
                    continue;
                }
                let mut node = entry.node.clone();
                put_name(&mut node, &name);
                let (key, key_origin) = (name.clone(), entry.key_origin);
                entries.push(Entry { key, key_origin, node, fits: Fits::not_yet() });
                of_template.push(name);
            }
            made.insert(entry.key, of_template);
        }
    }

    /// Takes the names from a template, each with the place where it is written.
    fn names_of(
        &self,
        template: &mut Entry,
        path: &KeyPath,
        findings: &mut Findings,
    ) -> Vec<(String, Origin)> {
        let path = path.clone().key(self.list);
        let Value::Mapping(entries) = &mut template.node.value else { return Vec::new() };
        let Some(at) = entries.iter().position(|entry| entry.key == self.list) else {
            return Vec::new();
        };
        let Entry { key_origin, node, .. } = entries.remove(at);
        let mut names = Vec::new();
        let mut wrong = |path: KeyPath, at: Origin, message: String| {
            findings.record(&path, at, Code::TemplateNames, message);
            findings.prune(path);
        };
        let texts = match &node.value {
            Value::Null => Vec::new(),
            Value::Text(_) => vec![(path.clone(), &node)],
            Value::Sequence(elements) => {
                let place = |index: usize| path.clone().index(index);
                elements.iter().map(|element| (place(element.index), &element.node)).collect()
            }
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Mapping(_) => {
                wrong(path.clone(), key_origin, "expected a list of names".to_owned());
                Vec::new()
            }
        };
        for (path, node) in texts {
            let Value::Text(text) = &node.value else {
                wrong(
                    path,
                    node.origin,
                    "expected a name, or several with commas between them".to_owned(),
                );
                continue;
            };
            for name in text.value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                match is_name(name) {
                    true => names.push((name.to_owned(), node.origin)),
                    false => {
                        let from = text.origins.concat();
                        let from = if from.is_empty() { from } else { format!(", in {from},") };
                        let message = format!("`{}`{from} is not a name", name.escape_debug());
                        wrong(path.clone(), node.origin, message);
                    }
                }
            }
        }
        if names.len() > MAX_MADE {
            let message = format!("lists {} names; at most {MAX_MADE}", names.len());
            wrong(path, key_origin, message);
            names.truncate(MAX_MADE);
        }
        names
    }
}

/// Whether it is a name as hosts have it, in lower case: it may stand in a URL and be asked of the DNS. What ends in a
/// number is read as an address by some, however short.
fn is_name(name: &str) -> bool {
    let is_inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= MAX_NAME && name.split('.').all(is_label) && !is_number
}

/// How many values and keys there are.
fn values(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => 1,
        Value::Sequence(elements) => 1 + elements.iter().map(|e| values(&e.node)).sum::<usize>(),
        Value::Mapping(entries) => 1 + entries.iter().map(|e| 1 + values(&e.node)).sum::<usize>(),
    }
}

fn put_name(node: &mut Node, name: &str) {
    match &mut node.value {
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {}
        Value::Text(text) => {
            if text.value.contains(NAME) {
                text.value = text.value.replace(NAME, name);
            }
        }
        Value::Sequence(elements) => elements.iter_mut().for_each(|e| put_name(&mut e.node, name)),
        Value::Mapping(entries) => entries.iter_mut().for_each(|e| put_name(&mut e.node, name)),
    }
}

/// Puts the names of what was made in the place of the names of templates, in lists at `path` below `node`. A
/// single name is a list of one there.
fn list(node: &mut Node, path: &[&str], made: &Made) {
    if let Some((first, rest)) = path.split_first() {
        let Value::Mapping(entries) = &mut node.value else { return };
        for entry in entries.iter_mut().filter(|entry| *first == "*" || entry.key == *first) {
            list(&mut entry.node, rest, made);
        }
        return;
    }
    let origin = node.origin;
    let elements = match &mut node.value {
        Value::Text(_) => {
            let alone = Node::new(origin, std::mem::replace(&mut node.value, Value::Null));
            vec![Element { index: 0, node: alone }]
        }
        Value::Sequence(elements) if elements.iter().any(|e| template(&e.node, made).is_some()) => {
            std::mem::take(elements)
        }
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Sequence(_)
        | Value::Mapping(_) => return,
    };
    let each = |Element { node, .. }: Element| match template(&node, made) {
        None => vec![node],
        Some(names) => {
            let text = |name: &String| Text { value: name.clone(), origins: Vec::new() };
            names.iter().map(|name| Node::new(node.origin, Value::Text(text(name)))).collect()
        }
    };
    let nodes = elements.into_iter().flat_map(each).enumerate();
    node.value = Value::Sequence(nodes.map(|(index, node)| Element { index, node }).collect());
}

/// The names that were made of the template which `node` names, if it names one.
fn template<'a>(node: &Node, made: &'a Made) -> Option<&'a Vec<String>> {
    match &node.value {
        Value::Text(text) => made.get(&text.value),
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Sequence(_)
        | Value::Mapping(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_a_host_can_have() {
        for name in ["a", "orders", "orders-2", "orders.shop", "7.shop", &"a".repeat(63)] {
            assert!(is_name(name), "{name}");
        }
        let long = "a".repeat(64);
        let longer = ["a"; 128].join(".");
        for name in [
            "",
            "Orders",
            "orders!",
            "a b",
            "-a",
            "a-",
            ".a",
            "a.",
            "a..b",
            "a_b",
            "ä",
            &long,
            &longer,
            "7",
            "169.254.169.254",
            "0x7f000001",
            "a.1",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
