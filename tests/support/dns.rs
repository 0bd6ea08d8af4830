//! DNS servers of a test: BIND and dnsmasq, each with its own port and its own files, and one of our own
//! that says what no real server would.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::ports::Port;
use super::servers::program;
use super::wait::{DEADLINE, eventually};

/// Another process may take a port between our finding it and the server's listening on it.
const PORTS_TRIED: usize = 5;
/// Tells apart the addresses of servers that run at the same time.
static NEXT: AtomicU8 = AtomicU8::new(0);

/// A real server, which knows the zone `internal`; killed on drop.
pub struct Dns {
    kind: Kind,
    program: PathBuf,
    directory: tempfile::TempDir,
    ip: Ipv4Addr,
    port: u16,
    child: Option<Child>,
}

enum Kind {
    Bind,
    Dnsmasq(Vec<String>),
}

impl Dns {
    /// BIND with these records, whose names are relative to `internal`. `None`, said loudly, if the
    /// machine has none; in CI that is a failure.
    pub fn bind(records: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let zone = format!(
            "$ORIGIN internal.\n$TTL 1\n@ SOA ns host 1 60 60 60 1\n@ NS ns\nns A 127.0.0.1\n{records}\n"
        );
        std::fs::write(directory.path().join("zone"), zone).expect("a file");
        Dns::start(Kind::Bind, directory, "named")
    }

    /// dnsmasq with these arguments.
    pub fn dnsmasq(arguments: &[String]) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Dns::start(Kind::Dnsmasq(arguments.to_vec()), directory, "dnsmasq")
    }

    /// dnsmasq at the port that `/etc/resolv.conf` cannot change, with these lines of `/etc/hosts`.
    /// `None`, said loudly, also where that port may not be taken.
    pub fn for_resolver(hosts: &str) -> Option<Self> {
        let program = program("dnsmasq")?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("hosts");
        std::fs::write(&path, hosts).expect("a file");
        let kind = Kind::Dnsmasq(vec![format!("--addn-hosts={}", path.display())]);
        let [.., high, low] = std::process::id().to_be_bytes();
        // Of loopback, an address of its own, which no other test has at the same time.
        let nth = NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        let ip = Ipv4Addr::new(127, 53 + nth, high, low | 1);
        if let Err(error) = UdpSocket::bind((ip, 53)) {
            eprintln!("SKIPPED: a test that needs port 53 of {ip}: {error}");
            return None;
        }
        let mut server = Dns { kind, program, directory, ip, port: 53, child: None };
        assert!(server.launch(), "dnsmasq did not start");
        Some(server)
    }

    /// Lets dnsmasq have other lines of `/etc/hosts`.
    pub fn hosts(&self, hosts: &str) {
        std::fs::write(self.directory.path().join("hosts"), hosts).expect("a file");
        let id = self.child.as_ref().expect("a running server").id().to_string();
        assert!(Command::new("kill").args(["-HUP", &id]).status().expect("kill").success());
    }

    /// What `/etc/resolv.conf` says of it.
    pub fn resolv_conf(&self) -> PathBuf {
        let path = self.directory.path().join("resolv.conf");
        let text = format!("nameserver {}\noptions timeout:1 attempts:1\n", self.ip);
        std::fs::write(&path, text).expect("a file");
        path
    }

    fn start(kind: Kind, directory: tempfile::TempDir, name: &str) -> Option<Self> {
        let program = program(name)?;
        let ip = Ipv4Addr::LOCALHOST;
        let mut server = Dns { kind, program, directory, ip, port: 0, child: None };
        for _ in 0..PORTS_TRIED {
            // The lock is let go: the server listens on that UDP port itself.
            server.port = Port::reserve().number;
            if server.launch() {
                return Some(server);
            }
        }
        panic!("{name} did not start");
    }

    pub fn address(&self) -> SocketAddr {
        (self.ip, self.port).into()
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child of ours");
            child.wait().expect("a child of ours");
        }
    }

    /// Starts the stopped server again, on its old port, with what it knew.
    pub fn restart(&mut self) {
        assert!(self.launch(), "the server did not start again");
    }

    /// Changes records of BIND, as nsupdate(1) is told: `delete NAME SRV`, `add NAME TTL SRV …`. All at
    /// once.
    pub fn update(&self, changes: &[String]) {
        let mut script = format!("server 127.0.0.1 {}\nzone internal\n", self.port);
        changes.iter().for_each(|change| script += &format!("update {change}\n"));
        script += "send\n";
        let nsupdate = program("nsupdate").expect("BIND's tools are where BIND is");
        let mut child = Command::new(nsupdate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsupdate runs");
        child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("nsupdate ends");
        assert!(output.status.success(), "{script}{}", String::from_utf8_lossy(&output.stderr));
    }

    fn launch(&mut self) -> bool {
        let directory = self.directory.path();
        let mut command = Command::new(&self.program);
        match &self.kind {
            Kind::Bind => {
                let configuration = directory.join("named.conf");
                std::fs::write(&configuration, self.configuration()).expect("a file");
                command.args(["-f", "-4", "-n", "1", "-c"]).arg(configuration);
            }
            Kind::Dnsmasq(arguments) => {
                command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="]);
                command.args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--user=root"]);
                command.arg(format!("--listen-address={}", self.ip)).arg("--local=/internal/");
                command.arg(format!("--port={}", self.port)).args(arguments);
            }
        }
        let output = Stdio::null;
        let child = command.stdin(output()).stdout(output()).stderr(output()).spawn();
        self.child = Some(child.expect("the server is started"));
        eventually("a DNS server that answers, or has ended", || {
            let child = self.child.as_mut().expect("just started");
            match child.try_wait().expect("a child of ours") {
                Some(_) => Some(false),
                None => answers(self.address()).then_some(true),
            }
        })
    }

    fn configuration(&self) -> String {
        let (directory, port) = (self.directory.path().display(), self.port);
        format!(
            "options {{
                directory \"{directory}\"; listen-on port {port} {{ 127.0.0.1; }};
                listen-on-v6 {{ none; }}; pid-file none; lock-file none; session-keyfile none;
                recursion no; dnssec-validation no; notify no; minimal-responses no;
            }};
            controls {{ }};
            zone \"internal\" {{
                type primary; file \"zone\"; allow-update {{ 127.0.0.1; }};
            }};"
        )
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Whether it answers a question of its zone, over UDP, and listens on TCP.
fn answers(server: SocketAddr) -> bool {
    let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    query.extend(b"\x05ready\x08internal\0\0\x01\0\x01");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket option");
    let mut answer = [0; 512];
    let sent = socket.send_to(&query, server);
    // No error, or no such name: the zone is loaded.
    let is_ready = sent.and_then(|_| socket.recv(&mut answer)).is_ok() && {
        let code = answer[3] & 0xf;
        code == 0 || code == 3
    };
    is_ready && TcpStream::connect(server).is_ok()
}

