//! Dry runs: a policy with `enforce: false` decides and counts, and lets the request pass.
//!
//! What it counts is what its *twin* would have refused: the same gateway with the same traffic,
//! where every policy is enforced. So a request that the twin would have refused is *over* for dry
//! policies, though it goes on:
//!
//! - It is counted once, with the first policy that would have refused it. Dry policies of later
//!   steps are not asked: the twin's request would not have come to them.
//! - It takes nothing of dry policies, and what it had taken of them is given back, as the twin
//!   gives it back: no place in a limit, no slot, and no permit. So a dry circuit does not learn
//!   from calls that the twin would not have made, and its probes are the twin's.
//! - Enforced policies see it like any other request: they count what really passes.
//!
//! The count is exact as long as what passes here and not there changes nothing else: an enforced
//! policy, or an upstream, that is driven to its limit by requests which the twin keeps away decides
//! differently about the rest.
//!
//! A dry circuit that is open does not prevent retries either. The twin would have given the client
//! the last attempt's response: that is not a refusal, and is not counted. For dry policies the
//! request is over with that attempt.

use serde::Deserialize;

/// `enforce:` of a policy. `false` is a dry run; default `true`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "bool")]
pub enum Enforce {
    /// The policy refuses.
    #[default]
    Yes,
    /// The policy decides, counts and lets pass.
    No,
}

impl Enforce {
    /// Whether the policy lets pass what it would refuse.
    pub const fn is_dry(self) -> bool {
        match self {
            Enforce::Yes => false,
            Enforce::No => true,
        }
    }
}

impl From<bool> for Enforce {
    fn from(enforce: bool) -> Self {
        if enforce { Enforce::Yes } else { Enforce::No }
    }
}

/// What dry runs have made of one request so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DryRun {
    would_refuse: Option<&'static str>,
    over: bool,
}

impl DryRun {
    /// A dry policy would have refused the request, with `code`. Returns whether it is the first to
    /// say so; then what the request holds of dry policies is to be given back.
    pub fn refuse(&mut self, code: &'static str) -> bool {
        if self.over {
            return false;
        }
        *self = DryRun { would_refuse: Some(code), over: true };
        true
    }

    /// The twin would have ended the request without refusing it.
    pub fn end(&mut self) {
        self.over = true;
    }

    /// The code of the first refusal; `None` if all dry policies let the request pass.
    pub const fn would_refuse(&self) -> Option<&'static str> {
        self.would_refuse
    }

    /// Whether the twin would have ended the request: dry policies are not asked about it any more.
    pub const fn is_over(&self) -> bool {
        self.over
    }
}

#[cfg(test)]
mod tests;
