//! Who may use the admin listener: the token, and the Unix socket.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::{Call, Client, Gateway, Plan, Response, Upstream, eventually};

const OLD: &str = "first-admin-token-0001";
const NEW: &str = "second-admin-token-0002";

fn admin(rest: &str) -> String {
    format!("admin: {{address: \"${{ADMIN_ADDRESS}}\", {rest}}}")
}

fn plan(rest: &str) -> Plan {
    Plan::route("circuit_breaker: {consecutive: {failures: 1}}").section(&admin(rest))
}

fn order() -> Call {
    Call::new("POST /circuits/route/all/open")
}

fn is_open(gateway: &Gateway, token: &str) -> bool {
    let status = gateway.admin(Call::new("GET /status").bearer(token)).json();
    status["routes"]["all"]["circuit"]["state"] == "forced_open"
}

#[track_caller]
fn refused(answer: &Response) {
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(answer.code(), "unauthenticated");
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    assert!(challenge.starts_with("Bearer"), "{challenge}");
    assert!(!answer.text().contains("token-000"), "{}", answer.text());
}

#[test]
fn with_a_token_only_health_and_metrics_are_read_without_it() {
    let gateway = plan(&format!("token: {OLD}")).start();
    // Until then it is not healthy.
    gateway.wait_for_log("record store: ready");
    for path in ["/livez", "/readyz", "/healthz", "/metrics"] {
        assert_eq!(gateway.admin(Call::new(&format!("GET {path}"))).status, 200, "{path}");
        let post = gateway.admin(Call::new(&format!("POST {path}")));
        assert_eq!(post.status, 401, "it might change something: {path}");
    }
    for line in ["GET /status", "GET /requests", "GET /requests/1", "GET /", "GET /unknown"] {
        refused(&gateway.admin(Call::new(line)));
    }
    for line in ["POST /log?level=debug", "PUT /status", "DELETE /status"] {
        refused(&gateway.admin(Call::new(line)));
    }
    refused(&gateway.admin(order()));
    assert!(!is_open(&gateway, OLD), "nothing has changed");
    assert_eq!(gateway.admin(order().bearer(OLD)).status, 200);
    assert!(is_open(&gateway, OLD));
}

#[test]
fn anything_but_the_whole_token_is_refused() {
    let gateway = plan(&format!("token: {OLD}")).start();
    let [short, long] = [&OLD[..OLD.len() - 1], &format!("{OLD}x")];
    for wrong in [short, long, &OLD.to_uppercase(), "", NEW] {
        refused(&gateway.admin(order().bearer(wrong)));
    }
    refused(&gateway.admin(order().header("Authorization", OLD)));
    refused(&gateway.admin(order().header("Authorization", &format!("Basic {OLD}"))));
    refused(&gateway.admin(order().bearer(OLD).bearer(OLD)));
    refused(&gateway.admin(Call::new(&format!("POST /circuits/route/all/open?token={OLD}"))));
    assert!(!is_open(&gateway, OLD));
    // Neither a page nor another name gets further with it.
    assert_eq!(gateway.admin(order().bearer(OLD).header("Origin", "null")).status, 403);
    let foreign = Call::new("GET /status").header("Host", "rebound.example").bearer(OLD);
    assert_eq!(gateway.admin(foreign).status, 421);
}

#[test]
fn a_reload_changes_the_tokens_at_once_on_connections_that_are_open() {
    let gateway = plan(&format!("token: {OLD}")).start();
    let mut kept = Client::connect(gateway.admin);
    let host = gateway.admin.to_string();
    let mut status =
        |token: &str| kept.call(&Call::new("GET /status").bearer(token).to(&host)).status;
    assert_eq!((status(OLD), status(NEW)), (200, 401));
    assert!(gateway.reload_plan(&plan(&format!("token: [{NEW}, {OLD}]"))));
    assert_eq!((status(OLD), status(NEW)), (200, 200), "one after the other");
    assert!(gateway.reload_plan(&plan(&format!("token: {NEW}"))));
    assert_eq!((status(OLD), status(NEW)), (401, 200));
    assert!(gateway.reload_plan(&plan("")));
    assert_eq!((status(OLD), status("")), (200, 200), "no token, no question");
    let log = gateway.log();
    assert!(!log.contains(OLD) && !log.contains(NEW), "{log}");
}

