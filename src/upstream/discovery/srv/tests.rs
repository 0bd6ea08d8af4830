use hickory_resolver::proto::op::OpCode;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SRV};

use super::*;
use crate::upstream::config::Place;

const AFTER: Duration = Duration::from_secs(30);

/// Any bytes but dots may be in its labels.
fn name(text: &str) -> Name {
    let labels = text.split('.').filter(|label| !label.is_empty());
    Name::from_labels(labels.map(str::as_bytes)).expect("a name")
}

fn record(of: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name(of), ttl, data)
}

fn a(address: [u8; 4]) -> RData {
    RData::A(A(address.into()))
}

fn answer(records: &[Record]) -> Message {
    let mut message = Message::response(0, OpCode::Query);
    message.add_answers(records.iter().cloned());
    message
}

fn target(priority: u16, weight: u16, port: u16, host: &str) -> Target {
    let data = RData::SRV(SRV::new(priority, weight, port, name(host)));
    Target::read(&data).expect("it is one")
}

fn these(addresses: &[&str]) -> Looked {
    let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    Looked { said: Said::These(addresses), failed: None }
}

fn nothing() -> Looked {
    Looked { said: Said::Nothing("no such name".to_owned()), failed: None }
}

fn failed() -> Looked {
    Looked { said: Said::Failed("no answer".to_owned()), failed: None }
}

fn plain() -> Form {
    Form { is_tls: false, form: None, family: IpFamily::Both }
}

/// What is known after each of these, as `place weight`, a backup in brackets.
#[derive(Default)]
struct Story(Service);

impl Story {
    fn after(
        &mut self,
        seconds: u64,
        targets: &[Target],
        found: Vec<(&str, Looked)>,
    ) -> Result<Vec<String>, String> {
        let found = found.into_iter().map(|(host, looked)| (host.to_owned(), looked)).collect();
        let now = Moment::ZERO + Duration::from_secs(seconds);
        let (said, _) = self.0.take_in(targets.to_vec(), found, &plain(), AFTER, now);
        match said {
            Said::These(listed) => Ok(listed.iter().map(words).collect()),
            Said::Nothing(words) => Err(format!("nothing: {words}")),
            Said::Failed(words) => Err(format!("failed: {words}")),
        }
    }
}

fn words(listed: &Listed) -> String {
    let place = match &listed.url.place {
        Place::Host { host, .. } => host.clone(),
        Place::Pair(pair) => format!("{}+{}", pair.v6.ip(), pair.v4.ip()),
        Place::Unix(path) => path.display().to_string(),
    };
    match listed.backup {
        true => format!("({place} {})", listed.weight),
        false => format!("{place} {}", listed.weight),
    }
}

#[test]
fn the_shortest_ttl_of_records_and_aliases_counts() {
    let alias = |of: &str, ttl, to| record(of, ttl, RData::CNAME(CNAME(name(to))));
    let message = answer(&[
        alias("a.test.", 7, "b.test."),
        record("b.test.", 9, a([10, 0, 0, 1])),
        record("b.test.", 8, a([10, 0, 0, 2])),
        record("c.test.", 1, a([10, 0, 0, 3])),
    ]);
    let found = |of: &str| find(&message, &name(of), address);
    let both = vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
    assert_eq!(found("A.test."), Found::These(both.clone(), Duration::from_secs(7)));
    assert_eq!(found("b.test."), Found::These(both, Duration::from_secs(8)));
    assert_eq!(found("d.test."), Found::Nothing);
    let message = answer(&[alias("a.test.", 7, "b.test.")]);
    let elsewhere = Found::Alias(name("b.test."), Duration::from_secs(7));
    assert_eq!(find(&message, &name("a.test."), address), elsewhere);
}

#[test]
fn an_alias_of_itself_ends() {
    let message = answer(&[record("a.test.", 7, RData::CNAME(CNAME(name("a.test."))))]);
    assert!(matches!(find(&message, &name("a.test."), address), Found::Alias(..)));
}

#[test]
fn addresses_that_come_along_belong_to_their_target() {
    let mut message = answer(&[]);
    message.add_additional(record("a.test.", 5, a([10, 0, 0, 1])));
    message.add_additional(record("a.test.", 3, RData::AAAA(AAAA("::1".parse().expect("one")))));
    message.add_additional(record("b.test.", 1, a([10, 0, 0, 2])));
    let (addresses, ttl) = brought_along(&message, &name("A.TEST."));
    assert_eq!((addresses.len(), ttl), (2, Duration::from_secs(3)));
    assert!(brought_along(&message, &name("c.test.")).0.is_empty());
}

#[test]
fn records_that_make_no_sense_are_named() {
    let of = |targets: &[Target]| super::targets(targets.to_vec());
    for (wrong, says) in [
        (target(0, 0, 0, "a.test."), "a.test has the port 0"),
        (target(0, 0, 80, "a b.test."), "no name of a host"),
        (target(0, 0, 80, "a/b.test."), "no name of a host"),
    ] {
        let Said::Failed(error) = of(&[target(0, 0, 80, "b.test."), wrong]) else {
            panic!("it is taken: {says}");
        };
        assert!(error.contains(says), "{error}");
    }
    assert!(matches!(of(&[target(0, 0, 0, ".")]), Said::Nothing(words) if words.contains("`.`")));
    let Said::These(left) = of(&[target(0, 0, 0, "."), target(0, 0, 80, "B.test.")]) else {
        panic!("one is left");
    };
    assert_eq!(left[0].host(), "b.test");
}

