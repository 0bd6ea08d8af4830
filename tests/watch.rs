//! `server.watch`: the configuration follows its files, however they are changed; `.env`.

use std::cell::Cell;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{Authority, Gateway, Leaf, Plan, Upstream, connect_tls, eventually, pass};

/// A route at `/PATH`.
fn route(path: &str) -> String {
    format!("routes: {{{path}: {{match: {{path: /{path}}}, serve: live}}}}\n")
}

/// Watches its files; `main` is the rest of its main file.
fn watching(main: &str) -> Plan {
    Plan::new(&format!("server: {{watch: true, threads: 1, drain_timeout: 5s}}\n{main}"))
}

fn main_file(gateway: &Gateway) -> PathBuf {
    gateway.directory().join("portcullis.yaml")
}

/// Writes into the file that is there, as `cp` and some editors do.
fn edit(file: &Path, words: &str, others: &str) {
    let text = std::fs::read_to_string(file).expect("the file");
    assert!(text.contains(words), "{text}");
    std::fs::write(file, text.replace(words, others)).expect("written");
}

/// Writes another file in place of it, as most editors do.
fn replace(file: &Path, words: &str, others: &str) {
    let text = std::fs::read_to_string(file).expect("the file").replace(words, others);
    let beside = file.with_extension("new");
    std::fs::write(&beside, text).expect("written");
    std::fs::rename(beside, file).expect("renamed");
}

#[track_caller]
fn serves(gateway: &Gateway, path: &str) {
    eventually(&format!("a route at {path}:\n{}", gateway.log()), || {
        (gateway.get(path).status == 200).then_some(())
    });
}

/// Three looks at the files, half a second apart, and so time for a reload that must not be: it is decided on at
/// the second one after a change.
fn several_looks() {
    pass(Duration::from_millis(1600));
}

/// The same where only secrets are looked at, each second, and again half a second after a change.
fn several_looks_at_secrets() {
    pass(Duration::from_millis(2500));
}

#[test]
fn a_file_that_is_written_or_replaced_is_taken() {
    let gateway = watching(&route("old")).start();
    edit(&main_file(&gateway), "old", "new");
    serves(&gateway, "/new");
    assert_eq!(gateway.get("/old").status, 404);
    replace(&main_file(&gateway), "new", "newer");
    serves(&gateway, "/newer");
    assert_eq!(gateway.generation(), 3, "{}", gateway.log());
}

#[test]
fn without_watch_only_a_signal_reloads() {
    let gateway = Plan::new(&route("old")).start();
    edit(&main_file(&gateway), "old", "new");
    several_looks();
    assert_eq!((gateway.get("/old").status, gateway.generation()), (200, 1));
}

#[test]
fn a_reload_switches_it_on_and_off() {
    let with = |watch: bool, path: &str| {
        format!("server: {{watch: {watch}, threads: 1, drain_timeout: 5s}}\n{}", route(path))
    };
    let gateway = Plan::new(&with(false, "one")).start();
    assert!(gateway.reload(&with(true, "two")), "{}", gateway.log());
    edit(&main_file(&gateway), "two", "three");
    serves(&gateway, "/three");
    edit(&main_file(&gateway), "watch: true", "watch: false");
    eventually("the reload that ends it", || (gateway.generation() == 4).then_some(()));
    edit(&main_file(&gateway), "three", "four");
    several_looks();
    assert_eq!((gateway.get("/three").status, gateway.generation()), (200, 4));
    gateway.signal("HUP");
    serves(&gateway, "/four");
}

#[test]
fn a_signal_reloads_a_watched_file_once() {
    let gateway = watching(&route("old")).start();
    edit(&main_file(&gateway), "old", "new");
    gateway.signal("HUP");
    serves(&gateway, "/new");
    several_looks();
    assert_eq!(gateway.generation(), 2, "{}", gateway.log());
}

#[test]
fn a_link_that_kubernetes_swaps_is_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let version = |name: &str, path: &str| {
        let yaml = "server: {watch: true}\nlisteners: {public: {address: '127.0.0.1:${PORT}'}}\n\
                    admin: {address: '${ADMIN_ADDRESS}'}\ninclude: [more.yaml]\n";
        std::fs::create_dir(at(name)).expect("a folder");
        std::fs::write(at(name).join("portcullis.yaml"), yaml).expect("written");
        std::fs::write(at(name).join("more.yaml"), route(path)).expect("written");
    };
    version("..1", "old");
    symlink("..1", at("..data")).expect("a link");
    for file in ["portcullis.yaml", "more.yaml"] {
        symlink(Path::new("..data").join(file), at(file)).expect("a link");
    }
    let gateway = Plan::file(at("portcullis.yaml")).start();
    serves(&gateway, "/old");
    version("..2", "new");
    symlink("..2", at("..data_tmp")).expect("a link");
    std::fs::rename(at("..data_tmp"), at("..data")).expect("renamed");
    std::fs::remove_dir_all(at("..1")).expect("removed");
    serves(&gateway, "/new");
    assert_eq!(gateway.generation(), 2, "{}", gateway.log());
}