#[test]
fn a_token_comes_from_a_file_and_is_shown_nowhere() {
    let config = "token: [\"${file:token}\", \"${ADMIN_SECRET}\"]";
    let gateway =
        plan(config).beside("token", &format!("{OLD}\n")).env("ADMIN_SECRET", NEW).start();
    for token in [OLD, NEW] {
        assert_eq!(gateway.admin(Call::new("GET /status").bearer(token)).status, 200);
    }
    let file = gateway.directory().join("portcullis.yaml");
    let environment =
        [("ADMIN_SECRET", NEW), ("ADMIN_ADDRESS", "127.0.0.1:9901"), ("PORT", "8080")];
    for format in ["yaml", "json"] {
        let arguments = ["config", "-c", file.to_str().expect("text"), "--format", format];
        let shown = Gateway::finish(&arguments, gateway.directory(), &environment);
        assert_eq!(shown.code, Some(0), "{}", shown.stderr);
        assert!(shown.stdout.contains("***"), "{}", shown.stdout);
        assert!(!shown.stdout.contains(OLD) && !shown.stdout.contains(NEW), "{}", shown.stdout);
    }
}

/// Off loopback `check` warns of a listener that asks for nothing.
#[test]
fn a_token_ends_the_warning_about_an_address_that_others_reach() {
    let warned = |rest: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        let text = format!(
            "listeners: {{public: {{address: '127.0.0.1:8080'}}}}\nadmin: {{{rest}}}\nroutes: {{a: {{match: \
             {{path: /a}}, serve: live}}}}\n"
        );
        std::fs::write(directory.path().join("c.yaml"), text).expect("a file");
        let finished = Gateway::finish(&["check", "-c", "c.yaml"], directory.path(), &[]);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        finished.stderr.contains("admin.address")
    };
    assert!(warned("address: '0.0.0.0:9901'"));
    assert!(!warned(&format!("address: '0.0.0.0:9901', token: {OLD}")));
    assert!(!warned("address: off, socket: /run/portcullis/admin.sock"));
    assert!(!warned("address: '127.0.0.1:9901'"));
}

/// A directory for a socket: its path must be short.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::Builder::new().prefix("pc").tempdir_in("/tmp").expect("a directory");
    let path = directory.path().join("admin.sock");
    (directory, path)
}

/// The status of the response over the socket, and the response.
fn over(path: &Path, head: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(path).expect("the socket listens");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a limit");
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("a response");
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), text)
}

#[test]
fn the_socket_is_its_owner_s_and_asks_for_no_token_and_no_name() {
    let (_directory, path) = place();
    let mut gateway = plan(&format!("socket: {}, token: {OLD}", path.display())).start();
    let metadata = path.symlink_metadata().expect("a file");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    for host in ["localhost", "rebound.example"] {
        let (status, text) = over(&path, &format!("GET /status HTTP/1.1\r\nHost: {host}"));
        assert_eq!(status, 200, "{text}");
    }
    let order = "POST /circuits/route/all/open HTTP/1.1\r\nHost: localhost";
    assert_eq!(over(&path, &format!("{order}\r\nOrigin: null")).0, 403);
    assert_eq!(over(&path, order).0, 200);
    assert!(is_open(&gateway, OLD));
    assert_eq!(gateway.admin(Call::new("GET /status")).status, 401, "the address asks for it");
    gateway.signal("TERM");
    assert_eq!(gateway.exit().code(), Some(0));
    assert!(!path.exists(), "it is removed at the end");
}

