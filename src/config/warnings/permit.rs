//! Entries of `permit` that can never permit anything.

use crate::config::code::Code;
use crate::config::load::{KeyPath, suggest};
use crate::config::{Config, Problem, Route, Sources};
use crate::policy::auth;
use crate::routing::{Choice, Pattern};

/// Paths and methods that the route never takes, and consumers that no key belongs to. What a route has from
/// the defaults is meant for others, too.
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
    strangers(&permits, route, config, sources, warnings);
}

/// Consumers of API keys are all known.
fn strangers(
    permits: &KeyPath,
    route: &Route,
    config: &Config,
    sources: &Sources,
    warnings: &mut Vec<Problem>,
) {
    let Some(auth) = &route.auth else { return };
    let own = |name: &&str| {
        config.auth.get(*name).is_some_and(|authority| authority.names() == auth::Names::Own)
    };
    for (nth, permit) in auth.permit.iter().enumerate() {
        let Choice::Of(callers) = &permit.callers else { continue };
        for (index, caller) in callers.iter().enumerate() {
            let named = auth.require.iter().filter(own).find_map(|authority| {
                Some((authority, config.auth.get(authority)?, caller.consumer_of(authority)?))
            });
            let Some((authority, auth::Config::ApiKey(keys), name)) = named else { continue };
            let mut known = keys.keys.keys().map(auth::Consumer::as_str);
            if known.clone().any(|known| known == name) {
                continue;
            }
            let message = format!("`auth.{authority}` has no key of `{name}`");
            let values = permits.clone().index(nth).key("callers");
            let path = sources.element(&values, index);
            let problem = Problem::new(Code::PermitNever, path, message);
            warnings.push(problem.suggesting(suggest(name, &mut known)));
        }
    }
}