/// A server that answers each question with what `answer` makes of it, over UDP alone.
pub struct OddDns {
    address: SocketAddr,
    answer: Arc<Mutex<Odd>>,
}

type Odd = Box<dyn Fn(&Question) -> Vec<u8> + Send>;

/// What was asked.
pub struct Question(Vec<u8>);

impl Question {
    fn end(&self) -> usize {
        let name = self.0[12..].iter().position(|byte| *byte == 0).expect("the end of the name");
        12 + name + 1 + 4
    }

    pub fn id(&self) -> [u8; 2] {
        [self.0[0], self.0[1]]
    }

    /// An answer without records.
    pub fn code(&self, code: u8) -> Vec<u8> {
        self.answer(code, 0, &[])
    }

    /// An answer with `count` records, written out by the caller.
    pub fn answer(&self, code: u8, count: u16, records: &[u8]) -> Vec<u8> {
        let mut bytes = self.id().to_vec();
        bytes.extend([0x85, 0x80 | code, 0, 1]);
        bytes.extend(count.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.0[12..self.end()]);
        bytes.extend(records);
        bytes
    }

    /// One SRV record with a target in these labels, or the address of a target.
    pub fn srv(&self, port: u16, labels: &[&str]) -> Vec<u8> {
        let kind = &self.0[self.end() - 4..self.end() - 2];
        if kind == [0, 1] {
            return self.answer(0, 1, b"\xc0\x0c\0\x01\0\x01\0\0\0\x01\0\x04\x7f\0\0\x01");
        }
        let mut data = b"\0\0\0\0".to_vec();
        data.extend(port.to_be_bytes());
        for label in labels {
            data.push(label.len() as u8);
            data.extend(label.as_bytes());
        }
        data.push(0);
        let mut record = b"\xc0\x0c\0\x21\0\x01\0\0\0\x01".to_vec();
        record.extend((data.len() as u16).to_be_bytes());
        record.extend(data);
        self.answer(0, 1, &record)
    }
}

impl OddDns {
    pub fn start(answer: impl Fn(&Question) -> Vec<u8> + Send + 'static) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = socket.local_addr().expect("its address");
        let answer: Arc<Mutex<Odd>> = Arc::new(Mutex::new(Box::new(answer)));
        let odd = Arc::downgrade(&answer);
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket option");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Some(odd) = odd.upgrade() {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let answer = odd.lock().expect("the answer")(&Question(buffer[..length].to_vec()));
                // The client may have left.
                let _ = socket.send_to(&answer, from);
            }
        });
        OddDns { address, answer }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub fn answer(&self, answer: impl Fn(&Question) -> Vec<u8> + Send + 'static) {
        *self.answer.lock().expect("the answer") = Box::new(answer);
    }
}
