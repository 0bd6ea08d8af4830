//! `portcullis bundle`: one archive with what helps to find out what is wrong, to be sent to those who help.
//!
//! Everything is read, nothing is changed. What cannot be had is left out, and the manifest says why. No
//! secret is in it: the configuration hides them, and [`secrets`] looks for them in everything else.

mod archive;
mod connections;
mod machine;
mod process;
mod secrets;

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use serde_json::{Value, json};

use self::archive::Archive;
use self::process::Process;
use self::secrets::Secrets;
use super::File;
use super::config::yaml;
use super::running::{Place, Running};
use super::{check, diagnostics};
use crate::config::access_log::Output;
use crate::config::effective::{self, Effective};
use crate::config::{Config, Sources};

/// The most bytes of a file; of a longer one the beginning is taken.
const MOST: usize = 4 * 1024 * 1024;
/// The most bytes of the end of a log.
const TAIL: u64 = 256 * 1024;
const FOLDER: &str = "portcullis-bundle";

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    place: Place,
    /// Where the archive is written; `-` is standard output. Default: portcullis-bundle-TIME.tar.gz in the
    /// working directory
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave out what tells of single requests and their clients: the latest ones, and the ends of logs
    #[arg(long)]
    without_requests: bool,
}

/// A file of the archive, or why it is missing.
struct Part {
    name: &'static str,
    what: &'static str,
    content: Result<Vec<u8>, String>,
}

impl Part {
    fn new(name: &'static str, what: &'static str, content: Result<Vec<u8>, String>) -> Self {
        Part { name, what, content }
    }
}

pub(super) fn bundle(options: &Options) -> ExitCode {
    let to_stdout = options.output.as_deref() == Some(Path::new("-"));
    if to_stdout && io::stdout().is_terminal() {
        eprintln!(
            "portcullis: an archive is not written to a terminal: use --output FILE, or a pipe"
        );
        return ExitCode::from(super::USAGE);
    }
    let now = SystemTime::now();
    let (mut parts, secrets) = collect(options);
    for part in &mut parts {
        part.content = match std::mem::replace(&mut part.content, Ok(Vec::new())) {
            Ok(content) => Ok(bounded(secrets.hide(content))),
            Err(why) => Err(String::from_utf8_lossy(&secrets.hide(why.into())).into_owned()),
        };
    }
    let output = options.output.clone().unwrap_or_else(|| default_output(now));
    let written = pack(&parts, now).and_then(|archive| {
        if to_stdout {
            return io::stdout().lock().write_all(&archive).map(|()| archive.len());
        }
        // What it holds is not for everyone on this machine.
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&output)?;
        file.write_all(&archive).map(|()| archive.len())
    });
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("portcullis: {} cannot be written: {error}", output.display());
            return ExitCode::from(super::FAILED);
        }
    };
    let table = table(&parts, &output, bytes);
    if to_stdout {
        eprint!("{table}");
        return ExitCode::SUCCESS;
    }
    super::written(io::stdout().lock().write_all(table.as_bytes()))
}

/// `portcullis-bundle-20261130T102338Z.tar.gz`.
fn default_output(now: SystemTime) -> PathBuf {
    let time = humantime::format_rfc3339_seconds(now).to_string().replace(['-', ':'], "");
    format!("{FOLDER}-{time}.tar.gz").into()
}

