//! The answers to orders, for people.

use std::time::Duration;

use serde_json::Value;

use crate::units::Timespan;

/// Of an endpoint's order, of a split's, or the list of those in force.
pub(super) fn text(answer: &Value) -> String {
    let lines: Vec<String> = match answer {
        Value::Array(orders) if orders.is_empty() => vec!["no orders are in force".to_owned()],
        Value::Array(orders) => orders.iter().map(listed).collect(),
        answer => match answer["endpoints"].as_array() {
            Some(endpoints) => {
                endpoints.iter().map(|one| endpoint(&answer["upstream"], one)).collect()
            }
            None if answer["state"].is_string() => vec![circuit(answer)],
            None => vec![split(answer)],
        },
    };
    lines.iter().map(|line| format!("{}\n", printable(line))).collect()
}

/// `upstreams.users: 10.0.0.7:8080: drain, 9m 58s left, by anna: disk is full`
fn listed(order: &Value) -> String {
    let endpoint = order["endpoint"].as_str().map(|endpoint| format!("{endpoint}: "));
    let (scope, name) = (plain(&order["scope"]), plain(&order["name"]));
    format!("{scope}s.{name}: {}{}", endpoint.unwrap_or_default(), terms(order))
}

/// `upstreams.users: 10.0.0.7:8080: drained, weight 1, 3 in flight; ordered: drain, 10m left`
fn endpoint(upstream: &Value, endpoint: &Value) -> String {
    let orders = endpoint["orders"].as_array().map_or(&[][..], Vec::as_slice);
    let orders: Vec<_> = orders.iter().map(terms).collect();
    let orders = match &orders[..] {
        [] => "no orders".to_owned(),
        orders => format!("ordered: {}", orders.join("; ")),
    };
    format!(
        "upstreams.{}: {}: {}, weight {}, {} in flight; {orders}",
        plain(upstream),
        plain(&endpoint["address"]),
        plain(&endpoint["state"]),
        endpoint["weight"],
        endpoint["in_flight"],
    )
}

/// `routes.shop: stable 90, canary 10; ordered: split …`
fn split(answer: &Value) -> String {
    let shares = answer["split"].as_array().map_or(&[][..], Vec::as_slice);
    let shares = shares.iter().map(|one| format!("{} {}", plain(&one["upstream"]), one["weight"]));
    let shares = shares.collect::<Vec<_>>().join(", ");
    let order = match &answer["order"] {
        Value::Null => "as configured".to_owned(),
        order => format!("ordered: {}", terms(order)),
    };
    format!("routes.{}: {shares}; {order}", plain(&answer["route"]))
}

/// `the circuit is forced_open; ordered: circuit_open, 10m left`
fn circuit(answer: &Value) -> String {
    let order = match &answer["order"] {
        Value::Null => "no orders".to_owned(),
        order => format!("ordered: {}", terms(order)),
    };
    format!("the circuit is {}; {order}", plain(&answer["state"]))
}

fn terms(order: &Value) -> String {
    let mut text = plain(&order["kind"]).to_owned();
    if let Some(weight) = order["weight"].as_u64() {
        text += &format!(" {weight}");
    }
    if let Some(weights) = order["weights"].as_object() {
        let weights = weights.iter().map(|(name, weight)| format!(" {name} {weight}"));
        text += &weights.collect::<Vec<_>>().join(",");
    }
    match order["seconds_left"].as_f64() {
        Some(left) => {
            let left = Timespan(Duration::from_secs(left.max(0.0).round() as u64));
            text += &format!(", {left} left");
        }
        None => text += ", until it is withdrawn",
    }
    if let Some(author) = order["author"].as_str() {
        text += &format!(", by {author}");
    }
    if let Some(reason) = order["reason"].as_str() {
        text += &format!(": {reason}");
    }
    text
}

fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// What a terminal would take as a command is not printed.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn orders_are_one_line_each() {
        let drain = json!({"kind": "drain", "author": "anna", "reason": "disk", "seconds_ago": 2.0,
            "seconds_left": 598.2});
        let weight = json!({"kind": "weight", "weight": 5, "seconds_ago": 1.0});
        let endpoint = json!({"upstream": "users", "endpoints": [{"address": "[::1]:80", "state": "drained",
            "weight": 5, "in_flight": 3, "orders": [drain, weight]}]});
        assert_eq!(
            text(&endpoint),
            "upstreams.users: [::1]:80: drained, weight 5, 3 in flight; ordered: drain, 9m 58s left, by \
             anna: disk; weight 5, until it is withdrawn\n"
        );
        let split = json!({"kind": "split", "scope": "route", "name": "shop", "seconds_ago": 1.0,
            "weights": {"canary": 10}});
        assert_eq!(text(&json!([split])), "routes.shop: split canary 10, until it is withdrawn\n");
        assert_eq!(text(&json!([])), "no orders are in force\n");
    }

    #[test]
    fn a_split_shows_its_weights_and_the_order() {
        let shares =
            json!([{"upstream": "stable", "weight": 90}, {"upstream": "canary", "weight": 10}]);
        let answer = json!({"route": "shop", "split": shares, "order": null});
        assert_eq!(text(&answer), "routes.shop: stable 90, canary 10; as configured\n");
    }

    #[test]
    fn nothing_that_a_terminal_would_take_as_a_command_is_printed() {
        let order =
            json!({"kind": "drain", "scope": "upstream", "name": "a\u{1b}[2J", "reason": "\u{7}"});
        assert!(!text(&json!([order])).contains(['\u{1b}', '\u{7}']));
    }
}