#[test]
fn a_socket_left_behind_is_replaced_and_one_that_is_in_use_is_not() {
    let (directory, path) = place();
    let socket = format!("socket: {}", path.display());
    let mut killed = plan(&socket).start();
    killed.signal("KILL");
    let _ = killed.exit();
    assert!(path.exists(), "a process that is killed leaves it behind");
    let gateway = plan(&socket).start();
    assert_eq!(over(&path, "GET /livez HTTP/1.1\r\nHost: localhost").0, 200);
    let (code, log) = plan(&socket).fails();
    assert_eq!(code, Some(1), "{log}");
    let line = format!("admin.socket: cannot listen on {}", path.display());
    assert!(log.contains(&line) && log.contains("another process listens there"), "{log}");
    assert_eq!(over(&path, "GET /livez HTTP/1.1\r\nHost: localhost").0, 200, "it goes on");
    drop(gateway);
    let other = directory.path().join("file");
    std::fs::write(&other, "text").expect("a file");
    let (code, log) = plan(&format!("socket: {}", other.display())).fails();
    assert_eq!(code, Some(1));
    assert!(log.contains("not a socket"), "{log}");
    assert_eq!(std::fs::read_to_string(&other).expect("the file"), "text");
}

#[test]
fn a_gateway_may_have_a_socket_only_and_the_commands_find_it() {
    let (directory, path) = place();
    let upstream = Upstream::always(500);
    let file = directory.path().join("c.yaml");
    let port = crate::support::Port::reserve();
    let text = format!(
        "listeners: {{public: {{address: '{}'}}}}\nadmin: {{address: off, socket: {}}}\nupstreams: {{service: \
         {{endpoints: ['{}']}}}}\nroutes: {{all: {{match: {{path: /*}}, upstream: service}}}}\n",
        port.address(),
        path.display(),
        upstream.url()
    );
    std::fs::write(&file, text).expect("a file");
    let config = file.to_str().expect("text").to_owned();
    let mut child = Gateway::begin(&["run", "-c", &config], directory.path(), &[]);
    let socket = path.to_str().expect("text").to_owned();
    let run = |arguments: &[&str]| Gateway::finish(arguments, directory.path(), &[]);
    eventually("a ready gateway", || {
        let ready = run(&["health", "--socket", &socket, "--path", "/readyz"]);
        (ready.code == Some(0)).then_some(())
    });
    let environment = [("ADMIN_ADDRESS", "off"), ("ADMIN_SOCKET", socket.as_str())];
    let healthy = Gateway::finish(&["health"], directory.path(), &environment);
    assert_eq!(healthy.code, Some(0), "{}", healthy.stderr);
    let mut client = Client::connect(port.address());
    client.call(&Call::new("GET /").header("X-Request-Id", "req-1"));
    eventually("the request's story", || {
        // The socket is in the configuration.
        let story = run(&["why", "req-1", "-c", &config]);
        (story.code == Some(0) && story.stdout.contains(&socket)).then_some(())
    });
    child.kill().expect("ours");
    child.wait().expect("its end");
}

#[test]
fn the_commands_show_the_token() {
    let upstream = Upstream::always(500);
    let gateway = plan(&format!("token: {OLD}")).upstream(&upstream).start();
    gateway.call(Call::new("GET /").header("X-Request-Id", "req-1"));
    let address = gateway.admin.to_string();
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("token"), format!("{OLD}\n")).expect("a file");
    let why = |more: &[&str], environment: &[(&str, &str)]| {
        let arguments = [&["why", "req-1", "--address", &address], more].concat();
        Gateway::finish(&arguments, directory.path(), environment)
    };
    let refused = why(&[], &[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("ADMIN_TOKEN"), "the remedy: {}", refused.stderr);
    let wrong = why(&[], &[("ADMIN_TOKEN", NEW)]);
    assert!(wrong.code == Some(1) && !wrong.stderr.contains(NEW), "{}", wrong.stderr);
    for (arguments, environment) in
        [(&[][..], &[("ADMIN_TOKEN", OLD)][..]), (&["--token-file", "token"], &[])]
    {
        eventually("the request's story", || {
            let story = why(arguments, environment);
            (story.code == Some(0)).then_some(())
        });
    }
}

/// The socket cannot be moved while the process runs.
#[test]
fn a_reload_that_moves_the_listener_is_refused() {
    let (_directory, path) = place();
    let gateway = plan(&format!("socket: {}", path.display())).start();
    assert!(!gateway.reload_plan(&plan("")));
    gateway.wait_for_log("admin.socket: cannot change");
    assert!(UnixStream::connect(&path).is_ok());
}
