//! What the policies of a route held when a request ended, and what else its line says of a failure.

use std::borrow::Cow;

use crate::policy::breaker::State;
use crate::policy::rate_limit::Standing;

/// The state of a route's policies; `None` for those it does not have.
#[derive(Debug, Clone, Default)]
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
    /// What only some causes have.
    pub facts: Vec<Fact>,
}

/// One more member of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// OpenTelemetry's name, or one that begins with `portcullis.`.
    pub name: &'static str,
    /// Never a credential.
    pub value: Value,
}

/// The value of a [`Fact`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of any length, with any characters.
    Text(Cow<'static, str>),
    /// The same, of an error: left out where errors are masked.
    Error(String),
    /// In the unit that the name ends in, if it has one.
    Number(u64),
    /// Yes or no.
    Truth(bool),
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
