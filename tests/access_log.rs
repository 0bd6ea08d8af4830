//! The access log: which requests have a line, what it says, and that nothing waits for it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Answer, Call, Gateway, Issuer, Plan, Store, Upstream, eventually, parsed, refused_address,
    timed,
};

const ALL: &str = "access_log: {keep: {success: 100%}}";
const RETRY: &str = "retry: {max_retries: 1, on: [5xx, connect_failure], methods: any, \
                     backoff: {base: 20ms, max: 20ms}}";

fn word<'a>(line: &'a Value, name: &str) -> Option<&'a str> {
    line[name].as_str()
}

#[test]
fn a_failure_of_the_upstream_has_a_line_that_says_why() {
    let address = refused_address();
    let gateway = Plan::route(RETRY).env("UPSTREAM", &format!("http://{address}")).start();
    let call = Call::new("GET /orders/7?token=s3cret").header("X-Request-Id", "req-1");
    assert_eq!(gateway.call(call.header("Host", "shop.test")).code(), "connect_refused");
    let line = &gateway.wait_for_access_lines(1)[0];
    for (name, value) in [
        ("portcullis.request_id", "req-1"),
        ("client.address", "127.0.0.1"),
        ("http.request.method", "GET"),
        ("url.path", "/orders/7"),
        ("server.address", "shop.test"),
        ("portcullis.route", "all"),
        ("portcullis.outcome", "failure"),
        ("portcullis.cause", "connect_refused"),
        ("portcullis.fault", "upstream"),
        ("portcullis.upstream", "service"),
        ("portcullis.endpoint", &address.to_string()),
        ("portcullis.no_retry", "exhausted"),
    ] {
        assert_eq!(word(line, name), Some(value), "{name} in {line:#}");
    }
    assert_eq!(
        (&line["http.response.status_code"], &line["portcullis.attempts"]),
        (&502.into(), &2.into())
    );
    assert_eq!(line["portcullis.generation"], 1);
    let earlier = &line["portcullis.earlier_attempts"][0];
    assert_eq!(earlier["cause"], "connect_refused", "{line:#}");
    assert!(line["portcullis.backoff_us"].as_u64() >= Some(15_000), "{line:#}");
    assert!(!gateway.access().contains("s3cret"), "the route does not keep queries");
}

#[test]
fn what_took_the_time_is_told_apart() {
    let slow = Answer::ok().after(Duration::from_millis(500));
    let upstream = Upstream::script([Answer::from(503), slow]);
    let log = "access_log: {keep: {slower_than: 200ms}}";
    let gateway = Plan::route(RETRY).section(log).upstream(&upstream).start();
    assert_eq!(gateway.get("/").status, 200);
    let line = &gateway.wait_for_access_lines(1)[0];
    let time = |name: &str| line[name].as_u64().unwrap_or(0);
    assert!(time("portcullis.first_byte_us") >= 480_000, "{line:#}");
    assert!(time("portcullis.backoff_us") >= 15_000, "{line:#}");
    let parts = ["queue", "connect", "first_byte", "body", "backoff"];
    let sum: u64 = parts.iter().map(|part| time(&format!("portcullis.{part}_us"))).sum();
    let all = time("portcullis.duration_us");
    assert!(sum <= all && sum + 200_000 >= all, "{sum} of {all}: {line:#}");
    assert_eq!(word(line, "portcullis.outcome"), Some("success"));
    assert_eq!(line["portcullis.earlier_attempts"][0]["status"], 503);
}

#[test]
fn a_success_has_no_line_unless_it_is_slow_or_wanted() {
    let upstream = Upstream::start();
    let gateway = Gateway::route(&upstream, "");
    assert_eq!(gateway.get("/").status, 200);
    let wanted = Plan::route("").section(ALL).upstream(&upstream).start();
    assert_eq!(wanted.get("/").status, 200);
    wanted.wait_for_access_lines(1);
    assert_eq!(gateway.access(), "");
}

