//! SIGTERM: not ready at once, what is in flight finishes, gone as soon as idle.

use std::time::Duration;

use crate::support::{
    Answer, Blackhole, Call, Client, Ending, Gateway, H2Client, Plan, Row, Store, Upstream,
    assert_within, at_once, eventually, pass, request, timed,
};

const PATIENT: &str = "server: {drain_timeout: 9s}";

fn patient(upstream: &Upstream) -> Gateway {
    Plan::route("").section(PATIENT).upstream(upstream).start()
}

#[test]
fn an_idle_gateway_is_gone_at_once() {
    let upstream = Upstream::start();
    let mut gateway = patient(&upstream);
    let mut idle = gateway.connect();
    assert_eq!(idle.call(&"GET /".into()).status, 200);
    let (status, took) = timed(|| {
        gateway.signal("TERM");
        gateway.exit()
    });
    assert_eq!(status.code(), Some(0));
    assert_within(took, Duration::from_secs(1));
    assert!(idle.is_closed());
}

#[test]
fn a_request_in_flight_is_finished_and_then_the_gateway_is_gone() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let mut gateway = patient(&upstream);
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    gateway.signal("TERM");
    eventually("not to be ready", || (gateway.admin("GET /readyz").status == 503).then_some(()));
    assert_eq!(gateway.admin("GET /livez").status, 200);
    upstream.release();
    let response = client.receive();
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    let (status, took) = timed(|| gateway.exit());
    assert_eq!(status.code(), Some(0));
    assert_within(took, Duration::from_secs(1));
}

#[test]
fn a_body_in_flight_is_delivered_to_its_end() {
    let upstream = Upstream::script([Answer::hold_body()]);
    let mut gateway = patient(&upstream);
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    let head = client.receive_head();
    gateway.signal("TERM");
    eventually("not to be ready", || (gateway.admin("GET /readyz").status == 503).then_some(()));
    upstream.release();
    let response = client.receive_rest(head);
    assert_eq!((response.text().as_str(), response.ending), ("ok", Ending::Complete));
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn nobody_new_is_let_in_while_it_drains() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let mut gateway = patient(&upstream);
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    gateway.signal("TERM");
    eventually("a closed port", || {
        std::net::TcpStream::connect(gateway.address).is_err().then_some(())
    });
    upstream.release();
    assert_eq!(client.receive().status, 200);
    gateway.exit();
    assert_eq!(upstream.count(), 1);
}

#[test]
fn the_drain_ends_at_its_timeout() {
    let upstream = Upstream::always(Answer::hang());
    let section = "server: {drain_timeout: 700ms}";
    let mut gateway = Plan::route("").section(section).upstream(&upstream).start();
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    let (status, took) = timed(|| {
        gateway.signal("TERM");
        gateway.exit()
    });
    assert_eq!(status.code(), Some(0));
    assert!(took >= Duration::from_millis(650) && took < Duration::from_secs(2), "took {took:?}");
    if let Ok(response) = client.try_receive("GET") {
        assert!(response.status >= 500 || response.ending == Ending::Truncated);
    }
    upstream.wait_cancelled(1);
}

/// A gateway with an embedded store that gives requests 300 ms to end.
fn hasty(route: &str) -> Plan {
    Plan::route(route).section("server: {drain_timeout: 300ms}").section(&Store::Sqlite.section())
}

/// Drains `gateway`, and returns the only row of its record.
#[track_caller]
fn row_after_the_drain(mut gateway: Gateway) -> Row {
    gateway.signal("TERM");
    assert_eq!(gateway.exit().code(), Some(0));
    let mut rows = Store::rows_in(&gateway.store());
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let row = rows.remove(0);
    assert!(row.is_true("completed"), "{row:#?}");
    row
}

#[track_caller]
fn assert_cut(row: &Row, status: i64) {
    assert_eq!(row.text("cause"), Some("shutdown"), "{row:#?}");
    assert_eq!((row.number("status"), row.number("attempts")), (status, 1), "{row:#?}");
    assert_eq!((row.text("path"), row.is_true("success")), (Some("/orders"), false), "{row:#?}");
}

#[test]
fn a_request_that_the_drain_cuts_off_has_its_row() {
    at_once(["async", "sync", "durable"], |mode| {
        let upstream = Upstream::always(Answer::hang());
        let gateway = hasty(&format!("record: {{mode: {mode}}}")).upstream(&upstream).start();
        let mut client = gateway.connect();
        client.send(Call::new("GET /orders").bytes());
        upstream.wait_for(1);
        assert_cut(&row_after_the_drain(gateway), 0);
    });
}