/// Files in a folder, as Kubernetes mounts them: links that lead through one that is swapped.
struct Mount {
    folder: TempDir,
    version: Cell<u32>,
}

impl Mount {
    fn new(files: &[(&str, &str)]) -> Self {
        let mount = Mount { folder: tempfile::tempdir().expect("a folder"), version: Cell::new(0) };
        mount.swap(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), mount.at(name)).expect("a link");
        }
        mount
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn swap(&self, files: &[(&str, &str)]) {
        let last = self.version.get();
        self.version.set(last + 1);
        let next = format!("..{}", last + 1);
        std::fs::create_dir(self.at(&next)).expect("a folder");
        for (name, text) in files {
            std::fs::write(self.at(&next).join(name), text).expect("written");
        }
        symlink(&next, self.at("..data_tmp")).expect("a link");
        std::fs::rename(self.at("..data_tmp"), self.at("..data")).expect("renamed");
        if last > 0 {
            std::fs::remove_dir_all(self.at(&format!("..{last}"))).expect("removed");
        }
    }
}

#[test]
fn a_certificate_that_kubernetes_renews_is_taken() {
    let authority = Authority::new();
    let files = |leaf: &Leaf| [("tls.crt", leaf.pem()), ("tls.key", leaf.key_pem())];
    let mounted = |files: &[(&str, String); 2]| {
        let [a, b] = files;
        Mount::new(&[(a.0, &a.1), (b.0, &b.1)])
    };
    let mount = mounted(&files(&authority.sign("one.test")));
    let listeners = format!(
        "listeners: {{public: {{address: '127.0.0.1:${{PORT}}', tls: {{certificates: [{{certificate: '{}', key: '{}'}}]}}}}}}\n",
        mount.at("tls.crt").display(),
        mount.at("tls.key").display(),
    );
    let gateway = watching(&format!("{listeners}{}", route("old"))).start();
    let shown = || {
        let stream =
            connect_tls(gateway.address, "one.test", &authority, None, "http/1.1").expect("TLS");
        let (_, session) = stream.get_ref();
        session.peer_certificates().expect("a chain")[0].to_vec()
    };
    let before = shown();
    let renewed = files(&authority.sign("one.test"));
    mount.swap(&[(renewed[0].0, &renewed[0].1), (renewed[1].0, &renewed[1].1)]);
    eventually(&format!("the new certificate:\n{}", gateway.log()), || {
        (shown() != before).then_some(())
    });
    assert_eq!(gateway.generation(), 2, "{}", gateway.log());
    // A certificate that does not go with its key is refused, and the key that follows is taken.
    let next = authority.sign("one.test");
    mount.swap(&[("tls.crt", &next.pem()), ("tls.key", &renewed[1].1)]);
    gateway.wait_for_log("not reloaded");
    let before = shown();
    mount.swap(&[("tls.crt", &next.pem()), ("tls.key", &next.key_pem())]);
    eventually("the next certificate", || (shown() != before).then_some(()));
}

#[test]
fn a_value_that_is_read_from_a_file_follows_it() {
    let upstream = Upstream::start();
    let mount = Mount::new(&[("token", "first\n")]);
    let main = format!(
        "routes: {{all: {{match: {{path: /*}}, upstream: service, headers: {{request: {{set: {{X-Token: '${{file:{}}}'}}}}}}}}}}\n",
        mount.at("token").display(),
    );
    let gateway = watching(&main).upstream(&upstream).start();
    let token = || {
        gateway.get("/");
        upstream.requests().pop().and_then(|got| got.header("x-token").map(str::to_owned))
    };
    assert_eq!(token().as_deref(), Some("first"));
    mount.swap(&[("token", "second\n")]);
    eventually("the new token", || (token().as_deref() == Some("second")).then_some(()));
    assert_eq!(gateway.generation(), 2, "{}", gateway.log());
    // The same content in another file is no change.
    mount.swap(&[("token", "second\n")]);
    several_looks();
    assert_eq!(gateway.generation(), 2, "{}", gateway.log());
    // A secret that is gone leaves the configuration as it is.
    std::fs::remove_file(mount.at("token")).expect("removed");
    gateway.wait_for_log("generation 2 goes on until it is there again");
    assert_eq!(token().as_deref(), Some("second"));
}

