//! Which circuit breakers are told of a request's attempts.

use std::sync::Arc;

use crate::policy::breaker::Breaker;
use crate::proxy::exchange::diverted::Diverted;
use crate::runtime::snapshot::Route;

/// The breakers that are told of a request's attempts: its route's and its upstream's.
pub fn breakers<'a>(
    diverted: Option<&'a Diverted>,
    route: &'a Route,
    drawn: Option<usize>,
) -> [Option<&'a Arc<Breaker>>; 2] {
    match diverted {
        None => route.policies(drawn).breakers(),
        Some(diverted) => [None, diverted.target.upstream.breaker()],
    }
}
