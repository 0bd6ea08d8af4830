//! Files of an earlier build: they load, or the error says what to write now.
//!
//! `tests/golden/conf-583793b` holds the files of `conf/` at commit 583793b, unchanged.

use std::path::Path;

use crate::support::Gateway;

/// The profiles, and where one line is missing that is required now.
const PROFILES: [(&str, Option<&str>); 6] = [
    ("edge.yaml", Some("auth.users.jwt")),
    ("gateway-service.yaml", Some("auth.accounts.jwt")),
    ("microservices.yaml", Some("auth.accounts.jwt")),
    ("mini-gateway.yaml", None),
    ("portcullis.yaml", Some("auth.accounts.jwt")),
    ("spring-gateway.yaml", Some("auth.users.jwt")),
];

#[test]
fn an_earlier_file_loads_or_is_told_the_line_that_it_needs_now() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/conf-583793b");
    let folder = tempfile::tempdir().expect("a folder");
    let key = [("API_KEY", "a-key-for-the-check-0123456789")];
    let beside = folder.path().join("gateway.binpb");
    std::fs::copy(golden.join("gateway.binpb"), beside).expect("a copy");
    for (name, missing) in PROFILES {
        let text = std::fs::read_to_string(golden.join(name)).expect("a file");
        std::fs::write(folder.path().join(name), &text).expect("a copy");
        let check = || Gateway::finish(&["check", "-c", name], folder.path(), &key);
        let finished = check();
        let Some(place) = missing else {
            assert_eq!(finished.code, Some(0), "{name}: {}", finished.stderr);
            continue;
        };
        assert_eq!(finished.code, Some(1), "{name}");
        assert!(finished.stderr.contains("1 error"), "{name}: {}", finished.stderr);
        assert!(finished.stderr.contains(place), "{name}: {}", finished.stderr);
        let advice = "write `audience: any`";
        assert!(finished.stderr.contains(advice), "{name}: {}", finished.stderr);
        // What it says is all that is needed.
        let jwt = "    jwt:\n";
        let told = text.replacen(jwt, &format!("{jwt}      audience: any\n"), 1);
        std::fs::write(folder.path().join(name), told).expect("a copy");
        let finished = check();
        assert_eq!(finished.code, Some(0), "{name}: {}", finished.stderr);
    }
    let files = std::fs::read_dir(&golden).expect("the files").count();
    assert_eq!(files, PROFILES.len() + 1, "every file is checked");
}
