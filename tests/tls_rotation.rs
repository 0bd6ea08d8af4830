//! `server.watch_certificates`: certificates, keys and authorities follow their files, and nothing else does.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

use crate::support::{
    Authority, Gateway, H2Client, Leaf, Plan, Returning, Upstream, connect_tls, eventually,
    from_environment, pass,
};

/// How often the files are looked at here.
const EVERY: &str = "100ms";

/// A gateway that is `one.test`; `tls` is more of its section.
fn plan(every: &str, leaf: &Leaf, tls: &str) -> Plan {
    let section = format!(
        "server: {{threads: 1, watch_certificates: {every}}}\nlisteners: {{public: {{address: \"127.0.0.1:${{PORT}}\", tls: {{certificates: [{{certificate: one.pem, key: one.key}}], {tls}}}}}}}"
    );
    let plan = Plan::route("").section(&section);
    plan.beside("one.pem", &leaf.pem()).beside("one.key", &leaf.key_pem())
}

fn write(gateway: &Gateway, file: &str, text: &str) {
    std::fs::write(gateway.directory().join(file), text).expect("a file");
}

fn renew(gateway: &Gateway, leaf: &Leaf) {
    write(gateway, "one.pem", &leaf.pem());
    write(gateway, "one.key", &leaf.key_pem());
}

/// The certificate that a new client is shown.
fn shown(gateway: &Gateway, authority: &Authority) -> Vec<u8> {
    let stream = connect_tls(gateway.address, "one.test", authority, None, "http/1.1");
    let stream = stream.expect("TLS");
    stream.get_ref().1.peer_certificates().expect("a chain")[0].to_vec()
}

#[track_caller]
fn shows(gateway: &Gateway, authority: &Authority, leaf: &Leaf) {
    eventually(&format!("the certificate:\n{}", gateway.log()), || {
        (shown(gateway, authority) == leaf.der()).then_some(())
    });
}

fn rotations(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric("portcullis_tls_rotations_total", &[("result", result)])
}

/// Several looks at the files.
fn several_looks() {
    pass(Duration::from_millis(800));
}

#[test]
fn a_renewed_certificate_is_shown_without_a_signal() {
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = plan(EVERY, &authority.sign("one.test"), "").upstream(&upstream).start();
    let kept = connect_tls(gateway.address, "one.test", &authority, None, "h2").expect("TLS");
    let kept = H2Client::over(async { kept });
    assert_eq!(kept.get("/").status, 200);
    let ends = || gateway.metric("portcullis_tls_certificate_not_after_seconds", &[]);
    let before = ends();
    let renewed = authority.sign_until("one.test", 3 * 24 * 60 * 60);
    renew(&gateway, &renewed);
    shows(&gateway, &authority, &renewed);
    gateway.wait_for_log("listeners.public.tls: its files have changed, and are in force");
    gateway.wait_for_log("one.pem expires in 2 days");
    assert!(ends() < before, "{} {before}", ends());
    assert_eq!(rotations(&gateway, "ok"), 1.0);
    assert_eq!(gateway.generation(), 1, "nothing was reloaded");
    assert_eq!(kept.get("/").status, 200, "a connection that was open stays so");
    several_looks();
    assert_eq!(rotations(&gateway, "ok"), 1.0, "once");
}

