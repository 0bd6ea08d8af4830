//! One thread serves as several do: it takes another scheduler, which must not be noticed.

use crate::support::{Answer, Call, Gateway, Plan, Upstream, eventually};

fn on_one_thread(upstream: &Upstream) -> Gateway {
    let server = "server: {threads: 1, drain_timeout: 9s}";
    let retry = "retry: {max_retries: 1, on: [503], backoff: {base: 1ms, max: 1ms}}";
    Plan::route(retry).section(server).upstream(upstream).start()
}

#[test]
fn a_request_that_waits_holds_up_no_other() {
    let upstream = Upstream::script([Answer::ok().held(), 503.into(), Answer::ok()]);
    let gateway = on_one_thread(&upstream);
    let mut waiting = gateway.connect();
    waiting.send(Call::new("GET /first").bytes());
    upstream.wait_for(1);
    assert_eq!(gateway.call("GET /second").status, 200);
    assert_eq!(upstream.requests().len(), 3);
    upstream.release();
    assert_eq!(waiting.receive().status, 200);
}

#[test]
fn what_is_in_flight_is_finished_at_the_end() {
    let upstream = Upstream::script([Answer::ok().held()]);
    let mut gateway = on_one_thread(&upstream);
    let mut client = gateway.connect();
    client.send(Call::new("GET /").bytes());
    upstream.wait_for(1);
    gateway.signal("TERM");
    eventually("not to be ready", || (gateway.admin("GET /readyz").status == 503).then_some(()));
    upstream.release();
    assert_eq!(client.receive().status, 200);
    assert_eq!(gateway.exit().code(), Some(0));
}
