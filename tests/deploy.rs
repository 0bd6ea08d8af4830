//! What is in `deploy/`, against the binary: its files are valid, its metrics exist, its times fit. The tools
//! of the systems it is for look at the rest: `make deploy-check`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis::config::{Config, Environment};
use portcullis::runtime::drain::Drain;
use serde_yaml::Value;

use crate::support::{
    Authority, Gateway, Issuer, Plan, Port, Upstream, eventually, refused_address,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The files in a folder and below it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    paths.flat_map(below).collect()
}

/// What the files take from their surroundings, and no defaults have.
const SURROUNDINGS: [(&str, &str); 2] = [
    ("ADMIN_TOKEN", "a-token-of-16-characters"),
    ("DATABASE_URL", "postgres://portcullis@127.0.0.1/portcullis"),
];

fn gateways() -> Vec<PathBuf> {
    let all = files(&folder()).into_iter();
    let gateways: Vec<_> = all.filter(|path| path.ends_with("gateway.yaml")).collect();
    assert!(gateways.len() >= 4, "{gateways:?}");
    gateways
}

#[test]
fn every_file_of_a_gateway_is_valid_and_has_nothing_to_warn_of() {
    let here = tempfile::tempdir().expect("a folder");
    for file in gateways() {
        let check = ["check", "-c", file.to_str().expect("text"), "--deny-warnings"];
        let finished = Gateway::finish(&check, here.path(), &SURROUNDINGS);
        // The folder of a journal is another one where the file will be used.
        let said = finished.stderr;
        let only = said.matches("warning").count() == 0 || said.contains("is in the container's");
        assert!(finished.code == Some(0) || only, "{}: {said}", file.display());
    }
}

/// The longest that the gateway with this file takes from SIGTERM to its end, and how long it still takes
/// connections of these.
fn longest(file: &Path) -> (Duration, Duration) {
    let environment = Environment::fixed(SURROUNDINGS);
    let (config, _) = Config::load(file, &environment).expect("a valid file");
    (Drain::longest(&config), *config.server.shutdown_delay)
}

fn yaml(name: &str) -> Value {
    serde_yaml::from_str(&read(name)).expect("valid YAML")
}

fn seconds(value: &Value) -> Duration {
    let number = value.as_u64().or_else(|| value.as_str()?.strip_suffix('s')?.parse().ok());
    Duration::from_secs(number.unwrap_or_else(|| panic!("no seconds: {value:?}")))
}

#[test]
fn a_pod_is_given_longer_to_end_than_its_gateway_takes() {
    let pod = &yaml("kubernetes/base/deployment.yaml")["spec"]["template"]["spec"];
    let grace = seconds(&pod["terminationGracePeriodSeconds"]);
    let probe = &pod["containers"][0]["readinessProbe"];
    assert_eq!(probe["httpGet"]["path"], "/readyz");
    let noticed =
        seconds(&probe["periodSeconds"]) * probe["failureThreshold"].as_u64().unwrap() as u32;
    for name in ["base", "durable", "example"] {
        let (longest, delay) = longest(&folder().join(format!("kubernetes/{name}/gateway.yaml")));
        assert!(grace > longest, "{name}: {grace:?} is no more than {longest:?}");
        assert!(delay > noticed, "{name}: a probe notices within {noticed:?}, not {delay:?}");
    }
}

#[test]
fn a_sidecar_in_a_pod_runs_the_profile_with_variables_that_it_reads_and_has_time_to_end() {
    let file = folder().join("kubernetes/sidecar/sidecar.yaml");
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/sidecar.yaml");
    let texts = [&file, &profile].map(|path| std::fs::read_to_string(path).expect("a file"));
    assert_eq!(texts[0], texts[1], "a copy: kustomize reads no file outside of its folder");
    let pod = &yaml("kubernetes/sidecar/deployment.yaml")["spec"]["template"]["spec"];
    let sidecar = &pod["initContainers"][0];
    assert_eq!(sidecar["restartPolicy"], "Always");
    let grace = seconds(&pod["terminationGracePeriodSeconds"]);
    let (longest, _) = longest(&file);
    assert!(grace > longest, "{grace:?} is no more than {longest:?}");
    let (authority, here) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    authority.put(&authority.sign("orders"), here.path());
    let variables = sidecar["env"].as_sequence().expect("variables").iter().map(|one| {
        let name = one["name"].as_str().expect("a name");
        let value = match name {
            "SIDECAR_CERTIFICATES" => here.path().to_str(),
            "ADMIN_TOKEN" => Some("a-token-of-16-characters"),
            _ => one["value"].as_str(),
        };
        (name, value.expect("a value"))
    });
    let check = ["check", "-c", file.to_str().expect("text"), "--deny-warnings"];
    let finished = Gateway::finish(&check, here.path(), &variables.collect::<Vec<_>>());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
}

#[test]
fn a_container_is_given_longer_to_end_than_its_gateway_takes() {
    let grace = seconds(&yaml("compose/compose.yaml")["services"]["gateway"]["stop_grace_period"]);
    let (longest, delay) = longest(&folder().join("compose/gateway/gateway.yaml"));
    assert!(grace > longest, "{grace:?} is no more than {longest:?}");
    let balancer = &yaml("compose/traefik.yaml")["http"]["services"]["gateway"]["loadBalancer"];
    let check = &balancer["healthCheck"];
    assert_eq!(check["path"], "/readyz");
    let noticed = seconds(&check["interval"]) + seconds(&check["timeout"]);
    assert!(delay > noticed, "Traefik notices within {noticed:?}, not {delay:?}");
}

