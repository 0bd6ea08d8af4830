//! What the policies of a route held when a request ended.

use crate::policy::breaker::State;
use crate::policy::rate_limit::Standing;

/// The state of a route's policies; `None` for those it does not have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Values {
    /// The route's own circuit.
    pub route_circuit: Option<State>,
    /// The circuit of its upstream.
    pub upstream_circuit: Option<State>,
    /// Slots taken, and slots in all.
    pub bulkhead: Option<(u32, u32)>,
    /// Where the requester stood in the strictest limit, when that was asked.
    pub limit: Option<Standing>,
    /// Retries that the budget would grant.
    pub budget: Option<f64>,
}

/// A circuit's state in one word.
pub const fn circuit(state: State) -> &'static str {
    match state {
        State::Closed { .. } => "closed",
        State::Open { .. } => "open",
        State::HalfOpen { .. } => "half_open",
        State::ForcedOpen => "forced_open",
        State::ForcedClosed => "forced_closed",
    }
}
