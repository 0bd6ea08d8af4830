//! `make demo`: the gateway with `conf/gateway-service.yaml` in front of the demo upstream.
//!
//! Starts both, makes a few calls, shows what was answered and what was recorded, and fails if
//! that is not what the gateway promises. Then it stays up for more calls by hand, unless
//! `--once` or `DEMO_ONCE=1`. It ends what it started, and nothing else. The calls are in
//! `calls`, the records in `records`, starting and ending in `service`.

mod calls;
mod grpc_web;
mod records;
mod service;
mod table;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::calls::{Answer, Caller};
use crate::records::Records;
use crate::service::{Gateway, Upstream};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs the gateway in front of a demo upstream, and calls it.
#[derive(Parser)]
struct Arguments {
    /// End after the calls instead of staying up; also DEMO_ONCE=1.
    #[arg(long)]
    once: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let once = Arguments::parse().once || std::env::var("DEMO_ONCE").is_ok_and(|once| once == "1");
    // Dropping what runs ends its processes, whichever branch wins.
    let outcome = tokio::select! {
        outcome = run(once) => outcome,
        interrupted = interrupted() => interrupted,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(once: bool) -> Result<()> {
    // The HTTP client brings no crypto provider of its own; a second installation is harmless.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build()?;

    let upstream = Upstream::start()?;
    println!("upstream  {}", upstream.url);
    let mut gateway = Gateway::start(&upstream.url)?;
    gateway.wait_until_ready(&client).await?;
    let records = Records::of(gateway.data());
    println!("gateway   {}\nadmin     {}\nrecords   {records}", gateway.url, gateway.admin);

    let token = client.get(format!("{}/token", upstream.url)).send().await?.text().await?;
    let mut caller = Caller::new(client, &gateway.url, &upstream.url, &token);
    let made = calls::make(&mut caller).await;
    print!("\nwhat was answered\n{}", calls::table(caller.answers()));
    let checked = match made {
        Ok(()) => compare(&records, &caller).await,
        Err(error) => Err(error),
    };
    if let Err(error) = checked {
        eprint!("\nthe gateway's log\n{}", gateway.log());
        return Err(error);
    }

    if once {
        println!("\neverything as promised");
        return Ok(());
    }
    print!("{}", invitation(&gateway, &upstream, &token));
    Err(gateway.wait_for_end().await)
}

/// Shows the rows of the calls, and holds them against the answers.
async fn compare(records: &Records, caller: &Caller) -> Result<()> {
    let rows = records.of_run(caller.run(), caller.answers().len()).await?;
    print!("\nwhat was recorded\n{}", records::table(&rows));
    let answered: Vec<_> = caller.answers().iter().map(Answer::recorded).collect();
    let recorded: Vec<_> = rows.iter().map(records::Row::recorded).collect();
    if answered != recorded {
        return Err(
            "the records are not one row for each answer, with its status and attempts".into()
        );
    }
    Ok(())
}

fn invitation(gateway: &Gateway, upstream: &Upstream, token: &str) -> String {
    let Gateway { url, admin, .. } = gateway;
    let path = calls::PATH;
    format!(
        "
go on; the circuit lets calls through again after half a minute, the token lasts an hour

  TOKEN={token}
  curl -i {url}{path} -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' -d '{{\"name\": \"Ada\"}}'

names that are answered differently: flaky, slow, unavailable, ratelimit, conflict, notfound, forbidden

  curl {admin}/status
  curl {admin}/metrics
  curl {seen}/seen          # what reached the upstream

Ctrl-C ends it all
",
        seen = upstream.url
    )
}

/// A terminal's Ctrl-C, its end, and a supervisor's request.
async fn interrupted() -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    println!("\nending");
    Ok(())
}
