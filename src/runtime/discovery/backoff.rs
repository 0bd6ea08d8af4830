//! The pauses of a source whose server cannot be asked.

use std::time::Duration;

/// The first pause; each one after it is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// Counts what brought nothing in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    in_vain: u32,
}

impl Backoff {
    /// Something was brought.
    pub(super) fn reset(&mut self) {
        self.in_vain = 0;
    }

    /// How long to wait after something that brought nothing; the server may want to be left alone for
    /// `least`.
    pub(super) fn pause(&mut self, least: Duration) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.in_vain.min(10)).min(LONGEST);
        self.in_vain = self.in_vain.saturating_add(1);
        // From half of it: those who lost the server at the same moment come back at different ones.
        let pause = doubled.mul_f64(1.0 - 0.5 * fastrand::f64());
        pause.max(least.min(LONGEST))
    }
}
