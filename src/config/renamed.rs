//! The keys that have another name than before. Each is read under both for two minor versions, and
//! `check` warns of the old one: see `docs/compatibility.md`.

use super::load::Renamed;

/// One row per place of a key.
pub(super) static RENAMED: &[Renamed] = &[
    Renamed {
        within: &["routes", "*", "idempotency"],
        old: "max_answer",
        new: "max_response",
        until: "0.3.0",
    },
    Renamed {
        within: &["defaults", "idempotency"],
        old: "max_answer",
        new: "max_response",
        until: "0.3.0",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(version: &str) -> Vec<u64> {
        version.split('.').map(|part| part.parse().expect("a number")).collect()
    }

    #[test]
    fn a_name_that_is_not_promised_any_more_is_not_in_the_table() {
        let version = env!("CARGO_PKG_VERSION");
        for renamed in RENAMED {
            assert!(parts(renamed.until) > parts(version), "remove {renamed:?}");
        }
    }
}