/// A gateway that sends the text of `token` in a header, and looks at it by `server`.
fn with_token(server: &str, mount: &Mount, upstream: &Upstream) -> Gateway {
    let main = format!(
        "server: {{threads: 1, drain_timeout: 5s{server}}}\nroutes: {{all: {{match: {{path: /*}}, upstream: service, headers: {{request: {{set: {{X-Token: '${{file:{}}}'}}}}}}}}}}\n",
        mount.at("token").display(),
    );
    Plan::new(&main).upstream(upstream).start()
}

#[track_caller]
fn sends(gateway: &Gateway, upstream: &Upstream, token: &str) {
    eventually(&format!("the token {token}:\n{}", gateway.log()), || {
        gateway.get("/");
        let got =
            upstream.requests().pop().and_then(|got| got.header("x-token").map(str::to_owned));
        (got.as_deref() == Some(token)).then_some(())
    });
}

#[test]
fn a_secret_follows_its_file_without_a_signal_and_nothing_else_does() {
    let upstream = Upstream::start();
    let mount = Mount::new(&[("token", "first\n")]);
    let gateway = with_token(", watch_secrets: 1s", &mount, &upstream);
    sends(&gateway, &upstream, "first");
    mount.swap(&[("token", "second\n")]);
    sends(&gateway, &upstream, "second");
    gateway.wait_for_log("token: has changed; the configuration is reloaded");
    assert_eq!(gateway.generation(), 2, "{}", gateway.log());
    // The configuration itself waits for a signal, also where a secret has changed with it.
    edit(&main_file(&gateway), "X-Token", "X-Other");
    several_looks_at_secrets();
    assert_eq!(gateway.generation(), 2, "{}", gateway.log());
    mount.swap(&[("token", "third\n")]);
    gateway
        .wait_for_log("portcullis.yaml, which is not watched; generation 2 goes on until SIGHUP");
    several_looks_at_secrets();
    sends(&gateway, &upstream, "second");
    assert_eq!(gateway.log().matches("which is not watched").count(), 1, "{}", gateway.log());
    // Once it is as it was, the secret is taken.
    edit(&main_file(&gateway), "X-Other", "X-Token");
    sends(&gateway, &upstream, "third");
    assert_eq!(gateway.generation(), 3, "{}", gateway.log());
}

#[test]
fn a_secret_that_is_empty_gone_or_refused_leaves_the_one_in_force_and_says_so_once() {
    let upstream = Upstream::start();
    let mount = Mount::new(&[("token", "first\n")]);
    let gateway = with_token(", watch_secrets: 1s", &mount, &upstream);
    let secret = mount.at("token");
    mount.swap(&[("token", "")]);
    gateway.wait_for_log("token: is empty; generation 1 goes on");
    several_looks_at_secrets();
    sends(&gateway, &upstream, "first");
    assert_eq!(gateway.log().matches("is empty").count(), 1, "{}", gateway.log());
    // A header has no control characters.
    mount.swap(&[("token", "a\u{1}b\n")]);
    gateway.wait_for_log("not reloaded, 1 error");
    several_looks_at_secrets();
    assert_eq!(gateway.log().matches("not reloaded").count(), 1, "{}", gateway.log());
    mount.swap(&[("token", "first\n")]);
    gateway.wait_for_log("the files of values are as they were; generation 1 goes on");
    std::fs::remove_file(&secret).expect("removed");
    gateway.wait_for_log("generation 1 goes on until it is there again");
    std::fs::write(&secret, "second\n").expect("written");
    sends(&gateway, &upstream, "second");
    assert_eq!(gateway.generation(), 2, "{}", gateway.log());
}

#[test]
fn with_0_only_a_signal_reads_secrets_again_and_it_takes_all() {
    let upstream = Upstream::start();
    let mount = Mount::new(&[("token", "first\n")]);
    let gateway = with_token(", watch_secrets: 0", &mount, &upstream);
    mount.swap(&[("token", "second\n")]);
    several_looks_at_secrets();
    sends(&gateway, &upstream, "first");
    gateway.signal("HUP");
    sends(&gateway, &upstream, "second");
    assert_eq!(gateway.generation(), 2, "{}", gateway.log());
}

#[test]
fn a_file_that_the_configuration_names_later_is_watched_from_then_on() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    let main = "routes: {all: {match: {path: /*}, upstream: service, headers: {request: {set: {X-Token: none}}}}}\n";
    let gateway = watching(main).upstream(&upstream).start();
    let seen = || {
        gateway.get("/");
        upstream.requests().pop().and_then(|got| got.header("x-token").map(str::to_owned))
    };
    // It is not there yet.
    edit(
        &main_file(&gateway),
        "X-Token: none",
        &format!("X-Token: '${{file:{}}}'", token.display()),
    );
    gateway.wait_for_log("not reloaded");
    for text in ["first", "second"] {
        std::fs::write(&token, text).expect("written");
        eventually(text, || (seen().as_deref() == Some(text)).then_some(()));
    }
}

