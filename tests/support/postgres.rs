//! A private PostgreSQL for a test: its own data, its own port, gone with the value, and with the process
//! at the latest.
//!
//! Only std, tempfile and the ports beside it, so that the unit tests of the stores include this file too.

#![allow(dead_code, reason = "each user needs a part of it")]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use ports::Port;

#[allow(clippy::duplicate_mod, reason = "unit tests include this file, and it")]
#[path = "ports.rs"]
mod ports;

/// A process outside the tests may take a port between our finding it and the server's listening on it.
const PORTS_TRIED: usize = 5;

/// Stops the server and deletes its data when its own input ends: on drop, or with the process, in which
/// nothing drops a static.
const KEEPER: &str = "cat >/dev/null; \"$0\" stop -m immediate -w -D \"$1/data\"; rm -rf \"$1\"";

/// A running server; stopped and deleted on drop. User `postgres`, no password.
pub struct Postgres {
    programs: PathBuf,
    directory: tempfile::TempDir,
    user: Option<User>,
    /// Kept while the server is stopped, too.
    port: Port,
    databases: AtomicU32,
    keeper: Option<Child>,
}

impl Postgres {
    /// Starts a server. `None`, said loudly, if the machine has no PostgreSQL; in CI that is a failure.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let missing = "initdb and postgres found neither in PATH nor in /usr/lib/postgresql";
            assert!(env::var("CI").as_deref() != Ok("true"), "{missing}");
            eprintln!("SKIPPED: a test that needs PostgreSQL: {missing}");
            return None;
        };
        let server = Postgres::new(programs);
        server.initialise();
        Some(server.begin())
    }

    /// A server that has all of this one, from now on before a client is told that it is committed. Reads only,
    /// until it is promoted.
    pub fn standby(&self) -> Self {
        let standby = Postgres::new(self.programs.clone());
        let mut copy = standby.command("pg_basebackup");
        copy.args(["--no-sync", "-c", "fast", "-R", "-U", "postgres", "-h", "127.0.0.1"]);
        run(copy.args(["-p", &self.port().to_string(), "-D"]).arg(standby.data()));
        let standby = standby.begin();
        self.query("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
        self.query("postgres", "SELECT pg_reload_conf()");
        standby
    }

    /// A place for a server, without data.
    fn new(programs: PathBuf) -> Self {
        // Where the figures are latencies, its disk should not be the gateway's.
        let directory = match env::var_os("TEST_POSTGRES_DIRECTORY") {
            Some(parent) => tempfile::tempdir_in(parent),
            None => tempfile::tempdir(),
        };
        let directory = directory.expect("a temporary directory");
        let user = User::to_drop_to();
        if let Some(user) = &user {
            chown(directory.path(), Some(user.uid), Some(user.gid)).expect("chown");
        }
        let (port, databases) = (Port::reserve(), AtomicU32::new(0));
        let mut server = Postgres { programs, directory, user, port, databases, keeper: None };
        server.keep();
        server
    }

    fn begin(mut self) -> Self {
        for _ in 0..PORTS_TRIED {
            if self.launch().is_ok() {
                return self;
            }
            self.port = Port::reserve();
        }
        panic!("PostgreSQL did not start:\n{}", self.log());
    }

    /// The server that all tests of one process share; give each its own `database()`.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: OnceLock<Option<Arc<Postgres>>> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().map(Arc::new)).clone()
    }

    /// Makes an empty database, and returns its URL.
    pub fn database(&self) -> String {
        // A counter that orders nothing else.
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.query("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// The URL of a database that exists; `postgres` always does.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.port.address())
    }

    /// Runs SQL, and returns the rows as text: `|` between columns, a line for each row. `database`
    /// is a name or a URL.
    pub fn query(&self, database: &str, sql: &str) -> String {
        let url = if database.contains("://") { database.to_owned() } else { self.url(database) };
        let mut psql = self.command("psql");
        psql.args(["--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql]);
        let output = run(&mut psql);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Stops the server; open connections are cut.
    pub fn stop(&self) {
        self.control(&["stop", "-m", "fast"]).expect("the server stops");
    }

    /// Stops it as a crash does: nothing is finished.
    pub fn crash(&self) {
        self.control(&["stop", "-m", "immediate"]).expect("the server stops");
    }

    /// Makes a standby the server that takes writes.
    pub fn promote(&self) {
        self.control(&["promote"]).expect("the standby is promoted");
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Starts the stopped server again, on its old port.
    pub fn restart(&self) {
        if let Err(error) = self.launch() {
            panic!("PostgreSQL did not start again: {error}\n{}", self.log());
        }
    }

    /// Starts again as one that speaks TLS, with this certificate and its key.
    pub fn speak_tls(&self, certificate: &str, key: &str) {
        for (name, pem) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.data().join(name);
            fs::write(&path, pem).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
            if let Some(user) = &self.user {
                chown(&path, Some(user.uid), Some(user.gid)).expect("chown");
            }
        }
        self.query("postgres", "ALTER SYSTEM SET ssl = on");
        self.stop();
        self.restart();
    }

    fn keep(&mut self) {
        let keeper = self
            .program("/bin/sh")
            .args(["-c", KEEPER])
            .arg(self.programs.join("pg_ctl"))
            .arg(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C ends the tests alone.
            .process_group(0)
            .spawn();
        self.keeper = Some(keeper.expect("a shell"));
    }

    /// Gives it the data of a new server: a copy, because to make them takes a processor's second.
    fn initialise(&self) {
        static NEW: OnceLock<Postgres> = OnceLock::new();
        let new = NEW.get_or_init(|| {
            let new = Postgres::new(self.programs.clone());
            let mut initdb = new.command("initdb");
            initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--no-locale"]);
            run(initdb.args(["--encoding=UTF8", "-D"]).arg(new.data()));
            new
        });
        run(self.program("cp").arg("-a").arg(new.data()).arg(self.data()));
    }

    fn launch(&self) -> io::Result<()> {
        let options = format!(
            "-F -h 127.0.0.1 -p {} -k '{}' -c max_connections=200",
            self.port(),
            self.directory.path().display()
        );
        self.control(&["start", "-o", &options])
    }

    /// `pg_ctl` waits until it is done, and acts on the server of this data directory alone.
    fn control(&self, arguments: &[&str]) -> io::Result<()> {
        let status = self
            .command("pg_ctl")
            .args(arguments)
            .args(["-w", "-t", "60", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(self.log_path())
            // The server would hold pipes open.
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(io::Error::other(format!("pg_ctl {arguments:?}: {status}")));
        }
        Ok(())
    }

    /// One of PostgreSQL's own.
    fn command(&self, name: &str) -> Command {
        self.program(self.programs.join(name))
    }

    /// As the user who runs the server.
    fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env_remove("PGOPTIONS");
        if let Some(user) = &self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(mut keeper) = self.keeper.take() else { return };
        // Closes its input.
        let _ = keeper.wait();
    }
}

/// Who runs the server when the tests run as root, which PostgreSQL refuses.
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    fn to_drop_to() -> Option<Self> {
        let root = fs::read_to_string("/proc/self/status")
            .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")));
        if !root {
            return None;
        }
        let accounts = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let find = |name: &str| {
            let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
            Some(User { uid: fields.next()??, gid: fields.next()?? })
        };
        Some(find("postgres").or_else(|| find("nobody")).expect("an account besides root"))
    }
}

/// The directory of the server's programs: that of `PATH`, else the newest that is installed.
fn programs() -> Option<PathBuf> {
    let complete = |directory: &PathBuf| {
        ["initdb", "postgres", "pg_ctl", "psql"].iter().all(|name| directory.join(name).exists())
    };
    let path = env::var_os("PATH").unwrap_or_default();
    if let Some(directory) = env::split_paths(&path).find(complete) {
        return Some(directory);
    }
    let version = |directory: &PathBuf| -> u32 {
        let name = directory.parent().and_then(Path::file_name).map(|name| name.to_string_lossy());
        name.and_then(|name| name.parse().ok()).unwrap_or(0)
    };
    fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(complete)
        .max_by_key(version)
}

/// Runs it to its end, which must be a good one.
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    output
}