#[test]
fn the_lowest_priority_is_used_and_the_others_are_backups() {
    let targets = [target(20, 5, 80, "c."), target(10, 1, 80, "a."), target(10, 3, 80, "b.")];
    let found =
        vec![("a", these(&["10.0.0.1"])), ("b", these(&["10.0.0.2"])), ("c", these(&["10.0.0.3"]))];
    let listed = Story::default().after(0, &targets, found).expect("endpoints");
    assert_eq!(listed, ["10.0.0.1 1", "10.0.0.2 3", "(10.0.0.3 5)"]);
}

#[test]
fn weights_keep_their_proportions() {
    let weighed = |of: &[(u16, usize)]| {
        let targets: Vec<_> = (b'a'..)
            .zip(of)
            .map(|(host, (weight, _))| target(0, *weight, 80, &format!("{}.", host as char)))
            .collect();
        let found = targets.iter().zip(of).enumerate().map(|(at, (target, (_, count)))| {
            let addresses: Vec<IpAddr> =
                (0..*count).map(|of| [10, 0, at as u8, of as u8].into()).collect();
            (target.host().to_owned(), Looked { said: Said::These(addresses), failed: None })
        });
        let found = found.collect();
        let (said, _) = Service::default().take_in(targets, found, &plain(), AFTER, Moment::ZERO);
        let Said::These(listed) = said else { panic!("{said:?}") };
        listed.iter().map(|listed| listed.weight).collect::<Vec<_>>()
    };
    assert_eq!(weighed(&[(0, 1), (0, 1)]), [1, 1]);
    assert_eq!(weighed(&[(0, 1), (9, 1)]), [1, 9], "zero: rarely");
    assert_eq!(weighed(&[(65_535, 1), (6_554, 1), (0, 1)]), [1000, 100, 1]);
    assert_eq!(weighed(&[(6, 2), (3, 1)]), [3, 3, 3], "a target's addresses share its weight");
    assert_eq!(weighed(&[(1, 2), (1, 1)]), [500, 500, 1000]);
}

#[test]
fn a_target_with_both_families_is_one_endpoint() {
    let targets = [target(0, 4, 80, "a.")];
    let both = || these(&["::1", "10.0.0.1", "10.0.0.2"]);
    let mut story = Story::default();
    let listed = story.after(0, &targets, vec![("a", both())]);
    assert_eq!(listed.expect("endpoints"), ["::1+10.0.0.1 2", "10.0.0.2 2"]);
}

#[test]
fn a_family_that_cannot_be_asked_for_keeps_its_addresses() {
    let targets = [target(0, 1, 80, "a.")];
    let mut story = Story::default();
    story.after(0, &targets, vec![("a", these(&["::1", "10.0.0.1"]))]).expect("endpoints");
    let lacking = Looked { failed: Some(true), ..these(&["10.0.0.2"]) };
    let listed = story.after(1, &targets, vec![("a", lacking)]).expect("endpoints");
    assert_eq!(listed, ["::1+10.0.0.2 1"]);
    let listed = story.after(2, &targets, vec![("a", these(&["10.0.0.2"]))]).expect("endpoints");
    assert_eq!(listed, ["10.0.0.2 1"], "the name has none any more");
}

#[test]
fn a_target_that_cannot_be_asked_for_keeps_its_addresses() {
    let targets = [target(0, 1, 80, "a."), target(0, 1, 80, "b.")];
    let mut story = Story::default();
    let mut after =
        |seconds, a: Looked, b: Looked| story.after(seconds, &targets, vec![("a", a), ("b", b)]);
    let one = || these(&["10.0.0.1"]);
    assert_eq!(after(0, failed(), failed()).expect_err("none"), "failed: b: no answer");
    assert_eq!(after(1, one(), failed()).expect("a"), ["10.0.0.1 1"]);
    let both = ["10.0.0.1 1", "10.0.0.2 1"];
    assert_eq!(after(2, one(), these(&["10.0.0.2"])).expect("both"), both);
    assert_eq!(after(9_000, one(), failed()).expect("both"), both);
    assert_eq!(after(9_001, failed(), failed()).expect("both"), both);
    assert_eq!(after(9_002, one(), nothing()).expect("both"), both);
    assert_eq!(after(9_032, one(), nothing()).expect("a"), ["10.0.0.1 1"], "believed by now");
    assert_eq!(after(9_033, nothing(), nothing()).expect_err("none"), "nothing: b: no such name");
}

#[test]
fn an_endpoint_is_named_as_its_target_unless_its_form_is_given() {
    let url = |form: &Form, port| {
        named("a.test".to_owned(), port, form.is_tls, form.form.as_ref()).to_string()
    };
    let tls = Form { is_tls: true, ..plain() };
    let given = Form { form: Some("https://orders.test/api".parse().expect("a URL")), ..plain() };
    assert_eq!(url(&plain(), 80), "http://a.test");
    assert_eq!(url(&plain(), 443), "http://a.test:443");
    assert_eq!(url(&tls, 443), "https://a.test");
    assert_eq!(url(&tls, 8443), "https://a.test:8443");
    assert_eq!(url(&given, 8443), "https://orders.test/api");
}
