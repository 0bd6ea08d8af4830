//! Two routes that cannot be told apart, as found by the router, and how this is reported.

use std::fmt;

use super::criteria::{Choice, Methods};
use super::host::HostPattern;
use super::pattern::Pattern;

/// Two routes neither of which takes precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Index and name of the route that came first.
    pub first: (usize, String),
    /// Index and name of the route that came later; the same route if two of its own patterns
    /// collide.
    pub second: (usize, String),
    /// A pattern that both match.
    pub pattern: Pattern,
    /// A listener that both belong to; `None` if both take any.
    pub listener: Option<String>,
    /// A host that both match; `None` if both take any.
    pub host: Option<HostPattern>,
    pub(super) methods: Methods,
    /// Both have conditions, of one rank.
    pub(super) are_conditional: bool,
}

impl Conflict {
    /// Whether both routes have conditions, none of which decides between them.
    pub fn is_conditional(&self) -> bool {
        self.are_conditional
    }
}

/// Says what the later route shares with the first. The caller puts the place in the file in front,
/// because it knows the names.
impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Conflict {
            first: (index, first),
            second: (other, _),
            pattern,
            listener,
            host,
            methods,
            are_conditional,
        } = self;
        match index == other {
            true => write!(f, "`{pattern}` stands here twice")?,
            false => write!(f, "`{pattern}` is matched by routes.{first} already")?,
        }
        if let Some(listener) = listener {
            write!(f, " on the listener {listener}")?;
        }
        if let Some(host) = host {
            write!(f, " at {host}")?;
        }
        if let Choice::Of(verbs) = methods {
            let verbs: Vec<String> = verbs.iter().map(ToString::to_string).collect();
            write!(f, " for {}", verbs.join(", "))?;
        }
        if *are_conditional {
            f.write_str(", and one request can meet the conditions of both")?;
        }
        Ok(())
    }
}

impl std::error::Error for Conflict {}