/// All parts, with what must be hidden in them.
fn collect(options: &Options) -> (Vec<Part>, Secrets) {
    let location = options.file.location();
    let (found, _) = check::diagnose(&location);
    let environment = location.environment();
    let loaded = environment.as_ref().ok().and_then(|e| Config::load(&location.file, e).ok());
    let all = loaded.as_ref().map(|(_, sources)| effective::effective(sources));
    let config = loaded.as_ref().map(|(config, _)| config);
    let gateway = options.place.running(config.map(|config| &config.admin));
    let asked = Asked::ask(gateway.as_ref().map_err(Clone::clone));
    let process = asked.process();

    let token = gateway.as_ref().ok().and_then(Running::token).map(str::to_owned);
    let none = crate::config::Environment::fixed([("", ""); 0]);
    let secrets = Secrets::of(all.as_ref(), environment.as_ref().unwrap_or(&none), token);

    let mut parts = vec![
        Part::new(
            "version.json",
            "the version of this command and of the gateway",
            version(&asked),
        ),
        Part::new(
            "configuration.yaml",
            "what is in force by the file, with the origin of each value; secrets are hidden",
            configuration(all.as_ref(), &location.file),
        ),
        Part::new(
            "check.json",
            "what `portcullis check` finds: every error and warning",
            Ok((diagnostics::json(&found) + "\n").into_bytes()),
        ),
    ];
    let Asked { status, health, metrics, orders, requests } = &asked;
    parts.extend([
        Part::new("status.json", "the state of every route, upstream and endpoint", status.clone()),
        Part::new("health.json", "`/healthz`: what is healthy, and each circuit", health.clone()),
        Part::new("metrics.txt", "all metrics, as Prometheus reads them", metrics.clone()),
        Part::new("orders.json", "what operators have ordered", orders.clone()),
        Part::new(
            "connections.txt",
            "how many connections there are, by listener and state; no addresses",
            connections::counted(config, metrics.as_deref().ok(), process.as_ref()),
        ),
    ]);
    let left_out = || Err("left out, as --without-requests asks".to_owned());
    let told = |content: Result<Vec<u8>, String>| match options.without_requests {
        true => left_out(),
        false => content,
    };
    parts.extend([
        Part::new(
            "requests.jsonl",
            "the latest requests that failed or were slow, with their causes",
            told(requests.clone()),
        ),
        Part::new(
            "process-log.txt",
            "the end of the process's own log",
            told(process.as_ref().map_err(Clone::clone).and_then(|process| process.log(TAIL))),
        ),
        Part::new(
            "access-log.txt",
            "the end of the access log",
            told(access_log(loaded.as_ref(), process.as_ref())),
        ),
    ]);
    let of_process = |read: fn(&Process) -> Result<Vec<u8>, String>| {
        process.as_ref().map_err(Clone::clone).and_then(read)
    };
    parts.extend([
        Part::new(
            "process.txt",
            "the gateway's process as the kernel sees it: memory, threads, open files, limits",
            of_process(Process::facts),
        ),
        Part::new(
            "environment.txt",
            "the names of variables that matter, and whether they are set; never their values",
            machine::environment(all.as_ref(), process.as_ref()),
        ),
        Part::new(
            "machine.txt",
            "kernel, processors, memory, the limits of the control group",
            Ok(machine::facts(process.as_ref())),
        ),
    ]);
    (parts, secrets)
}

/// What the running gateway says, or why it does not.
struct Asked {
    status: Result<Vec<u8>, String>,
    health: Result<Vec<u8>, String>,
    metrics: Result<Vec<u8>, String>,
    orders: Result<Vec<u8>, String>,
    requests: Result<Vec<u8>, String>,
}

impl Asked {
    fn ask(gateway: Result<&Running, String>) -> Self {
        // If nothing answers this, the others need not be waited for.
        let gateway = gateway.and_then(|gateway| gateway.ask("GET", "/livez").map(|_| gateway));
        let ask = |target: &str| {
            let gateway = gateway.clone()?;
            let answer = gateway.ask("GET", target)?;
            match answer.status {
                200 => Ok(answer.body),
                // That is what it says when it is not healthy.
                503 if target == "/healthz" => Ok(answer.body),
                status => Err(format!("the gateway at {gateway} answers {target} with {status}")),
            }
        };
        Asked {
            status: ask("/status"),
            health: ask("/healthz"),
            metrics: ask("/metrics"),
            orders: ask("/orders"),
            requests: ask("/requests"),
        }
    }