#[test]
fn half_of_a_pair_keeps_the_one_before_and_is_told_of_once() {
    let authority = Authority::new();
    let first = authority.sign("one.test");
    let gateway = plan(EVERY, &first, "").start();
    let refused = || gateway.metric("portcullis_tls_files_refused", &[]);
    assert_eq!(refused(), 0.0);
    let renewed = authority.sign("one.test");
    write(&gateway, "one.pem", &renewed.pem());
    eventually("the refusal in the metrics", || (refused() == 1.0).then_some(()));
    let said = "its files have changed, and cannot be used: `one.key` is not the key of `one.pem`";
    gateway.wait_for_log(said);
    several_looks();
    assert_eq!(gateway.log().matches(said).count(), 1, "{}", gateway.log());
    assert_eq!(rotations(&gateway, "failed"), 1.0);
    assert_eq!(shown(&gateway, &authority), first.der());
    write(&gateway, "one.key", &renewed.key_pem());
    shows(&gateway, &authority, &renewed);
    eventually("that it is over", || (refused() == 0.0).then_some(()));
    assert_eq!((rotations(&gateway, "ok"), rotations(&gateway, "failed")), (1.0, 1.0));
    // What is taken back is over, too.
    write(&gateway, "one.key", &first.key_pem());
    eventually("the next refusal", || (refused() == 1.0).then_some(()));
    write(&gateway, "one.key", &renewed.key_pem());
    gateway.wait_for_log("listeners.public.tls: its files are as they are in force");
    eventually("that it is over", || (refused() == 0.0).then_some(()));
    std::fs::remove_file(gateway.directory().join("one.pem")).expect("removed");
    gateway.wait_for_log("the file `one.pem` cannot be read");
    assert_eq!(shown(&gateway, &authority), renewed.der());
}

#[test]
fn a_link_that_kubernetes_swaps_is_followed() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let version = |name: &str, leaf: &Leaf| {
        std::fs::create_dir(at(name)).expect("a folder");
        std::fs::write(at(name).join("tls.crt"), leaf.pem()).expect("written");
        std::fs::write(at(name).join("tls.key"), leaf.key_pem()).expect("written");
    };
    let first = authority.sign("one.test");
    version("..1", &first);
    symlink("..1", at("..data")).expect("a link");
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), at(file)).expect("a link");
    }
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| at(name).display().to_string());
    let plan = plan(EVERY, &first, "")
        .replacing("certificate: one.pem", &format!("certificate: '{certificate}'"));
    let gateway = plan.replacing("key: one.key", &format!("key: '{key}'")).start();
    for number in 2..5 {
        let renewed = authority.sign("one.test");
        version(&format!("..{number}"), &renewed);
        symlink(format!("..{number}"), at("..data_tmp")).expect("a link");
        std::fs::rename(at("..data_tmp"), at("..data")).expect("renamed");
        std::fs::remove_dir_all(at(&format!("..{}", number - 1))).expect("removed");
        shows(&gateway, &authority, &renewed);
    }
    gateway.expect_metric("portcullis_tls_rotations_total", &[("result", "ok")], 3.0);
    assert_eq!(rotations(&gateway, "failed"), 0.0);
    assert_eq!(gateway.generation(), 1, "{}", gateway.log());
}

#[test]
fn rotations_under_load_fail_no_request() {
    let times = from_environment("ROTATIONS", 50_usize);
    let (authority, upstream) = (Authority::new(), Upstream::start());
    let gateway = plan(EVERY, &authority.sign("one.test"), "").upstream(&upstream).start();
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for version in [&TLS12, &TLS13] {
            let client = Returning::new(&authority, None, version);
            let (over, answered, address) = (&over, &answered, gateway.address);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // It resumes its session where it can.
                    client.visit(address).expect("an answer");
                    answered.fetch_add(1, Ordering::Relaxed);
                    pass(Duration::from_millis(5));
                }
            });
        }
        let rotate = || {
            for _ in 0..times {
                let renewed = authority.sign("one.test");
                renew(&gateway, &renewed);
                shows(&gateway, &authority, &renewed);
            }
        };
        let rotated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rotate));
        over.store(true, Ordering::Relaxed);
        rotated.expect("all of them");
    });
    let answered = answered.into_inner();
    assert!(answered > 2 * times, "{answered}");
    gateway.expect_metric("portcullis_tls_handshakes_failed_total", &[], 0.0);
    gateway.expect_metric("portcullis_tls_rotations_total", &[("result", "ok")], times as f64);
}

