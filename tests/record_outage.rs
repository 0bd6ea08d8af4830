//! A database in trouble fails no request in `durable` and `async`, slows none down, loses no row,
//! stores none twice and costs no memory.
//!
//! `RECORD_OUTAGE_SECONDS` sets how long each fault lasts, `RECORD_OUTAGE_ROUNDS` how often it comes,
//! `RECORD_OUTAGE_CLIENTS` on how many connections and `RECORD_OUTAGE_RATE` how many requests a second
//! there are, all together; 0 is as many as there can be; `scripts/soak.sh` makes it thirty, and prints the
//! figures. With `RECORD_OUTAGE_TIMES=off` rows are all that counts, on a machine that has other things to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{
    Answered, Gateway, Load, Plan, Postgres, Proof, Upstream, assert_within_since, eventually,
    pass, quantile, watched,
};

/// Beside what the machine is late by: far less than any of the faults would cost a request that
/// waited for the database.
const NOISE: Duration = Duration::from_millis(300);
/// The same over half a minute of a machine that is left alone. Its disk may not be its own.
const QUIET_NOISE: Duration = Duration::from_millis(100);
const CLIENTS: f64 = 8.0;
/// Requests a second: a fraction of what the build for tests can do, because other tests run beside it.
const RATE: f64 = 100.0;
/// What it can do on one core with the rest of it idle: for the figures.
const MEASURED_RATE: f64 = 500.0;
/// The longest pause before the gateway tries to reach a database again.
const PAUSE: Duration = Duration::from_secs(5);
/// How long no row may arrive: the longest pause, twice, and what the machine is late by.
const PATIENCE: Duration = Duration::from_secs(20);
const MEMORY: u64 = 32 << 20;

/// A database with an owner of its own, who is no superuser, and the trouble it gets into.
struct Database {
    server: Arc<Postgres>,
    /// As a superuser has it.
    url: String,
    name: String,
    lasts: Duration,
    /// Its length was asked for, so the figures are of interest.
    measured: bool,
    rounds: usize,
    clients: usize,
    /// How often each has a request.
    every: Duration,
    /// Whether trouble may slow nothing down.
    timed: bool,
    /// Connections of the gateway that were cut.
    cuts: AtomicUsize,
}

impl Database {
    fn new() -> Option<Self> {
        let server = Arc::new(Postgres::start()?);
        let url = server.database();
        let name = url.rsplit('/').next().expect("a name").to_owned();
        server.query("postgres", "CREATE ROLE gateway LOGIN");
        server.query("postgres", &format!("ALTER DATABASE {name} OWNER TO gateway"));
        let number = |name: &str| std::env::var(name).ok().and_then(|s| s.parse::<f64>().ok());
        let seconds = number("RECORD_OUTAGE_SECONDS");
        let measured = seconds.is_some();
        let lasts = Duration::from_secs_f64(seconds.unwrap_or(1.5));
        let rounds = number("RECORD_OUTAGE_ROUNDS").unwrap_or(1.0) as usize;
        let rate =
            number("RECORD_OUTAGE_RATE").unwrap_or(if measured { MEASURED_RATE } else { RATE });
        let clients = number("RECORD_OUTAGE_CLIENTS").unwrap_or(CLIENTS);
        let every = if rate > 0.0 { clients / rate } else { 0.0 };
        let every = Duration::from_secs_f64(every);
        let clients = clients as usize;
        let timed = std::env::var("RECORD_OUTAGE_TIMES").as_deref() != Ok("off");
        let cuts = AtomicUsize::new(0);
        Some(Database { server, url, name, lasts, measured, rounds, clients, every, timed, cuts })
    }

    /// At full length, which is asked for where the machine has nothing else to do.
    fn is_soak(&self) -> bool {
        self.lasts >= Duration::from_secs(20)
    }

    fn section(&self, queue: u32) -> String {
        let url = self.url.replace("//postgres@", "//gateway@");
        format!(
            "record: {{queue: {queue}, commit_timeout: 10s, store: {{postgres: {{url: \"{url}\", statement_timeout: 1s}}}}, \
             journal: {{path: \"${{PORTCULLIS_DATA}}/journal.db\"}}}}"
        )
    }

