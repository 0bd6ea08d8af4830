//! Lays what a file says once beneath each of the named things that it says it for.
//!
//! ```text
//! defaults: {timeout: {connect: 1s}, auth: {…}}   beneath all of `routes`
//! routes:
//!   a: {timeout: {request: 5s}}                   its own; connect and auth come from beneath
//!   b: {auth: off}                                its own: nothing; timeout comes from beneath
//! ```
//!
//! Nothing is copied into the things: they share what lies beneath them. It is read by itself first,
//! so that a mistake in it is found once, and removed there.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::findings::Findings;
use super::layering::{Layering, Meets, Off};
use super::node::{Entry, Fits, Node, Origin, Value};
use super::path::KeyPath;
use crate::config::code::Code;

/// What switches a default off, for keys that have [`Off`].
const OFF: &str = "off";

impl Layering {
    /// Lays the defaults in `tree` beneath its things. `read` gets a tree of the defaults alone, to
    /// find what is wrong with them and to remove it.
    pub(super) fn lay(
        &self,
        tree: &mut Node,
        findings: &mut Findings,
        read: impl FnOnce(&mut Node, &mut Findings),
    ) {
        let origin = tree.origin;
        let Value::Mapping(sections) = &mut tree.value else { return };
        let place = |sections: &[Entry], name| sections.iter().position(|s| s.key == name);
        if let Some(at) = place(sections, self.defaults) {
            let mut defaults = sections.remove(at);
            self.refuse_own(&mut defaults.node, findings);
            self.switch_off(&mut defaults.node);
            let mut alone = Node::new(origin, Value::Mapping(vec![defaults]));
            read(&mut alone, findings);
            if let Value::Mapping(right) = alone.value {
                sections.splice(at..at, right);
            }
        }
        let defaults = place(sections, self.defaults).map(|at| sections[at].node.clone());
        let Some(at) = place(sections, self.things) else { return };
        let Value::Mapping(things) = &mut sections[at].node.value else { return };
        let mut layers = defaults.as_ref().map(|defaults| Layers::new(self, defaults));
        for Entry { key, node, .. } in things {
            if let Some(defaults) = &defaults {
                self.refuse_slips(key, node, defaults, findings);
            }
            self.switch_off(node);
            if let Some(layers) = &mut layers {
                layers.lay_beneath(node);
            }
        }
    }

    /// Makes nothing of each `off`.
    fn switch_off(&self, thing: &mut Node) {
        let Value::Mapping(entries) = &mut thing.value else { return };
        for entry in entries {
            let is_off = matches!(&entry.node.value, Value::Text(text) if text.value == OFF);
            if is_off && self.key(&entry.key).is_some_and(|key| key.off != Off::Value) {
                entry.node.value = Value::Null;
            }
        }
    }

    /// Removes from the defaults what each thing has to say itself.
    fn refuse_own(&self, defaults: &mut Node, findings: &mut Findings) {
        let Value::Mapping(entries) = &mut defaults.value else { return };
        entries.retain(|Entry { key, key_origin, .. }| {
            let is_own = self.own.contains(&key.as_str());
            if is_own {
                let path = KeyPath::root().key(self.defaults).key(key);
                let message = format!("`{key}` has no default");
                findings.record(&path, *key_origin, Code::NoDefault, message);
            }
            !is_own
        });
    }

    /// Records each empty value in `thing` that may be a slip.
    fn refuse_slips(&self, name: &str, thing: &Node, defaults: &Node, findings: &mut Findings) {
        for Entry { key, key_origin, node, .. } in thing.own_entries() {
            let matters = matches!(node.value, Value::Null)
                && self.key(key).is_some_and(|key| key.off == Off::WordAlone);
            let default = defaults.entry(key).filter(|_| matters);
            if let Some(default) = default.filter(|d| !matches!(d.node.value, Value::Null)) {
                let path = KeyPath::root().key(self.things).key(name).key(key);
                let message =
                    format!("`{key}` is empty, and has a default: `{}.{key}` at ", self.defaults);
                let remedy = format!("write `{key}: {OFF}` if none is meant, or remove the key");
                let kind = (Code::EmptyOverDefault, message);
                findings.record_beside(&path, *key_origin, kind, Some(remedy), default.key_origin);
            }
        }
    }
}

/// What lies beneath things, each layer made once.
struct Layers<'a> {
    layering: &'a Layering,
    defaults: &'a Node,
    /// Of whole things, by the keys whose absence leaves defaults out.
    whole: BTreeMap<Vec<&'static str>, Arc<Node>>,
    /// Of mappings within them.
    parts: BTreeMap<Origin, Arc<Node>>,
}

impl<'a> Layers<'a> {
    fn new(layering: &'a Layering, defaults: &'a Node) -> Self {
        Layers { layering, defaults, whole: BTreeMap::new(), parts: BTreeMap::new() }
    }

    fn lay_beneath(&mut self, thing: &mut Node) {
        if !matches!(thing.value, Value::Mapping(_)) {
            return;
        }
        let layering = self.layering;
        let needed = layering.keys.iter().filter_map(|key| key.only_with);
        let mut lacks: Vec<_> = needed.filter(|key| thing.entry(key).is_none()).collect();
        lacks.dedup();
        let defaults = self.defaults;
        let whole = self.whole.entry(lacks).or_insert_with_key(|lacks| {
            let fits = |entry: &&Entry| {
                let key = layering.key(&entry.key);
                !key.and_then(|key| key.only_with).is_some_and(|with| lacks.contains(&with))
            };
            let entries = defaults.own_entries().iter().filter(fits).map(shared).collect();
            Arc::new(Node::new(defaults.origin, Value::Mapping(entries)))
        });
        let whole = whole.clone();
        let merges = |key: &str| layering.key(key).is_some_and(|key| key.meets == Meets::Merges);
        self.join(thing, whole, &merges);
    }

    /// Lays `beneath` beneath a mapping, and its mappings beneath those of the same key that merge.
    fn join(&mut self, own: &mut Node, beneath: Arc<Node>, merges: &dyn Fn(&str) -> bool) {
        let Value::Mapping(entries) = &mut own.value else { return };
        for entry in entries.iter_mut().filter(|entry| merges(&entry.key)) {
            let Some(default) = beneath.entry(&entry.key).map(|default| &default.node) else {
                continue;
            };
            if let (Value::Mapping(_), Value::Mapping(_)) = (&entry.node.value, &default.value) {
                let part =
                    self.parts.entry(default.origin).or_insert_with(|| Arc::new(default.clone()));
                let part = part.clone();
                self.join(&mut entry.node, part, &|_| true);
            }
        }
        own.beneath = Some(beneath);
    }
}

/// A copy of an entry that several mappings share.
fn shared(entry: &Entry) -> Entry {
    fn never(node: &mut Node) {
        match &mut node.value {
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {
            }
            Value::Sequence(elements) => elements.iter_mut().for_each(|e| never(&mut e.node)),
            Value::Mapping(entries) => entries.iter_mut().for_each(|entry| {
                entry.fits = Fits::never();
                never(&mut entry.node);
            }),
        }
    }
    let mut entry = entry.clone();
    entry.fits = Fits::never();
    never(&mut entry.node);
    entry
}
