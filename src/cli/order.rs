//! `portcullis order`: orders to a running gateway about endpoints, splits and circuits, and those in force.

mod print;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::running::{Place, encoded};
use super::{File, examples};
use crate::config::Config;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Let an endpoint finish what it has, and send it nothing new
    #[command(after_help = examples::ORDER_DRAIN)]
    Drain(Lasting),
    /// Send an endpoint nothing while another one is available
    #[command(after_help = examples::ORDER_EJECT)]
    Eject(Lasting),
    /// Give an endpoint another weight
    #[command(after_help = examples::ORDER_WEIGHT)]
    Weight(Weight),
    /// Use an endpoint again that was drained or ejected, by order or for its failures
    #[command(after_help = examples::ORDER_READMIT)]
    Readmit(Ending),
    /// Withdraw all orders about an endpoint
    #[command(after_help = examples::ORDER_RESTORE)]
    Restore(Ending),
    /// Give the upstreams of a route other weights
    #[command(after_help = examples::ORDER_SPLIT)]
    Split(Split),
    /// Open or close a circuit, or let it decide by itself again
    #[command(after_help = examples::ORDER_CIRCUIT)]
    Circuit(Circuit),
    /// Show the orders that are in force
    #[command(after_help = examples::ORDER_LIST)]
    List(Asking),
}

/// Whom to ask, and how to show the answer.
#[derive(Debug, Args)]
struct Asking {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    place: Place,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    /// What the gateway answers
    Json,
}

#[derive(Debug, Args)]
struct Endpoint {
    /// The upstream's name
    #[arg(value_name = "UPSTREAM")]
    upstream: String,
    /// The endpoint's address as `/status` shows it: `10.0.0.7:8080`, `[::1]:8080`, `unix:/run/app.sock`
    #[arg(value_name = "ENDPOINT")]
    endpoint: String,
}

#[derive(Debug, Args)]
struct Signed {
    /// Who gives the order; kept with it
    #[arg(long, value_name = "NAME", env = "USER")]
    author: Option<String>,
    /// Why; kept with it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
struct Timed {
    /// How long it lasts, such as 10m; without it, until it is withdrawn
    #[arg(long = "for", value_name = "TIME")]
    time: Option<String>,
    #[command(flatten)]
    signed: Signed,
}

#[derive(Debug, Args)]
struct Lasting {
    #[command(flatten)]
    endpoint: Endpoint,
    #[command(flatten)]
    timed: Timed,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Args)]
struct Weight {
    #[command(flatten)]
    endpoint: Endpoint,
    /// From 1 to 1000
    #[arg(value_name = "WEIGHT")]
    weight: String,
    #[command(flatten)]
    timed: Timed,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Args)]
struct Ending {
    #[command(flatten)]
    endpoint: Endpoint,
    #[command(flatten)]
    signed: Signed,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Args)]
struct Split {
    /// The route's name
    #[arg(value_name = "ROUTE")]
    route: String,
    /// Weights, such as `stable=90 canary=10`; the other upstreams have those that are configured
    #[arg(value_name = "UPSTREAM=WEIGHT", required_unless_present = "restore", value_parser = weight)]
    weights: Vec<String>,
    /// Put the configured weights back
    #[arg(long, conflicts_with_all = ["weights", "time"])]
    restore: bool,
    #[command(flatten)]
    timed: Timed,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Args)]
