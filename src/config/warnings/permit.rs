//! Entries of `permit` that can never permit anything.

use crate::config::code::Code;
use crate::config::load::{KeyPath, suggest};
use crate::config::{Config, Problem, Route, Sources};
use crate::policy::auth::{self, ApiKeys, Caller, Consumer, Names, Requirement};
use crate::routing::Pattern;

/// Paths and methods that the route never takes, and callers that their authorities never accept. What a route
/// has from the defaults is meant for others, too.
pub(super) fn never(
    at: &KeyPath,
    route: &Route,
    config: &Config,
    sources: &Sources,
    warnings: &mut Vec<Problem>,
) {
    let Some(auth) = &route.auth else { return };
    let permits = at.clone().key("auth").key("permit");
    if auth.permit.is_empty() || sources.is_default(&permits) {
        return;
    }
    let everything = [Pattern::everything()];
    let taken = route.matches.path.values().unwrap_or(&everything);
    for (nth, permit) in auth.permit.iter().enumerate() {
        let mut never = |key: &str, index: usize, message: String, with: Option<&str>| {
            let values = permits.clone().index(nth).key(key);
            let problem = Problem::new(Code::PermitNever, sources.element(&values, index), message);
            let with = with.map(|key| at.clone().key("match").key(key));
            warnings.push(match with {
                Some(with) => problem.with(with),
                None => problem,
            });
        };
        for (index, path) in permit.paths.values().unwrap_or_default().iter().enumerate() {
            if !taken.iter().any(|pattern| pattern.meets(path)) {
                let message = format!("no request of the route has a path of `{path}`");
                never("paths", index, message, Some("path"));
            }
        }
        for (index, verb) in permit.methods.values().unwrap_or_default().iter().enumerate() {
            if !route.matches.methods.serve(&verb.0) {
                let message = format!("the route takes no `{verb}`");
                never("methods", index, message, Some("methods"));
            }
        }
    }
    strangers(&permits, auth, config, sources, warnings);
}

/// Callers that their authorities never accept: consumers without a key, names that `allow` does not have.
fn strangers(
    permits: &KeyPath,
    auth: &Requirement,
    config: &Config,
    sources: &Sources,
    warnings: &mut Vec<Problem>,
) {
    for (nth, permit) in auth.permit.iter().enumerate() {
        let callers = permits.clone().index(nth).key("callers");
        for (index, caller) in permit.callers.values().unwrap_or_default().iter().enumerate() {
            let path = sources.element(&callers, index);
            if let Some(authority) = disallowing(caller, auth, config) {
                let message = format!("`auth.{authority}` allows no such name");
                let problem = Problem::new(Code::PermitNever, path, message);
                let allow = KeyPath::root().key("auth").key(authority);
                warnings.push(problem.with(allow.key("client_certificate").key("allow")));
            } else if let Some((authority, keys, name)) = keyless(caller, auth, config) {
                let message = format!("`auth.{authority}` has no key of `{name}`");
                let problem = Problem::new(Code::PermitNever, path, message);
                let known = keys.keys.keys().map(Consumer::as_str);
                warnings.push(problem.suggesting(suggest(name, known)));
            }
        }
    }
}

/// An authority for certificates that allows none of the caller's names, if no other does.
fn disallowing<'a>(caller: &Caller, auth: &'a Requirement, config: &Config) -> Option<&'a str> {
    let known = |name: &&str| config.auth.get(*name).map(auth::Config::names);
    let by_name = auth.require.iter().all(|name| known(&name) != Some(Names::Own));
    let allows = |name: &str| {
        let auth::Config::ClientCertificate(certificates) = config.auth.get(name)? else {
            return None;
        };
        let pattern = caller.pattern_of(name, by_name)?;
        let allow = &certificates.allow;
        Some(allow.is_empty() || allow.iter().any(|allowed| allowed.meets(&pattern)))
    };
    let mut asked = auth.require.iter().filter_map(|name| Some((name, allows(name)?)));
    let (first, allowed) = asked.next()?;
    (!allowed && asked.all(|(_, allowed)| !allowed)).then_some(first)
}

/// The keys among which the consumer that is meant has none.
fn keyless<'a>(
    caller: &'a Caller,
    auth: &'a Requirement,
    config: &'a Config,
) -> Option<(&'a str, &'a ApiKeys, &'a str)> {
    auth.require.iter().find_map(|authority| {
        let auth::Config::ApiKey(keys) = config.auth.get(authority)? else { return None };
        let name = caller.consumer_of(authority)?;
        let is_known = keys.keys.keys().any(|known| known.as_str() == name);
        (!is_known).then_some((authority, keys, name))
    })
}
