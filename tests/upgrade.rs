//! A new process takes over from a running one: nothing is refused and nothing is cut, and where the new
//! one cannot start, the old one serves on. And sockets that systemd has opened.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::websocket::{self, echo, echoes};
use crate::support::{
    Answer, Authority, Blackhole, Call, Client, Plan, Port, Steady, Store, Upstream, assert_within,
    binary, eventually, from_environment, pass, timed,
};

/// A directory for sockets, whose paths must be short.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::Builder::new().prefix("pc").tempdir_in("/tmp").expect("a directory");
    let path = directory.path().join("upgrade.sock");
    (directory, path)
}

fn server(path: &Path, more: &str) -> String {
    let path = path.display();
    format!("server: {{threads: 2, drain_timeout: 5s, upgrade_socket: {path}{more}}}")
}

fn plan(path: &Path, upstream: &Upstream) -> Plan {
    Plan::route("").section(&server(path, "")).upstream(upstream)
}

/// Whether the process runs, or has ended and is only kept for its parent.
fn runs(process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = status.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// Whether the process has handlers of the signals that are orders to end it.
fn listens_for_orders(process: u32) -> bool {
    // SIGTERM, which is the first it listens for, and SIGXCPU, the last.
    const ORDERS: u64 = (1 << 14) | (1 << 23);
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|caught| caught & ORDERS == ORDERS)
}

