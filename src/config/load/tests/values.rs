//! The values that a file and its environment produce.

use super::*;

#[test]
fn an_empty_file_is_all_defaults() {
    for text in ["", "# nothing\n", "server:\nroutes:\nkeys: {}\nstore:\n", "---\n", "\u{feff}"] {
        assert_eq!(load_text(text, &[]), Ok(Config::default()), "{text:?}");
    }
}

#[test]
fn references_become_numbers_and_booleans_where_those_belong() {
    let text = "server: {threads: '${N}', verbose: \"${V:-true}\", ratio: '${R}', drain_timeout: '${T}s'}\n";
    let server = load_text(text, &[("N", " 8 "), ("R", "0.5"), ("T", "3")]).unwrap().server;
    let expected =
        Server { threads: 8, drain_timeout: Timespan::from_secs(3), verbose: true, ratio: 0.5 };
    assert_eq!(server, expected);
}

#[test]
fn a_string_that_came_from_nowhere_is_no_number() {
    let found = mistakes("server: {threads: '8'}");
    assert_eq!(found, ["c:1:19: server.threads: expected a number, found a string"]);
}

#[test]
fn a_digits_only_reference_stays_a_string_where_one_belongs() {
    let config = load_text("keys: {a: '${KEY}'}", &[("KEY", "007")]).unwrap();
    assert_eq!(config.keys["a"].expose(), "007");
}

#[test]
fn an_optional_key_can_be_steered_by_the_environment() {
    let text = "server: {threads: '${N:-}'}\nstore: ${STORE:-}\nupstreams: {a: {endpoints: ['${A}', '${B:-}']}}\n";
    let config = load_text(text, &[("A", "http://a")]).unwrap();
    assert_eq!((config.server.threads, config.store), (0, None));
    assert_eq!(config.upstreams["a"].endpoints, [Endpoint("http://a".into())]);
    let config = load_text(text, &[("A", "http://a"), ("STORE", "memory")]).unwrap();
    assert_eq!(config.store, Some(Store::Memory));
}

#[test]
fn a_required_key_left_empty_says_through_what() {
    let found = mistakes("store: {postgres: {url: '${DATABASE_URL:-}'}}");
    assert_eq!(
        found,
        ["c:1:9: store.postgres: missing key `url` (${DATABASE_URL} is empty); add it"]
    );
}

#[test]
fn keys_are_never_interpolated_and_may_look_like_numbers() {
    let config = load_text("keys: {$A: x, 200: y, true: z}", &[("A", "b")]).unwrap();
    let keys: Vec<_> = config.keys.keys().map(String::as_str).collect();
    assert_eq!(keys, ["$A", "200", "true"]);
}

#[test]
fn a_secret_comes_from_a_file_beside_the_configuration() {
    let files = Files::new(&[("c", "keys: {a: '${file:secrets/a}'}"), ("secrets/a", "hunter2\n")]);
    assert_eq!(files.load(&[]).unwrap().keys["a"].expose(), "hunter2");
}

#[test]
fn a_value_from_outside_is_never_shown() {
    let text = "\
server: {threads: '${A}', verbose: '${A}', drain_timeout: '${A}', ratio: '${B}'}
routes: {a: {path: /, upstream: x, mode: '${A}', methods: ['${B}'], retry: '${A}'}}
upstreams: {a: {endpoints: ['${A}', 'x${A}y', '${C}']}, b: '${A}'}
keys: '${A}'
store: '${D}'
";
    let long = "s3cr3t".repeat(20);
    let environment = [("A", "hunter2"), ("B", long.as_str()), ("C", "ab"), ("D", "sqlite")];
    let files = Files::new(&[("c", text)]);
    let draft = files.draft(&environment);
    let debug = format!("{:?}", draft.sources);
    let found = draft.validate(|_, _| Vec::new());
    let printed = files.print(&found.expect_err("mistakes"));
    assert_eq!(printed.len(), 13, "{printed:#?}");
    for line in printed.iter().chain([&debug]) {
        for secret in ["hunter2", "s3cr3t", "`ab`"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
    assert_eq!(
        printed[0],
        "c:1:19: server.threads: expected a number, found a string (the value is that of ${A})"
    );
}

#[test]
fn a_value_from_outside_is_hidden_in_what_validation_says() {
    let files = Files::new(&[("c", "routes: {a: {path: /, upstream: '${A}'}}")]);
    let found = files.draft(&[("A", "hunter2")]).validate(|config, _| {
        let upstream = &config.routes["a"].upstream;
        vec![Problem::new(
            Code::UnknownName,
            "routes.a.upstream",
            format!("no upstream is called `{upstream}`"),
        )]
    });
    let found = files.print(&found.expect_err("a problem"));
    assert_eq!(
        found,
        ["c:1:33: routes.a.upstream: no upstream is called `${A}`; define it, or correct the name"]
    );
}
