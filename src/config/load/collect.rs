//! Converts a tree to a typed value, and finds every mistake on the way.
//!
//! A type's deserializer stops at its first error. So the tree is read, what was wrong is removed,
//! and it is read again until the rest fits. Each round removes something, so this ends. When there
//! are many routes, a round skips those that have fitted before; once everything fits, the whole
//! tree is read again.

use serde::de::DeserializeOwned;

use super::aimed::aim;
use super::deserialize::NodeDeserializer;
use super::error::{Error, Kind};
use super::findings::Findings;
use super::node::{Node, Origin, Value};
use super::path::KeyPath;

/// The typed value of `tree` without its wrong parts, which are removed and recorded. `None` if
/// nothing fits.
pub(super) fn collect<T: DeserializeOwned>(tree: &mut Node, findings: &mut Findings) -> Option<T> {
    let mut whole = true;
    while !findings.overflow {
        match T::deserialize(NodeDeserializer(tree)) {
            Ok(value) if whole => return Some(value),
            Ok(_) => {
                tree.read_anew();
                whole = true;
            }
            Err(error) => {
                settle(&error, tree, findings)?;
                whole = false;
            }
        }
    }
    None
}

/// Records `error`, unless it only follows from another, and removes what it is about. Returns
/// `None` if that is the whole tree.
fn settle(error: &Error, tree: &mut Node, findings: &mut Findings) -> Option<()> {
    let path = error.path();
    if error.on_key {
        settle_key(error, tree, findings);
    } else if !is_consequence(error, findings) {
        let (message, remedy) = (message(error, tree, findings), error.kind.remedy());
        let (aimed, message) = aim(tree, path.clone(), message);
        let (spot, kind) = (tree.spot(&aimed), |message| (error.kind.code(), message));
        match default_in(&path, tree, findings) {
            None => findings.record_with(&aimed, spot, kind(message), remedy),
            Some((default, origin)) => {
                let message = format!("{message}; a part of it is `{default}` at ");
                findings.record_beside(&aimed, spot, kind(message), remedy, origin);
            }
        }
    }
    let removed = tree.remove(&path);
    findings.prune(path);
    removed.then_some(())
}

/// The default that a wrong mapping has parts of, and its place.
fn default_in(path: &KeyPath, tree: &Node, findings: &Findings) -> Option<(KeyPath, Origin)> {
    tree.at(path)?.beneath.as_ref()?;
    let default = findings.layering?.default_of(path)?;
    let origin = tree.spot(&default);
    Some((default, origin))
}

fn settle_key(error: &Error, tree: &Node, findings: &mut Findings) {
    let path = error.path();
    let Some(mapping) = path.parent() else { return };
    let spot = path
        .last_key()
        .and_then(|key| tree.at(&mapping)?.entry(key))
        .map_or(tree.origin, |entry| entry.key_origin);
    let unknown = matches!(error.kind, Kind::UnknownKey { .. });
    let kind = (error.kind.code(), error.kind.to_string());
    let at = if unknown { &mapping } else { &path };
    findings.record_with(at, spot, kind, error.kind.remedy());
    if let Some(meant) = error.kind.suggestion() {
        // A misspelt key counts as present, so that it is not reported as missing too.
        findings.prune(mapping.key(meant));
    }
}

fn is_consequence(error: &Error, findings: &Findings) -> bool {
    let path = error.path();
    match &error.kind {
        Kind::MissingKey(key) => {
            // A wrong merge key may have contained it, or an include that could not be read.
            [*key, "<<"].iter().any(|key| findings.is_pruned(&path.clone().key(*key)))
                || (path.is_root() && findings.incomplete)
        }
        Kind::Message(..) | Kind::UnknownKey { .. } | Kind::UnknownValue { .. } => {
            findings.explains(&path)
        }
    }
}

/// The message, without any interpolated value but with the reference it came from.
fn message(error: &Error, tree: &Node, findings: &Findings) -> String {
    let path = error.path();
    if let Kind::MissingKey(key) = &error.kind {
        let empty = findings.left_out(&path.key(*key)).map(|from| format!(" ({from} is empty)"));
        return format!("{}{}", error.kind, empty.unwrap_or_default());
    }
    let Some(node) = tree.at(&path) else { return error.kind.to_string() };
    let Value::Text(text) = &node.value else { return node.redact(error.kind.to_string()) };
    if text.origins.is_empty() {
        return error.kind.to_string();
    }
    let message = match &error.kind {
        Kind::UnknownValue { known, .. } => {
            // The error's own text shortens the value, which `redact` would then not recognise.
            Kind::UnknownValue { value: text.origins.concat(), known }.to_string()
        }
        Kind::Message(..) | Kind::MissingKey(_) | Kind::UnknownKey { .. } => {
            node.redact(error.kind.to_string())
        }
    };
    format!("{message} (the value is that of {})", text.origins.concat())
}