#[test]
fn refusals_are_left_out_beyond_their_rate_and_counted() {
    let upstream = Upstream::always(Answer::reset());
    let yaml = "access_log: {keep: {refusals: 3/s}}";
    let plan = Plan::route("").replacing("path: /*", "path: /known/*").section(yaml);
    let mut gateway = plan.upstream(&upstream).start();
    let mut client = gateway.connect();
    for _ in 0..200 {
        assert_eq!(client.call(&"GET /unknown".into()).status, 404);
    }
    assert_eq!(gateway.get("/known/1").code(), "reset");
    gateway.signal("TERM");
    gateway.exit();
    let lines = parsed(&gateway.access());
    let of = |cause: &str| {
        lines.iter().filter(|l| l["event.name"].is_null() && l["portcullis.cause"] == cause).count()
    };
    let told = lines.iter().filter(|line| line["event.name"] == "portcullis.lines_left_out");
    let left_out: u64 = told.map(|line| line["portcullis.lines"].as_u64().unwrap_or(0)).sum();
    assert_eq!(of("no_route") as u64 + left_out, 200, "{lines:#?}");
    assert!((3..100).contains(&of("no_route")), "{lines:#?}");
    assert_eq!(of("reset"), 1, "a flood of refusals does not push a failure out");
}

#[test]
fn every_line_parses_whatever_a_client_sends() {
    let upstream = Upstream::always(Answer::from(503));
    let gateway =
        Plan::route("record: {mode: off, query: true}").section(ALL).upstream(&upstream).start();
    let heads: [&[u8]; 6] = [
        b"GET /\xff\xfe\"\\ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /%1b%5b31m%00?a=\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /?q=\xe2\x80\xae\xc2\x9b\" HTTP/1.1\r\nHost: b\r\n\r\n",
        b"M\xc3\xa9THOD / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\"b\\c\xff\r\n\r\n",
        b"\x16\x03\x01 nonsense\r\n\r\n",
    ];
    for head in heads {
        let mut client = gateway.connect();
        client.send(head);
        let _ = client.try_receive("GET");
    }
    let long = "x".repeat(7000);
    assert_eq!(gateway.get(&format!("/{long}")).status, 503);
    eventually("the line of the long path", || gateway.access().contains("xxx").then_some(()));
    let text = gateway.access();
    let lines = parsed(&text);
    assert!(lines.len() >= 4, "{lines:#?}");
    let is_safe = |c: char| c == '\n' || !c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c);
    assert!(text.chars().all(is_safe), "{text}");
    assert!(text.lines().all(|line| line.len() < 8192), "texts are cut");
}

#[test]
fn a_head_that_cannot_be_read_is_shown_without_inventions() {
    let gateway = Plan::route("").start();
    let heads: [(&[u8], [Option<&str>; 3]); 5] = [
        (b"\x16\x03\x01\x02\x00\x01 nonsense\r\n\r\n", [None, None, None]),
        (b"GET /a\r\n\r\n", [Some("GET"), Some("/a"), None]),
        (
            b"PUT /b?token=s3cret HTTP/1.1\r\nHost: b.test\nX: y\r\n\r\n",
            [Some("PUT"), Some("/b"), None],
        ),
        (
            b"CONNECT c.test:443 HTTP/1.1\r\nHost: c.test\r\n\r\n",
            [Some("CONNECT"), None, Some("c.test")],
        ),
        (
            b"POST http://d.test/d HTTP/1.1\r\nHost: d.test\r\nContent-Length: x\r\n\r\n",
            [Some("POST"), Some("/d"), Some("d.test")],
        ),
    ];
    for (n, (head, expected)) in heads.into_iter().enumerate() {
        let mut client = gateway.connect();
        client.send(head);
        assert!(client.receive().status >= 400);
        let line = gateway.wait_for_access_lines(n + 1).remove(n);
        let names = ["http.request.method", "url.path", "server.address"];
        assert_eq!(names.map(|name| word(&line, name)), expected, "{line:#}");
        assert!(line["http.request.body.size"].is_null(), "{line:#}");
        assert_eq!(word(&line, "portcullis.listener"), Some("public"));
    }
    assert!(!gateway.access().contains("s3cret"));
}

