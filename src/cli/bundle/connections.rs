//! How many connections there are: by the gateway's own counts, and by the kernel's sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use super::process::Process;
use crate::config::Config;

/// The gateway's own counts, by the beginning of their names.
const COUNTS: [&str; 5] = [
    "portcullis_connections",
    "portcullis_requests_in_flight",
    "portcullis_tls_handshakes",
    "portcullis_proxy_headers",
    "portcullis_incomplete_requests",
];

/// A socket of TCP as `/proc/net/tcp` has it. Its addresses are not kept.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    port: u16,
    state: &'static str,
    inode: String,
}

/// Both counts, as far as they are to be had.
pub(super) fn counted(
    config: Option<&Config>,
    metrics: Option<&[u8]>,
    process: Result<&Process, &String>,
) -> Result<Vec<u8>, String> {
    let mut text = String::new();
    let metrics = metrics.map(String::from_utf8_lossy).unwrap_or_default();
    for line in metrics.lines().filter(|line| COUNTS.iter().any(|name| line.starts_with(name))) {
        text.push_str(line);
        text.push('\n');
    }
    match process {
        Ok(process) => {
            text.push_str("\nsockets of the gateway's process, by the kernel:\n");
            sockets(&mut text, config, &process.folder);
        }
        Err(why) if text.is_empty() => return Err(why.clone()),
        Err(why) => text.push_str(&format!("\nits sockets are not to be seen: {why}\n")),
    }
    Ok(text.into_bytes())
}

fn sockets(text: &mut String, config: Option<&Config>, folder: &Path) {
    let Ok(open) = std::fs::read_dir(folder.join("fd")) else {
        text.push_str("only its own user and root may see them\n");
        return;
    };
    let links = open.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let own: BTreeSet<String> = links
        .filter_map(|link| {
            let link = link.to_string_lossy();
            Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let listeners = config.into_iter().flat_map(|config| &config.listeners);
    let listeners: BTreeMap<u16, &str> =
        listeners.map(|(name, listener)| (listener.address.port(), name.as_str())).collect();
    let mut counts: BTreeMap<(String, &str), usize> = BTreeMap::new();
    for table in ["net/tcp", "net/tcp6"] {
        let table = std::fs::read_to_string(folder.join(table)).unwrap_or_default();
        for socket in table.lines().filter_map(socket).filter(|one| own.contains(&one.inode)) {
            let of = match listeners.get(&socket.port) {
                Some(name) => format!("listeners.{name}"),
                None => "others: upstreams, stores, the admin listener".to_owned(),
            };
            *counts.entry((of, socket.state)).or_default() += 1;
        }
    }
    for ((of, state), count) in counts {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{of}: {count} {state}");
    }
}

/// A line such as `0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 …`.
fn socket(line: &str) -> Option<Socket> {
    let mut columns = line.split_whitespace();
    let local = columns.nth(1)?;
    let state = columns.nth(1)?;
    let inode = columns.nth(5)?;
    let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    let state = match state {
        "01" => "established",
        "02" => "connecting",
        "03" => "being accepted",
        "04" | "05" => "closed by the gateway, waiting for the other side",
        "08" => "closed by the other side",
        "0A" => "listening",
        "06" | "07" | "09" | "0B" => "closing",
        _ => return None,
    };
    Some(Socket { port, state, inode: inode.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_a_port_and_a_state() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(socket(head), None);
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        let expected = Socket { port: 8080, state: "listening", inode: "4711".to_owned() };
        assert_eq!(socket(line), Some(expected));
    }
}
