//! Answers as Consul writes them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::known::Said;
use super::*;

fn config(rest: &str) -> Consul {
    serde_yaml::from_str(&format!("{{service: orders{rest}}}")).expect("valid")
}

/// Those of an upstream with these keys.
fn terms(rest: &str) -> Terms {
    let yaml = format!("{{discover: {{consul: {{service: orders}}}}{rest}}}");
    Terms::of(&serde_yaml::from_str(&yaml).expect("valid"))
}

fn entry(id: &str, address: &str, port: u16, statuses: &[&str]) -> Value {
    let check =
        |status: &&str| json!({"Node": "n1", "CheckID": "c", "Status": status, "Output": ""});
    json!({
        "Node": {"ID": "40e4a748", "Node": "n1", "Address": "10.1.10.12", "Datacenter": "dc1", "Meta": {}},
        "Service": {
            "ID": id, "Service": "orders", "Tags": ["primary"], "Address": address, "Port": port,
            "Meta": {}, "Weights": {"Passing": 10, "Warning": 1}, "EnableTagOverride": false,
        },
        "Checks": statuses.iter().map(check).collect::<Vec<_>>(),
    })
}

fn used(entries: &[Value], config: &Consul) -> Result<Vec<(String, u32)>, String> {
    let found = read(json!(entries).to_string().as_bytes(), &Told::default(), config, &terms(""));
    match found.said {
        Said::These(all) => {
            Ok(all.into_iter().map(|one| (one.url.authority, one.weight)).collect())
        }
        Said::Nothing(why) => Err(format!("nothing: {why}")),
        Said::Failed(why) => Err(why),
    }
}

#[test]
fn an_instance_is_at_its_own_address_or_at_that_of_its_node() {
    let entries = [entry("b", "", 8080, &[]), entry("a", "A.internal", 80, &["passing"])];
    let expected = Ok(vec![("10.1.10.12:8080".to_owned(), 10), ("a.internal".to_owned(), 10)]);
    assert_eq!(used(&entries, &config("")), expected);
}

#[test]
fn the_worst_check_counts_and_a_warning_has_its_own_weight() {
    let entries = [
        entry("a", "10.0.0.1", 80, &["passing", "passing"]),
        entry("b", "10.0.0.2", 80, &["passing", "warning"]),
        entry("c", "10.0.0.3", 80, &["warning", "critical"]),
        entry("d", "10.0.0.4", 80, &["maintenance"]),
    ];
    let [one, two] = [("10.0.0.1:80".to_owned(), 10), ("10.0.0.2:80".to_owned(), 1)];
    assert_eq!(used(&entries, &config("")), Ok(vec![one.clone()]));
    assert_eq!(used(&entries, &config(", passing_only: false")), Ok(vec![one, two]));
    let critical =
        Err("nothing: of its 1 instances each is critical, or has the weight 0".to_owned());
    assert_eq!(used(&entries[2..3], &config(", passing_only: false")), critical);
}

#[test]
fn a_weight_of_nothing_gets_nothing_and_large_ones_are_scaled() {
    let mut entries = [
        entry("a", "10.0.0.1", 80, &["passing"]),
        entry("b", "10.0.0.2", 80, &["warning"]),
        entry("c", "10.0.0.3", 80, &["passing"]),
    ];
    entries[0]["Service"]["Weights"] = json!({"Passing": 65_535, "Warning": 1});
    entries[1]["Service"]["Weights"] = json!({"Passing": 1, "Warning": 0});
    // Before weights were known.
    entries[2]["Service"].as_object_mut().expect("an object").remove("Weights");
    let expected = [("10.0.0.1:80".to_owned(), 1000), ("10.0.0.3:80".to_owned(), 1)];
    assert_eq!(used(&entries, &config(", passing_only: false")), Ok(expected.to_vec()));
    let none = Err("nothing: of its 1 instances each is critical, or has the weight 0".to_owned());
    assert_eq!(used(&entries[1..2], &config(", passing_only: false")), none);
}

