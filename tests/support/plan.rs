//! A gateway yet to be started: its configuration, its environment, the files beside it.
//!
//! A test writes the sections it is about; what every gateway needs besides (addresses,
//! store) is appended, so that the line numbers of a test's own lines are its own.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};

use tempfile::TempDir;

use super::gateway::Gateway;
use super::h2_upstream::H2Upstream;
use super::ports::Port;
use super::tls::Authority;
use super::upstream::Upstream;
use super::wait::eventually;

/// Appended where the test's own text has no such section.
const SECTIONS: [(&str, &str); 5] = [
    ("server", "{threads: 2, drain_timeout: 5s}"),
    ("listeners", "{public: {address: \"127.0.0.1:${PORT}\"}}"),
    ("admin", "{address: \"${ADMIN_ADDRESS}\"}"),
    ("record", "{store: {sqlite: {path: \"${PORTCULLIS_DATA}/portcullis.db\"}}}"),
    ("upstreams", "{service: {endpoints: [\"${UPSTREAM:-http://127.0.0.1:9}\"]}}"),
];

/// The value of an environment variable with which a proof runs longer, or in another way, than by `default`.
pub fn from_environment<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The executable under test: the one built with the tests, or another on request.
pub fn binary() -> PathBuf {
    let built = env!("CARGO_BIN_EXE_portcullis");
    std::env::var_os("PORTCULLIS_UNDER_TEST").map_or_else(|| built.into(), PathBuf::from)
}

/// A gateway yet to be started.
#[derive(Default)]
pub struct Plan {
    file: Option<PathBuf>,
    pub(super) yaml: String,
    environment: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    /// What a shell does before it becomes the executable, or runs it by.
    shell: Option<String>,
    /// The executable, if it is not the one under test.
    program: Option<PathBuf>,
    /// Its standard input, if it is not empty.
    stdin: Option<OwnedFd>,
}

impl Plan {
    pub fn new(yaml: &str) -> Self {
        Plan { yaml: yaml.to_owned(), ..Plan::default() }
    }

