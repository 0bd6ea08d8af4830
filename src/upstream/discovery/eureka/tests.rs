//! Answers as Eureka writes them.

use proptest::prelude::*;
use serde_json::json;

use super::super::known::Said;
use super::*;
use crate::upstream::config::Url;

fn config(rest: &str) -> Eureka {
    serde_yaml::from_str(&format!("{{service: orders, address: 'http://a'{rest}}}")).expect("valid")
}

fn entry(address: &str, status: &str) -> Value {
    json!({
        "instanceId": format!("{address}:orders:8080"), "hostName": "orders.internal", "app": "ORDERS",
        "ipAddr": address, "status": status, "overriddenStatus": "UNKNOWN",
        "port": {"$": 8080, "@enabled": "true"}, "securePort": {"$": 443, "@enabled": "false"},
        "countryId": 1,
        "dataCenterInfo": {"@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn"},
        "leaseInfo": {"renewalIntervalInSecs": 30, "durationInSecs": 90},
        "metadata": {"@class": "java.util.Collections$EmptyMap"}, "actionType": "ADDED",
    })
}

/// Those of an upstream with `as`, and with these keys.
fn terms(form: Option<&Url>, rest: &str) -> Terms {
    let form = form.map(|form| format!(", as: '{form}'")).unwrap_or_default();
    let source = "eureka: {service: orders, address: 'http://a'}";
    let yaml = format!("{{discover: {{{source}{form}}}{rest}}}");
    Terms::of(&serde_yaml::from_str(&yaml).expect("valid"))
}

fn found(instance: Value, config: &Eureka, form: Option<&Url>) -> Found {
    let body = json!({"application": {"name": "ORDERS", "instance": instance}}).to_string();
    read(body.as_bytes(), config, &terms(form, ""))
}

fn used(instance: Value, config: &Eureka, form: Option<&Url>) -> Result<Vec<String>, String> {
    match found(instance, config, form).said {
        Said::These(all) => Ok(all.iter().map(|one| one.url.to_string()).collect()),
        Said::Nothing(why) => Err(format!("nothing: {why}")),
        Said::Failed(why) => Err(why),
    }
}

#[test]
fn instances_that_are_up_are_used() {
    let all = json!([
        entry("10.0.0.1", "UP"),
        entry("10.0.0.2", "DOWN"),
        entry("10.0.0.3", "OUT_OF_SERVICE"),
        entry("10.0.0.4", "STARTING"),
        entry("10.0.0.5", "UNKNOWN"),
    ]);
    assert_eq!(used(all, &config(""), None), Ok(vec!["http://10.0.0.1:8080".to_owned()]));
    let down = json!([entry("10.0.0.2", "DOWN"), entry("10.0.0.2", "DOWN")]);
    let nothing = Err("nothing: of its 2 instances none is UP".to_owned());
    assert_eq!(used(down, &config(""), None), nothing);
}

#[test]
fn one_instance_may_be_without_its_list_and_none_may_be_missing() {
    let one = Ok(vec!["http://10.0.0.1:8080".to_owned()]);
    assert_eq!(used(entry("10.0.0.1", "UP"), &config(""), None), one);
    let nothing = Err("nothing: this application has no instance".to_owned());
    for none in [json!([]), Value::Null] {
        assert_eq!(used(none, &config(""), None), nothing);
    }
    let body = b"{\"application\": {\"name\": \"ORDERS\"}}";
    assert!(matches!(read(body, &config(""), &terms(None, "")).said, Said::Nothing(_)));
}

#[test]
fn the_port_is_the_one_that_is_enabled_or_chosen() {
    let ports = |plain: Value, secure: Value| {
        let mut one = entry("10.0.0.1", "UP");
        one["port"] = json!({"$": 8080, "@enabled": plain});
        one["securePort"] = json!({"$": "8443", "@enabled": secure});
        one
    };
    let (plain, secure) = ("http://10.0.0.1:8080", "https://10.0.0.1:8443");
    let form: Url = "https://orders.internal".parse().expect("a URL");
    for (instance, rest, expected) in [
        (ports(json!("true"), json!("true")), "", Ok(plain)),
        (ports(json!(false), json!(true)), "", Ok(secure)),
        (ports(json!("true"), json!("true")), ", port: secure", Ok(secure)),
        (
            ports(json!("true"), json!("false")),
            ", port: secure",
            Err("its `securePort` is not enabled"),
        ),
        (ports(json!("false"), json!("true")), ", port: plain", Err("its `port` is not enabled")),
        (ports(json!("false"), json!("false")), "", Err("neither of its ports is enabled")),
    ] {
        let expected = match expected {
            Ok(url) => Ok(vec![url.to_owned()]),
            Err(why) => Err(format!("the instance `10.0.0.1:orders:8080`: {why}")),
        };
        assert_eq!(used(instance, &config(rest), None), expected, "{rest}");
    }
    let both = found(ports(json!("true"), json!("true")), &config(""), Some(&form));
    let Said::These(these) = both.said else { panic!("{both:?}") };
    assert!(format!("{:?}", these[0].url.place).contains("8443"), "as the scheme is https");
}

