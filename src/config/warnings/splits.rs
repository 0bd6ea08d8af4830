//! What the upstreams of a split do not have alike.

use super::super::{Config, Problem, Route};
use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::policy::split::Destination;

/// A request has the hash of one path parameter, taken before its upstream is drawn: that of the first
/// upstream in the list that hashes by one.
pub(super) fn parameters(
    path: &KeyPath,
    route: &Route,
    config: &Config,
    warnings: &mut Vec<Problem>,
) {
    let Some(Destination::Split(upstreams)) = &route.upstream else { return };
    let mut first = None;
    for (place, upstream) in upstreams.iter().enumerate() {
        let (name, known) = (&upstream.name, &config.upstreams);
        let parameter = known.get(name).and_then(|known| known.balance.parameter());
        match (first, parameter) {
            (_, None) => {}
            (None, Some(parameter)) => first = Some((name, parameter)),
            (Some((first, used)), Some(parameter)) if parameter != used => {
                let path = path.clone().key("upstream").index(place).key("name");
                let message = format!(
                    "`{name}` chooses an endpoint by `:{parameter}`, but `{first}`, which is listed \
                     before it, by `:{used}`: requests of this route are hashed by `:{used}` in both"
                );
                warnings.push(Problem::new(Code::SplitHashParameters, path, message));
            }
            (Some(_), Some(_)) => {}
        }
    }
}
