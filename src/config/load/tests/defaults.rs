//! What a thing does not say itself, from the section of defaults.

use super::*;

/// As [`Config`], whose `routes` have defaults.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Whole {
    defaults: Thing,
    routes: BTreeMap<String, Thing>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Thing {
    path: String,
    upstream: Option<String>,
    methods: Vec<Method>,
    retry: Option<Retry>,
    server: Option<Server>,
    codes: BTreeMap<u16, u16>,
    store: Option<Store>,
}

#[derive(Deserialize)]
struct Alone {
    #[serde(rename = "defaults")]
    _defaults: Option<Thing>,
}

static LAYERING: Layering = Layering {
    defaults: "defaults",
    things: "routes",
    keys: &[
        Key { name: "methods", meets: Meets::Replaces, only_with: None, off: Off::Value },
        Key { name: "retry", meets: Meets::Merges, only_with: Some("upstream"), off: Off::Word },
        Key { name: "server", meets: Meets::Replaces, only_with: None, off: Off::WordAlone },
        Key { name: "codes", meets: Meets::Merges, only_with: None, off: Off::Value },
        Key { name: "store", meets: Meets::Merges, only_with: None, off: Off::Value },
    ],
    own: &["path", "upstream"],
};

fn draft(files: &Files) -> Draft<Whole> {
    load_layered::<Whole, Alone>(
        &files.1,
        &Environment::fixed([("TWO", "2")]),
        &NO_TEMPLATES,
        &LAYERING,
        &[],
    )
}

#[track_caller]
fn whole(text: &str) -> Whole {
    let files = Files::new(&[("c", text)]);
    let loaded = draft(&files).validate(|_, _| Vec::new());
    loaded.map_err(|found| files.print(&found)).unwrap().0
}

#[track_caller]
fn wrong(files: &[(&str, &str)]) -> Vec<String> {
    let files = Files::new(files);
    let loaded = draft(&files).validate(|_, _| Vec::new());
    files.print(&loaded.expect_err("mistakes"))
}

fn retry(thing: &Thing) -> Option<(u32, Vec<u16>)> {
    thing.retry.as_ref().map(|retry| (retry.max_retries.get(), retry.on.clone()))
}

#[test]
fn a_thing_has_what_it_does_not_say_from_the_defaults() {
    let text = "\
defaults: {retry: {max_retries: '${TWO}', on: [502]}, methods: [GET, POST], codes: {1: 2}}
routes:
  silent: {upstream: u}
  part: {upstream: u, retry: {max_retries: 5}, methods: [GET], codes: {3: 4}}
  list: {upstream: u, retry: {on: [500]}, codes: {1: 9}}
";
    let routes = whole(text).routes;
    assert_eq!(retry(&routes["silent"]), Some((2, vec![502])));
    assert_eq!(routes["silent"].methods, [Method::Get, Method::Post]);
    assert_eq!(retry(&routes["part"]), Some((5, vec![502])));
    assert_eq!(routes["part"].methods, [Method::Get], "a list replaces a list");
    assert_eq!(routes["part"].codes, BTreeMap::from([(1, 2), (3, 4)]));
    assert_eq!(retry(&routes["list"]), Some((2, vec![500])));
    assert_eq!(routes["list"].codes, BTreeMap::from([(1, 9)]));
}

#[test]
fn defaults_that_are_one_decision_are_replaced_as_a_whole() {
    let text = "\
defaults: {server: {threads: 3, verbose: true}}
routes: {a: {server: {threads: 4}}, b: {}}
";
    let routes = whole(text).routes;
    let server = |name: &str| routes[name].server.clone().map(|s| (s.threads, s.verbose));
    assert_eq!((server("a"), server("b")), (Some((4, false)), Some((3, true))));
}

#[test]
fn of_two_variants_the_thing_s_own_counts() {
    let text = "\
defaults: {store: {sqlite: {path: a}}}
routes: {a: {store: {postgres: {url: x}}}, b: {store: memory}, c: {}}
";
    let routes = whole(text).routes;
    assert!(matches!(routes["a"].store, Some(Store::Postgres { .. })));
    assert!(matches!(routes["b"].store, Some(Store::Memory)));
    assert!(matches!(routes["c"].store, Some(Store::Sqlite(_))));
}

#[test]
fn nothing_replaces_a_default_and_so_does_off() {
    let text = "\
defaults: {retry: {max_retries: 2}, server: {threads: 3}}
routes:
  word: {upstream: u, retry: off, server: off}
  empty: {upstream: u, retry: }
  mapping: {upstream: u, retry: {}}
";
    let routes = whole(text).routes;
    assert_eq!((retry(&routes["word"]), routes["word"].server.is_some()), (None, false));
    assert_eq!((retry(&routes["empty"]), routes["empty"].server.is_some()), (None, true));
    assert_eq!(retry(&routes["mapping"]), Some((2, Vec::new())), "it says nothing else");
}

#[test]
fn off_needs_no_default() {
    let routes = whole("routes: {a: {retry: off}}").routes;
    assert_eq!(retry(&routes["a"]), None);
}

#[test]
fn a_default_of_what_a_thing_is_not_is_not_for_it() {
    let text = "\
defaults: {retry: {max_retries: 2}, methods: [GET]}
routes: {a: {upstream: u}, b: {path: /b}}
";
    let routes = whole(text).routes;
    assert!(routes["a"].retry.is_some() && routes["b"].retry.is_none());
    assert_eq!(routes["b"].methods, [Method::Get]);
}