#[test]
fn with_as_only_the_port_is_used_that_fits_its_scheme() {
    let ports = |plain: bool, secure: bool| {
        let mut one = entry("10.0.0.1", "UP");
        one["port"] = json!({"$": 8080, "@enabled": plain});
        one["securePort"] = json!({"$": 8443, "@enabled": secure});
        one
    };
    for (form, instance, says) in [
        ("http://orders.internal", ports(false, true), "its `port` is not enabled"),
        ("https://orders.internal", ports(true, false), "its `securePort` is not enabled"),
    ] {
        let form: Url = form.parse().expect("a URL");
        let error = used(instance, &config(""), Some(&form)).expect_err(says);
        assert!(error.contains(says), "{error}");
        assert!(used(ports(true, true), &config(""), Some(&form)).is_ok());
    }
}

#[test]
fn one_instance_of_the_wrong_scheme_or_place_leaves_the_others_in_use() {
    let mut secure = entry("10.0.0.2", "UP");
    secure["port"]["@enabled"] = json!("false");
    secure["securePort"]["@enabled"] = json!("true");
    let body = |all: Value| json!({"application": {"instance": all}}).to_string();
    for (other, rest, says) in [
        (
            secure,
            ", protocol: h2c",
            "the instance `10.0.0.2:orders:8080`: `h2c` is HTTP/2 without TLS",
        ),
        (entry("169.254.169.254", "UP"), "", "169.254.169.254 is a loopback or link-local address"),
    ] {
        let body = body(json!([entry("10.0.0.1", "UP"), other]));
        let found = read(body.as_bytes(), &config(""), &terms(None, rest));
        assert!(matches!(found.said, Said::These(these) if these.len() == 1));
        assert!(found.unusable.is_some_and(|why| why.contains(says)), "{says}");
    }
    let mut both = entry("10.0.0.1", "UP");
    both["securePort"]["@enabled"] = json!("true");
    let found = read(body(both).as_bytes(), &config(""), &terms(None, ", protocol: h2"));
    assert!(
        matches!(found.said, Said::These(these) if these[0].url.tls),
        "of both, the one that fits"
    );
}

#[test]
fn what_eureka_says_of_all_applications_is_told_from_what_others_say() {
    let all =
        json!({"applications": {"versions__delta": "1", "apps__hashcode": "", "application": []}});
    assert!(is_registry(all.to_string().as_bytes()));
    assert!(is_registry(br#"{"applications": {"apps__hashcode": ""}}"#));
    for other in ["", "{}", "<applications/>", "[]", "{\"status\": 404}"] {
        assert!(!is_registry(other.as_bytes()), "{other}");
    }
}

#[test]
fn the_host_may_be_the_name() {
    let expected = Ok(vec!["http://orders.internal:8080".to_owned()]);
    assert_eq!(used(entry("10.0.0.1", "UP"), &config(", prefer: host"), None), expected);
}

#[test]
fn metadata_may_have_a_weight_and_other_words_are_none() {
    for (weight, expected) in [
        (json!("3"), 3),
        (json!(3), 3),
        (json!("0"), 1),
        (json!(1001), 1),
        (json!(0.5), 1),
        (json!("heavy"), 1),
        (json!({}), 1),
    ] {
        let mut one = entry("10.0.0.1", "UP");
        one["metadata"] = json!({"weight": weight});
        let Said::These(these) = found(one, &config(""), None).said else { panic!("{weight}") };
        assert_eq!(these[0].weight, expected, "{weight}");
    }
}

#[test]
fn nonsense_is_told() {
    for wrong in [
        "",
        "[]",
        "{}",
        "<application/>",
        "{\"application\": {\"instance\": [{}]}}",
        "{\"application\": {\"instance\": 7}}",
    ] {
        let Said::Failed(why) = read(wrong.as_bytes(), &config(""), &terms(None, "")).said else {
            panic!("{wrong}")
        };
        assert!(why.starts_with("the answer cannot be read: "), "{wrong}: {why}");
    }
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&body, &config(""), &terms(None, ""));
    }

    #[test]
    fn no_instance_makes_it_panic(
        host in "\\PC{0,20}", port in any::<i64>(), enabled in "\\PC{0,6}", weight in "\\PC{0,6}",
    ) {
        let mut one = entry(&host, "UP");
        one["port"] = json!({"$": port, "@enabled": enabled});
        one["metadata"] = json!({"weight": weight});
        found(json!([one, entry("10.0.0.2", "UP")]), &config(""), None);
    }
}
