//! No content of a file makes the loader panic.

use proptest::prelude::*;

use super::*;

fn survive(content: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    std::fs::write(&path, content).unwrap();
    let environment = Environment::fixed([("A", "1"), ("B", "")]);
    match load::<Config>(&path, &environment) {
        Ok(_) => {}
        Err(found) => {
            assert!(!found.is_empty());
            assert!(found.iter().all(|d| d.line > 0 && d.column > 0));
            assert!(found.iter().all(|d| d.to_string().lines().count() == 1));
        }
    }
}

/// Known and unknown names, with values of every kind, in every combination.
fn yaml() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(vec![
        "1",
        "-1",
        "1.5",
        "x",
        "true",
        "~",
        "''",
        "'${A}'",
        "'${B:-}'",
        "'${NO}'",
        "'${A'",
        "5s",
        "sqlite",
        "off",
        "\"a\\nb\"",
        "&a 1",
        "*a",
        "!t 1",
        "9999999999999999999999999999999999999999",
    ])
    .prop_map(str::to_owned);
    scalar.prop_recursive(5, 60, 6, |inner| {
        let key = prop::sample::select(vec![
            "server",
            "routes",
            "upstreams",
            "store",
            "keys",
            "threads",
            "path",
            "upstream",
            "retry",
            "max_retries",
            "endpoints",
            "sqlite",
            "postgres",
            "mode",
            "include",
            "<<",
            "'a.b'",
            "1",
            "? [x]",
            "'$'",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|v| format!("[{}]", v.join(", "))),
            prop::collection::vec((key, inner), 0..6).prop_map(|v| {
                let entries: Vec<_> = v.iter().map(|(k, v)| format!("{k}: {v}")).collect();
                format!("{{{}}}", entries.join(", "))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_get_an_answer(content in prop::collection::vec(any::<u8>(), 0..200)) {
        survive(&content);
    }

    #[test]
    fn any_text_gets_an_answer(content in "([a-c${}:\\[\\]&*!|>'\",#?%@~<-]|[ \n\t]|\\PC|: |\n- |\\$\\{A){0,60}") {
        survive(content.as_bytes());
    }

    #[test]
    fn any_yaml_gets_an_answer(content in yaml()) {
        survive(content.as_bytes());
    }
}