#[test]
fn a_refused_head_leaves_nothing_to_the_next_request_of_its_connection() {
    let upstream = Upstream::always(Answer::from(503));
    let gateway = Gateway::route(&upstream, "");
    let mut client = gateway.connect();
    // A head that only the gateway's own parser refuses, after one that is well.
    assert_eq!(client.call(&"GET /well".into()).status, 503);
    client.send("GET /ill HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.receive().status, 400);
    let paths: Vec<_> = gateway
        .wait_for_access_lines(2)
        .iter()
        .map(|line| word(line, "url.path").map(str::to_owned))
        .collect();
    assert_eq!(paths, [Some("/well".to_owned()), Some("/ill".to_owned())]);
}

#[test]
fn what_a_converted_body_had_is_told_in_bytes_of_the_client() {
    let upstream = Upstream::always(Answer::from(503));
    let gateway = Gateway::route(&upstream, "json: {defaults: {name: World}}");
    gateway.call(Call::new("POST /").json("{}"));
    assert_eq!(upstream.only().text(), "{\"name\":\"World\"}");
    let line = &gateway.wait_for_access_lines(1)[0];
    assert_eq!(line["http.request.body.size"], 2, "{line:#}");
}

/// Replaces the file as `logrotate` does, while requests come in.
#[test]
fn rotation_loses_no_line() {
    let upstream = Upstream::start();
    let log = "access_log: {to: {file: access.log}, keep: {success: 100%}}";
    let mut gateway = Plan::route("").section(log).upstream(&upstream).start();
    let file = gateway.directory().join("access.log");
    let mut client = gateway.connect();
    let mut sent = 0;
    for turn in 0..5 {
        for _ in 0..100 {
            assert_eq!(client.call(&"GET /".into()).status, 200);
            sent += 1;
        }
        std::fs::rename(&file, file.with_extension(turn.to_string())).expect("renamed");
        gateway.signal("USR1");
        for _ in 0..20 {
            assert_eq!(client.call(&"GET /".into()).status, 200);
            sent += 1;
        }
        eventually("a new file", || file.exists().then_some(()));
    }
    gateway.signal("TERM");
    gateway.exit();
    let old = (0..5).map(|turn| file.with_extension(turn.to_string()));
    let lines = old.chain([file.clone()]).map(|path| lines_in(&path).len());
    assert_eq!(lines.sum::<usize>(), sent);
}

fn lines_in(path: &Path) -> Vec<Value> {
    parsed(&std::fs::read_to_string(path).expect("a file"))
}

#[test]
fn a_full_disk_costs_lines_which_are_counted() {
    let upstream = Upstream::start();
    let log = "access_log: {to: {file: /dev/full}, keep: {success: 100%}}";
    let gateway = Plan::route("").section(log).upstream(&upstream).start();
    for _ in 0..50 {
        assert_eq!(gateway.get("/").status, 200);
    }
    let dropped = [("result", "dropped")];
    eventually("50 lines to be counted", || {
        (gateway.metric("portcullis_access_log_lines_total", &dropped) == 50.0).then_some(())
    });
    let complaints = gateway.log().matches("lines are dropped").count();
    assert_eq!(complaints, 1, "one line for the whole time: {}", gateway.log());
}

#[test]
fn a_limit_on_the_size_of_files_costs_lines_as_a_full_disk_does() {
    let upstream = Upstream::start();
    let log = "access_log: {to: {file: access.log}, keep: {success: 100%}}";
    // Room for a few lines: `ulimit -f` counts in units of 512 bytes.
    const LIMIT: usize = 4096 * 512;
    let earlier = "{}\n".repeat((LIMIT - 8192) / 3);
    let plan = Plan::route("").section(log).beside("access.log", &earlier).upstream(&upstream);
    let gateway = plan.limited("ulimit -f 4096").start();
    gateway.wait_for_log("2097152 bytes (ulimit -f)");
    let mut client = gateway.connect();
    for _ in 0..50 {
        assert_eq!(client.call(&"GET /".into()).status, 200);
    }
    let lines = |result| gateway.metric("portcullis_access_log_lines_total", &[("result", result)]);
    eventually("50 lines to be counted", || {
        (lines("written") + lines("dropped") == 50.0).then_some(())
    });
    assert!(lines("written") > 0.0 && lines("dropped") > 20.0, "{} written", lines("written"));
    let complaints = gateway.log().matches("lines are dropped").count();
    assert_eq!(complaints, 1, "one line for the whole time: {}", gateway.log());
    // No line is cut in two.
    let file = gateway.directory().join("access.log");
    let kept = lines_in(&file).iter().filter(|line| line.get("url.path").is_some()).count();
    assert_eq!(kept as f64, lines("written"));
    assert_eq!(client.call(&"GET /".into()).status, 200);
}

#[test]
fn a_pipe_that_is_not_read_stops_nothing_and_each_line_is_accounted_for() {
    let upstream = Upstream::start();
    let log = "access_log: {to: {file: pipe}, keep: {success: 100%}}";
    let directory = tempfile::tempdir().expect("a directory");
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let log = log.replace("pipe", pipe.to_str().expect("text"));
    let gateway = Plan::route("").section(&log).upstream(&upstream).start();
    // Opens the pipe, and reads nothing for now.
    let reader = std::fs::File::open(&pipe).expect("the pipe");
    let mut client = gateway.connect();
    const CALLS: usize = 9500;
    let ((), took) = timed(|| {
        for _ in 0..CALLS {
            assert_eq!(client.call(&"GET /".into()).status, 200);
        }
    });
    assert!(took < Duration::from_secs(60), "{took:?}");
    let lines = |result| gateway.metric("portcullis_access_log_lines_total", &[("result", result)]);
    assert!(lines("dropped") > 100.0, "the queue is bounded: {}", lines("dropped"));
    let read =
        std::thread::spawn(move || BufReader::new(reader).lines().map_while(Result::ok).count());
    eventually("the rest to be written", || {
        (lines("written") + lines("dropped") == CALLS as f64).then_some(())
    });
    let written = lines("written");
    drop(gateway);
    let read = read.join().expect("no panic") as f64;
    // One more line tells of those that were dropped.
    assert!(read == written || read == written + 1.0, "{read} read, {written} written");
}

#[test]
fn what_is_masked_is_not_there() {
    let keys =
        "auth: {partners: {api_key: {header: X-Api-Key, keys: {acme: acme-key-0123456789}}}}";
    let log = "access_log: {mask: [client_address, consumer, error]}";
    let gateway = Plan::route("auth: {require: partners}\ntimeout: {connect: 1s}")
        .section(keys)
        .section(log)
        .env("UPSTREAM", "http://nowhere.invalid:1")
        .start();
    let call = Call::new("GET /").header("X-Api-Key", "acme-key-0123456789");
    assert_eq!(gateway.call(call).code(), "dns");
    let line = &gateway.wait_for_access_lines(1)[0];
    assert_eq!(word(line, "client.address"), Some("127.0.0.0"));
    assert_eq!(word(line, "portcullis.cause"), Some("dns"));
    let shown = line.to_string();
    assert!(!shown.contains("acme") && line["portcullis.error"].is_null(), "{shown}");
}

#[test]
fn what_only_some_causes_have_is_masked_too() {
    let issuer = Issuer::start();
    let jwt =
        "{issuer: auth-service, audience: any, algorithms: [RS256], jwks: {url: '${JWKS_URL}'}}";
    let plan = || {
        Plan::route("auth: {require: accounts, role: admin}")
            .section(&format!("auth: {{accounts: {{jwt: {jwt}}}}}"))
            .section("access_log: {mask: [consumer, error]}")
            .env("JWKS_URL", &issuer.url())
    };
    // No id in hexadecimal digits can hold it.
    let bearer = || Call::new("GET /").bearer(&issuer.token("zoe"));
    let upstream = Upstream::start();
    let gateway = plan().upstream(&upstream).start();
    assert_eq!(gateway.call(bearer()).code(), "role_missing");
    let line = &gateway.wait_for_access_lines(1)[0];
    assert_eq!(word(line, "portcullis.role_needed"), Some("admin"));
    assert!(!line.to_string().contains("zoe"), "{line:#}");
    issuer.publish(500.into());
    let gateway = plan().upstream(&upstream).start();
    assert_eq!(gateway.call(bearer()).code(), "keys_unavailable");
    let line = &gateway.wait_for_access_lines(1)[0];
    assert!(word(line, "portcullis.keys_url").is_some(), "{line:#}");
    assert!(line["portcullis.keys_error"].is_null(), "{line:#}");
}

#[test]
fn text_is_for_people_and_obeys_no_one() {
    let upstream = Upstream::always(Answer::from(503));
    let gateway = Plan::route("").section("access_log: {format: text}").upstream(&upstream).start();
    gateway.call(Call::new("GET /orders").header("X-Request-Id", "req-1"));
    let line = eventually("a line", || {
        let access = gateway.access();
        access.lines().next().map(str::to_owned)
    });
    for part in [
        " 503 GET /orders ",
        "route=all",
        "cause=upstream_5xx",
        "fault=upstream",
        "request_id=req-1",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let late = Upstream::always(Answer::hang());
    let plan = Plan::route("timeout: {attempt: 300ms}").section("access_log: {format: text}");
    let gateway = plan.upstream(&late).start();
    assert_eq!(gateway.get("/").status, 504);
    let told = eventually("a line", || gateway.access().lines().next().map(str::to_owned));
    for part in [
        " connection=new limit=timeout.attempt limit_us=300000 phase=first_byte",
        " listener=public",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!line.contains('\u{1b}'), "no colours where there is no terminal: {line}");
}

#[test]
fn the_latest_failures_can_be_asked_for() {
    let upstream = Upstream::always(Answer::from(503));
    let gateway = Plan::route("").section("access_log: {to: off}").upstream(&upstream).start();
    gateway.call(Call::new("GET /one").header("X-Request-Id", "req-1"));
    gateway.call(Call::new("GET /two").header("X-Request-Id", "req-2"));
    let latest = eventually("both", || {
        let lines = parsed(&gateway.admin("GET /requests").text());
        (lines.len() == 2).then_some(lines)
    });
    assert_eq!(latest[0]["url.path"], "/two");
    let one: Value = gateway.admin("GET /requests/req-1").json();
    assert_eq!(
        (&one["url.path"], &one["portcullis.cause"]),
        (&"/one".into(), &"upstream_5xx".into())
    );
    assert_eq!(gateway.admin("GET /requests/unknown").status, 404);
    assert_eq!(gateway.access(), "");
}

#[test]
fn a_reload_changes_what_is_kept_and_where_it_goes() {
    let upstream = Upstream::start();
    let gateway = Plan::route("").section("access_log: {to: off}").upstream(&upstream).start();
    assert_eq!(gateway.get("/").status, 200);
    assert!(gateway.reload_plan(&Plan::route("").section(ALL)));
    assert_eq!(gateway.get("/").status, 200);
    gateway.wait_for_access_lines(1);
}

#[test]
fn a_file_that_cannot_be_written_is_told_at_the_start() {
    let (code, log) = Plan::route("")
        .section("access_log: {to: {file: /nowhere/access.log}}")
        .env("UPSTREAM", "http://127.0.0.1:9")
        .fails();
    assert_eq!(code, Some(1));
    assert!(log.contains("access_log.to.file: /nowhere/access.log cannot be opened"), "{log}");
}

/// What `portcullis why` says, run beside `gateway`.
fn why(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String, String) {
    let file = gateway.directory().join("portcullis.yaml");
    let address = gateway.admin.to_string();
    let mut all = vec!["why", "-c", file.to_str().expect("text"), "--address", &address];
    all.extend_from_slice(arguments);
    let port = gateway.address.port().to_string();
    let upstream = "http://127.0.0.1:9";
    let variables = [("PORT", &*port), ("ADMIN_ADDRESS", &address), ("UPSTREAM", upstream)];
    let finished = Gateway::finish(&all, gateway.directory(), &variables);
    (finished.code, finished.stdout, finished.stderr)
}

#[test]
fn why_tells_the_story_from_the_running_gateway_the_log_or_the_record() {
    let upstream = Upstream::script([Answer::from(503), Answer::reset()]);
    let route = format!(
        "{RETRY}\nrecord: {{mode: sync}}\ncircuit_breaker: {{consecutive: {{failures: 9}}}}"
    );
    let plan = Plan::route(&route).section(&Store::Sqlite.section());
    let log = "access_log: {to: {file: access.log}}";
    let gateway = plan.section(log).upstream(&upstream).start();
    let response = gateway.call(Call::new("GET /orders/7").header("X-Request-Id", "req-1"));
    assert_eq!(response.code(), "reset");
    Store::Sqlite.wait_for_rows(&gateway, 1);
    let file = gateway.directory().join("access.log");
    eventually("a line", || lines_in(&file).first().map(drop));
    let (code, story, errors) = why(&gateway, &["req-1"]);
    assert_eq!(code, Some(0), "{errors}");
    for part in [
        "GET /orders/7 at 20",
        ": 502 reset, the upstream's fault",
        "because      service 127.0.0.1:",
        "attempts     2, and no more: not_retryable",
        ", 503, upstream_5xx",
        "the route's circuit closed",
        "connection new",
        "retry_budget upstreams.service",
        "portcullis.yaml:",
        ": upstreams.service",
        "told by      the running gateway",
    ] {
        assert!(story.contains(part), "{part} in:\n{story}");
    }
    let (code, story, errors) = why(&gateway, &["req-1", "--log", file.to_str().expect("text")]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(story.contains("502 reset") && story.contains("access.log"), "{story}");
    let (_, json, _) = why(&gateway, &["req-1", "--format", "json"]);
    let facts: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(facts["portcullis.cause"], "reset");
}

#[test]
fn why_asks_the_record_where_the_gateway_has_forgotten() {
    let upstream = Upstream::start();
    let gateway = Plan::route("record: {mode: sync}")
        .section(&Store::Sqlite.section())
        .upstream(&upstream)
        .start();
    gateway.call(Call::new("GET /quick").header("X-Request-Id", "req-1"));
    Store::Sqlite.wait_for_rows(&gateway, 1);
    let (code, story, errors) = why(&gateway, &["req-1"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(story.contains("GET /quick") && story.contains("200 success"), "{story}");
    assert!(story.contains("told by      the record"), "{story}");
}

#[test]
fn why_says_what_it_could_not_find_and_where_it_looked() {
    let upstream = Upstream::start();
    let gateway = Plan::route("").upstream(&upstream).start();
    let (code, _, errors) = why(&gateway, &["unknown"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("request unknown was not found: the gateway at"), "{errors}");
    assert!(errors.contains("does not remember it; it is not in the record"), "{errors}");
    let (code, _, errors) = why(&gateway, &["unknown", "--log", "nowhere.log"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("nowhere.log cannot be read"), "{errors}");
    let (_, _, errors) = why(&gateway, &["unknown", "--log", "portcullis.yaml"]);
    assert!(errors.contains("is not an access log in JSON"), "{errors}");
}

#[test]
fn why_names_the_time_limit_that_ended_an_attempt() {
    for (timeout, key) in [
        ("{first_byte: 300ms}", "timeout.first_byte"),
        ("{first_byte: 300ms, attempt: 5s}", "timeout.first_byte"),
        ("{attempt: 300ms}", "timeout.attempt"),
        ("{idle: 300ms}", "timeout.idle"),
        ("{request: 300ms}", "timeout.request"),
    ] {
        let upstream = Upstream::always(Answer::hang());
        let route = format!("timeout: {timeout}\nrecord: {{mode: sync}}");
        let plan = Plan::route(&route).section(&Store::Sqlite.section());
        let mut gateway = plan.upstream(&upstream).start();
        let call = Call::new("GET /orders/7").header("X-Request-Id", "req-1");
        assert_eq!(gateway.call(call).status, 504);
        Store::Sqlite.wait_for_rows(&gateway, 1);
        let line = &gateway.wait_for_access_lines(1)[0];
        assert_eq!(word(line, "portcullis.limit"), Some(key), "{line:#}");
        assert_eq!(line["portcullis.limit_us"], 300_000, "{line:#}");
        let (_, story, errors) = why(&gateway, &["req-1"]);
        assert!(story.contains(&format!(": routes.all.{key}\n")), "{timeout}: {story}{errors}");
        assert!(story.contains(&format!("limit        {key}, 300.0 ms")), "{timeout}: {story}");
        // The record has no column for it: there it follows from the configuration.
        gateway.kill();
        let (_, story, errors) = why(&gateway, &["req-1"]);
        assert!(story.contains(&format!(": routes.all.{key}\n")), "{timeout}: {story}{errors}");
        assert!(story.contains("told by      the record"), "{story}");
    }
}

#[test]
fn why_reads_no_log_that_is_none_and_says_so_in_one_line() {
    let gateway = Plan::route("").start();
    let directory = gateway.directory().to_owned();
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
    write("binary.log", &[0xff, 0, 0x1b, b'\n', 0xc3, b'{']);
    write("other.log", b"{\"level\":\"info\",\"msg\":\"unknown\"}\n");
    write("empty.log", b"");
    for (log, said) in [
        ("binary.log", "binary.log is not an access log in JSON"),
        ("other.log", "it is not in other.log"),
        ("empty.log", "it is not in empty.log"),
        (".", ". cannot be read"),
    ] {
        let (code, story, errors) = why(&gateway, &["unknown", "--log", log]);
        assert_eq!((code, story.as_str()), (Some(1), ""), "{log}: {errors}");
        assert!(errors.starts_with("portcullis: request unknown was not found: "), "{errors}");
        assert!(errors.contains(said), "{log}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