/// `UPGRADES=100 UPGRADE_UPLOAD=20 UPGRADE_PAUSE=1000` is the long proof of `scripts/soak.sh`.
#[test]
fn nothing_fails_while_one_process_takes_over_from_another() {
    let upgrades: u32 = from_environment("UPGRADES", 3);
    let long = Duration::from_secs(from_environment("UPGRADE_UPLOAD", 3));
    let (_place, path) = place();
    let authority = Arc::new(Authority::new());
    let leaf = authority.sign("one.test");
    let (upstream, echo, tls) = (Upstream::start(), echo().0, Port::reserve());
    let yaml = format!(
        "server: {{threads: 2, drain_timeout: {}s, upgrade_socket: {}}}
listeners:
  public: {{address: '127.0.0.1:${{PORT}}'}}
  secure: {{address: '{}', tls: {{certificates: [{{certificate: one.pem, key: one.key}}]}}}}
upstreams:
  service: {{endpoints: ['${{UPSTREAM}}']}}
  echo: {{endpoints: ['http://{echo}']}}
routes:
  chat: {{match: {{path: /chat}}, upstream: echo, websocket: {{}}}}
  all: {{match: {{path: /*}}, upstream: service}}
",
        long.as_secs() + 5,
        path.display(),
        tls.address(),
    );
    let plan = Plan::new(&yaml).upstream(&upstream);
    let plan = plan.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem());
    let mut gateway = plan.start();
    let begun = Instant::now();
    let load = Steady::new()
        .http1(gateway.address, 4, Duration::from_millis(2))
        .h2c(gateway.address, 2)
        .tls(tls.address(), "one.test", &authority, 2)
        .uploads(gateway.address, 3, long);
    let mut times = Vec::new();
    for _ in 0..upgrades {
        let mut socket = websocket::open(gateway.address, "/chat");
        let served = load.served();
        let (before, took) = timed(|| gateway.upgrade());
        times.push(took);
        assert!(echoes(&mut socket, "after"), "it is cut: {}", gateway.access());
        assert!(runs(before), "it drains: the socket is open");
        drop(socket);
        eventually("the next requests", || (load.served() > served + 50).then_some(()));
        // Idle connections of HTTP/1 are not closed while they may be used.
        pass(Duration::from_millis(from_environment("UPGRADE_PAUSE", 100)));
    }
    if upgrades < 10 {
        pass(long.saturating_sub(begun.elapsed()));
    }
    let (spent, all) = (begun.elapsed(), load.finish());
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let slowest = times.last().copied().unwrap_or_default();
    println!(
        "{upgrades} upgrades in {spent:?}; an upgrade took {median:?} (median), {slowest:?} (slowest)"
    );
    for (kind, seen) in &all {
        println!("{kind}: {} served, {} failed", seen.served, seen.failed.len());
    }
    for (kind, seen) in &all {
        assert!(seen.failed.is_empty(), "{kind}: {:?}", seen.failed);
        assert!(seen.served > 0, "{kind}");
    }
    // None was lost on its way back, either: what was refused has not been looked at.
    let served: usize = all.iter().map(|(_, seen)| seen.served).sum();
    assert_eq!(upstream.count(), served);
}

#[test]
fn the_old_process_finishes_what_it_has_and_ends_while_the_new_one_is_ready() {
    let (_place, path) = place();
    let upstream = Upstream::script([Answer::ok().held()]);
    let mut gateway = plan(&path, &upstream).start();
    let mode = path.metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    let before = gateway.upgrade();
    // The old process would say that it is not ready.
    for _ in 0..20 {
        assert_eq!(gateway.admin("GET /readyz").status, 200);
    }
    assert_eq!(gateway.get("/").status, 200);
    assert!(runs(before));
    upstream.release();
    assert_eq!(client.receive().status, 200);
    drop(client);
    let (status, took) = timed(|| gateway.ends());
    assert_eq!(status.code(), Some(0));
    assert_within(took, Duration::from_secs(2));
    assert!(path.exists(), "it is the new one's");
    assert_eq!(gateway.admin("GET /readyz").status, 200);
    let log = gateway.log();
    assert!(log.contains(&format!("takes over from process {before}")), "{log}");
    assert!(
        log.contains(&format!(
            "process {} has taken over: draining, 1 in flight",
            gateway.process()
        )),
        "{log}"
    );
    gateway.signal("TERM");
    gateway.exit();
    assert!(!path.exists(), "removed at the end");
}

/// A client that sends its next request in the moment in which its connection is closed sees it fail.
#[test]
fn an_idle_connection_may_be_used_once_more() {
    let (_place, path) = place();
    let upstream = Upstream::start();
    let section = server(&path, "").replace("drain_timeout: 5s", "drain_timeout: 3s");
    let mut gateway = Plan::route("").section(&section).upstream(&upstream).start();
    let mut idle = gateway.connect();
    assert_eq!(idle.call(&"GET /".into()).status, 200);
    let mut fresh = gateway.connect();
    let mut unused = gateway.connect();
    // What is not accepted yet would be the new process's.
    gateway.expect_metric("portcullis_connections", &[], 3.0);
    gateway.upgrade();
    // Their clients do nothing for a while, in which none of them may be closed.
    pass(Duration::from_millis(300));
    for client in [&mut idle, &mut fresh] {
        let answer = client.call(&"GET /".into());
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    let (status, took) = timed(|| gateway.ends());
    assert_eq!(status.code(), Some(0));
    assert!(took > Duration::from_secs(1), "{took:?}: the unused one is waited for");
    assert!(unused.is_closed());
}

#[test]
fn the_admin_socket_is_handed_over_and_stays() {
    let (place, path) = place();
    let socket = place.path().join("admin.sock");
    let upstream = Upstream::start();
    let admin = format!("admin: {{address: \"${{ADMIN_ADDRESS}}\", socket: {}}}", socket.display());
    let mut gateway = plan(&path, &upstream).section(&admin).start();
    let ready = || {
        let mut stream = UnixStream::connect(&socket).expect("the socket listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
        let call = b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(call).expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("a response");
        text.starts_with("HTTP/1.1 200")
    };
    assert!(ready());
    // A client of the admin listener that keeps its connection is let go.
    let mut scraper = Client::connect(gateway.admin);
    let call = Call::new("GET /livez").to(&gateway.admin.to_string());
    assert_eq!(scraper.call(&call).status, 200);
    gateway.upgrade();
    assert!(ready());
    eventually("the end of the scraper's connection", || scraper.is_closed().then_some(()));
    assert_eq!(gateway.ends().code(), Some(0));
    assert!(ready());
    gateway.upgrade();
    assert!(ready(), "from the third");
    gateway.signal("TERM");
    gateway.exit();
    assert!(!socket.exists());
}

#[test]
fn addresses_come_and_go_with_an_upgrade() {
    let (_place, path) = place();
    let (upstream, kept, gone, added) =
        (Upstream::start(), Port::reserve(), Port::reserve(), Port::reserve());
    let plan = |ports: [&Port; 2]| {
        let [one, other] = ports.map(Port::address);
        let listeners =
            format!("listeners: {{one: {{address: '{one}'}}, other: {{address: '{other}'}}}}");
        plan(&path, &upstream).section(&listeners)
    };
    let mut gateway = plan([&kept, &gone]).start();
    gateway.write(&plan([&kept, &added]));
    gateway.upgrade();
    for port in [&kept, &added] {
        assert_eq!(Client::connect(port.address()).call(&"GET /".into()).status, 200);
    }
    gateway.wait_for_log(&format!("upgrade: {} is not listened on any more", gone.address()));
    eventually("a closed port", || TcpStream::connect(gone.address()).is_err().then_some(()));
}

#[test]
fn a_new_process_that_is_started_by_hand_takes_over_too() {
    let (_place, path) = place();
    let upstream = Upstream::start();
    let mut old = plan(&path, &upstream).start();
    let new = plan(&path, &upstream).spawn_beside(&old);
    new.wait_for_log("] ready");
    assert_eq!(old.exit().code(), Some(0));
    assert_eq!(new.get("/").status, 200);
    assert_eq!(new.admin("GET /readyz").status, 200);
}

#[test]
fn a_new_process_whose_configuration_is_wrong_ends_and_the_old_one_serves_on() {
    let (_place, path) = place();
    let upstream = Upstream::start();
    let mut old = plan(&path, &upstream).start();
    let mut new = plan(&path, &upstream).section("nonsense: true").spawn_beside(&old);
    assert_eq!(new.exit().code(), Some(1));
    assert!(!old.log().contains("listening sockets"), "it has not even been asked");
    // One that finds out later, with the sockets in its hands.
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = other.local_addr().expect("its address");
    let listeners = format!("listeners: {{public: {{address: '{taken}'}}}}");
    let mut new = plan(&path, &upstream).section(&listeners).spawn_beside(&old);
    assert_eq!(new.exit().code(), Some(1));
    assert!(new.log().contains("listeners.public.address: cannot listen"), "{}", new.log());
    old.wait_for_log("this gateway goes on");
    assert_eq!(old.get("/").status, 200);
    assert!(path.exists());
    // Later still: the files of the sockets stay those of the one that serves.
    let log = "access_log: {to: {file: /proc/no/such/place}}";
    let mut new = plan(&path, &upstream).section(log).spawn_beside(&old);
    assert_eq!(new.exit().code(), Some(1));
    assert!(new.log().contains("access_log"), "{}", new.log());
    assert!(path.exists());
    old.upgrade();
    assert_eq!(old.get("/").status, 200);
}

/// It waits for a source of endpoints that does not answer, for 2 s.
#[test]
fn a_new_process_that_is_killed_before_it_is_ready_has_taken_nothing() {
    let (_place, path) = place();
    let (upstream, silent) = (Upstream::start(), Blackhole::start());
    let old = plan(&path, &upstream).start();
    let more = format!(
        "upstreams: {{service: {{endpoints: ['${{UPSTREAM}}']}}, slow: {{discover: {{consul: {{service: a, address: '{}', allow: [127.0.0.0/8]}}}}}}}}\nroutes: {{all: {{match: {{path: /*}}, upstream: service}}, slow: {{match: {{path: /slow}}, upstream: slow}}}}",
        silent.url()
    );
    let slow = Plan::new(&more).section(&server(&path, "")).upstream(&upstream);
    let mut new = slow.spawn_beside(&old);
    old.wait_for_log("listening sockets");
    // Nor does it take a connection meanwhile.
    for _ in 0..20 {
        assert_eq!(old.get("/").status, 200);
    }
    assert!(!new.log().contains("] ready"), "{}", new.log());
    new.kill();
    eventually("all of them in the old one", || {
        (old.metric("portcullis_requests_total", &[]) == 20.0).then_some(())
    });
    old.wait_for_log("has not taken over: the other process has ended, or given up");
    assert_eq!(old.get("/").status, 200);
    // The same by an order to end.
    let slow = Plan::new(&more).section(&server(&path, "")).upstream(&upstream);
    let mut new = slow.spawn_beside(&old);
    eventually("another one", || {
        (old.log().matches("listening sockets").count() == 2).then_some(())
    });
    // Before it listens for signals they end it, too.
    eventually("a process that listens for signals", || {
        listens_for_orders(new.process()).then_some(())
    });
    new.signal("TERM");
    assert_eq!(new.exit().code(), Some(1));
    assert!(new.log().contains("before this process has taken over"), "{}", new.log());
    assert!(path.exists());
    assert_eq!(old.get("/").status, 200);
    assert_eq!(old.admin("GET /readyz").status, 200);
}

/// The protocol, spoken by hand.
struct Stranger(UnixStream);

impl Stranger {
    fn says(path: &Path, version: u8, body: &str) -> Self {
        let stream = UnixStream::connect(path).expect("the socket listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
        let mut stranger = Stranger(stream);
        stranger.goes_on(version, body);
        stranger
    }

    fn goes_on(&mut self, version: u8, body: &str) {
        let mut bytes = b"PCU".to_vec();
        bytes.push(version);
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(body.as_bytes());
        self.0.write_all(&bytes).expect("sent");
    }

    fn hears(&mut self) -> String {
        let mut head = [0; 8];
        self.0.read_exact(&mut head).expect("an answer");
        let length = u32::from_be_bytes(head[4..].try_into().expect("four bytes"));
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).expect("a body");
        String::from_utf8(body).expect("text")
    }
}

#[test]
fn a_process_that_does_not_become_ready_gets_nothing_and_holds_nothing_up() {
    let (_place, path) = place();
    let upstream = Upstream::start();
    let section = server(&path, ", upgrade_timeout: 700ms");
    let mut gateway = Plan::route("").section(&section).upstream(&upstream).start();
    let mut idle = Stranger::says(&path, 1, "{\"take\":{\"version\":\"9\"}}");
    let sockets = idle.hears();
    assert!(sockets.contains(&gateway.address.to_string()), "{sockets}");
    let other = Stranger::says(&path, 1, "{\"take\":{\"version\":\"9\"}}").hears();
    assert!(other.contains("another process is taking over"), "{other}");
    let given_up = idle.hears();
    assert!(given_up.contains("did not become ready within 0.7 s"), "{given_up}");
    gateway.wait_for_log("did not become ready within 0.7 s (server.upgrade_timeout)");
    for (version, body, answer) in [
        (
            9,
            "{\"take\":{\"version\":\"9\"}}",
            "speaks version 9 of the handover, this one version 1",
        ),
        (1, "\"serving\"", "does not begin by asking for sockets"),
        (1, "{}", "does not speak like a gateway"),
    ] {
        let heard = Stranger::says(&path, version, body).hears();
        assert!(heard.starts_with("{\"refused\"") && heard.contains(answer), "{heard}");
    }
    assert_eq!(gateway.get("/").status, 200);
    assert_eq!(gateway.admin("GET /readyz").status, 200);
    // None of this stands in the way of the right one.
    gateway.upgrade();
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn one_that_is_told_to_end_while_another_begins_to_serve_leaves_it_the_sockets() {
    for serves in [true, false] {
        let (place, path) = place();
        let socket = place.path().join("admin.sock");
        let upstream = Upstream::start();
        let admin =
            format!("admin: {{address: \"${{ADMIN_ADDRESS}}\", socket: {}}}", socket.display());
        let mut old = plan(&path, &upstream).section(&admin).start();
        let mut new = Stranger::says(&path, 1, "{\"take\":{\"version\":\"9\"}}");
        assert!(new.hears().contains("sockets"));
        let files = serde_json::json!({"ready": {"files": [&socket, &path]}});
        new.goes_on(1, &files.to_string());
        assert_eq!(new.hears(), "\"go\"");
        old.signal("TERM");
        // Longer than the signal takes to arrive.
        pass(Duration::from_millis(200));
        assert!(socket.exists());
        if serves {
            new.goes_on(1, "\"serving\"");
        }
        drop(new);
        assert_eq!(old.exit().code(), Some(0));
        assert_eq!((socket.exists(), path.exists()), (serves, serves));
    }
}

#[test]
fn sigusr2_starts_what_is_at_the_programs_path_by_then() {
    let (place, path) = place();
    let upstream = Upstream::start();
    let (program, next) = (place.path().join("portcullis"), place.path().join("next"));
    std::os::unix::fs::symlink(binary(), &program).expect("a link");
    let replace = |script: &str| {
        std::fs::write(&next, script).expect("written");
        std::fs::set_permissions(&next, PermissionsExt::from_mode(0o755)).expect("executable");
        std::fs::rename(&next, &program).expect("replaced");
    };
    let mut gateway = plan(&path, &upstream).program(&program).start();
    replace("#!/bin/sh\nsleep 0.5\nexit 7\n");
    gateway.signal("USR2");
    gateway.wait_for_log("is to take over");
    gateway.signal("USR2");
    gateway.wait_for_log("SIGUSR2: no process is started to take over: one is starting already");
    gateway.wait_for_log("ended before it took over: exit status: 7; this gateway goes on");
    assert_eq!(gateway.get("/").status, 200);
    std::fs::remove_file(&program).expect("removed");
    gateway.signal("USR2");
    gateway.wait_for_log("no process is started to take over: /tmp/pc");
    let marker = place.path().join("marker");
    replace(&format!(
        "#!/bin/sh\necho $* >{}\nexec {} \"$@\"\n",
        marker.display(),
        binary().display()
    ));
    gateway.upgrade();
    let arguments = std::fs::read_to_string(&marker).expect("the new program has run");
    assert!(arguments.starts_with("run -c "), "{arguments}");
    assert_eq!(gateway.get("/").status, 200);
    gateway.upgrade();
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn sigusr2_says_what_is_missing() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let gateway = Plan::route("").upstream(&upstream).start();
    gateway.signal("USR2");
    gateway.wait_for_log(
        "SIGUSR2: no process is started to take over: server.upgrade_socket is not set",
    );
    let (_place, path) = place();
    let mut gateway = plan(&path, &upstream).start();
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    gateway.signal("TERM");
    eventually("no upgrade socket", || (!path.exists()).then_some(()));
    gateway.signal("USR2");
    gateway.wait_for_log("no process is started to take over: this one drains");
    upstream.release();
    assert_eq!(client.receive().status, 200);
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn a_file_that_a_killed_process_left_is_replaced() {
    let (_place, path) = place();
    let upstream = Upstream::start();
    drop(UnixListener::bind(&path).expect("bound"));
    let mut gateway = plan(&path, &upstream).start();
    gateway.upgrade();
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn no_row_is_lost_or_doubled_over_upgrades() {
    let Some(store) = Store::postgres() else { return };
    let (_place, path) = place();
    let upstream = Upstream::start();
    let record = store.section().replace("journal:", "commit_timeout: 10s, journal:");
    let mut gateway = Plan::route("record: {mode: durable}")
        .section(&record)
        .section(&server(&path, ""))
        .upstream(&upstream)
        .start();
    let load = Steady::new().http1(gateway.address, 6, Duration::ZERO);
    for _ in 0..3 {
        let served = load.served();
        eventually("requests", || (load.served() > served + 60).then_some(()));
        gateway.upgrade();
    }
    let served = load.served();
    eventually("requests", || (load.served() > served + 60).then_some(()));
    let [(_, seen)] = &load.finish()[..] else { panic!("one kind of client") };
    assert_eq!(seen.failed, Vec::<String>::new());
    let rows = store.wait_for_rows(&gateway, seen.served);
    let ids: BTreeSet<_> = rows.iter().filter_map(|row| row.text("id")).collect();
    assert_eq!(ids.len(), seen.served);
    assert!(rows.iter().all(|row| row.is_true("success")));
    eventually("an empty journal", || {
        (gateway.metric("portcullis_record_journal_depth", &[]) == 0.0).then_some(())
    });
    gateway.expect_metric("portcullis_record_rows_total", &[("result", "damaged")], 0.0);
}

#[test]
fn the_service_manager_is_told_which_process_it_is_about() {
    let (place, path) = place();
    let upstream = Upstream::start();
    let notify = place.path().join("notify");
    let manager = UnixDatagram::bind(&notify).expect("bound");
    manager.set_read_timeout(Some(Duration::from_secs(10))).expect("a limit");
    let told = || {
        let mut buffer = [0; 1024];
        let length = manager.recv(&mut buffer).expect("a message in time");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let plan = plan(&path, &upstream).env("NOTIFY_SOCKET", &notify.display().to_string());
    let mut gateway = plan.start();
    assert!(told().starts_with("READY=1"));
    gateway.upgrade();
    assert_eq!(
        told(),
        format!("MAINPID={}\nREADY=1\nSTATUS=serving, generation 1", gateway.process())
    );
    assert_eq!(gateway.ends().code(), Some(0));
    gateway.signal("TERM");
    assert!(told().starts_with("STOPPING=1"), "from the new one alone");
}

/// Descriptor 3 is the socket, and 4 is none.
const ACTIVATED: &str =
    "exec 3<&0 4</dev/null 0</dev/null; export LISTEN_FDS=2 LISTEN_FDNAMES=web:odd LISTEN_PID=$$";

#[test]
fn sockets_of_systemd_are_used_and_what_waits_in_them_is_served() {
    let upstream = Upstream::start();
    let port = Port::reserve();
    let socket = TcpListener::bind(port.address()).expect("the service manager's");
    let mut early = Client::connect(port.address());
    early.send(Call::new("GET /").bytes());
    let (_place, path) = place();
    let listeners = format!("listeners: {{public: {{address: '{}'}}}}", port.address());
    let plan = plan(&path, &upstream).section(&listeners).stdin(socket.into());
    let mut gateway = plan.after(ACTIVATED).start();
    assert_eq!(early.receive().status, 200);
    gateway.wait_for_log("LISTEN_FDS: descriptor 4 (odd) is not a socket that listens for streams");
    let environment = std::fs::read(format!("/proc/{}/environ", gateway.process()));
    assert!(environment.is_ok_and(|all| all.windows(11).any(|part| part == b"LISTEN_FDS=")));
    // They are handed on, and the new process does not take its descriptors 3 and 4 for sockets.
    gateway.upgrade();
    let environment = std::fs::read(format!("/proc/{}/environ", gateway.process()));
    assert!(environment.is_ok_and(|all| !all.windows(10).any(|part| part == b"LISTEN_FDS")));
    assert_eq!(early.call(&"GET /".into()).status, 200);
    assert_eq!(Client::connect(port.address()).call(&"GET /".into()).status, 200);
}

#[test]
fn a_socket_of_systemd_that_fits_nothing_is_named() {
    let upstream = Upstream::start();
    let socket = TcpListener::bind("127.0.0.1:0").expect("the service manager's");
    let address = socket.local_addr().expect("its address");
    let plan = Plan::route("").upstream(&upstream).stdin(socket.into());
    let gateway = plan.after(ACTIVATED).start();
    gateway.wait_for_log(&format!("LISTEN_FDS: the service manager listens on {address}, which"));
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn the_admin_socket_may_be_systemd_s_if_only_its_owner_can_open_it() {
    for (mode, code) in [(0o600, None), (0o666, Some(1))] {
        let (place, _) = place();
        let path = place.path().join("admin.sock");
        let socket = UnixListener::bind(&path).expect("the service manager's");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("a mode");
        let admin =
            format!("admin: {{address: \"${{ADMIN_ADDRESS}}\", socket: {}}}", path.display());
        let plan = Plan::route("").section(&admin).stdin(socket.into()).after(ACTIVATED);
        match code {
            None => {
                let mut gateway = plan.start();
                gateway.signal("TERM");
                assert_eq!(gateway.exit().code(), Some(0));
            }
            Some(code) => {
                let (ended, log) = plan.fails();
                assert_eq!(ended, Some(code), "{log}");
                assert!(log.contains("set SocketMode=0600"), "{log}");
            }
        }
        assert!(path.exists(), "it is the service manager's to remove");
    }
}
