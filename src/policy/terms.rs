//! On what terms an operator's order holds: since when, until when, by whom and why.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::time::Moment;
use crate::units::Timespan;

/// What is said with an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// When it was given.
    pub since: Moment,
    /// When it ends by itself; `None`: it lasts until it is withdrawn.
    pub until: Option<Moment>,
    /// Who gave it, if that was said.
    pub author: Option<Arc<str>>,
    /// Why, if that was said.
    pub reason: Option<Arc<str>>,
}

impl Terms {
    /// Whether its time is over.
    pub fn are_over(&self, now: Moment) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// For how long it was given; `None`: until it is withdrawn.
    pub fn time(&self) -> Option<Duration> {
        self.until.map(|until| until.since(self.since))
    }
}

/// For a line in the log: `for 10m, by anna: disk is full`.
impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.time() {
            Some(time) => write!(f, "for {}", Timespan(time))?,
            None => f.write_str("until it is withdrawn")?,
        }
        if let Some(author) = &self.author {
            write!(f, ", by {author}")?;
        }
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_end_at_their_time_or_never() {
        let since = Moment::ZERO + Duration::from_secs(10);
        let until = since + Duration::from_secs(90);
        let terms = Terms { since, until: Some(until), author: None, reason: None };
        assert!(!terms.are_over(since) && terms.are_over(until));
        let forever = Terms { until: None, ..terms.clone() };
        assert!(!forever.are_over(Moment::from_nanos(u64::MAX)));
        assert_eq!(terms.to_string(), "for 1m 30s");
        let signed = Terms { author: Some("anna".into()), reason: Some("disk".into()), ..forever };
        assert_eq!(signed.to_string(), "until it is withdrawn, by anna: disk");
    }
}