    fn cut_off(&self) {
        let cut = self.server.query(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway'",
        );
        self.cuts.fetch_add(cut.lines().count(), Ordering::Relaxed);
    }

    /// Again and again, in the middle of what is written.
    fn cut(&self) {
        let begun = Instant::now();
        while begun.elapsed() < self.lasts {
            self.cut_off();
            pass(Duration::from_millis(50));
        }
    }

    fn stopped(&self) {
        self.server.stop();
        pass(self.lasts);
        self.server.restart();
    }

    fn read_only(&self) {
        let alter = format!("ALTER DATABASE {}", self.name);
        self.server.query("postgres", &format!("{alter} SET default_transaction_read_only = on"));
        self.cut_off();
        pass(self.lasts);
        self.server.query("postgres", &format!("{alter} RESET default_transaction_read_only"));
    }

    fn out_of_connections(&self) {
        self.server.query("postgres", "ALTER ROLE gateway CONNECTION LIMIT 0");
        self.cut_off();
        pass(self.lasts);
        self.server.query("postgres", "ALTER ROLE gateway CONNECTION LIMIT -1");
    }

    fn locked(&self) {
        let sleep = format!("SELECT pg_sleep({})", self.lasts.as_secs_f64());
        let lock = "LOCK TABLE invocations IN ACCESS EXCLUSIVE MODE";
        self.server.query(&self.url, &format!("{lock}; {sleep}"));
    }

    fn slow(&self) {
        self.server.query(
            &self.url,
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN PERFORM pg_sleep(0.9); RETURN NULL; END';
             CREATE TRIGGER slow BEFORE INSERT ON invocations
                 FOR EACH STATEMENT EXECUTE FUNCTION slow()",
        );
        pass(self.lasts);
        self.server.query(&self.url, "DROP FUNCTION slow CASCADE");
    }

    /// To compare with.
    fn well(&self) {
        pass(if self.measured { self.lasts } else { self.lasts / 2 });
    }

    /// Until so many are there; it may take long, as long as there are more and more.
    fn await_rows(&self, after: &str, rows: usize, gateway: &Gateway) {
        let (mut there, mut since) = (0, Instant::now());
        while there < rows {
            pass(Duration::from_millis(50));
            let now = self.rows();
            if now > there {
                (there, since) = (now, Instant::now());
            }
            let (waited, record) = (since.elapsed(), || gateway.status()["record"].clone());
            assert!(waited < PATIENCE, "{there} of {rows} rows after {after}: {:#}", record());
        }
    }

    fn rows(&self) -> usize {
        let count = self.server.query(&self.url, "SELECT count(*) FROM invocations");
        count.parse().expect("a number")
    }
}

#[test]
fn durable() {
    // Few rows may be in memory, so what an outage leaves behind is on disk.
    promise("durable", 100);
}

#[test]
fn asynchronous() {
    promise("async", 1_000_000);
}

