//! `portcullis bundle`: what there is, why the rest is missing, and no secret.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Call, Finished, Gateway, Plan, Upstream, eventually, refused_address};

/// The files of an archive, by name, without the manifest.
type Files = BTreeMap<String, Vec<u8>>;

/// Unpacks it with the program that everyone has.
#[track_caller]
fn unpacked(archive: &Path) -> (Files, Value) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut tar = Command::new("tar");
    let tar = tar.arg("-xzf").arg(archive).arg("-C").arg(directory.path());
    let output = tar.output().expect("tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = directory.path().join("portcullis-bundle");
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a name");
        files.insert(name, std::fs::read(entry.path()).expect("a file"));
    }
    let manifest = files.remove("manifest.json").expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    // It lists what is there, with its size, and nothing else.
    let listed = manifest["files"].as_array().expect("a list").iter();
    let listed: BTreeMap<String, u64> = listed
        .map(|file| {
            assert!(file["what"].as_str().is_some_and(|what| !what.is_empty()), "{file}");
            let name = file["name"].as_str().expect("a name").to_owned();
            (name, file["bytes"].as_u64().expect("a size"))
        })
        .collect();
    let there = files.iter().map(|(name, content)| (name.clone(), content.len() as u64)).collect();
    assert_eq!(listed, there);
    (files, manifest)
}

fn text(files: &Files, name: &str) -> String {
    let content = files.get(name).unwrap_or_else(|| panic!("{name} is in {:?}", files.keys()));
    String::from_utf8(content.clone()).expect("text")
}

/// Why a file is missing.
fn missing(manifest: &Value, name: &str) -> String {
    let all = manifest["missing"].as_array().expect("a list");
    let found = all.iter().find(|missing| missing["name"] == name);
    let found = found.unwrap_or_else(|| panic!("{name} is missing in {manifest:#}"));
    found["why"].as_str().expect("a reason").to_owned()
}

/// Bundles beside a gateway, with its configuration.
#[track_caller]
fn bundle(
    gateway: &Gateway,
    more: &[&str],
    environment: &[(&str, &str)],
) -> (Files, Value, Finished) {
    let archive = gateway.directory().join("bundle.tar.gz");
    let arguments =
        [&["bundle", "-c", "portcullis.yaml", "--output", "bundle.tar.gz"], more].concat();
    let (port, admin) = (gateway.address.port().to_string(), gateway.admin.to_string());
    let own = [("PORT", port.as_str()), ("ADMIN_ADDRESS", admin.as_str())];
    let finished = Gateway::finish(&arguments, gateway.directory(), &[&own, environment].concat());
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let (files, manifest) = unpacked(&archive);
    (files, manifest, finished)
}

const SECRETS: [&str; 11] = [
    "key-of-acme-0123456789",
    "jwt-secret-0123456789-0123456789",
    "db-pass-0123456789",
    "redis-pass-0123456789",
    "header-token-0123456789",
    "admin-token-0123456789",
    "registry-token-0123456789",
    "env-token-0123456789",
    "value-of-a-variable-0123456789",
    "otel-token-0123456789",
    "basic-pass-0123456789",
];