#[test]
fn a_large_mapping_is_whole_in_every_thing_that_shares_it() {
    let codes: String = (1..=200).map(|n| format!("{n}: {n}, ")).collect();
    // A mistake makes the loader read again what has not fitted yet.
    let text =
        format!("defaults: {{codes: {{{codes}}}}}\nroutes: {{a: {{}}, b: {{codes: {{1: 0}}}}}}");
    let routes = whole(&text).routes;
    assert_eq!(routes["a"].codes.len(), 200);
    assert_eq!((routes["b"].codes.len(), routes["b"].codes[&1]), (200, 0));
}

#[test]
fn a_mistake_in_the_defaults_is_told_once_and_there() {
    let many: String = (0..100).map(|n| format!("  r{n}: {{upstream: u}}\n")).collect();
    let text = format!(
        "defaults:\n  retry: {{max_retries: 0, on: [x]}}\n  path: /\n  method: [GET]\nroutes:\n{many}"
    );
    let found = wrong(&[("c", &text)]);
    let begins = [
        "c:2:24: defaults.retry.max_retries: ",
        "c:2:32: defaults.retry.on[0]: ",
        "c:3:3: defaults.path: `path` has no default",
        "c:4:3: defaults: unknown key `method`, did you mean `methods`?",
    ];
    assert_eq!(found.len(), begins.len(), "{found:#?}");
    for (found, begin) in found.iter().zip(begins) {
        assert!(found.starts_with(begin), "{found}");
    }
}

#[test]
fn a_mistake_of_a_thing_is_told_beside_one_of_the_defaults() {
    let text = "defaults: {retry: {max_retries: no}}\nroutes: {a: {upstream: u, methods: [PUT]}}\n";
    let found = wrong(&[("c", text)]);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[1].starts_with("c:2:37: routes.a.methods[0]: unknown value `PUT`"), "{found:#?}");
}

#[test]
fn an_empty_value_over_a_default_that_closes_may_be_a_slip() {
    let text = "defaults: {server: {threads: 3}}\nroutes:\n  a:\n    server:\n";
    let found = wrong(&[("c", text)]);
    assert_eq!(
        found,
        [
            "c:4:5: routes.a.server: `server` is empty, and has a default: `defaults.server` at c:1; \
          write `server: off` if none is meant, or remove the key"
        ]
    );
    whole("routes: {a: {server: }}");
}

#[test]
fn defaults_are_those_of_one_file_and_hold_for_all() {
    let main = "include: ['*.yaml']\nroutes: {a: {upstream: u}}\n";
    let part = "defaults: {retry: {max_retries: 3}}\nroutes: {b: {upstream: u}}\n";
    let files = Files::new(&[("c", main), ("d.yaml", part)]);
    let routes = draft(&files).validate(|_, _| Vec::new()).unwrap().0.routes;
    assert!(routes.values().all(|thing| retry(thing) == Some((3, Vec::new()))));
    let other = "defaults: {methods: [GET]}\n";
    let found = wrong(&[("c", main), ("d.yaml", part), ("e.yaml", other)]);
    assert_eq!(
        found,
        [
            "e.yaml:1:1: defaults: `defaults` is already defined at d.yaml:1; remove or rename one of \
          the two"
        ]
    );
}

#[test]
fn a_problem_of_a_default_and_a_thing_names_both() {
    let text = "\
defaults: {retry: {max_retries: 3}}
routes:
  a: {upstream: u, methods: [GET]}
  b: {upstream: u, retry: {max_retries: 2}, methods: [GET]}
";
    let files = Files::new(&[("c", text)]);
    let check = |_: &Whole, sources: &Sources| {
        assert!(sources.is_default("routes.a.retry.max_retries"));
        assert!(!sources.is_default("routes.b.retry.max_retries"));
        let problem =
            |path: &str, with: &str| Problem::new(Code::InvalidValue, path, "too many").with(with);
        vec![
            problem("routes.a.retry.max_retries", "routes.a.methods"),
            problem("routes.a.methods", "routes.a.retry"),
            problem("routes.b.methods", "routes.b.retry"),
        ]
    };
    let found = draft(&files).validate(check).map(|_| ()).expect_err("problems");
    let default = |key| format!("too many; `defaults.{key}` is at c:1");
    assert_eq!(
        files.print(&found),
        [
            format!("c:3:20: routes.a.methods: {}", default("retry.max_retries")),
            format!("c:3:20: routes.a.methods: {}", default("retry")),
            "c:4:45: routes.b.methods: too many".to_owned(),
        ]
    );
}

#[test]
fn what_is_in_force_knows_which_of_it_is_a_default() {
    let text =
        "defaults: {retry: {max_retries: 3}}\nroutes:\n  a: {upstream: u, retry: {on: [1]}}\n";
    let files = Files::new(&[("c", text)]);
    let (_, sources) = draft(&files).validate(|_, _| Vec::new()).unwrap();
    let paths = ["routes.a.retry.max_retries", "routes.a.retry.on", "routes.a.retry.jitter"];
    let decided = sources.decided(&paths.map(KeyPath::from));
    let told: Vec<_> =
        decided.iter().map(|d| (d.key.to_string(), &d.place[d.place.len() - 2..])).collect();
    assert_eq!(
        told,
        [
            ("defaults.retry.max_retries".to_owned(), ":1"),
            ("routes.a.retry.on".to_owned(), ":3"),
            ("routes.a.retry.jitter".to_owned(), ":3"),
        ]
    );
}