#[test]
fn a_response_that_the_drain_cuts_off_has_its_row_too() {
    at_once(["async", "sync", "durable"], |mode| {
        let upstream = Upstream::always(Answer::hold_body());
        let gateway = hasty(&format!("record: {{mode: {mode}}}")).upstream(&upstream).start();
        let mut client = gateway.connect();
        client.send(Call::new("GET /orders").bytes());
        assert_eq!(client.receive_head().status, 200);
        assert_cut(&row_after_the_drain(gateway), 200);
    });
}

#[test]
fn a_stream_that_the_drain_cuts_off_has_its_row() {
    let hole = Blackhole::start();
    let route = "record: {mode: async}\ntimeout: {connect: 30s}";
    let gateway = hasty(route).env("UPSTREAM", &hole.url()).start();
    let client = H2Client::connect(gateway.address);
    let _stream = client.open(request("GET", "/orders").body(()).expect("a request"), true);
    let in_flight = || gateway.metric("portcullis_requests_in_flight", &[]) == 1.0;
    eventually("a request in flight", || in_flight().then_some(()));
    assert_cut(&row_after_the_drain(gateway), 0);
}

/// Its connection is gone by then, and with it the task that served it.
#[test]
fn a_stream_that_goes_on_without_its_client_is_cut_off_too() {
    let upstream = Upstream::always(Answer::hang());
    let route = "record: {mode: async}\nidempotency: {}\ntimeout: {attempt: 30s}";
    let gateway = hasty(route).upstream(&upstream).start();
    let client = H2Client::connect(gateway.address);
    let head = request("POST", "/orders").header("Idempotency-Key", "k").body(());
    let stream = client.open(head.expect("a request"), true);
    upstream.wait_for(1);
    drop((stream, client));
    let connected = || gateway.metric("portcullis_connections", &[]) > 0.0;
    eventually("the connection to be gone", || (!connected()).then_some(()));
    assert_cut(&row_after_the_drain(gateway), 0);
}

#[test]
fn the_shutdown_delay_keeps_the_door_open_and_the_sign_out() {
    let upstream = Upstream::start();
    let section = "server: {shutdown_delay: 600ms}";
    let mut gateway = Plan::route("").section(section).upstream(&upstream).start();
    let address = gateway.address;
    let (_, took) = timed(|| {
        gateway.signal("TERM");
        eventually("not to be ready", || {
            (gateway.admin("GET /readyz").status == 503).then_some(())
        });
        let late = Client::connect(address).call(&"GET /".into());
        assert_eq!(late.status, 200, "a client that has not noticed yet is served");
        assert_eq!(gateway.exit().code(), Some(0));
    });
    assert!(took >= Duration::from_millis(550), "took {took:?}");
}

#[test]
fn a_reload_that_comes_too_late_does_no_harm() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let mut gateway = patient(&upstream);
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    gateway.signal("TERM");
    eventually("not to be ready", || (gateway.admin("GET /readyz").status == 503).then_some(()));
    gateway.signal("HUP");
    upstream.release();
    assert_eq!(client.receive().status, 200);
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn sigquit_is_as_graceful_as_sigterm() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let mut gateway = patient(&upstream);
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    gateway.signal("QUIT");
    eventually("not to be ready", || (gateway.admin("GET /readyz").status == 503).then_some(()));
    upstream.release();
    assert_eq!(client.receive().status, 200);
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn what_systemd_stops_containers_with_and_the_limit_on_cpu_time_drain() {
    for signal in ["37", "XCPU", "QUIT"] {
        let upstream = Upstream::script([Answer::ok().held()]);
        let mut gateway = patient(&upstream);
        let mut client = gateway.connect();
        client.send(Call::new("GET /").bytes());
        upstream.wait_for(1);
        gateway.signal(signal);
        gateway.wait_for_log("draining, 1 in flight");
        // The kernel repeats it each second until the hard limit.
        gateway.signal("XCPU");
        upstream.release();
        assert_eq!(client.receive().status, 200, "{signal}");
        assert_eq!(gateway.exit().code(), Some(0), "{signal}");
    }
}

