//! Aliases, merge keys and the keys that hold their anchors; encodings and line ends that editors
//! write.

use super::*;

fn retry(config: &Config, route: &str) -> (u32, Vec<u16>) {
    let retry = config.routes[route].retry.clone().unwrap();
    (retry.max_retries.get(), retry.on)
}

#[test]
fn an_alias_stands_for_a_whole_value() {
    let text = "upstreams:\n  a: &a {endpoints: [http://x]}\n  b: *a\n";
    assert_eq!(load_text(text, &[]).unwrap().upstreams.len(), 2);
}

#[test]
fn a_merged_mapping_gives_what_a_mapping_lacks() {
    let text = "\
x-retry: &retry {max_retries: 2, on: [502, 503]}
x-route: &route {path: /, upstream: users, retry: *retry}
routes:
  a: {<<: *route}
  b:
    retry: {max_retries: 5, <<: *retry}
    <<: *route
    path: /b
";
    let config = load_text(text, &[]).unwrap();
    assert_eq!((config.routes["a"].path.as_str(), retry(&config, "a")), ("/", (2, vec![502, 503])));
    assert_eq!(config.routes["b"].path, "/b", "what a mapping says itself stands, wherever");
    assert_eq!(retry(&config, "b"), (5, vec![502, 503]));
}

#[test]
fn of_several_merged_mappings_the_first_wins() {
    let text = "\
x-a: &a {max_retries: 2}
x-b: &b {max_retries: 7, on: [500]}
routes: {r: {path: /, upstream: u, retry: {<<: [*a, *b]}}}
";
    assert_eq!(retry(&load_text(text, &[]).unwrap(), "r"), (2, vec![500]));
}

#[test]
fn a_merge_reaches_through_anchors_that_merge_themselves() {
    let text = "\
x-retry:
  - &a {max_retries: 2}
  - &b {<<: *a, on: [500]}
  - &c {<<: *b, jitter: 10%}
routes: {r: {path: /, upstream: u, retry: {<<: *c}}}
";
    assert_eq!(retry(&load_text(text, &[]).unwrap(), "r"), (2, vec![500]));
}

#[test]
fn the_top_of_a_file_can_be_merged_too() {
    let text = "x-base: &base {server: {threads: 3}, x-more: 1}\n<<: *base\n";
    assert_eq!(load_text(text, &[]).unwrap().server.threads, 3);
}

#[test]
fn every_file_has_extension_keys_of_its_own() {
    let part =
        |name| format!("x-up: &up [http://h:1]\nupstreams: {{{name}: {{endpoints: *up}}}}\n");
    let (a, b) = (part("a"), part("b"));
    let files =
        Files::new(&[("c", "include: '*.yaml'\nx-up: 1\n"), ("a.yaml", &a), ("b.yaml", &b)]);
    assert_eq!(files.load(&[]).unwrap().upstreams.len(), 2);
}

#[test]
fn extension_keys_are_for_the_top_level_only() {
    let found = mistakes("server: {x-note: 1}\n");
    assert!(found[0].starts_with("c:1:10: server: unknown key `x-note`"), "{found:?}");
}

#[test]
fn what_is_not_used_of_an_anchor_need_not_resolve() {
    let text = "x-a: &a {threads: \"${NO}\", verbose: true}\nserver: {<<: *a, threads: 1}\n";
    assert!(load_text(text, &[]).unwrap().server.verbose);
}

#[test]
fn a_mistake_that_was_merged_in_is_shown_where_it_was_written() {
    let text = "\
x-retry: &retry
  max_retries: many
x-typo: &typo
  retires: 1
routes:
  a:
    path: /
    upstream: u
    retry: {<<: *retry}
  b: {path: /, upstream: u, <<: *typo}
";
    let found = mistakes(text);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("c:2:16: routes.a.retry.max_retries: "), "{found:?}");
    assert!(found[1].starts_with("c:4:3: routes.b: unknown key `retires`"), "{found:?}");
    assert!(found[1].ends_with("did you mean `retry`?"), "{found:?}");
}

#[test]
fn what_cannot_be_merged_is_one_mistake() {
    let expected = "expected a mapping such as `<<: *base`, or a list of them";
    for wrong in ["base", "1", "~", "", "[[]]"] {
        let text = format!("routes:\n  a:\n    <<: {wrong}\n    path: /\n");
        let at = match wrong {
            "[[]]" => "c:3:10: routes.a.\"<<\"[0]",
            "~" | "" => "c:3:5: routes.a.\"<<\"",
            _ => "c:3:9: routes.a.\"<<\"",
        };
        assert_eq!(mistakes(&text), [format!("{at}: {expected}")], "{wrong}");
    }
    let text = "x-a: &a {path: /}\nroutes: {a: {<<: [*a, 7], upstream: u}}\n";
    assert_eq!(mistakes(text), [format!("c:2:23: routes.a.\"<<\"[1]: {expected}")]);
}

#[test]
fn two_merge_keys_in_one_mapping_are_a_mistake() {
    let text = "x-a: &a {threads: 1}\nserver:\n  <<: *a\n  <<: *a\n";
    assert_eq!(
        mistakes(text),
        ["c:4:3: server.\"<<\": `<<` is already defined at c:3; remove or rename one of the two"]
    );
}

#[test]
fn merges_cannot_multiply_without_bound() {
    let mut text = String::from("x-0: &a0 {a: [x, x, x, x, x, x, x, x, x, x]}\n");
    for level in 1..12 {
        let above = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("x-{level}: &a{level} {{<<: [{above}]}}\n"));
    }
    let found = mistakes(&text);
    assert!(found[0].contains("aliases expand to too many values"), "{found:?}");
}

#[test]
fn a_file_is_read_as_editors_leave_it() {
    let plain = "server:\n  threads: 7\n";
    for text in [
        format!("\u{feff}{plain}"),
        plain.replace('\n', "\r\n"),
        format!("\u{feff}{}", plain.replace('\n', "\r\n")),
        format!("---\n{plain}"),
        format!("\u{feff}---\n{plain}"),
        format!("%YAML 1.1\n---\n{plain}"),
        format!("{plain}...\n"),
        format!("---\n{plain}...\n# the end\n"),
        plain.trim_end().to_owned(),
    ] {
        let loaded = load_text(&text, &[]).unwrap_or_else(|found| panic!("{text:?}: {found:?}"));
        assert_eq!(loaded.server.threads, 7, "{text:?}");
    }
}

#[test]
fn a_mark_or_carriage_returns_move_no_position() {
    for text in ["\u{feff}server: {thread: 1}\r\nrouts: {}\r\n", "server: {thread: 1}\nrouts: {}\n"]
    {
        let found = mistakes(text);
        assert!(found[0].starts_with("c:1:10: server: "), "{found:?}");
        assert!(found[1].starts_with("c:2:1: unknown key `routs`"), "{found:?}");
    }
}

#[test]
fn an_included_file_may_begin_with_a_mark() {
    let files =
        Files::new(&[("c", "include: r.yaml\n"), ("r.yaml", "\u{feff}server: {threads: 7}\n")]);
    assert_eq!(files.load(&[]).unwrap().server.threads, 7);
}
