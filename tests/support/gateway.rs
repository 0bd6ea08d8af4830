//! The product's own executable, as a child of the test.
//!
//! What it is started with is the business of [`super::plan`].

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::{Call, Client, Response};
use super::plan::{Plan, command, complete};
use super::ports::Port;
use super::upstream::Upstream;
use super::wait::{DEADLINE, eventually, pass};

/// A running gateway. Killed when dropped; a failing test shows its log.
pub struct Gateway {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where `/metrics` and `/status` are.
    pub admin: SocketAddr,
    child: Child,
    log: Arc<Mutex<String>>,
    access: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    file: PathBuf,
    pub(super) directory: Arc<TempDir>,
    /// Given back after the child's end.
    pub(super) ports: Arc<[Port; 2]>,
    /// Which process serves: the child, or one that has taken over from it.
    process: u32,
}

/// A gateway that has ended by itself.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Gateway {
    /// The most frequent start: [`Plan::route`] before one upstream.
    #[track_caller]
    pub fn route(upstream: &Upstream, policies: &str) -> Self {
        Plan::route(policies).upstream(upstream).start()
    }

    /// Start what [`Plan`] has put together; it is not ready yet.
    pub(super) fn launch(
        mut command: Command,
        ports: Arc<[Port; 2]>,
        file: PathBuf,
        directory: Arc<TempDir>,
    ) -> Self {
        let [address, admin] = [ports[0].address(), ports[1].address()];
        let mut child = command.spawn().expect("the executable starts");
        let log = Arc::new(Mutex::new(String::new()));
        let access = Arc::new(Mutex::new(String::new()));
        let readers =
            vec![collect(child.stderr.take(), &log), collect(child.stdout.take(), &access)];
        let process = child.id();
        Gateway { address, admin, child, log, access, readers, file, directory, ports, process }
    }

    /// Run the executable with these arguments to its end, in a directory of its own.
    pub fn finish(arguments: &[&str], directory: &Path, environment: &[(&str, &str)]) -> Finished {
        let output = command(directory)
            .args(arguments)
            .envs(environment.iter().copied())
            .output()
            .expect("the executable starts");
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Begin to run the executable with these arguments.
    pub fn begin(arguments: &[&str], directory: &Path, environment: &[(&str, &str)]) -> Child {
        let mut command = command(directory);
        command.args(arguments).envs(environment.iter().copied());
        command.spawn().expect("the executable starts")
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn call(&self, call: impl Into<Call>) -> Response {
        self.connect().call(&call.into())
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.call(Call::new(&format!("GET {path}")))
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &str) -> Response {
        self.call(Call::new(&format!("POST {path}")).json(body))
    }

    /// One request to the admin listener, by its address unless the call names another host.
    #[track_caller]
    pub fn admin(&self, call: impl Into<Call>) -> Response {
        Client::connect(self.admin).call(&call.into().to(&self.admin.to_string()))
    }

    #[track_caller]
    pub fn status(&self) -> serde_json::Value {
        self.admin("GET /status").json()
    }

    /// The sum of the samples of `name` that carry these labels.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let text = self.admin("GET /metrics").text();
        let wanted: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let samples = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|r| r.starts_with('{') || r.starts_with(' '))
                && wanted.iter().all(|label| line.contains(label.as_str()))
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits for that sum to be `expected`: what a request adds, it adds after its response.
    #[track_caller]
    pub fn expect_metric(&self, name: &str, labels: &[(&str, &str)], expected: f64) {
        let mut found = self.metric(name, labels);
        let started = Instant::now();
        while found != expected && started.elapsed() < DEADLINE {
            pass(Duration::from_millis(10));
            found = self.metric(name, labels);
        }
        assert_eq!(found, expected, "{name} {labels:?}");
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// Everything it has written to standard output so far, which is its access log.
    pub fn access(&self) -> String {
        self.access.lock().expect("the log").clone()
    }

    /// The lines of its access log about requests.
    #[track_caller]
    pub fn access_lines(&self) -> Vec<serde_json::Value> {
        parsed(&self.access()).into_iter().filter(|line| line["event.name"].is_null()).collect()
    }

    /// Waits for `count` of those; there must be no more.
    #[track_caller]
    pub fn wait_for_access_lines(&self, count: usize) -> Vec<serde_json::Value> {
        let lines = eventually(&format!("{count} lines in the access log"), || {
            let lines = self.access_lines();
            (lines.len() >= count).then_some(lines)
        });
        assert_eq!(lines.len(), count, "{lines:#?}");
        lines
    }

    #[track_caller]
    pub fn wait_for_log(&self, part: &str) {
        eventually(&format!("`{part}` in the log:\n{}", self.log()), || {
            self.log().contains(part).then_some(())
        });
    }

    /// `HUP`, `TERM`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.process.to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "the gateway is there to be signalled");
    }

    /// Replaces the configuration, which is not read before the next reload or start.
    #[track_caller]
    pub fn write(&self, plan: &Plan) {
        std::fs::write(&self.file, complete(&plan.yaml)).expect("the configuration is written");
    }

    /// Replace the configuration and wait until it was taken or refused; whether it was taken.
    #[track_caller]
    pub fn reload(&self, yaml: &str) -> bool {
        std::fs::write(&self.file, complete(yaml)).expect("the configuration is written");
        let reloads = || self.metric("portcullis_reloads_total", &[]);
        let (generation, before) = (self.generation(), reloads());
        self.signal("HUP");
        eventually("the end of the reload", || (reloads() > before).then_some(()));
        self.generation() > generation
    }

    /// The same for one route, as [`Plan::route`] has it.
    #[track_caller]
    pub fn reload_route(&self, policies: &str) -> bool {
        self.reload_plan(&Plan::route(policies))
    }

    /// The same for the configuration of a plan.
    #[track_caller]
    pub fn reload_plan(&self, plan: &Plan) -> bool {
        self.reload(&plan.yaml)
    }

    pub fn generation(&self) -> u64 {
        self.metric("portcullis_config_generation", &[]) as u64
    }

    /// Wait until it ends by itself; its log is complete then.
    #[track_caller]
    pub fn exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = eventually("the gateway's end", || child.try_wait().expect("our child"));
        for reader in self.readers.drain(..) {
            reader.join().expect("a pipe is read to its end");
        }
        status
    }

    /// Ask it to end, and wait until it has; its log is complete then.
    #[track_caller]
    pub fn end(&mut self) {
        self.signal("TERM");
        assert!(self.exit().success(), "{}", self.log());
    }

    /// The rows that wait in its journal.
    pub fn journal_depth(&self) -> f64 {
        self.metric("portcullis_record_journal_depth", &[])
    }

    /// End it without giving it a chance to do anything about it.
    pub fn kill(&mut self) {
        if self.process != self.child.id() {
            let _ = Command::new("kill").args(["-KILL", &self.process.to_string()]).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The number of the process that serves.
    pub fn process(&self) -> u32 {
        self.process
    }

    /// Tells it to start its successor, and waits until that one has taken over. Returns the number of the
    /// process that served before, which drains. The log is that of all of them.
    #[track_caller]
    pub fn upgrade(&mut self) -> u32 {
        let before = self.process;
        self.signal("USR2");
        self.process = eventually(&format!("a successor of {before}"), || {
            let log = self.log();
            let line = log.lines().rev().find(|line| line.contains(" has taken over: "))?;
            let process = line.split("process ").nth(1)?.split(' ').next()?.parse().ok()?;
            // Not the one of an upgrade before.
            let started = log.lines().rev().find(|line| line.contains(" is to take over"))?;
            let is_latest = started.contains(&format!("process {process} "));
            (process != before && is_latest).then_some(process)
        });
        before
    }

    /// Waits until the child ends by itself; successors of it go on, and write to the same log.
    #[track_caller]
    pub fn ends(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the gateway's end", || child.try_wait().expect("our child"))
    }

    /// Its working directory; the store is `data` in it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn store(&self) -> PathBuf {
        self.directory().join("data/portcullis.db")
    }

    /// A line of `/proc/PID/status` in bytes: `VmRSS`, `VmHWM`.
    pub fn memory(&self, line: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the gateway's status in /proc");
        let found = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
        let kib = found.and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("an amount of memory") * 1024
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        let path = format!("/proc/{}/task", self.child.id());
        std::fs::read_dir(path).expect("the gateway's threads in /proc").count()
    }

    /// How many files and sockets it holds open.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).expect("the gateway's descriptors in /proc").count()
    }

    /// `false`: it has ended, or will never listen.
    pub(super) fn becomes_ready(&mut self) -> bool {
        eventually("a gateway that is ready, or has ended", || {
            if self.child.try_wait().expect("a child of ours").is_some() {
                return Some(false);
            }
            if self.log().contains("in use") {
                self.kill();
                return Some(false);
            }
            // What answers on a port that was free a moment ago need not be our child, which
            // says in its own log when it listens there.
            if !self.log().contains(&self.admin.to_string()) {
                return None;
            }
            if self.admin("GET /readyz").status != 200 {
                return None;
            }
            Some(true)
        })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the gateway\n{}---", self.log());
            let access = self.access();
            let lines: Vec<&str> = access.lines().collect();
            let last = lines.len().saturating_sub(20);
            eprintln!("--- the end of its access log\n{}\n---", lines[last..].join("\n"));
        }
    }
}

/// Lines of JSON.
#[track_caller]
pub fn parsed(lines: &str) -> Vec<serde_json::Value> {
    let parse = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    };
    lines.lines().map(parse).collect()
}

fn collect(from: Option<impl Read + Send + 'static>, log: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let log = log.clone();
    let reader = BufReader::new(from.expect("a pipe"));
    std::thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            *log.lock().expect("the log") += &(line + "\n");
        }
    })
}