#[test]
fn signals_that_are_not_meant_to_end_the_gateway_cut_nothing() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let gateway = patient(&upstream);
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    let taken = ["USR1", "USR2", "ALRM", "IO", "VTALRM", "PROF", "PWR", "STKFLT"];
    // Numbers of real-time signals; 37 is an order to end.
    let real_time = [34, 35, 36, 38, 50, 62, 63].map(|number: i32| number.to_string());
    for signal in taken.into_iter().chain(["PIPE", "XFSZ"]).chain(real_time.iter().map(|n| &**n)) {
        gateway.signal(signal);
    }
    for signal in taken {
        gateway.wait_for_log(&format!("SIG{signal}: "));
    }
    for number in &real_time {
        gateway.wait_for_log(&format!("signal {number}: "));
    }
    upstream.release();
    assert_eq!(client.receive().status, 200);
}

#[test]
fn the_last_response_of_a_connection_says_that_it_closes() {
    let upstream = Upstream::script([Answer::ok().held(), Answer::ok().held()]);
    let mut gateway = patient(&upstream);
    let mut clients = [gateway.connect(), gateway.connect()];
    for client in &mut clients {
        client.send(Call::new("GET /").bytes());
    }
    upstream.wait_for(2);
    gateway.signal("TERM");
    eventually("not to be ready", || (gateway.admin("GET /readyz").status == 503).then_some(()));
    upstream.release();
    for client in &mut clients {
        let response = client.receive();
        assert_eq!((response.status, response.header("connection")), (200, Some("close")));
        assert!(client.is_closed());
    }
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn clients_that_have_connected_and_wait_to_be_accepted_are_served() {
    let upstream = Upstream::start();
    let mut gateway = patient(&upstream);
    // They connect, and send, while it stands still: more than it can accept before it obeys the signal.
    gateway.signal("STOP");
    let mut clients: Vec<_> = (0..800).map(|_| gateway.connect()).collect();
    let call = Call::new("GET /").bytes();
    clients.iter_mut().for_each(|client| client.send(&call));
    gateway.signal("TERM");
    gateway.signal("CONT");
    let served = clients.iter_mut().filter_map(|client| client.try_receive("GET").ok());
    let statuses: Vec<_> = served.map(|response| response.status).collect();
    assert_eq!(statuses, vec![200; 800]);
    assert_eq!(gateway.exit().code(), Some(0));
}

#[test]
fn the_times_of_the_drain_are_those_of_the_last_reload() {
    let upstream = Upstream::always(Answer::hang());
    let plan = |server: &str| {
        let store = Store::Sqlite.section();
        Plan::route("record: {mode: async}")
            .section(&format!("server: {{{server}}}"))
            .section(&store)
    };
    let gateway = plan("shutdown_delay: 0s, drain_timeout: 60s").upstream(&upstream).start();
    let mut client = gateway.connect();
    client.send(Call::new("GET /orders").bytes());
    upstream.wait_for(1);
    let wanted = plan("shutdown_delay: 600ms, drain_timeout: 300ms");
    assert!(gateway.reload_plan(&wanted), "{}", gateway.log());
    gateway.wait_for_log("reload: server: changed");
    let (address, mut gateway) = (gateway.address, gateway);
    let (_, took) = timed(|| {
        gateway.signal("TERM");
        eventually("not to be ready", || {
            (gateway.admin("GET /readyz").status == 503).then_some(())
        });
        assert!(Client::try_connect(address).is_some(), "it waits for those who have not noticed");
        assert_eq!(gateway.exit().code(), Some(0));
    });
    assert!(took >= Duration::from_millis(850), "took {took:?}");
    assert_within(took, Duration::from_secs(3));
    let rows = Store::rows_in(&gateway.store());
    assert_eq!(rows.len(), 1, "{rows:#?}");
    assert_cut(&rows[0], 0);
}

#[test]
fn a_longer_drain_by_reload_is_not_cut_short() {
    let upstream = Upstream::always(Answer::ok().held());
    let gateway = Plan::route("").section("server: {drain_timeout: 100ms}");
    let mut gateway = gateway.upstream(&upstream).start();
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    assert!(gateway.reload_plan(&Plan::route("").section(PATIENT)), "{}", gateway.log());
    gateway.signal("TERM");
    gateway.wait_for_log("draining, 1 in flight");
    // Longer than the drain would have been before.
    pass(Duration::from_millis(400));
    upstream.release();
    assert_eq!(client.receive().status, 200);
    assert_eq!(gateway.exit().code(), Some(0));
}
