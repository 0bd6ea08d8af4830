//! What is behind the gateway fails over under load, and each answer still has its one row: endpoints of an upstream
//! that die and come back, and a PostgreSQL whose standby takes over.
//!
//! `ENDPOINT_DEATHS` sets how often an endpoint dies; `make prove` makes it more.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{
    Answer, Gateway, Load, Plan, Postgres, Proof, Store, Upstream, eventually, from_environment,
    refused_address,
};

fn is_shipped(gateway: &Gateway) -> Option<()> {
    (gateway.metric("portcullis_record_journal_depth", &[]) == 0.0).then_some(())
}

#[test]
fn endpoints_that_die_under_load_fail_no_request_and_lose_no_row() {
    let Some(store) = Store::postgres() else { return };
    let deaths = from_environment("ENDPOINT_DEATHS", 3);
    let listen = |address| {
        let upstream = Upstream::listen(address);
        // So that there is always something in flight.
        upstream.answer_always(Answer::ok().after(Duration::from_millis(3)));
        upstream
    };
    let mut endpoints = [(); 3].map(|()| listen(refused_address()));
    let urls = endpoints.each_ref().map(|endpoint| format!("'{}'", endpoint.url())).join(", ");
    let record = store.section().replace("journal:", "commit_timeout: 10s, journal:");
    let sections = format!(
        "{record}\nupstreams: {{service: {{endpoints: [{urls}], balance: round_robin, \
         ejection: {{eject_for: 200ms, max_eject_for: 400ms}}}}}}"
    );
    let policies = "record: {mode: durable}\nretry: {max_retries: 2, budget: unlimited}";
    let gateway = Plan::route(policies).section(&sections).start();
    let load = Load::paced(gateway.address, 8, "endpoints", Duration::from_millis(30));
    for death in 0..deaths {
        let one = &mut endpoints[death % 3];
        let address = one.address();
        eventually("traffic on it", || (one.count() > 20).then_some(()));
        // Another one in its place, so that this one is gone.
        *one = Upstream::start();
        let so_far = load.answers();
        eventually("answers without it", || (load.answers() > so_far + 100).then_some(()));
        *one = listen(address);
    }
    let broken = load.broken();
    let answered = load.finish();
    eventually("an empty journal", || is_shipped(&gateway));
    let proof = Proof::of_rows(
        ("endpoints that die, durable", format!("{deaths} endpoints killed and back")),
        &answered,
        &store.rows(&gateway),
    );
    proof.broken(broken).assert_exact();
}

#[test]
fn a_database_that_fails_over_to_its_standby_loses_no_row() {
    let Some(primary) = Postgres::start() else { return };
    let standby = Arc::new(primary.standby());
    eventually("a synchronous standby", || {
        let state = "SELECT sync_state FROM pg_stat_replication";
        (primary.query("postgres", state) == "sync").then_some(())
    });
    let url = primary.database();
    let name = url.rsplit('/').next().expect("a name");
    let both = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/{name}?target_session_attrs=read-write",
        primary.port(),
        standby.port()
    );
    let on_both = Store::Postgres { server: standby.clone(), url: both }.section();
    let section = on_both.replace("journal:", "commit_timeout: 10s, journal:");
    let upstream = Upstream::start();
    let gateway =
        Plan::route("record: {mode: durable}").section(&section).upstream(&upstream).start();
    gateway.wait_for_log("record store: ready");
    let load = Load::paced(gateway.address, 8, "database", Duration::from_millis(30));
    let rows = |server: &Postgres| -> usize {
        let count = server.query(&server.url(name), "SELECT count(*) FROM invocations");
        count.parse().expect("a number")
    };
    eventually("rows on the primary", || (rows(&primary) > 100).then_some(()));
    primary.crash();
    eventually("rows in the journal", || {
        (gateway.metric("portcullis_record_journal_depth", &[]) > 40.0).then_some(())
    });
    standby.promote();
    gateway.wait_for_log("record store: available again");
    let so_far = load.answers();
    eventually("answers with the other", || (load.answers() > so_far + 100).then_some(()));
    let broken = load.broken();
    let answered = load.finish();
    eventually("an empty journal", || is_shipped(&gateway));
    let store = Store::Postgres { url: standby.url(name), server: standby };
    let proof = Proof::of_rows(
        ("PostgreSQL fails over, durable", "primary killed, standby promoted".to_owned()),
        &answered,
        &store.rows(&gateway),
    );
    proof.broken(broken).assert_exact();
}
