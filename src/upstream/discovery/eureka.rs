//! What Eureka says of an application: its instances, in the JSON that it has made of XML.

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::Value;

use super::config::{Eureka, EurekaPort, Prefer};
use super::instance::{Found, Instance, Terms, shown, url};

/// The key of an instance's metadata that holds its weight, as other clients have it.
const WEIGHT: &str = "weight";
const NO_PORT: &str = "neither of its ports is enabled";

/// The instances that are used: those that are `UP`.
pub fn read(body: &[u8], config: &Eureka, terms: &Terms) -> Found {
    let application = match serde_json::from_slice(body) {
        Ok(Document { application }) => application,
        Err(error) => return Found::nonsense(format!("the answer cannot be read: {error}")),
    };
    let entries = match application.instance {
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![*one],
        Some(OneOrMany::Many(many)) => many,
    };
    let up = entries.iter().filter(|entry| entry.status == "UP");
    let instance = |entry: &Entry| {
        instance(entry, config, terms).map_err(|why| {
            let id = entry.id.as_deref().unwrap_or(&entry.host);
            format!("the instance `{}`: {why}", shown(id))
        })
    };
    let nothing = match entries.len() {
        0 => "this application has no instance".to_owned(),
        all => format!("of its {all} instances none is UP"),
    };
    Found::of(up.map(instance).collect(), &nothing)
}

/// Whether this is what Eureka says of all applications, whatever they are: it is Eureka that answers.
pub fn is_registry(body: &[u8]) -> bool {
    serde_json::from_slice(body).is_ok_and(|Registry { applications: Applications {} }| true)
}

fn instance(entry: &Entry, config: &Eureka, terms: &Terms) -> Result<Instance, String> {
    let host = match config.prefer {
        Prefer::Address => &entry.address,
        Prefer::Host => &entry.host,
    };
    let mut plain =
        entry.port.iter().filter(|port| port.is_enabled).map(|port| (port.number, false));
    let secure = entry.secure_port.iter().filter(|port| port.is_enabled);
    let mut secure = secure.map(|port| (port.number, true));
    let found = match config.port {
        EurekaPort::Plain => plain.next_back().ok_or("its `port` is not enabled"),
        EurekaPort::Secure => secure.next_back().ok_or("its `securePort` is not enabled"),
        EurekaPort::Any => match (terms.form().is_some(), terms.prefers_tls()) {
            // The other one speaks what `as` does not say.
            (true, true) => {
                secure.next_back().ok_or("`as` is https://, and its `securePort` is not enabled")
            }
            (true, false) => {
                plain.next_back().ok_or("`as` is http://, and its `port` is not enabled")
            }
            (false, true) => secure.chain(plain).next().ok_or(NO_PORT),
            (false, false) => plain.chain(secure).next().ok_or(NO_PORT),
        },
    };
    let (port, is_tls) = found?;
    let url = url(host, port, is_tls, terms)?;
    Ok(Instance { url, share: entry.weight().into() })
}

#[derive(Deserialize)]
struct Registry {
    applications: Applications,
}

/// Not looked into.
#[derive(Deserialize)]
struct Applications {}

#[derive(Deserialize)]
struct Document {
    application: Application,
}

#[derive(Deserialize)]
struct Application {
    /// It may be missing, and it may be one that is not in a list.
    #[serde(default)]
    instance: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected an instance with `status`, or a list of them")]
enum OneOrMany {
    Many(Vec<Entry>),
    One(Box<Entry>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "instanceId")]
    id: Option<String>,
    #[serde(rename = "hostName", default)]
    host: String,
    #[serde(rename = "ipAddr", default)]
    address: String,
    status: String,
    port: Option<Port>,
    secure_port: Option<Port>,
    #[serde(default)]
    metadata: Value,
}

impl Entry {
    /// Metadata is free text: what is no weight may mean something else.
    fn weight(&self) -> u32 {
        let number = match &self.metadata[WEIGHT] {
            Value::String(text) => text.trim().parse().ok(),
            Value::Number(number) => number.as_u64(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        let weight = number.filter(|weight| (1..=1000).contains(weight));
        weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1)
    }
}

/// `{"$": 8080, "@enabled": "true"}`, an element of XML with its text and its attribute.
#[derive(Deserialize)]
struct Port {
    #[serde(rename = "$", deserialize_with = "number")]
    number: u16,
    #[serde(rename = "@enabled", default, deserialize_with = "truth")]
    is_enabled: bool,
}

/// A number or its text; 0 if it is no port.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    Scalar::read(deserializer).map(|text| text.parse().unwrap_or(0))
}

fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Scalar::read(deserializer).map(|text| text == "true")
}

/// A text, a number or a truth, as text: which of them it is depends on Eureka's version.
struct Scalar;

impl Scalar {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(Scalar)
    }
}

impl Visitor<'_> for Scalar {
    type Value = String;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text, a number, or true or false")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.trim().to_owned())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<String, E> {
        Ok(truth.to_string())
    }
}

#[cfg(test)]
mod tests;
