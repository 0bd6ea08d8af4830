//! Things that are written once for several names.

use super::*;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Whole {
    services: BTreeMap<String, Service>,
    lists: BTreeMap<String, List>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    url: String,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    of: Vec<String>,
}

static TEMPLATES: Templates =
    Templates { section: "services", list: "each", uses: &["lists", "*", "of"] };

fn read(text: &str, targets: &str) -> Result<Whole, Vec<String>> {
    let files = Files::new(&[("c", text)]);
    let environment = Environment::fixed([("TARGETS", targets)]);
    let draft =
        load_layered::<Whole, Nothing>(&files.1, &environment, &TEMPLATES, &NO_DEFAULTS, &[]);
    let loaded = draft.validate(|_, _| Vec::new());
    loaded.map(|(whole, _)| whole).map_err(|found| files.print(&found))
}

const MESH: &str = "\
services:
  mesh: {each: [\"${TARGETS:-}\"], url: 'http://{name}:1', tags: ['{name}.{name}', x]}
  own: {url: '{name}'}
lists: {all: {of: mesh}, some: {of: [own, mesh, y]}, one: {of: own}}
";

#[test]
fn a_thing_is_made_for_each_name_and_its_template_names_all_of_them() {
    let whole = read(MESH, " b, a.c ,").expect("valid");
    assert_eq!(whole.services.keys().collect::<Vec<_>>(), ["a.c", "b", "own"]);
    let of_b = Service { url: "http://b:1".into(), tags: vec!["b.b".into(), "x".into()] };
    assert_eq!(whole.services["b"], of_b);
    assert_eq!(whole.services["own"].url, "{name}", "it is no template");
    assert_eq!(whole.lists["all"].of, ["b", "a.c"]);
    assert_eq!(whole.lists["some"].of, ["own", "b", "a.c", "y"]);
    assert_eq!(whole.lists["one"].of, ["own"]);
}

#[test]
fn an_empty_list_makes_nothing_however_it_is_written() {
    for each in ["[\"${TARGETS:-}\"]", "\"${TARGETS:-}\"", "[]", "~", "[\", ,\"]"] {
        let whole = read(&MESH.replace("[\"${TARGETS:-}\"]", each), "").expect("valid");
        assert_eq!(whole.services.keys().collect::<Vec<_>>(), ["own"], "{each}");
        assert!(whole.lists["all"].of.is_empty());
        assert_eq!(whole.lists["some"].of, ["own", "y"]);
    }
}

#[test]
fn a_name_that_cannot_be_one_is_shown_with_the_variable_it_is_in() {
    let found = read(MESH, "a,Orders!,b").expect_err("a mistake");
    assert_eq!(found.len(), 1, "{found:?}");
    let expected = "c:2:17: services.mesh.each[0]: `Orders!`, in ${TARGETS}, is not a name";
    assert!(found[0].starts_with(expected), "{found:?}");
    let written = read(&MESH.replace("${TARGETS:-}", "A"), "").expect_err("a mistake");
    assert!(written[0].contains("`A` is not a name"), "{written:?}");
    for (each, says) in [
        ("7", "expected a list of names"),
        ("[[a]]", "expected a name"),
        ("{a: b}", "expected a list of names"),
    ] {
        let found = read(&MESH.replace("[\"${TARGETS:-}\"]", each), "").expect_err(each);
        assert!(found[0].contains(says), "{each}: {found:?}");
    }
}

#[test]
fn a_name_that_is_there_already_is_shown_with_both_places() {
    for targets in ["a,b,a", "own"] {
        let found = read(MESH, targets).expect_err("a mistake");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("is already defined at c:"), "{found:?}");
    }
}

#[test]
fn mistakes_in_a_template_are_where_it_is_written() {
    let found = read(&MESH.replace("url: 'http", "uri: 'http"), "a").expect_err("mistakes");
    assert_eq!(found, ["c:2:34: services.a: unknown key `uri`, did you mean `url`?"]);
}

#[test]
fn what_is_made_has_a_bound() {
    let many = |count: usize| (0..count).map(|n| format!("s{n}")).collect::<Vec<_>>().join(",");
    assert_eq!(read(MESH, &many(1000)).expect("valid").services.len(), 1001);
    let found = read(MESH, &many(1001)).expect_err("too many");
    assert!(found.iter().any(|one| one.contains("lists 1001 names; at most 1000")), "{found:?}");
    let tags = vec!["x"; 2000].join(", ");
    let found = read(&MESH.replace("x]", &format!("{tags}]")), &many(1000)).expect_err("too much");
    assert!(found[0].contains("makes more than 1000000 values"), "{found:?}");
}
