//! The messages for each kind of mistake.

use super::*;

const TEN_MISTAKES: &str = "\
server:
  threads: many
  drain_timeout: 500
  drian_timeout: 5s
routes:
  users:
    path: /users
    upstrem: users
    retry: {max_retries: 0, on: [502, x, 70000], jitter: 50}
    mode: asinc
  orders:
    upstream: orders
    methods: [GET, PSOT]
    methods: [GET]
upstreams:
  users:
    endpoints: [\"${USERS_URL}\", ftp://b]
store: {mysql: {url: x}}
";

#[test]
fn all_mistakes_are_shown_at_once_each_at_its_place() {
    assert_eq!(
        mistakes(TEN_MISTAKES),
        [
            "c:2:12: server.threads: expected a number, found a string",
            "c:3:18: server.drain_timeout: expected a duration with its unit, such as 250ms, 5s or 1m",
            "c:4:3: server: unknown key `drian_timeout`, did you mean `drain_timeout`?",
            "c:8:5: routes.users: unknown key `upstrem`, did you mean `upstream`?",
            "c:9:26: routes.users.retry.max_retries: expected a whole number from 1 to 4294967295",
            "c:9:39: routes.users.retry.on[1]: expected a number, found a string",
            "c:9:42: routes.users.retry.on[2]: expected a whole number from 0 to 65535",
            "c:9:58: routes.users.retry.jitter: expected a percentage from 0% to 100%, such as 50%",
            "c:10:11: routes.users.mode: unknown value `asinc`, did you mean `async`?",
            "c:11:3: routes.orders: missing key `path`; add it",
            "c:13:20: routes.orders.methods[1]: unknown value `PSOT`, did you mean `POST`?",
            "c:14:5: routes.orders.methods: `methods` is already defined at c:13; remove or rename \
             one of the two",
            "c:17:17: upstreams.users.endpoints[0]: the environment variable `USERS_URL` is not set; \
             set it or give it a default: ${USERS_URL:-default}",
            "c:17:33: upstreams.users.endpoints[1]: `ftp://b` is not an http URL",
            "c:18:9: store: unknown key `mysql`, expected one of `memory`, `sqlite`, `postgres`; \
             remove it, or correct its name",
        ]
    );
}

#[test]
fn validation_sees_what_was_right() {
    let files = Files::new(&[("c", TEN_MISTAKES)]);
    let draft = files.draft(&[]);
    let config = draft.value.as_ref().expect("something is left");
    assert!(config.upstreams["users"].endpoints.is_empty());
    assert!(draft.sources.is_pruned("routes.users.upstream"));
    assert!(draft.sources.is_pruned("routes.orders.methods"));
    assert!(!draft.sources.is_pruned("upstreams.users"));
}

#[test]
fn what_validation_finds_is_shown_among_the_rest() {
    let text =
        "server:\n  threads: x\nroutes:\n  users: {path: /u, upstream: usrs}\nstore: memory\n";
    let files = Files::new(&[("c", text)]);
    let found = files.draft(&[]).validate(|config, _| {
        assert_eq!(config.routes.len(), 1);
        vec![
            Problem::new(Code::InvalidValue, "store", "must not be memory"),
            Problem::new(Code::UnknownName, "routes.users.upstream", "no such upstream")
                .suggesting(Some("users")),
            Problem::new(Code::UnknownName, "routes.users.upstream", "no such upstream")
                .suggesting(Some("users")),
            Problem::new(
                Code::InvalidValue,
                "routes.users.retry.max_retries",
                "must be at most 10",
            ),
            Problem::new(Code::InvalidValue, "server.threads", "must not be 0"),
        ]
    });
    assert_eq!(
        files.print(&found.expect_err("problems")),
        [
            "c:2:12: server.threads: expected a number, found a string",
            "c:4:3: routes.users.retry.max_retries: must be at most 10",
            "c:4:31: routes.users.upstream: no such upstream, did you mean `users`?",
            "c:5:8: store: must not be memory",
        ]
    );
}

#[test]
fn a_problem_behind_a_removed_element_is_shown_at_its_own() {
    let text = format!("{ROUTE}upstreams:\n  a: {{endpoints: [ftp://x, http://y, http://z]}}\n");
    let files = Files::new(&[("c", &text)]);
    let found = files.draft(&[]).validate(|config, _| {
        assert_eq!(config.upstreams["a"].endpoints[1], Endpoint("http://z".into()));
        vec![Problem::new(Code::InvalidValue, "upstreams.a.endpoints[1]", "is down")]
    });
    let found = files.print(&found.expect_err("problems"));
    assert_eq!(found[1], "c:3:38: upstreams.a.endpoints[2]: is down");
}

#[test]
fn a_name_taken_out_is_not_unknown() {
    let text = format!("{ROUTE}upstreams: {{users: {{endpoint: [http://x]}}, b: [], 'c.d': 1}}\n");
    let draft = Files::new(&[("c", &text)]).draft(&[]);
    assert!(draft.value.as_ref().unwrap().upstreams.is_empty());
    assert!(draft.sources.is_pruned("upstreams.users"));
    assert!(draft.sources.is_pruned("upstreams.b"));
    assert!(draft.sources.is_pruned(KeyPath::root().key("upstreams").key("c.d")));
    assert!(!draft.sources.is_pruned("upstreams.users2"));
}

#[test]
fn a_wrong_value_is_not_missing_as_well() {
    assert_eq!(
        mistakes("routes: {a: {path: [x], upstream: b}}"),
        ["c:1:14: routes.a.path: expected a string, found a list"]
    );
    assert_eq!(
        mistakes("store: {sqlite: {path: {}}}"),
        ["c:1:18: store.sqlite.path: expected a string, found a mapping"]
    );
}

#[test]
fn messages_speak_of_what_was_written() {
    let said = |text: &str| mistakes(text).remove(0);
    let route = |rest: &str| said(&format!("routes: {{a: {{path: /, upstream: b, {rest}}}}}"));
    assert_eq!(
        said("server: 1"),
        "c:1:9: server: expected a mapping with keys such as `threads`, `drain_timeout`, `verbose`, found a number"
    );
    assert_eq!(said("server: [1]"), "c:1:1: server: expected a mapping, found a list");
    assert_eq!(
        said("server: {verbose: 1}"),
        "c:1:19: server.verbose: expected true or false, found a number"
    );
    assert_eq!(
        said("server: {threads: 1.5}"),
        "c:1:19: server.threads: expected a whole number, found a fraction"
    );
    assert_eq!(
        said("server: {threads: -1}"),
        "c:1:19: server.threads: expected a whole number from 0 to 65535"
    );
    assert_eq!(
        said("server: {threads: 99999999999999999999999}"),
        "c:1:19: server.threads: expected a whole number from 0 to 65535"
    );
    assert_eq!(
        said("server: {drain_timeout: {}}"),
        "c:1:10: server.drain_timeout: expected a duration such as 250ms, 5s or 1m, found a mapping"
    );
    assert_eq!(
        said("server: {threads: }"),
        "c:1:10: server.threads: expected a number, found nothing"
    );
    assert_eq!(
        route("mode: {sync: 1}"),
        "c:1:49: routes.a.mode.sync: `sync` takes no settings; write just `sync`"
    );
    assert_eq!(
        route("mode: 5"),
        "c:1:42: routes.a.mode: expected one of `off`, `async`, `sync`, found a number"
    );
    assert_eq!(
        said("routes: {a: {path: 5, upstream: b}}"),
        "c:1:20: routes.a.path: expected a string, found a number; put it in quotes"
    );
    assert_eq!(
        said("store: sqlite"),
        "c:1:8: store: `sqlite` needs its settings: write `{sqlite: …}`"
    );
    assert_eq!(
        said("store: {memory: , sqlite: {path: x}}"),
        "c:1:1: store: expected one of `memory`, `sqlite`, `postgres`, found several; keep one"
    );
    assert_eq!(
        said("store: {}"),
        "c:1:1: store: expected one of `memory`, `sqlite`, `postgres`, found nothing"
    );
    assert_eq!(said("store: {postgres: {}}"), "c:1:9: store.postgres: missing key `url`; add it");
    assert_eq!(
        said("whatever: 1"),
        "c:1:1: unknown key `whatever`, expected one of `server`, `routes`, `upstreams`, `keys`, `store`; \
         remove it, or correct its name"
    );
}

#[test]
fn a_key_defined_twice_names_both_places() {
    assert_eq!(
        mistakes("upstreams:\n  a: {endpoints: []}\n  b: {endpoints: []}\n  a: {endpoints: []}\n"),
        ["c:4:3: upstreams.a: `a` is already defined at c:2; remove or rename one of the two"]
    );
}

#[test]
fn a_file_that_is_no_configuration_is_one_problem() {
    let start =
        "c:1:1: expected a mapping at the top of the file; begin with a key, such as `routes:`";
    assert_eq!(mistakes("- a\n"), [start]);
    assert_eq!(mistakes("${A}"), [start]);
    assert_eq!(
        mistakes("a: b: c\n"),
        ["c:1:4: the value has a colon, which would make it a key; put the value in quotes, or \
          begin a new line for the second key"]
    );
    let missing = load::<Config>(Path::new("/nonexistent/c"), &Environment::fixed([("", "")]));
    let found = missing.expect_err("missing").remove(0).to_string();
    let unreadable = "/nonexistent/c:1:1: the file cannot be read: No such file or directory; ";
    assert!(found.starts_with(unreadable), "{found}");
}

#[test]
fn the_number_of_problems_is_bounded() {
    let many: String = (0..500).map(|n| format!("k{n}: 1\n")).collect();
    let found = mistakes(&many);
    assert_eq!(found.len(), 101);
    let more = "c:100:1: more than 100 problems: the others are not shown; ";
    assert!(found[100].starts_with(more), "{}", found[100]);
}

#[test]
fn a_message_that_begins_with_a_key_is_shown_at_the_value_of_that_key() {
    let files = Files::new(&[(
        "c",
        "server: {drain_timeout: 5s}\nroutes: {Ada: {path: /, upstream: u}}\n",
    )]);
    for (path, message, told) in [
        ("server", "drain_timeout: must be more", "c:1:25: server.drain_timeout: must be more"),
        ("", "server.drain_timeout: must be more", "c:1:25: server.drain_timeout: must be more"),
        // A type may have changed the case of a name.
        ("routes", "ada.path: too short", "c:2:22: routes.Ada.path: too short"),
        ("routes.ada", "path: too short", "c:2:22: routes.Ada.path: too short"),
        ("server", "threads: must be more", "c:1:1: server: threads: must be more"),
        ("server", "drain_timeout.x: no", "c:1:1: server: drain_timeout.x: no"),
        ("server", "drain_timeout", "c:1:1: server: drain_timeout"),
    ] {
        let check = |_: &Config, _: &Sources| vec![Problem::new(Code::InvalidValue, path, message)];
        let found = files.draft(&[]).validate(check).expect_err("a problem");
        assert_eq!(files.print(&found), [told], "{path}: {message}");
    }
}

#[test]
fn a_problem_beside_another_value_says_where_that_is() {
    let files =
        Files::new(&[("c", "server: {drain_timeout: 5s}\nroutes: {a: {path: /, upstream: u}}\n")]);
    for (beside, told) in [
        ("routes.a.path", "c:1:25: server.drain_timeout: no; `routes.a.path` is at c:2"),
        ("server.drain_timeout", "c:1:25: server.drain_timeout: no"),
    ] {
        let check = |_: &Config, _: &Sources| {
            vec![Problem::new(Code::InvalidValue, "server.drain_timeout", "no").beside(beside)]
        };
        let found = files.draft(&[]).validate(check).expect_err("a problem");
        assert_eq!(files.print(&found), [told]);
    }
}