#[test]
fn an_invalid_file_is_refused_once_and_the_next_valid_one_taken() {
    let gateway = watching(&route("old")).start();
    edit(&main_file(&gateway), "serve: live", "serve: lively");
    gateway.wait_for_log("not reloaded, 1 error in the file; generation 1 goes on");
    several_looks();
    assert_eq!(gateway.log().matches("not reloaded").count(), 1);
    assert_eq!(gateway.get("/old").status, 200);
    edit(&main_file(&gateway), "serve: lively", "serve: live");
    gateway.wait_for_log("the configuration's files are as they were; generation 1 goes on");
    edit(&main_file(&gateway), "old", "new");
    serves(&gateway, "/new");
    assert_eq!(gateway.log().matches("not reloaded").count(), 1);
}

#[test]
fn files_that_vanish_leave_the_configuration_as_it_is() {
    let main = format!("include: ['routes/*.yaml', literal.yaml]\n{}", route("main"));
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("routes")).expect("a folder");
    std::fs::write(at("routes/a.yaml"), route("a")).expect("written");
    std::fs::write(at("literal.yaml"), route("b")).expect("written");
    let yaml = format!(
        "server: {{watch: true}}\nlisteners: {{public: {{address: '127.0.0.1:${{PORT}}'}}}}\n\
         admin: {{address: '${{ADMIN_ADDRESS}}'}}\n{main}"
    );
    std::fs::write(at("portcullis.yaml"), yaml).expect("written");
    let gateway = Plan::file(at("portcullis.yaml")).start();
    let back = "the configuration's files are as they were; generation 1 goes on";
    for (times, name) in ["routes/a.yaml", "literal.yaml", "portcullis.yaml"].iter().enumerate() {
        std::fs::rename(at(name), at("away")).expect("renamed");
        gateway.wait_for_log(&format!("{name}: "));
        several_looks();
        assert_eq!(gateway.log().matches(&format!("{name}: ")).count(), 1, "{}", gateway.log());
        for path in ["/main", "/a", "/b"] {
            assert_eq!(gateway.get(path).status, 200, "{name} is gone");
        }
        std::fs::rename(at("away"), at(name)).expect("renamed");
        eventually("the end of it in the log", || {
            (gateway.log().matches(back).count() == times + 1).then_some(())
        });
    }
    assert_eq!((gateway.generation(), gateway.metric("portcullis_reloads_total", &[])), (1, 0.0));
    // What is there when it comes back is taken; so is a file that is new.
    std::fs::remove_file(at("literal.yaml")).expect("removed");
    gateway.wait_for_log("goes on until it is there again");
    std::fs::write(at("literal.yaml"), route("other")).expect("written");
    serves(&gateway, "/other");
    std::fs::write(at("routes/c.yaml"), route("c")).expect("written");
    serves(&gateway, "/c");
    // That a file is to be gone is said by a signal.
    std::fs::remove_file(at("routes/c.yaml")).expect("removed");
    gateway.signal("HUP");
    eventually("the route to be gone", || (gateway.get("/c").status == 404).then_some(()));
}

#[test]
fn two_quick_changes_are_one_reload() {
    let gateway = watching(&route("old")).start();
    edit(&main_file(&gateway), "old", "first");
    edit(&main_file(&gateway), "first", "second");
    serves(&gateway, "/second");
    several_looks();
    assert_eq!(gateway.generation(), 2, "{}", gateway.log());
}

#[test]
fn variables_beside_the_file_are_read_on_request_after_those_of_the_process() {
    let yaml =
        "server: {watch: true}\nroutes: {r: {match: {path: '${A}/${B:-unset}'}, serve: live}}\n";
    let plan = || Plan::new(yaml).env("A", "/process").beside(".env", "A=/file\nB='of-file'\n");
    let gateway = plan().env("PORTCULLIS_DOTENV", "1").start();
    serves(&gateway, "/process/of-file");
    // It is watched as well.
    let file = gateway.directory().join(".env");
    std::fs::write(&file, "B=b\n").expect("written");
    serves(&gateway, "/process/b");
    std::fs::write(&file, "B=b\nnot a variable, but s3cr3t\n").expect("written");
    gateway.wait_for_log(".env:2:1: expected NAME=value");
    assert!(!gateway.log().contains("s3cr3t"));
    assert_eq!(gateway.get("/process/b").status, 200);

    let gateway = plan().start();
    assert_eq!(gateway.get("/process/unset").status, 200, "it is not asked for");
}