struct Circuit {
    /// What it is to do
    #[arg(value_enum, value_name = "ORDER")]
    order: Forced,
    /// Whose circuit it is
    #[arg(value_enum, value_name = "SCOPE")]
    scope: Scope,
    /// The route's or the upstream's name
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    timed: Timed,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Forced {
    /// Refuse every call
    Open,
    /// Let every call through, whatever becomes of it
    Close,
    /// Withdraw the order: the circuit begins closed, and decides by itself
    Reset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scope {
    /// A route's own circuit
    Route,
    /// The circuit of an upstream
    Upstream,
}

/// As the admin listener reads it.
fn weight(pair: &str) -> Result<String, String> {
    match pair.rsplit_once('=') {
        Some((name, weight)) if !name.is_empty() && weight.parse::<u32>().is_ok() => {
            Ok(format!("{name}:{weight}"))
        }
        Some(_) | None => Err("expected an upstream and its weight, such as canary=10".to_owned()),
    }
}

pub(super) fn order(options: &Options) -> ExitCode {
    let (asking, method, target) = request(&options.order);
    match ask(asking, method, &target) {
        Ok(answer) => {
            let text = match asking.format {
                Format::Json => format!("{answer}\n"),
                Format::Text => print::text(&answer),
            };
            super::written(io::stdout().lock().write_all(text.as_bytes()))
        }
        Err(error) => {
            eprintln!("portcullis: {error}");
            ExitCode::from(super::FAILED)
        }
    }
}

/// What is asked of the gateway: the method, and the target.
fn request(order: &Order) -> (&Asking, &'static str, String) {
    let of_endpoint = |endpoint: &Endpoint, verb: &str, more: Vec<(&str, &str)>| {
        let Endpoint { upstream, endpoint } = endpoint;
        let query = [vec![("address", endpoint.as_str())], more].concat();
        format!("/upstreams/{}/endpoints/{verb}{}", encoded(upstream), written(&query))
    };
    match order {
        Order::Drain(Lasting { endpoint, timed, asking }) => {
            (asking, "POST", of_endpoint(endpoint, "drain", timed.query()))
        }
        Order::Eject(Lasting { endpoint, timed, asking }) => {
            (asking, "POST", of_endpoint(endpoint, "eject", timed.query()))
        }
        Order::Weight(Weight { endpoint, weight, timed, asking }) => {
            let query = [vec![("weight", weight.as_str())], timed.query()].concat();
            (asking, "POST", of_endpoint(endpoint, "weight", query))
        }
        Order::Readmit(Ending { endpoint, signed, asking }) => {
            (asking, "POST", of_endpoint(endpoint, "readmit", signed.query()))
        }
        Order::Restore(Ending { endpoint, signed, asking }) => {
            (asking, "POST", of_endpoint(endpoint, "restore", signed.query()))
        }
        Order::Split(Split { route, weights, restore, timed, asking }) => {
            let (path, weights) = (format!("/routes/{}/split", encoded(route)), weights.join(","));
            let target = match restore {
                true => format!("{path}/restore{}", written(&timed.signed.query())),
                false => {
                    let query = [vec![("weights", weights.as_str())], timed.query()].concat();
                    format!("{path}{}", written(&query))
                }
            };
            (asking, "POST", target)
        }
        Order::Circuit(Circuit { order, scope, name, timed, asking }) => {
            let scope = match scope {
                Scope::Route => "route",
                Scope::Upstream => "upstream",
            };
            let order = match order {
                Forced::Open => "open",
                Forced::Close => "close",
                Forced::Reset => "reset",
            };
            let query = written(&timed.query());
            (asking, "POST", format!("/circuits/{scope}/{}/{order}{query}", encoded(name)))
        }
        Order::List(asking) => (asking, "GET", "/orders".to_owned()),
    }
}

impl Timed {
    fn query(&self) -> Vec<(&str, &str)> {
        let time = self.time.as_deref().map(|time| ("for", time));
        time.into_iter().chain(self.signed.query()).collect()
    }
}

impl Signed {
    fn query(&self) -> Vec<(&str, &str)> {
        let author = self.author.as_deref().map(|author| ("author", author));
        let reason = self.reason.as_deref().map(|reason| ("reason", reason));
        author.into_iter().chain(reason).collect()
    }
}

fn written(query: &[(&str, &str)]) -> String {
    let pairs = query.iter().enumerate().map(|(place, (name, value))| {
        format!("{}{name}={}", if place == 0 { '?' } else { '&' }, encoded(value))
    });
    pairs.collect()
}

fn ask(asking: &Asking, method: &str, target: &str) -> Result<Value, String> {
    // Needed only to say where the gateway is, and its token.
    let loaded = match Config::at(&asking.file.location()) {
        Ok(loaded) => Some(loaded),
        Err(_) if asking.place.is_named() => None,
        // Another gateway might get the order.
        Err(problems) => {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            return Err(format!(
                "the configuration, which says where the gateway is, cannot be loaded: {first}; \
                 name the gateway with --address or --socket"
            ));
        }
    };
    let running = asking.place.running(loaded.as_ref().map(|(config, _)| &config.admin))?;
    let answer = running.ask(method, target)?;
    let body: Value = serde_json::from_slice(&answer.body)
        .map_err(|_| format!("what answers at {running} is not a gateway's admin listener"))?;
    match answer.status {
        200 => Ok(body),
        status => {
            let detail = body.get("detail").or(body.get("error")).and_then(Value::as_str);
            Err(detail.map_or_else(|| format!("the gateway answered {status}"), str::to_owned))
        }
    }
}
