//! The head of each shipped profile tells of every variable that the file reads, with its default.

use std::collections::BTreeMap;
use std::path::Path;

const PROFILES: [&str; 7] = [
    "gateway-service",
    "microservices",
    "spring-gateway",
    "mini-gateway",
    "edge",
    "fleet",
    "sidecar",
];

/// Read by the gateway itself, not by the file.
const OWN: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Read by the gateway itself as well; the file says what holds without it.
const NAME: &str = "OTEL_SERVICE_NAME";

fn text(profile: &str) -> String {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    std::fs::read_to_string(conf.join(format!("{profile}.yaml"))).expect("a profile")
}

/// Variables that the file reads, with their defaults; `None` is one that must be set.
fn read(text: &str) -> BTreeMap<String, Option<String>> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut found = BTreeMap::new();
    for line in lines {
        let mut references = line.split("${").skip(1).peekable();
        while let Some(reference) = references.next() {
            let inside = reference.split_once('}').map_or(reference, |(inside, _)| inside);
            let end = inside.find(':').unwrap_or(inside.len());
            let (name, rest) = inside.split_at(end);
            let mut default = rest.strip_prefix(":-").map(str::to_owned);
            // The default of one may be another.
            if !reference.contains('}') {
                let other = references.peek().and_then(|other| other.split(':').next());
                default = other.map(str::to_owned);
            }
            assert!(default.is_some() || rest.starts_with(":?"), "{line}");
            let before = found.insert(name.to_owned(), default.clone());
            assert!(before.is_none_or(|before| before == default), "{name} has two defaults");
        }
    }
    found
}

/// Variables that the head tells of, with the word behind each. `RATE_API_x` stands for A and B, and
/// `SERVICE_A, _B` for both, with a default for each.
fn told(text: &str) -> BTreeMap<String, String> {
    let head = text.lines().take_while(|line| line.starts_with('#'));
    let mut found = BTreeMap::new();
    for line in head.filter_map(|line| line.strip_prefix("#   ")) {
        let line = line.replace(", _", ",_");
        let Some((name, rest)) = line.split_once(' ') else { continue };
        let is_variable = |c: char| c.is_ascii_uppercase() || "_,x".contains(c);
        if !name.starts_with(|c: char| c.is_ascii_uppercase()) || !name.chars().all(is_variable) {
            continue;
        }
        let word = |at: usize| {
            let word = rest.split_whitespace().nth(at).unwrap_or_default();
            word.trim_end_matches([',', ';']).to_owned()
        };
        if let Some((first, end)) = name.split_once(",_") {
            let second = format!("{}{end}", &first[..first.len() - end.len()]);
            found.extend([(first.to_owned(), word(0)), (second, word(1))]);
        } else if name.contains('x') {
            found.extend(["A", "B"].map(|one| (name.replace('x', one), word(0))));
        } else {
            found.insert(name.to_owned(), word(0));
        }
    }
    found
}

#[test]
fn every_variable_of_a_profile_is_in_its_head_with_the_default_it_has() {
    for profile in PROFILES {
        let text = text(profile);
        let (read, mut told) = (read(&text), told(&text));
        assert!(read.len() > 7, "{profile}: {read:?}");
        assert!(told.remove(OWN).is_some(), "{profile}: {OWN} is read as well");
        let name = told.remove(NAME).unwrap_or_else(|| panic!("{profile}: {NAME} is read as well"));
        let line = format!("  default_service_name: {name}");
        assert!(text.lines().any(|other| other == line), "{profile}: {name} is the default");
        let names = |map: Vec<&String>| map.into_iter().cloned().collect::<Vec<_>>();
        assert_eq!(
            names(told.keys().collect()),
            names(read.keys().collect()),
            "{profile}: told and read"
        );
        for (name, default) in read {
            let said = &told[&name];
            match default.as_deref() {
                None => assert_eq!(said, "required", "{profile}: {name}"),
                // What it may look like, or that there is none.
                Some("") => {
                    assert!(said == "none" || said.contains("://"), "{profile}: {name}: {said}");
                }
                Some(default) => assert_eq!(said, default, "{profile}: {name}"),
            }
        }
    }
}

/// Those of the sidecar go to its admin listener, and its callers connect directly: its head says so.
#[test]
fn every_profile_but_the_sidecar_has_a_route_for_probes_and_trusted_proxies() {
    for profile in PROFILES {
        let tree: serde_yaml::Value = serde_yaml::from_str(&text(profile)).expect("valid YAML");
        let routes = tree["routes"].as_mapping().expect("routes");
        let has_probe = routes.values().any(|route| route["serve"].is_string());
        let has_proxies = tree["client_address"]["trusted_proxies"].is_sequence();
        let expected = profile != "sidecar";
        assert_eq!((has_probe, has_proxies), (expected, expected), "{profile}");
    }
}

#[test]
fn the_page_of_profiles_names_the_variables_of_each() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/profiles.md")).expect("the page");
    for profile in ["gateway-service", "microservices"] {
        let row = format!("| [`conf/{profile}.yaml`]");
        let row = page.lines().find(|line| line.starts_with(&row)).expect("its row");
        for name in read(&text(profile)).keys() {
            assert!(row.contains(&format!("`{name}`")), "{profile}: {name}");
        }
    }
}
