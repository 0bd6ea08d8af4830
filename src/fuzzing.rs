//! What fuzzers call, and what the tests replay over the inputs in `fuzz/corpus`.
//!
//! A target is a function of bytes that panics where a property does not hold. It lives beside what it
//! is about, which therefore stays private; here is the list. Not in the product: compiled for
//! tests, and by cargo-fuzz.

pub use crate::config::fuzzing::yaml;
pub use crate::policy::auth::fuzzing::{jwks, token};
pub use crate::proxy::fuzzing::announced::proxy_header;
pub use crate::proxy::fuzzing::rpc::{envelopes, web_text};
pub use crate::proxy::fuzzing::{body, head};
pub use crate::record::fuzzing::{frames, journal, row_text, salvage};
pub use crate::routing::fuzzing::path;
pub use crate::runtime::tls::fuzzing::certificate;

/// Panics where a property does not hold.
pub type Target = fn(&[u8]);

/// Every target, by the name of its binary and of its corpus.
pub const TARGETS: [(&str, Target); 14] = [
    ("head", head),
    ("body", body),
    ("proxy_header", proxy_header),
    ("path", path),
    ("envelopes", envelopes),
    ("web_text", web_text),
    ("yaml", yaml),
    ("jwks", jwks),
    ("token", token),
    ("certificate", certificate),
    ("row_text", row_text),
    ("frames", frames),
    ("salvage", salvage),
    ("journal", journal),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn fuzz(folder: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder)
    }

    fn listed(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap_or_else(|why| panic!("{folder:?}: {why}"));
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        paths
    }

    fn stems(folder: &str) -> BTreeSet<String> {
        let stem = |path: PathBuf| Some(path.file_stem()?.to_string_lossy().into_owned());
        listed(&fuzz(folder)).into_iter().filter_map(stem).collect()
    }

    fn replay(name: &str) {
        let target = TARGETS.iter().find(|(target, _)| *target == name).expect("a target").1;
        let inputs = listed(&fuzz("corpus").join(name));
        assert!(inputs.len() > 3, "{name} has no corpus");
        for input in inputs {
            // Shown where the target panics.
            println!("{}", input.display());
            target(&fs::read(&input).expect("an input"));
        }
        target(b"");
    }

    macro_rules! replays {
        ($($name:ident)*) => {
            mod every_input_holds_in {
                $(#[test] fn $name() { super::replay(stringify!($name)); })*
            }

            const REPLAYED: &[&str] = &[$(stringify!($name)),*];
        };
    }

    replays! { head body proxy_header path envelopes web_text yaml jwks token certificate row_text frames salvage journal }

    #[test]
    fn every_target_has_a_binary_a_corpus_and_a_replay_and_nothing_else_has() {
        let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(names.len(), TARGETS.len());
        assert_eq!(stems("corpus"), names);
        assert_eq!(stems("fuzz_targets"), names);
        assert_eq!(REPLAYED.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), names);
        let manifest = fs::read_to_string(fuzz("Cargo.toml")).expect("a manifest");
        for name in &names {
            assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
            let source = fs::read_to_string(fuzz("fuzz_targets").join(format!("{name}.rs")));
            let call = format!("portcullis::fuzzing::{name}(input)");
            assert!(source.expect("a binary").contains(&call), "{name}");
        }
    }
}
