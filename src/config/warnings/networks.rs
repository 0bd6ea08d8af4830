//! Networks in `allow` and `deny` that change nothing.

use ipnet::IpNet;

use crate::config::Problem;
use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::policy::networks::Config;

/// Longer lists are made by programs, and comparing each with each takes too long.
const MOST: usize = 1000;

/// What is to be said of the lists at `path`.
pub(super) fn overlaps(path: &KeyPath, lists: &Config, warnings: &mut Vec<Problem>) {
    let Config { allow, deny, enforce: _ } = lists;
    if allow.len() + deny.len() > MOST {
        return;
    }
    let at = |key: &str, index: usize| path.clone().key(key).index(index);
    for (key, list) in [("allow", allow), ("deny", deny)] {
        for (index, network) in list.iter().enumerate() {
            // Of two that are equal, the later one is too many.
            let other = list.iter().enumerate().position(|(other, larger)| {
                larger.contains(network) && (larger != network || other < index)
            });
            let Some(other) = other else { continue };
            let message = match list[other] {
                larger if larger == *network => format!("{network} is in the list twice"),
                larger => format!("{network} is in {larger} of the same list"),
            };
            let problem = Problem::new(Code::RepeatedNetwork, at(key, index), message);
            warnings.push(problem.beside(at(key, other)));
        }
    }
    for (index, network) in allow.iter().enumerate() {
        if let Some(denied) = deny.iter().position(|denied| denied.contains(network)) {
            let message = format!("{network} is never allowed: `deny` has {}", deny[denied]);
            let problem = Problem::new(Code::UselessNetwork, at("allow", index), message);
            warnings.push(problem.beside(at("deny", denied)));
        }
    }
    let meet = |one: &IpNet, other: &IpNet| one.contains(other) || other.contains(one);
    for (index, network) in deny.iter().enumerate() {
        if !allow.is_empty() && !allow.iter().any(|allowed| meet(allowed, network)) {
            let message = format!("{network} is denied already: no network of `allow` has it");
            warnings.push(Problem::new(Code::UselessNetwork, at("deny", index), message));
        }
    }
}
