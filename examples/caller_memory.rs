//! What the tables of callers cost: a million callers that each hold a slot, or have used a retry, and the
//! resident memory they take. `cargo run --example caller_memory`
//!
//! Every table has a process of its own, so that none finds memory that another one left.

use std::process::Command;

use portcullis::policy::bulkhead::Bulkhead;
use portcullis::policy::retry::Budget;
use portcullis::time::Clock;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CALLERS: u32 = 1_000_000;
const BULKHEAD: &str =
    r#"{"max_in_flight": 2000000, "per_consumer": {"max_in_flight": 1, "max_keys": 1000000}}"#;
const BUDGETS: [&str; 3] = [
    r#"{"token_bucket": {"capacity": 5, "refill_per_second": 0.001}, "per": "consumer", "max_keys": 1000000}"#,
    r#"{"ratio": {"ttl": "60s"}, "per": "consumer", "max_keys": 1000000}"#,
    r#"{"concurrency": {}, "per": "consumer", "max_keys": 1000000}"#,
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(table) = std::env::args().nth(1) {
        return measure(&table);
    }
    println!("| table | bytes a caller | at most, while growing | callers |");
    println!("|---|---|---|---|");
    for table in [BULKHEAD].iter().chain(&BUDGETS) {
        Command::new(std::env::current_exe()?).arg(table).status()?;
    }
    Ok(())
}

fn measure(table: &str) -> Result<(), Box<dyn std::error::Error>> {
    let now = Clock::now();
    let name = table.split('"').nth(1).unwrap_or_default();
    let (before, known);
    if table == BULKHEAD {
        let bulkhead = Bulkhead::new(&serde_json::from_str(table)?);
        before = resident("VmRSS")?;
        // They are held for as long as the process lives.
        (0..CALLERS).for_each(|caller| std::mem::forget(bulkhead.share(&caller)));
        known = bulkhead.callers();
    } else {
        let budget = Budget::new(serde_json::from_str(table)?, now);
        before = resident("VmRSS")?;
        for caller in 0..CALLERS {
            let mut stake = budget.enter_as(&caller, now);
            stake.withdraw(now);
            std::mem::forget(stake);
        }
        known = budget.callers();
    }
    let (after, peak) = (resident("VmRSS")?, resident("VmHWM")?);
    let each = |bytes: u64| bytes.saturating_sub(before) as f64 / known as f64;
    println!("| `{name}` | {:.1} | {:.1} | {known} |", each(after), each(peak));
    Ok(())
}

/// A line of `/proc/self/status`, in bytes.
fn resident(line: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|text| text.strip_prefix(line)).ok_or("no such line")?;
    let kibibytes: u64 = value.trim_matches(|c: char| !c.is_ascii_digit()).parse()?;
    Ok(kibibytes * 1024)
}
