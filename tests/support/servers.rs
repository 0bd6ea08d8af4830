//! HAProxy and NGINX before an upstream of ours, each in a directory of its own, and the load generator
//! oha. They end with the value.

use std::fmt::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::ports::Port;
use super::wait::eventually;

/// A real server that passes on what it gets and answers `/health` itself.
pub struct Server {
    program: PathBuf,
    arguments: Vec<String>,
    directory: tempfile::TempDir,
    port: Port,
    child: Option<Child>,
}

impl Server {
    /// NGINX before `behind`; its responses say so in `X-Server`. At `/guarded` it admits `ada`, whose
    /// password is `secret`, and says who came in `X-User`. `None`, said loudly, if the machine has
    /// none; in CI that is a failure.
    pub fn nginx(behind: SocketAddr) -> Option<Self> {
        let (program, directory) = (program("nginx")?, directory());
        let (port, at) = (Port::reserve(), directory.path().display().to_string());
        std::fs::write(directory.path().join("users"), "ada:{PLAIN}secret\n").expect("a file");
        let mut temporary = String::new();
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(temporary, "{kind}_temp_path {at}/{kind};").expect("text");
        }
        let text = format!(
            "daemon off; worker_processes 2; pid {at}/pid; error_log {at}/log notice;
            events {{ worker_connections 512; }}
            http {{
                access_log off; {temporary}
                client_body_buffer_size 1m; keepalive_requests 200;
                upstream behind {{ server {behind}; keepalive 16; }}
                server {{
                    listen {}; add_header X-Server nginx always;
                    location = /health {{ return 200 healthy; }}
                    location = /guarded {{
                        auth_basic shop; auth_basic_user_file {at}/users;
                        add_header X-User $remote_user; empty_gif;
                    }}
                    location / {{
                        proxy_pass http://behind; proxy_http_version 1.1;
                        proxy_set_header Connection ''; proxy_set_header Host $http_host;
                    }}
                }}
            }}",
            port.address()
        );
        let arguments = ["-p", &at, "-e", &format!("{at}/log"), "-c", &format!("{at}/conf")];
        Some(Server::start(program, &arguments, directory, &text, port))
    }

    /// The same with HAProxy.
    pub fn haproxy(behind: SocketAddr) -> Option<Self> {
        let (program, directory) = (program("haproxy")?, directory());
        let port = Port::reserve();
        let text = format!(
            "global
    maxconn 500
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive 30s
frontend in
    bind {}
    http-request return status 200 content-type text/plain string healthy if {{ path /health }}
    http-response set-header X-Server haproxy
    default_backend out
backend out
    server behind {behind}
",
            port.address()
        );
        let file = directory.path().join("conf").display().to_string();
        Some(Server::start(program, &["-db", "-f", &file], directory, &text, port))
    }

    fn start(
        program: PathBuf,
        arguments: &[&str],
        directory: tempfile::TempDir,
        text: &str,
        port: Port,
    ) -> Self {
        std::fs::write(directory.path().join("conf"), text).expect("a file");
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut server = Server { program, arguments, directory, port, child: None };
        server.restart();
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Starts it at its port.
    pub fn restart(&mut self) {
        let log = std::fs::File::create(self.directory.path().join("output")).expect("a file");
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            // With its workers, so that all of them can be killed at once.
            .process_group(0)
            .spawn();
        self.child = Some(child.expect("the server is started"));
        eventually("a server that listens", || {
            let ended = self.child.as_mut().expect("started").try_wait().expect("a child of ours");
            assert!(ended.is_none(), "it has ended: {}", self.log());
            TcpStream::connect(self.address()).ok()
        });
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.directory.path().join(name));
        ["output", "log"].map(|name| read(name).unwrap_or_default()).concat()
    }

    /// `HUP` to the process that was started.
    pub fn signal(&self, name: &str) {
        signal(name, &self.id().to_string());
    }

    /// Kills it and its workers, as `kill -9` does.
    pub fn kill(&mut self) {
        if self.child.is_some() {
            signal("KILL", &format!("-{}", self.id()));
        }
        if let Some(mut child) = self.child.take() {
            child.wait().expect("a child of ours");
        }
    }

    fn id(&self) -> u32 {
        self.child.as_ref().expect("a running server").id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn signal(name: &str, to: &str) {
    let kill = Command::new("kill").args(["-s", name, "--", to]).status();
    assert!(kill.expect("kill runs").success(), "{to} is there to be signalled");
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Distributions keep servers out of the path of users.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = places.map(|place| place.join(name)).find(|program| program.exists());
    if found.is_none() {
        let missing = format!("{name} is neither in PATH nor in /usr/sbin");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
        eprintln!("SKIPPED: a test that needs {name}: {missing}");
    }
    found
}

/// oha at work: a fixed number of requests, so that none is cut off at its end.
pub struct Oha(Child);

/// What it has counted.
#[derive(Debug)]
pub struct Counted {
    /// Responses with status 200.
    pub good: u64,
    /// Responses with another status, and requests without one.
    pub failed: u64,
    /// All of it, for a test that fails.
    pub report: serde_json::Value,
}

impl Oha {
    /// `requests` in all, at `rate` a second, over `connections`. `None`, said loudly, without oha, which
    /// `scripts/oha.sh` installs; `make soak` does so before the tests.
    pub fn start(to: SocketAddr, requests: u32, rate: u32, connections: u32) -> Option<Self> {
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/bin/oha");
        let Some(program) = Some(ours).filter(|oha| oha.exists()) else {
            let missing = "scripts/oha.sh has not installed it";
            assert!(std::env::var_os("FLEET_SECONDS").is_none(), "oha: {missing}");
            eprintln!("SKIPPED: a test that needs oha: {missing}");
            return None;
        };
        let child = Command::new(program)
            .args(["--no-tui", "--output-format", "json", "-t", "20s"])
            .args(["-n", &requests.to_string(), "-q", &rate.to_string()])
            .args(["-c", &connections.to_string(), &format!("http://{to}/")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        Some(Oha(child.expect("oha is started")))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn finish(self) -> Counted {
        let output = self.0.wait_with_output().expect("oha ends");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
        let sum = |part: &str, of: &dyn Fn(&str) -> bool| -> u64 {
            let counts = report[part].as_object().into_iter().flatten();
            counts.filter(|(key, _)| of(key)).filter_map(|(_, count)| count.as_u64()).sum()
        };
        let statuses = "statusCodeDistribution";
        let good = sum(statuses, &|status| status == "200");
        let failed = sum(statuses, &|status| status != "200") + sum("errorDistribution", &|_| true);
        Counted { good, failed, report }
    }
}