#[test]
fn who_the_new_authority_does_not_vouch_for_is_refused_with_its_session() {
    let (ours, before, after) = (Authority::new(), Authority::new(), Authority::new());
    let upstream = Upstream::start();
    let plan = plan(EVERY, &ours.sign("one.test"), "client_ca: clients.pem");
    let gateway = plan.beside("clients.pem", &before.pem()).upstream(&upstream).start();
    let [old, new] = [before.sign("friend.test"), after.sign("friend.test")];
    let clients = [&TLS12, &TLS13].map(|version| Returning::new(&ours, Some(&old), version));
    for client in &clients {
        assert_eq!(client.visit(gateway.address).expect("an answer"), HandshakeKind::Full);
        assert_eq!(client.visit(gateway.address).expect("an answer"), HandshakeKind::Resumed);
    }
    let open = connect_tls(gateway.address, "one.test", &ours, Some(&old), "h2").expect("TLS");
    let open = H2Client::over(async { open });
    assert_eq!(open.get("/").status, 200);
    write(&gateway, "clients.pem", &after.pem());
    let friend = Returning::new(&ours, Some(&new), &TLS13);
    eventually("the new authority", || friend.visit(gateway.address).ok());
    for client in &clients {
        assert!(client.visit(gateway.address).is_err(), "with an earlier session");
    }
    open.is_told_to_go();
    gateway.wait_for_log("listeners.public: other clients may connect now: ");
    let refused = || {
        let labels = [("reason", "unknown_authority")];
        gateway.metric("portcullis_tls_handshakes_failed_total", &labels)
    };
    eventually("the refusals in the metrics", || (refused() >= 2.0).then_some(()));
    assert_eq!(gateway.generation(), 1, "{}", gateway.log());
}

#[test]
fn an_upstreams_authorities_follow_their_file() {
    let (before, after) = (Authority::new(), Authority::new());
    let upstream = Upstream::start();
    let leaf = before.sign("one.test");
    let inner = plan("0", &leaf, "").upstream(&upstream).start();
    let outer = Plan::route("").section(&format!(
        "server: {{threads: 1, watch_certificates: {EVERY}}}\nupstreams: {{service: {{endpoints: [\"https://{}\"], protocol: http1, tls: {{server_name: one.test, ca: ca.pem}}}}}}",
        inner.address
    ));
    let outer = outer.beside("ca.pem", &before.pem()).start();
    assert_eq!(outer.get("/").status, 200);
    let path = outer.directory().join("ca.pem");
    std::fs::write(&path, after.pem()).expect("a file");
    eventually("what it does not trust", || (outer.get("/").status == 502).then_some(()));
    outer.wait_for_log("upstreams.service.tls: its files have changed, and are in force");
    std::fs::write(&path, "nothing").expect("a file");
    outer.wait_for_log("cannot be used: the file `ca.pem` holds no certificate in PEM");
    assert_eq!(outer.get("/").status, 502, "what was in force goes on");
    std::fs::write(&path, format!("{}{}", after.pem(), before.pem())).expect("a file");
    eventually("what it trusts again", || (outer.get("/").status == 200).then_some(()));
    assert_eq!(outer.generation(), 1);
}

#[test]
fn nothing_but_these_files_is_taken_and_they_are_not_where_that_is_switched_off() {
    let authority = Authority::new();
    let first = authority.sign("one.test");
    let gateway = plan(EVERY, &first, "").start();
    let other = plan(EVERY, &first, "").replacing("path: /*", "path: /elsewhere");
    gateway.write(&other);
    let renewed = authority.sign("one.test");
    renew(&gateway, &renewed);
    shows(&gateway, &authority, &renewed);
    assert_eq!(gateway.generation(), 1, "the configuration is as it was");
    assert!(gateway.reload_plan(&plan("0", &first, "")), "{}", gateway.log());
    let last = authority.sign("one.test");
    renew(&gateway, &last);
    several_looks();
    assert_eq!(shown(&gateway, &authority), renewed.der());
    let text = std::fs::read_to_string(gateway.directory().join("portcullis.yaml"));
    assert!(gateway.reload(&text.expect("the file")), "{}", gateway.log());
    assert_eq!(shown(&gateway, &authority), last.der());
    // By what is in force after a reload, not by what the files held before.
    assert!(gateway.reload_plan(&plan(EVERY, &first, "")), "{}", gateway.log());
    several_looks();
    assert_eq!(rotations(&gateway, "ok"), 1.0);
}