    fn said(&self) -> Result<Value, String> {
        let status = self.status.as_ref().map_err(Clone::clone)?;
        serde_json::from_slice(status).map_err(|_| "what answers is not a gateway".to_owned())
    }

    /// The gateway's process, if it is one of this machine.
    fn process(&self) -> Result<Process, String> {
        let said = self.said()?;
        let number = said.get("process").and_then(Value::as_u64);
        let number = number.ok_or("the gateway does not say which process it is")?;
        Process::find(number)
    }
}

fn version(asked: &Asked) -> Result<Vec<u8>, String> {
    let gateway = asked.said();
    let of = |name: &str| gateway.as_ref().ok().and_then(|said| said.get(name).cloned());
    let version = json!({
        "command": {
            "version": env!("CARGO_PKG_VERSION"),
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "profile": if cfg!(debug_assertions) { "debug" } else { "release" },
        },
        "gateway": {
            "version": of("version"),
            "process": of("process"),
            "generation": of("generation"),
            "uptime_seconds": of("uptime_seconds"),
        },
    });
    Ok(format!("{version:#}\n").into_bytes())
}

fn configuration(all: Option<&Effective>, file: &Path) -> Result<Vec<u8>, String> {
    let invalid = || format!("{} has errors: see check.json", file.display());
    Ok(yaml::file(all.ok_or_else(invalid)?, yaml::Secrets::Hidden).into_bytes())
}

fn access_log(
    loaded: Option<&(Config, Sources)>,
    process: Result<&Process, &String>,
) -> Result<Vec<u8>, String> {
    let Some((config, _)) = loaded else {
        return Err("the configuration, which says where it is, has errors".to_owned());
    };
    match &config.access_log.to {
        Output::Off => Err("`access_log.to` is off".to_owned()),
        Output::Stdout => Err(process::elsewhere("standard output")),
        Output::Stderr => Err(process::elsewhere("standard error")),
        Output::File(file) => process::tail(&process::seen_by(process, file), TAIL),
    }
}

/// The beginning of what is too long.
fn bounded(mut content: Vec<u8>) -> Vec<u8> {
    if content.len() > MOST {
        let note = format!("\n[cut here: {} bytes in all]\n", content.len());
        content.truncate(MOST - note.len());
        content.extend_from_slice(note.as_bytes());
    }
    content
}

fn pack(parts: &[Part], now: SystemTime) -> io::Result<Vec<u8>> {
    let mut archive = Archive::new(FOLDER, now);
    archive.add("manifest.json", &manifest(parts, now))?;
    for part in parts {
        if let Ok(content) = &part.content {
            archive.add(part.name, content)?;
        }
    }
    archive.finish()
}

fn manifest(parts: &[Part], now: SystemTime) -> Vec<u8> {
    let (mut files, mut missing) = (Vec::new(), Vec::new());
    for Part { name, what, content } in parts {
        match content {
            Ok(content) => files.push(json!({"name": name, "bytes": content.len(), "what": what})),
            Err(why) => missing.push(json!({"name": name, "what": what, "why": why})),
        }
    }
    let manifest = json!({
        "made": humantime::format_rfc3339_seconds(now).to_string(),
        "files": files,
        "missing": missing,
    });
    format!("{manifest:#}\n").into_bytes()
}

/// What was written, and what is missing.
fn table(parts: &[Part], output: &Path, bytes: usize) -> String {
    let mut text = format!("{:<20} {:>9}  WHAT\n", "FILE", "BYTES");
    for Part { name, what, content } in parts {
        if let Ok(content) = content {
            text += &format!("{name:<20} {:>9}  {what}\n", content.len());
        }
    }
    for Part { name, content, .. } in parts {
        if let Err(why) = content {
            text += &format!("{name:<20} {:>9}  {why}\n", "missing");
        }
    }
    let output = match output == Path::new("-") {
        true => "standard output".to_owned(),
        false => output.display().to_string(),
    };
    text + &format!("written to {output}: {bytes} bytes; read it before you send it\n")
}
