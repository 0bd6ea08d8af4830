//! What a service manager is told: systemd's `Type=notify`. The tests own its socket.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::support::{Answer, Call, Gateway, Plan, Upstream};

/// The manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    fn at(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).expect("bound");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        Manager(socket)
    }

    /// The next message, line by line.
    #[track_caller]
    fn told(&self) -> Vec<String> {
        let mut buffer = [0; 1024];
        let length = self.0.recv(&mut buffer).expect("a message in time");
        let text = std::str::from_utf8(&buffer[..length]).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    /// Nothing more has come.
    #[track_caller]
    fn told_nothing(&self) {
        self.0.set_nonblocking(true).expect("not blocking");
        let received = self.0.recv(&mut [0; 1024]);
        self.0.set_nonblocking(false).expect("blocking");
        assert!(received.is_err(), "one more message");
    }
}

const SLOW_TO_STOP: &str = "server: {shutdown_delay: 1s, drain_timeout: 90s}";

/// The socket's file is in the directory, which must outlive the gateway.
fn start(upstream: &Upstream) -> (Gateway, Manager, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).expect("a short path"));
    let plan = Plan::route("").section(SLOW_TO_STOP).upstream(upstream);
    let gateway = plan.env("NOTIFY_SOCKET", &path.display().to_string()).start();
    (gateway, manager, directory)
}

#[test]
fn the_manager_is_told_that_the_gateway_serves_once_it_does() {
    let upstream = Upstream::start();
    let (gateway, manager, _directory) = start(&upstream);
    assert_eq!(manager.told(), ["READY=1", "STATUS=serving, generation 1"]);
    assert_eq!(gateway.get("/").status, 200);
    manager.told_nothing();
}

#[test]
fn an_abstract_socket_of_the_manager_is_found() {
    let name = format!("portcullis-test-{}", std::process::id());
    let manager = Manager::at(&SocketAddr::from_abstract_name(&name).expect("a name"));
    let plan = Plan::route("").upstream(&Upstream::start());
    let _gateway = plan.env("NOTIFY_SOCKET", &format!("@{name}")).start();
    assert_eq!(manager.told()[0], "READY=1");
}

#[test]
fn a_manager_that_is_not_there_stops_nothing() {
    let upstream = Upstream::start();
    let plan = Plan::route("").upstream(&upstream);
    let gateway = plan.env("NOTIFY_SOCKET", "/nowhere/notify").start();
    assert_eq!(gateway.get("/").status, 200);
    gateway.wait_for_log("NOTIFY_SOCKET: /nowhere/notify cannot be used");
}

/// The time of a reload is that of the manager's clock, or it would take it for an earlier one.
#[test]
fn the_manager_sees_a_reload_begin_and_end() {
    let upstream = Upstream::start();
    let (gateway, manager, _directory) = start(&upstream);
    manager.told();
    let before = uptime();
    assert!(gateway.reload_plan(&Plan::route("").section(SLOW_TO_STOP)));
    let begun = manager.told();
    assert_eq!(begun[0], "RELOADING=1");
    let time = begun[1].strip_prefix("MONOTONIC_USEC=").expect("the time");
    let time: i64 = time.parse().expect("a number");
    assert!((before..=uptime()).contains(&time), "{before} {time}");
    assert_eq!(manager.told(), ["READY=1", "STATUS=serving, generation 2"]);
    manager.told_nothing();
}

fn uptime() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

#[test]
fn a_reload_that_is_refused_ends_for_the_manager_too() {
    let upstream = Upstream::start();
    let (gateway, manager, _directory) = start(&upstream);
    manager.told();
    assert!(!gateway.reload("nonsense: true"));
    assert_eq!(manager.told()[0], "RELOADING=1");
    let ended = manager.told();
    assert_eq!(ended[0], "READY=1");
    assert!(ended[1].contains("generation 1; the last reload was refused"), "{ended:?}");
}

/// A manager with a limit of its own would kill the gateway in the middle of a longer drain.
#[test]
fn the_manager_is_told_how_long_the_drain_may_take() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let (mut gateway, manager, _directory) = start(&upstream);
    manager.told();
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    gateway.signal("TERM");
    let told = manager.told();
    assert_eq!(told[0], "STOPPING=1");
    let longest = told[1].strip_prefix("EXTEND_TIMEOUT_USEC=").expect("the time");
    let longest = Duration::from_micros(longest.parse().expect("a number"));
    assert!(longest > Duration::from_secs(91) && longest < Duration::from_secs(120), "{longest:?}");
    upstream.release();
    assert_eq!(client.receive().status, 200);
    assert_eq!(gateway.exit().code(), Some(0));
    manager.told_nothing();
}

/// Pingora panics where it cannot read them.
#[test]
fn authorities_that_cannot_be_read_are_named_at_the_start() {
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for path in ["missing.pem", "bad.pem"] {
        let plan = Plan::route("").beside("bad.pem", bad).env("SSL_CERT_FILE", path);
        let (code, log) = plan.fails();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains(&format!("SSL_CERT_FILE: {path} cannot be read")), "{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}
