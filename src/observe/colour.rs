//! Whether what is written may be coloured.

use std::io::IsTerminal;

/// Colours are for terminals only, and for those who have not refused them (no-color.org).
pub fn is_wanted(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && !refused
}
