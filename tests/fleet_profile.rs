//! The profile of a fleet, run as its users run it: by environment variables alone.

use std::path::Path;

use serde_json::json;

use crate::support::{Call, Gateway, Plan, Upstream, eventually};

const TOKEN: &str = "registry-token-0001";

/// The services behind it, each with `/health`.
struct Fleet {
    catalog: [Upstream; 2],
    next: Upstream,
    orders: Upstream,
    standby: Upstream,
    folder: tempfile::TempDir,
}

impl Fleet {
    fn new() -> Self {
        let service = || Upstream::start().checked_at("/health");
        Fleet {
            catalog: [service(), service()],
            next: service(),
            orders: service(),
            standby: service(),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    /// Puts another list in the file's place.
    fn list(&self, urls: &[String]) {
        let new = self.folder.path().join("catalog.new");
        let entries: String = urls.iter().map(|url| format!("- {url}\n")).collect();
        std::fs::write(&new, entries).expect("written");
        std::fs::rename(new, self.folder.path().join("catalog.yaml")).expect("renamed");
    }

    fn plan(&self) -> Plan {
        self.list(&self.catalog.each_ref().map(Upstream::url));
        let file = self.folder.path().join("catalog.yaml");
        Plan::file(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/fleet.yaml"))
            .env("CATALOG_FILE", file.to_str().expect("a path"))
            .env("CATALOG_NEXT_URL", &self.next.url())
            .env("ORDERS_URL", &self.orders.url())
            .env("ORDERS_STANDBY_URL", &self.standby.url())
            .env("BILLING_NETWORKS", "127.0.0.0/8")
            .env("REGISTRY_TOKEN", TOKEN)
    }
}

fn endpoints(gateway: &Gateway, upstream: &str) -> usize {
    let status = gateway.status();
    status["upstreams"][upstream]["endpoints"].as_array().map_or(0, Vec::len)
}

#[test]
fn the_catalogs_endpoints_are_those_of_its_file_and_a_version_is_chosen_by_share_or_header() {
    let fleet = Fleet::new();
    let gateway = fleet.plan().env("CATALOG_WEIGHT", "0").env("CATALOG_NEXT_WEIGHT", "100").start();
    assert_eq!(gateway.get("/catalog/7").status, 200);
    assert_eq!(fleet.next.count(), 1);
    let gateway = fleet.plan().start();
    for _ in 0..20 {
        assert_eq!(gateway.get("/catalog/7").status, 200);
    }
    assert_eq!(fleet.catalog.iter().map(Upstream::count).sum::<usize>(), 20);
    assert!(fleet.catalog.iter().all(|one| one.count() > 0));
    assert_eq!(gateway.call(Call::new("GET /catalog/7").header("X-Version", "2")).status, 200);
    assert_eq!(fleet.next.count(), 2);
    fleet.list(&[fleet.catalog[1].url()]);
    eventually("one endpoint", || (endpoints(&gateway, "catalog") == 1).then_some(()));
    let before = fleet.catalog[0].count();
    for _ in 0..10 {
        assert_eq!(gateway.get("/catalog/7").status, 200);
    }
    assert_eq!(fleet.catalog[0].count(), before);
}

#[test]
fn probes_get_the_gateways_own_health() {
    let fleet = Fleet::new();
    let gateway = fleet.plan().start();
    eventually("health", || (gateway.get("/healthz").status == 200).then_some(()));
    assert_eq!(gateway.post("/healthz", "{}").status, 405);
    assert_eq!(fleet.next.count() + fleet.orders.count() + fleet.standby.count(), 0);
}

#[test]
fn orders_go_to_the_standby_while_there_is_no_other() {
    let mut fleet = Fleet::new();
    let gateway = fleet.plan().start();
    assert_eq!(gateway.get("/orders/7").status, 200);
    assert_eq!((fleet.orders.count(), fleet.standby.count()), (1, 0));
    fleet.orders = Upstream::start();
    for _ in 0..6 {
        // With its retries: the earlier endpoint is gone.
        assert_eq!(gateway.get("/orders/7").status, 200);
    }
    assert_eq!(fleet.standby.count(), 6);
}

#[test]
fn instances_of_billing_register_themselves_and_are_found_by_name() {
    let fleet = Fleet::new();
    let gateway = fleet.plan().start();
    let none = gateway.get("/svc/billing/invoices/7");
    assert_eq!((none.status, none.code().as_str()), (503, "no_endpoint"));
    let billing = Upstream::start().checked_at("/health");
    let call = Call::new("PUT /upstreams/billing/endpoints/one").bearer(TOKEN);
    let body = json!({ "address": billing.address().to_string(), "weight": 2 });
    assert_eq!(gateway.admin(call.body(body.to_string())).status, 201);
    eventually("its first check has passed", || {
        (gateway.get("/svc/billing/invoices/7").status == 200).then_some(())
    });
    assert_eq!(billing.requests()[0].target, "/invoices/7");
    assert_eq!(gateway.get("/svc/catalog-next/7").status, 404, "it is not among them");
}
