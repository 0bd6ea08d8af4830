//! What a rate limit's memory costs: a million distinct keys, each of which makes a request, and the
//! resident memory they take. `cargo run --release --example limiter_memory`
//!
//! Every kind of limit has a process of its own, so that none finds memory that another one left.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use http::HeaderMap;
use portcullis::policy::rate_limit::{Limiter, Requester};
use portcullis::time::Clock;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u32 = 1_000_000;
const KINDS: [&str; 3] = [
    r#"{"fixed_window": {"requests": 100, "per": "1h"}, "max_keys": 1000000}"#,
    r#"{"sliding_window": {"requests": 100, "per": "1h"}, "max_keys": 1000000}"#,
    r#"{"token_bucket": {"rate": 1, "burst": 100, "per": "1h"}, "max_keys": 1000000}"#,
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(kind) = std::env::args().nth(1) {
        return measure(&kind);
    }
    println!("| limit | bytes a key | at most, while growing | evicted |");
    println!("|---|---|---|---|");
    for kind in KINDS {
        Command::new(std::env::current_exe()?).arg(kind).status()?;
    }
    Ok(())
}

fn measure(kind: &str) -> Result<(), Box<dyn std::error::Error>> {
    let limiter = Limiter::new(serde_json::from_str(kind)?);
    let (headers, now) = (HeaderMap::new(), Clock::now());
    let before = resident("VmRSS")?;
    for n in 0..KEYS {
        let address = IpAddr::V4(Ipv4Addr::from_bits(n));
        let verdict = limiter
            .check(&Requester { consumer: None, claims: None, address, headers: &headers }, now);
        assert!(verdict.admitted, "the first request of {address}");
    }
    let (after, peak) = (resident("VmRSS")?, resident("VmHWM")?);
    let a_key = |bytes: u64| bytes.saturating_sub(before) as f64 / f64::from(KEYS);
    let name = kind.split('"').nth(1).unwrap_or_default();
    println!("| `{name}` | {:.1} | {:.1} | {} |", a_key(after), a_key(peak), limiter.evictions());
    Ok(())
}

/// A line of `/proc/self/status`, in bytes.
fn resident(line: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|text| text.strip_prefix(line)).ok_or("no such line")?;
    let kibibytes: u64 = value.trim_matches(|c: char| !c.is_ascii_digit()).parse()?;
    Ok(kibibytes * 1024)
}