    /// A configuration that is complete as it is, at its own place.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Plan { file: Some(path.into()), ..Plan::default() }
    }

    /// One route, `all`, that takes every path to `service`; `policies` is the rest of it.
    pub fn route(policies: &str) -> Self {
        let mut yaml = "routes:\n  all:\n    match: {path: /*}\n    upstream: service\n".to_owned();
        for line in policies.trim().lines() {
            yaml += &format!("    {}\n", line.trim());
        }
        Plan::new(&yaml)
    }

    /// More sections, before the others.
    pub fn section(mut self, yaml: &str) -> Self {
        self.yaml = format!("{yaml}\n{}", self.yaml);
        self
    }

    /// The configuration so far, for a reload.
    pub fn yaml(&self) -> String {
        self.yaml.clone()
    }

    /// With other words in one place.
    pub fn replacing(mut self, words: &str, others: &str) -> Self {
        assert_eq!(self.yaml.matches(words).count(), 1, "{words}");
        self.yaml = self.yaml.replace(words, others);
        self
    }

    /// What `${UPSTREAM}` stands for: the endpoint of `service`.
    pub fn upstream(self, upstream: &Upstream) -> Self {
        self.env("UPSTREAM", &upstream.url())
    }

    /// `service` is this upstream, which speaks HTTP/2.
    pub fn h2_upstream(self, upstream: &H2Upstream) -> Self {
        let url = upstream.url();
        self.section(&format!("upstreams: {{service: {{endpoints: [\"{url}\"], protocol: h2c}}}}"))
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file beside the configuration.
    pub fn beside(mut self, name: &str, content: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        self.files.push((name.to_owned(), content.as_ref().to_vec()));
        self
    }

    /// Started by a shell with these limits: `ulimit -n 128`.
    pub fn limited(mut self, ulimit: &str) -> Self {
        self.shell = Some(format!("{ulimit} && exec"));
        self
    }

    /// Started from this path.
    pub fn program(mut self, path: &Path) -> Self {
        self.program = Some(path.to_owned());
        self
    }

    /// Started with this as its standard input.
    pub fn stdin(mut self, stdin: OwnedFd) -> Self {
        self.stdin = Some(stdin);
        self
    }

    /// Started by a shell that runs these commands first, with `$PORT` and the like.
    pub fn after(mut self, script: &str) -> Self {
        self.shell = Some(format!("{script}; exec"));
        self
    }

    /// Its resolver reads this file instead of `/etc/resolv.conf`. Where [`Plan::can_resolve_by`] says so.
    pub fn resolving_by(mut self, resolv_conf: &Path) -> Self {
        self.shell = Some(by_resolver(resolv_conf));
        self
    }

    /// Whether this machine lets a process have an `/etc/resolv.conf` of its own.
    pub fn can_resolve_by(resolv_conf: &Path) -> bool {
        let script = format!("{} true", by_resolver(resolv_conf));
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).stderr(Stdio::null());
        shell.status().is_ok_and(|status| status.success())
    }

    /// Start it and wait until it is ready.
    #[track_caller]
    pub fn start(self) -> Gateway {
        for _ in 0..5 {
            let mut gateway = self.spawn();
            if gateway.becomes_ready() {
                return gateway;
            }
            // Somebody else was faster with one of the ports.
            gateway.exit();
            let log = gateway.log();
            assert!(log.contains("in use"), "the gateway did not start");
        }
        panic!("no port stayed free for long enough");
    }

    /// Start it, and see whether clients can connect the moment it says it is ready.
    pub fn listens_when_ready(self) -> bool {
        let gateway = self.spawn();
        eventually("a gateway that says it is ready", || {
            std::net::TcpStream::connect(gateway.admin).ok()?;
            (gateway.admin("GET /readyz").status == 200).then_some(())
        });
        std::net::TcpStream::connect(gateway.address).is_ok()
    }

    fn spawn(&self) -> Gateway {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ports = [Port::reserve(), Port::reserve()];
        self.spawn_in(Arc::new(directory), Arc::new(ports), "portcullis.yaml")
    }

    /// Starts it beside a gateway, in its directory and with its ports, from a file of its own.
    pub fn spawn_beside(&self, gateway: &Gateway) -> Gateway {
        self.spawn_in(gateway.directory.clone(), gateway.ports.clone(), "beside.yaml")
    }

    fn spawn_in(&self, directory: Arc<TempDir>, ports: Arc<[Port; 2]>, name: &str) -> Gateway {
        let file = self.write(directory.path(), name);
        let mut command = match (&self.shell, &self.program) {
            (None, None) => command(directory.path()),
            (None, Some(program)) => prepared(Command::new(program), directory.path()),
            (Some(first), _) => {
                let mut shell = prepared(Command::new("sh"), directory.path());
                shell.args(["-c", &format!("{first} \"$0\" \"$@\"")]).arg(binary());
                shell
            }
        };
        command
            .args(["run", "-c"])
            .arg(&file)
            .env("PORT", ports[0].number.to_string())
            .env("ADMIN_ADDRESS", ports[1].address().to_string())
            .envs(self.environment.iter().cloned());
        if let Some(stdin) = &self.stdin {
            command.stdin(stdin.try_clone().expect("a descriptor"));
        }
        Gateway::launch(command, ports, file, directory)
    }

    /// Start it and wait until it ends: for what must not run. Its exit code and its log.
    #[track_caller]
    pub fn fails(self) -> (Option<i32>, String) {
        let mut gateway = self.spawn();
        let code = gateway.exit().code();
        (code, gateway.log())
    }

    fn write(&self, directory: &Path, name: &str) -> PathBuf {
        for (name, content) in &self.files {
            std::fs::write(directory.join(name), content).expect("a file is written");
        }
        if let Some(file) = &self.file {
            return file.clone();
        }
        let file = directory.join(name);
        std::fs::write(&file, complete(&self.yaml)).expect("the configuration is written");
        file
    }
}

/// A mount that no other process sees.
fn by_resolver(resolv_conf: &Path) -> String {
    let file = resolv_conf.display();
    format!("exec unshare -rm sh -c 'mount --bind {file} /etc/resolv.conf && exec \"$0\" \"$@\"'")
}

/// The executable in `directory`, without the environment of the test run.
pub(super) fn command(directory: &Path) -> Command {
    prepared(Command::new(binary()), directory)
}

/// What stands in for the machine's trusted authorities, which the executable reads at every start: one
/// instead of some hundred.
static ROOTS: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(directory).expect("a directory");
    let path = directory.join("roots.pem");
    // Whole at any moment: other tests may run in another process.
    let made = directory.join(format!("roots-{}.pem", std::process::id()));
    std::fs::write(&made, Authority::new().pem()).expect("a file is written");
    std::fs::rename(&made, &path).expect("a file is renamed");
    path
});

fn prepared(mut command: Command, directory: &Path) -> Command {
    command
        .current_dir(directory)
        .env_clear()
        .env("SSL_CERT_FILE", &*ROOTS)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PORTCULLIS_DATA", directory.join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// `yaml` with the sections it lacks.
pub(super) fn complete(yaml: &str) -> String {
    let mut text = yaml.trim_start_matches('\n').trim_end().to_owned() + "\n";
    for (section, content) in SECTIONS {
        let has = text.lines().any(|line| line.starts_with(&format!("{section}:")));
        if !has {
            text += &format!("{section}: {content}\n");
        }
    }
    text
}
