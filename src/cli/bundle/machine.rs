//! The machine that this command runs on, and which variables the gateway has.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::process::Process;
use super::secrets::variable;
use crate::config::effective::{Effective, Origin, Shape};
use crate::units::reason;

/// Variables that matter whatever the configuration says, by the beginning of their names.
const NAMES: [&str; 13] = [
    "PORTCULLIS_",
    "ADMIN_",
    "OTEL_",
    "RUST_",
    "MIMALLOC_",
    "SSL_CERT_",
    "LISTEN_",
    "NOTIFY_SOCKET",
    "TZ",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "KUBERNETES_SERVICE_",
];
/// Files of one value, or a few lines.
const FILES: [&str; 14] = [
    "/proc/sys/kernel/osrelease",
    "/proc/loadavg",
    "/proc/uptime",
    "/proc/pressure/cpu",
    "/proc/pressure/memory",
    "/proc/pressure/io",
    "/proc/sys/fs/file-nr",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/net/ipv4/tcp_max_syn_backlog",
    "/proc/sys/net/ipv4/ip_local_port_range",
    "/proc/sys/net/ipv4/tcp_migrate_req",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/swappiness",
    "/sys/kernel/mm/transparent_hugepage/enabled",
];
/// Of a control group: version 2, then version 1.
const BOUNDS: [&str; 10] = [
    "memory.max",
    "memory.high",
    "memory.current",
    "memory.events",
    "cpu.max",
    "cpu.stat",
    "pids.max",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "cpu.cfs_quota_us",
];

/// Kernel, processors, memory, bounds. What cannot be read is left out, or says why.
pub(super) fn facts(process: Result<&Process, &String>) -> Vec<u8> {
    let mut text = String::new();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    // Writing to a string does not fail.
    let _ = writeln!(text, "processors that may be used: {cores}");
    lines(&mut text, "/etc/os-release", &["PRETTY_NAME="]);
    lines(&mut text, "/proc/meminfo", &["MemTotal:", "MemAvailable:", "SwapTotal:", "SwapFree:"]);
    for file in FILES {
        let _ = match std::fs::read_to_string(file) {
            Ok(content) => writeln!(text, "{file}: {}", content.trim().replace('\n', "; ")),
            Err(error) => writeln!(text, "{file}: {}", reason(&error)),
        };
    }
    let (whose, folder) = match process {
        Ok(process) => ("of the gateway", process.folder.clone()),
        Err(_) => ("of this command, for the gateway's is not to be seen", "/proc/self".into()),
    };
    let _ = writeln!(text, "\ncontrol group {whose}:");
    let written = std::fs::read_to_string(folder.join("cgroup")).unwrap_or_default();
    for group in groups(&written) {
        for bound in BOUNDS {
            if let Ok(content) = std::fs::read_to_string(group.join(bound)) {
                let path = group.join(bound);
                let _ =
                    writeln!(text, "{}: {}", path.display(), content.trim().replace('\n', "; "));
            }
        }
    }
    text.into_bytes()
}

fn lines(text: &mut String, file: &str, beginnings: &[&str]) {
    let content = std::fs::read_to_string(file).unwrap_or_default();
    let wanted =
        content.lines().filter(|line| beginnings.iter().any(|begin| line.starts_with(begin)));
    wanted.for_each(|line| text.push_str(&format!("{file}: {line}\n")));
}

/// The folders of a process's control groups and of those above, whose bounds hold for it too.
fn groups(cgroup: &str) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for line in cgroup.lines() {
        // `0::/path`, or `4:memory:/path`.
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let root = match controllers {
            "" => PathBuf::from("/sys/fs/cgroup"),
            "memory" | "pids" => Path::new("/sys/fs/cgroup").join(controllers),
            named if named.split(',').any(|one| one == "cpu") => "/sys/fs/cgroup/cpu".into(),
            _ => continue,
        };
        let below = Path::new(path.trim_start_matches('/'));
        all.extend(below.ancestors().map(|part| root.join(part)));
    }
    all
}

/// One line for each variable that matters: whether it is set. Values are not even looked at.
pub(super) fn environment(
    config: Option<&Effective>,
    process: Result<&Process, &String>,
) -> Result<Vec<u8>, String> {
    let mut named = BTreeSet::new();
    if let Some(config) = config {
        referenced(config, &mut named);
    }
    let of_gateway = process.ok().and_then(|p| std::fs::read(p.folder.join("environ")).ok());
    let (whose, set): (_, BTreeSet<String>) = match of_gateway {
        Some(environ) => {
            let names =
                environ.split(|byte| *byte == 0).filter_map(|one| one.split(|b| *b == b'=').next());
            ("the gateway", names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
        }
        None => {
            let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
            ("this command, for the gateway's is not to be seen", names.collect())
        }
    };
    let matters = |name: &&String| {
        let upper = name.to_uppercase();
        NAMES.iter().any(|begin| upper.starts_with(begin))
    };
    named.extend(set.iter().filter(matters).cloned());
    let mut text = format!("environment of {whose}\n\n");
    for name in &named {
        let is_set = if set.contains(name) { "set" } else { "not set" };
        text.push_str(&format!("{name}: {is_set}\n"));
    }
    Ok(text.into_bytes())
}

/// The variables that the configuration refers to.
fn referenced(part: &Effective, names: &mut BTreeSet<String>) {
    if let Origin::File { references, .. } = &part.origin {
        names.extend(references.iter().filter_map(|one| variable(one)).map(str::to_owned));
    }
    match &part.value {
        Shape::Map(entries) => entries.iter().for_each(|(_, part)| referenced(part, names)),
        Shape::List(elements) => elements.iter().for_each(|part| referenced(part, names)),
        Shape::Scalar(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_looked_for_in_a_group_and_in_those_above() {
        let found = groups("0::/system.slice/portcullis.service\n");
        let expected = ["", "system.slice", "system.slice/portcullis.service"];
        let expected = expected.map(|path| Path::new("/sys/fs/cgroup").join(path));
        assert_eq!(found, expected.into_iter().collect());
        let first = groups("4:memory:/a\n3:cpu,cpuacct:/\n2:devices:/a\n");
        let expected = ["memory", "memory/a", "cpu"];
        let expected = expected.map(|path| Path::new("/sys/fs/cgroup").join(path));
        assert_eq!(first, expected.into_iter().collect());
    }
}