#[test]
fn one_instance_that_cannot_be_reached_leaves_the_others_in_use() {
    let entries = [entry("a", "10.0.0.1", 80, &[]), entry("b\n", "10.0.0.2", 0, &[])];
    let read = |entries: &[Value]| {
        read(json!(entries).to_string().as_bytes(), &Told::default(), &config(""), &terms(""))
    };
    let found = read(&entries);
    assert!(matches!(found.said, Said::These(these) if these.len() == 1));
    let unusable = "the instance `b`: `10.0.0.2` has no port";
    assert_eq!(found.unusable.as_deref(), Some(unusable));
    assert_eq!(read(&entries[1..]).said, Said::Failed(unusable.to_owned()));
    let mut negative = entry("c", "10.0.0.3", 0, &[]);
    negative["Service"]["Port"] = json!(-1);
    assert!(matches!(read(&[negative]).said, Said::Failed(_)));
}

#[test]
fn an_instance_that_the_gateway_may_not_or_cannot_speak_to_leaves_the_others_in_use() {
    let entries = [entry("a", "10.0.0.1", 80, &[]), entry("b", "127.0.0.1", 9901, &[])];
    let body = json!(entries).to_string();
    let found = read(body.as_bytes(), &Told::default(), &config(""), &terms(""));
    assert!(matches!(found.said, Said::These(these) if these.len() == 1));
    let unusable = found.unusable.expect("one");
    assert!(unusable.starts_with("the instance `b`: 127.0.0.1 is a loopback"), "{unusable}");
    let all = read(body.as_bytes(), &Told::default(), &config(""), &terms(", protocol: h2"));
    assert!(matches!(all.said, Said::Failed(why) if why.contains("only for https://")));
}

#[test]
fn an_empty_list_is_nothing_unless_it_was_emptied() {
    let read = |told: &Told, config: &Consul| read(b"[]", told, config, &terms("")).said;
    let nothing = |words: &str| Said::Nothing(words.to_owned());
    let well = Told::default();
    let passing = nothing("no instance of this service is passing its checks");
    assert_eq!(read(&well, &config("")), passing);
    let none = nothing("this service has no instance");
    assert_eq!(read(&well, &config(", passing_only: false")), none);
    for told in [
        Told { is_filtered: true, ..Told::default() },
        Told { is_leaderless: true, ..Told::default() },
    ] {
        assert!(matches!(read(&told, &config("")), Said::Failed(_)), "{told:?}");
    }
}

#[test]
fn an_index_that_becomes_smaller_counts_from_anew() {
    let mut index = Index::default();
    for (header, next) in
        [("7", Some(7)), ("7", Some(7)), ("9", Some(9)), ("3", None), ("3", Some(3))]
    {
        assert_eq!(index.take(Some(header)), Ok(()));
        assert_eq!(index.number(), next, "{header}");
    }
    index = Index::default();
    assert_eq!(index.take(Some("0")), Ok(()));
    assert_eq!(index.number(), Some(1), "from 0 no query would wait");
    for wrong in [None, Some(""), Some("-1"), Some("many"), Some("18446744073709551616")] {
        assert!(index.take(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn nonsense_is_told() {
    for wrong in
        ["", "{}", "null", "[{}]", "[[]]", "[{\"Node\": {}, \"Service\": {\"ID\": \"a\"}}]"]
    {
        let found = read(wrong.as_bytes(), &Told::default(), &config(""), &terms(""));
        let Said::Failed(why) = found.said else { panic!("{wrong}") };
        assert!(why.starts_with("the answer cannot be read: "), "{wrong}: {why}");
    }
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&body, &Told::default(), &config(""), &terms(""));
    }

    #[test]
    fn no_instance_makes_it_panic_and_weights_stay_in_their_bounds(
        host in "\\PC{0,20}", port in any::<i64>(), passing in any::<u32>(), status in "[a-z]{0,8}",
    ) {
        let mut one = entry("a", &host, 80, &[&status, "passing"]);
        one["Service"]["Port"] = json!(port);
        one["Service"]["Weights"]["Passing"] = json!(passing);
        let body = json!([one, entry("b", "10.0.0.2", 80, &[])]).to_string();
        if let Said::These(these) = read(body.as_bytes(), &Told::default(), &config(""), &terms("")).said {
            prop_assert!(these.iter().all(|one| (1..=1000).contains(&one.weight)));
        }
    }
}