fn promise(mode: &str, queue: u32) {
    let Some(database) = Database::new() else { return };
    let upstream = Upstream::start();
    let policies = format!("record: {{mode: {mode}}}");
    let section = database.section(queue);
    let gateway = Plan::route(&policies).section(&section).upstream(&upstream).start();
    let mut all = Vec::new();
    let mut troubles = 0;
    let load = |name: &str, all: &mut Vec<Answered>, during: &dyn Fn()| {
        load(&gateway, &database, name, all, during)
    };

    load("warm-up", &mut all, &|| pass(Duration::from_millis(500)));
    eventually("the rows so far", || (database.rows() >= all.len()).then_some(()));
    let memory = gateway.memory("VmRSS");
    let only = std::env::var("RECORD_OUTAGE_FAULT").ok();
    let well: Fault = Database::well;
    for (name, fault) in [
        ("stopped", Database::stopped as Fault),
        ("connections cut", Database::cut),
        ("read-only", Database::read_only),
        ("out of connections", Database::out_of_connections),
        ("locked", Database::locked),
        ("slow", Database::slow),
        // How far two runs lie apart by themselves: for who reads the figures.
        ("no trouble", well),
    ] {
        let wanted = only.as_ref().map_or(database.measured || name != "no trouble", |o| o == name);
        if !wanted {
            continue;
        }
        if name != "no trouble" {
            troubles += database.rounds;
        }
        let started = watched();
        let (mut under, mut usual) = (Vec::new(), Vec::new());
        for round in 0..database.rounds {
            // To compare with: the same load on the same machine. What came first is at an advantage.
            for troubled in [round % 2 == 1, round % 2 == 0] {
                let (label, trouble) = if troubled { (name, fault) } else { ("usual", well) };
                let label = format!("{label} {name} {round}");
                let times = load(&label, &mut all, &|| trouble(&database));
                if troubled {
                    under.push(times)
                } else {
                    usual.push(times)
                }
                if database.lasts > PAUSE {
                    // By then the gateway tries that seldom.
                    pass(PAUSE);
                }
                database.await_rows(&label, all.len(), &gateway);
            }
            eprintln!("{mode}, {name}: {}", compared(under[round], usual[round]));
        }
        let (under, usual) = (median(&under), median(&usual));
        if database.rounds > 1 {
            eprintln!("{mode}, {name}, medians of {}: {}", database.rounds, compared(under, usual));
        }
        let noise = if database.is_soak() { QUIET_NOISE } else { NOISE };
        if database.timed {
            assert_within_since(started, under.1, usual.1.mul_f64(1.1) + noise);
        }
    }
    let grown = gateway.memory("VmRSS").saturating_sub(memory);
    eprintln!("{mode}: {} requests, {} KiB more memory", all.len(), grown >> 10);
    assert!(grown < MEMORY, "{grown} bytes more");
    let (cuts, lasts) = (database.cuts.load(Ordering::Relaxed), database.lasts);
    let done = format!("{troubles} troubles of {lasts:?}, {cuts} connections cut");
    ledger((&format!("PostgreSQL in trouble, {mode}"), done), &database, &all);
}

type Fault = fn(&Database);

/// A median and a p99.
type Times = (Duration, Duration);

/// Of the medians, and of the p99s.
fn median(all: &[Times]) -> Times {
    let middle = |of: fn(&Times) -> Duration| {
        let mut all: Vec<_> = all.iter().map(of).collect();
        all.sort();
        (all[(all.len() - 1) / 2] + all[all.len() / 2]) / 2
    };
    (middle(|times| times.0), middle(|times| times.1))
}

fn compared(under: Times, usual: Times) -> String {
    let ratio = under.1.as_secs_f64() / usual.1.as_secs_f64();
    format!(
        "p50 {:.2?}, p99 {:.2?}; without it p50 {:.2?}, p99 {:.2?}: p99 {ratio:.2} x",
        under.0, under.1, usual.0, usual.1
    )
}

/// Load for as long as `during` takes; its median and its p99.
fn load(
    gateway: &Gateway,
    database: &Database,
    name: &str,
    all: &mut Vec<Answered>,
    during: &dyn Fn(),
) -> Times {
    let load = Load::paced(gateway.address, database.clients, name, database.every);
    during();
    let answered = load.finish();
    let failed: Vec<_> = answered.iter().filter(|answer| answer.status != 200).collect();
    assert!(failed.is_empty(), "{name}: {failed:?}");
    let quantiles = (quantile(&answered, 0.5), quantile(&answered, 0.99));
    all.extend(answered);
    quantiles
}

/// Every answer has exactly one row, and no row is without an answer.
fn ledger(about: (&str, String), database: &Database, all: &[Answered]) {
    let sql = "SELECT request_id, status FROM invocations";
    let stored = database.server.query(&database.url, sql);
    let rows = stored.lines().filter_map(|line| {
        let (id, status) = line.split_once('|')?;
        Some((id, status.parse().ok()?))
    });
    Proof::of(about, all, rows).assert_exact();
    assert_eq!(stored.lines().count(), all.len());
}
