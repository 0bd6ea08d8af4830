//! Configurations made of several files.

use super::*;

#[test]
fn included_files_add_named_things() {
    let files = Files::new(&[
        (
            "c",
            "include: ['r/*.yaml', u.yaml]\nserver: {threads: 2}\nroutes: {a: {path: /a, upstream: x}}\n",
        ),
        ("r/b.yaml", "routes: {b: {path: /b, upstream: x}}\n"),
        ("r/c.yaml", "routes:\n  c: {path: /c, upstream: x}\nserver: {verbose: true}\n"),
        ("r/.hidden.yaml", "nonsense: 1\n"),
        ("r/d.yml", "nonsense: 1\n"),
        ("u.yaml", "upstreams: {x: {endpoints: []}}\n"),
    ]);
    let config = files.load(&[]).unwrap();
    assert_eq!(config.routes.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!((config.server.threads, config.server.verbose), (2, true));
    let draft = files.draft(&[]);
    let names: Vec<_> = draft.sources.files().map(|f| f.file_name().unwrap()).collect();
    assert_eq!(names, ["c", "b.yaml", "c.yaml", "u.yaml"]);
}

#[test]
fn a_name_in_two_files_names_both_places() {
    let files = Files::new(&[
        ("c", "include: '*.yaml'\nstore: memory\nroutes:\n  a: {path: /a, upstream: x}\n"),
        ("1.yaml", "# one\nroutes: {a: {path: /b, upstream: x}}\n"),
        ("2.yaml", "store: memory\n"),
    ]);
    assert_eq!(
        files.load(&[]).expect_err("mistakes"),
        [
            "1.yaml:2:10: routes.a: `a` is already defined at c:4; remove or rename one of the two",
            "2.yaml:1:1: store: `store` is already defined at c:2; remove or rename one of the two",
        ]
    );
}

#[test]
fn a_mistake_is_shown_in_its_own_file() {
    let files = Files::new(&[
        ("c", "include: r/*.yaml\nserver: {threads: x}\n"),
        ("r/1.yaml", "\n\nroutes: {a: {path: /a, upstream: x, retry: {max_retries: '${N}'}}}\n"),
    ]);
    let found = files.load(&[("N", "no")]).expect_err("mistakes");
    assert_eq!(found[0], "c:2:19: server.threads: expected a number, found a string");
    let number = "r/1.yaml:3:58: routes.a.retry.max_retries: expected a number, found a string";
    assert!(found[1].starts_with(number), "{found:?}");
}

#[test]
fn includes_do_not_nest() {
    let files = Files::new(&[("c", "include: a.yaml\n"), ("a.yaml", "include: b.yaml\n")]);
    let found = files.load(&[]).expect_err("mistakes");
    assert_eq!(
        found,
        [
            "a.yaml:1:1: include: only the main file can include others; name the file in the main file"
        ]
    );
}

#[test]
fn a_file_named_outright_must_be_there_and_a_pattern_need_not_match() {
    let files = Files::new(&[("c", "include: [none.yaml, 'none/*.yaml', 'a***']\n")]);
    let found = files.load(&[]).expect_err("mistakes");
    assert_eq!(
        found[0],
        "c:1:11: include[0]: there is no file `none.yaml`; create it, or correct the path, \
         which is relative to this file"
    );
    assert!(found[1].starts_with("c:1:37: include[2]: `**` stands for any folders"), "{found:?}");
    assert_eq!(found.len(), 2);
}

#[test]
fn the_main_file_does_not_include_itself() {
    let files =
        Files::new(&[("c.yaml", "include: ['*.yaml', './*.yaml']\nserver: {threads: 1}\n")]);
    assert_eq!(files.load(&[]).unwrap().server.threads, 1);
}

#[test]
fn a_broken_include_hides_no_other_mistake_and_invents_none() {
    let files = Files::new(&[
        ("c", "include: a.yaml\nserver: {threads: x}\nroutes: {r: {path: /, upstream: u}}\n"),
        ("a.yaml", "upstreams: [\n"),
    ]);
    let found = files
        .draft(&[])
        .validate(|_, _| vec![Problem::new(Code::UnknownName, "routes.r.upstream", "unknown")]);
    let found = files.print(&found.expect_err("mistakes"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].starts_with("a.yaml:1:12: `[` is opened here and never closed"), "{found:?}");
}