#[test]
fn a_service_is_given_longer_to_end_than_a_gateway_with_the_default_times_takes() {
    let unit = read("systemd/portcullis.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
    let limit = Duration::from_secs(line.expect("a limit").parse().expect("seconds"));
    let here = tempfile::tempdir().expect("a folder");
    let file = here.path().join("portcullis.yaml");
    let record = "record: {store: {sqlite: {path: portcullis.db}}}";
    let text = format!("{}{record}\n", read("systemd/portcullis.yaml"));
    std::fs::write(&file, text).expect("written");
    let (longest, _) = self::longest(&file);
    assert!(limit > longest, "{limit:?} is no more than {longest:?}");
    assert!(unit.contains("\nType=notify\n"), "the gateway tells it when it serves");
}

/// A gateway with something of everything that has metrics.
fn with_everything(upstream: &Upstream, issuer: &Issuer) -> Gateway {
    let leaf = Authority::new().sign("one.test");
    let port = Port::reserve();
    let sections = format!(
        "listeners:\n  public: {{address: \"127.0.0.1:${{PORT}}\"}}\n  secure: {{address: '{}', tls: \
         {{certificates: [{{certificate: one.pem, key: one.key}}]}}}}\n\
         auth: {{accounts: {{jwt: {{issuer: a, audience: any, algorithms: [RS256], jwks: {{url: '{}'}}}}}}}}\n\
         rate_limit_stores: {{shared: {{redis: {{url: 'redis://{away}'}}}}}}\n\
         record: {{store: {{postgres: {{url: 'postgres://a@{away}/a'}}}}, journal: {{path: journal.db}}}}\n\
         upstreams: {{service: {{endpoints: [\"${{UPSTREAM}}\"], health: {{tcp: {{}}}}}}}}",
        port.address(),
        issuer.url(),
        away = refused_address(),
    );
    let policies = "\
        bulkhead: {max_in_flight: 5}\n\
        circuit_breaker: {consecutive: {failures: 5}}\n\
        rate_limit: [{token_bucket: {rate: 5, burst: 100}, key: client_address, shared: {store: shared}}, \
        {token_bucket: {rate: 5, burst: 100}, key: client_address, enforce: false}]\n\
        retry: {max_retries: 1}\n\
        record: {mode: durable}";
    let plan = Plan::route(policies).section(&sections).upstream(upstream);
    plan.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem()).start()
}

/// Series by their name, each with the names of its labels.
type Names = BTreeMap<String, BTreeSet<String>>;

fn parsed(series: &str) -> Option<(String, BTreeSet<String>)> {
    let (name, rest) = match series.split_once('{') {
        Some((name, rest)) => (name, rest.split_once('}')?.0),
        None => (series.split(' ').next()?, ""),
    };
    let labels = rest.split("\",").filter_map(|label| label.split_once('='));
    Some((name.to_owned(), labels.map(|(name, _)| name.trim().to_owned()).collect()))
}

/// The names of metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metric = |word: &&str| word.starts_with("portcullis_") || word.starts_with("process_");
    words.filter(metric).map(str::to_owned).collect()
}

/// `deploy/prometheus/series.txt` has an example of each series that is named in `deploy/`, for the tools that
/// run its queries; `PORTCULLIS_GOLDEN=write` writes it again.
#[test]
fn every_metric_that_is_graphed_or_alerted_on_is_exported_with_these_labels() {
    let (upstream, issuer) = (Upstream::start(), Issuer::start());
    let gateway = with_everything(&upstream, &issuer);
    gateway.get("/");
    let order =
        format!("POST /upstreams/service/endpoints/weight?address={}&weight=2", upstream.address());
    let ordered = gateway.admin(order.as_str());
    assert_eq!(ordered.status, 200, "{}", ordered.text());
    let text = eventually("everything that is shown", || {
        let text = gateway.admin("GET /metrics").text();
        text.contains("portcullis_request_duration_seconds_bucket").then_some(text)
    });
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let exported: Names = lines.iter().filter_map(|line| parsed(line)).collect();

    let sources =
        ["grafana/portcullis.json", "prometheus/alerts.yaml", "prometheus/alerts_test.yaml"];
    let used: BTreeSet<String> = sources.iter().flat_map(|name| named(&read(name))).collect();
    assert!(used.len() > 30, "{used:?}");
    let missing: Vec<_> = used.iter().filter(|name| !exported.contains_key(*name)).collect();
    assert!(missing.is_empty(), "not exported: {missing:?}");

    // The samples of the alerts' tests.
    let mut samples = 0;
    let text = read("prometheus/alerts_test.yaml");
    for series in text.lines().filter_map(|line| line.split_once("{series: '")) {
        let (name, labels) = parsed(series.1).expect("a series");
        let unknown: Vec<_> = labels
            .iter()
            .filter(|label| *label != "instance" && !exported[&name].contains(*label))
            .collect();
        assert!(unknown.is_empty(), "{name} has no label {unknown:?}");
        samples += 1;
    }
    assert!(samples > 20, "{samples}");

    let examples = examples(&lines, &used);
    if std::env::var_os("PORTCULLIS_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(folder().join("prometheus/series.txt"), &examples).expect("written");
    }
    let kept: Names = read("prometheus/series.txt").lines().filter_map(parsed).collect();
    let now: Names = examples.lines().filter_map(parsed).collect();
    assert_eq!(kept, now);
}

/// The series of these metrics, without their values.
fn examples(lines: &[&str], used: &BTreeSet<String>) -> String {
    let series = lines.iter().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series);
    let mine = |series: &&str| parsed(series).is_some_and(|(name, _)| used.contains(&name));
    let sorted: BTreeSet<&str> = series.filter(mine).collect();
    sorted.into_iter().map(|series| format!("{series}\n")).collect()
}