#[test]
fn no_secret_of_the_configuration_or_the_environment_is_in_it() {
    let upstream = Upstream::always(503);
    let database = format!("postgres://me:db-pass-0123456789@{}/main", refused_address());
    let sections = format!(
        "record: {{store: {{postgres: {{url: '{database}'}}}}}}
admin: {{address: '${{ADMIN_ADDRESS}}', token: admin-token-0123456789}}
auth:
  partners: {{api_key: {{keys: {{acme: key-of-acme-0123456789}}}}}}
  people: {{jwt: {{issuer: x, audience: any, algorithms: [HS256], secret: jwt-secret-0123456789-0123456789}}}}
rate_limit_stores: {{shared: {{redis: {{url: 'redis://:redis-pass-0123456789@{}/0'}}}}}}
otlp: {{endpoint: 'http://{}', headers: {{authorization: 'Bearer header-token-0123456789', other: '${{OWN_TOKEN}}'}}}}
access_log: {{to: {{file: access.log}}, keep: {{success: 100%}}}}
upstreams:
  service: {{endpoints: ['${{UPSTREAM}}']}}
  registered: {{discover: {{registry: {{allow: [10.0.0.0/8], token: registry-token-0123456789}}}}}}
routes:
  all: {{match: {{path: /*}}, upstream: service, rate_limit: {{fixed_window: {{requests: 1000, per: 1s}}, shared: {{store: shared, on_failure: local}}}}}}
  closed: {{match: {{path: /closed}}, upstream: service, auth: {{require: [partners, people]}}}}
",
        refused_address(),
        refused_address()
    );
    let environment = [
        ("OWN_TOKEN", "env-token-0123456789"),
        ("PORTCULLIS_OTHER", "value-of-a-variable-0123456789"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20otel-token-0123456789"),
        ("OTEL_SERVICE_NAME", "value-of-a-variable-0123456789"),
    ];
    let mut plan = Plan::new(&sections).upstream(&upstream);
    for (name, value) in environment {
        plan = plan.env(name, value);
    }
    let gateway = plan.start();
    let basic = Call::new("GET /a?password=basic-pass-0123456789");
    gateway.call(basic.header("Authorization", "Basic basic-pass-0123456789"));
    gateway.call(Call::new("GET /closed").header("X-Api-Key", "key-of-acme-0123456789"));
    gateway.call(Call::new("GET /closed").header("X-Api-Key", "wrong"));
    // What a person types into a path is in every log, but a secret that is known is not in a bundle.
    gateway.get("/b/admin-token-0123456789");
    let log = gateway.directory().join("access.log");
    eventually("lines", || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        log.contains("/b/admin-token").then_some(())
    });
    let with = [("UPSTREAM", upstream.url())].map(|(name, value)| (name.to_owned(), value));
    let with: Vec<_> = with.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let (files, manifest, finished) = bundle(&gateway, &[], &[&environment[..], &with].concat());
    for (name, content) in &files {
        let content = String::from_utf8_lossy(content);
        for secret in SECRETS {
            assert!(!content.contains(secret), "{name} has {secret}:\n{content}");
        }
    }
    for secret in SECRETS {
        let told = format!("{manifest}{}{}", finished.stdout, finished.stderr);
        assert!(!told.contains(secret), "{secret}: {told}");
    }
    // It was not empty for that.
    let configuration = text(&files, "configuration.yaml");
    assert!(
        configuration.contains("'***'") || configuration.contains("\"***\""),
        "{configuration}"
    );
    assert!(
        text(&files, "access-log.txt").contains("/b/***"),
        "{}",
        text(&files, "access-log.txt")
    );
    assert!(text(&files, "requests.jsonl").contains("upstream_5xx"));
    let names = text(&files, "environment.txt");
    for line in
        ["OWN_TOKEN: set", "PORTCULLIS_OTHER: set", "OTEL_SERVICE_NAME: set", "UPSTREAM: set"]
    {
        assert!(names.contains(line), "{line}: {names}");
    }
}

#[test]
fn it_holds_what_a_running_gateway_and_its_machine_tell() {
    let upstream = Upstream::always(503);
    let gateway = Gateway::route(&upstream, "circuit_breaker: {consecutive: {failures: 1}}");
    let id = gateway.get("/").header("x-request-id").expect("an id").to_owned();
    eventually("the failure to be remembered", || {
        gateway.admin("GET /requests").text().contains(&id).then_some(())
    });
    let (files, manifest, finished) = bundle(&gateway, &[], &[("UPSTREAM", &upstream.url())]);
    let json = |name: &str| -> Value { serde_json::from_slice(&files[name]).expect("JSON") };
    assert_eq!(json("version.json")["gateway"]["process"], gateway.process());
    assert_eq!(json("version.json")["gateway"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json("status.json")["routes"]["all"]["circuit"]["state"], "open");
    assert_eq!(json("check.json"), serde_json::json!([]));
    assert_eq!(json("orders.json"), serde_json::json!([]));
    assert!(json("health.json").is_object());
    assert!(text(&files, "configuration.yaml").contains("consecutive:"));
    assert!(text(&files, "metrics.txt").contains("portcullis_requests_total"));
    assert!(text(&files, "requests.jsonl").contains(&id));
    let connections = text(&files, "connections.txt");
    assert!(connections.contains("listeners.public: 1 listening"), "{connections}");
    assert!(connections.contains("portcullis_connections_max"), "{connections}");
    let process = text(&files, "process.txt");
    assert!(process.contains("Max open files") && process.contains("VmRSS"), "{process}");
    let machine = text(&files, "machine.txt");
    assert!(machine.contains("MemTotal") && machine.contains("control group of the gateway"));
    assert!(text(&files, "environment.txt").starts_with("environment of the gateway"));
    // Where logs are that are no files.
    assert!(missing(&manifest, "process-log.txt").contains("it goes to standard error"));
    assert!(missing(&manifest, "access-log.txt").contains("it goes to standard output"));
    for name in files.keys() {
        assert!(finished.stdout.contains(name.as_str()), "{name}: {}", finished.stdout);
    }
    assert!(finished.stdout.contains("written to bundle.tar.gz"), "{}", finished.stdout);
    let archive = gateway.directory().join("bundle.tar.gz");
    let mode = archive.metadata().expect("the archive").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn without_a_gateway_it_holds_what_there_is_and_says_why_the_rest_is_missing() {
    let directory = tempfile::tempdir().expect("a directory");
    let admin = refused_address().to_string();
    let yaml = format!(
        "listeners: {{public: {{address: '127.0.0.1:8080'}}}}\nadmin: {{address: '{admin}'}}\n\
         access_log: {{to: {{file: access.log}}}}\nroutes: {{live: {{serve: live}}}}\n"
    );
    std::fs::write(directory.path().join("c.yaml"), yaml).expect("written");
    std::fs::write(directory.path().join("access.log"), "a line\n").expect("written");
    let arguments = ["bundle", "-c", "c.yaml"];
    let finished = Gateway::finish(&arguments, directory.path(), &[]);
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    // By default it has a name with the time.
    let names = std::fs::read_dir(directory.path()).expect("entries");
    let names = names.map(|entry| entry.expect("an entry").path());
    let archive = names.into_iter().find(|path| path.to_string_lossy().ends_with(".tar.gz"));
    let (files, manifest) = unpacked(&archive.expect("an archive"));
    for name in ["status.json", "metrics.txt", "requests.jsonl", "process.txt", "process-log.txt"] {
        let why = missing(&manifest, name);
        assert!(why.contains(&admin) && why.contains("cannot be asked"), "{name}: {why}");
        assert!(finished.stdout.contains(name), "{}", finished.stdout);
    }
    assert!(text(&files, "configuration.yaml").contains("serve: live"));
    assert_eq!(text(&files, "access-log.txt"), "a line\n");
    assert!(text(&files, "machine.txt").contains("of this command"));
}

#[test]
fn a_file_with_errors_is_told_of_and_the_gateway_is_asked_all_the_same() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    gateway.write(&Plan::new("routes: {all: {match: {path: /*}, upstream: nowhere}}"));
    let (files, manifest, _) = bundle(&gateway, &[], &[]);
    assert!(text(&files, "check.json").contains("unknown_name"));
    assert!(missing(&manifest, "configuration.yaml").contains("check.json"));
    assert!(text(&files, "status.json").contains("generation"));
}

#[test]
fn the_ends_of_logs_are_bounded_and_left_out_on_request() {
    let upstream = Upstream::start();
    let gateway =
        Plan::route("").section("access_log: {to: {file: access.log}}").upstream(&upstream).start();
    let line = format!("{}\n", "x".repeat(99));
    std::fs::write(gateway.directory().join("access.log"), line.repeat(30_000)).expect("written");
    let (files, ..) = bundle(&gateway, &[], &[]);
    let end = &files["access-log.txt"];
    assert!((250_000..=256 * 1024).contains(&end.len()) && end.starts_with(line.as_bytes()));
    let (files, manifest, _) = bundle(&gateway, &["--without-requests"], &[]);
    for name in ["requests.jsonl", "process-log.txt", "access-log.txt"] {
        assert!(!files.contains_key(name));
        assert!(missing(&manifest, name).contains("--without-requests"));
    }
}

#[test]
fn a_token_opens_it_and_a_wrong_one_is_told() {
    let upstream = Upstream::start();
    let admin = "admin: {address: '${ADMIN_ADDRESS}', token: [admin-token-0123456789]}";
    let gateway = Plan::route("").section(admin).upstream(&upstream).start();
    let (files, ..) = bundle(&gateway, &[], &[]);
    assert!(files.contains_key("status.json"));
    let (files, manifest, _) =
        bundle(&gateway, &[], &[("ADMIN_TOKEN", "another-token-0123456789")]);
    assert!(missing(&manifest, "status.json").contains("wants another token"));
    assert!(files.contains_key("metrics.txt"), "that is open");
}

#[test]
fn standard_output_gets_the_archive_alone_and_what_cannot_be_written_is_a_failure() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("c.yaml"), "routes: {live: {serve: live}}\n")
        .expect("written");
    let admin = refused_address().to_string();
    let mut command = Command::new(crate::support::binary());
    let command = command.current_dir(directory.path()).env_clear().stdin(Stdio::null());
    let arguments = ["bundle", "-c", "c.yaml", "--address", admin.as_str(), "--output", "-"];
    let output = command.args(arguments).output().expect("the executable starts");
    assert_eq!(output.status.code(), Some(0));
    let archive = directory.path().join("piped.tar.gz");
    std::fs::write(&archive, &output.stdout).expect("written");
    assert!(unpacked(&archive).0.contains_key("machine.txt"));
    let table = String::from_utf8(output.stderr).expect("text");
    assert!(table.contains("written to standard output"), "{table}");
    let nowhere = ["bundle", "-c", "c.yaml", "--address", &admin, "--output", "none/b.tar.gz"];
    let finished = Gateway::finish(&nowhere, directory.path(), &[]);
    assert_eq!(finished.code, Some(1));
    assert!(finished.stderr.contains("none/b.tar.gz cannot be written"), "{}", finished.stderr);
}
