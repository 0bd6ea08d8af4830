//! Scopes and roles that no client of a route can have.

use super::super::{Config, Problem, Route};
use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::policy::auth;

/// A service that decides about requests names a client, and so does a certificate; neither says what the
/// client may do.
pub(super) fn scopes(path: &KeyPath, route: &Route, config: &Config, warnings: &mut Vec<Problem>) {
    let Some(required) = &route.auth else { return };
    let key = match (&required.scopes[..], &required.role) {
        ([], None) => return,
        ([_, ..], _) => "scopes",
        ([], Some(_)) => "role",
    };
    let mut accepted = required.require.iter().map(|name| config.auth.get(name));
    let grants = |authority: Option<&auth::Config>| match authority {
        Some(auth::Config::Forward(_) | auth::Config::ClientCertificate(_)) => false,
        Some(auth::Config::Jwt(_) | auth::Config::Introspection(_) | auth::Config::ApiKey(_)) => {
            true
        }
        // An unknown name is an error of its own.
        None => true,
    };
    if !accepted.any(grants) {
        let message = "no client can have this: `forward` and `client_certificate` grant neither scopes \
                       nor roles, so every request gets 403";
        let path = path.clone().key("auth").key(key);
        warnings.push(Problem::new(Code::UngrantableScope, path, message));
    }
}
