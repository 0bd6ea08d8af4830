//! What Consul's health API says of a service: its instances, and the index that a blocking query waits
//! from.

use serde::Deserialize;

use super::config::Consul;
use super::instance::{Found, Instance, Terms, shown, url};

/// What is told beside the instances.
#[derive(Debug, Default)]
pub struct Told {
    /// Some were left out, because the token may not read them.
    pub is_filtered: bool,
    /// Who answered knows no leader, so that what it says may be old.
    pub is_leaderless: bool,
}

/// The instances that are used.
pub fn read(body: &[u8], told: &Told, config: &Consul, terms: &Terms) -> Found {
    let entries: Vec<Entry> = match serde_json::from_slice(body) {
        Ok(entries) => entries,
        Err(error) => return Found::nonsense(format!("the answer cannot be read: {error}")),
    };
    // Both are told like a service without instances.
    match (entries.is_empty(), told) {
        (true, Told { is_filtered: true, .. }) => {
            return Found::nonsense("the token may not read any instance of this service");
        }
        (true, Told { is_leaderless: true, .. }) => {
            return Found::nonsense("the server that answered knows no leader");
        }
        (true | false, _) => {}
    }
    let nothing = match entries.len() {
        0 if config.passing_only => "no instance of this service is passing its checks".to_owned(),
        0 => "this service has no instance".to_owned(),
        all => format!("of its {all} instances each is critical, or has the weight 0"),
    };
    let used = entries.iter().filter_map(|entry| Some((entry, entry.share(config)?)));
    let instance = |(entry, share): (&Entry, f64)| {
        let host = match entry.service.address.as_str() {
            "" => &entry.node.address,
            own => own,
        };
        let port = u16::try_from(entry.service.port).unwrap_or(0);
        let url = url(host, port, false, terms);
        url.map(|url| Instance { url, share })
            .map_err(|why| format!("the instance `{}`: {why}", shown(&entry.service.id)))
    };
    Found::of(used.map(instance).collect(), &nothing)
}

/// Where the next blocking query waits from; `None`: it does not wait.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Index(Option<u64>);

impl Index {
    /// Takes in what an answer says. An index that has become smaller counts from anew, and so does
    /// the next query: from the old one it would wait until all of it was caught up with.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&mut self, header: Option<&str>) -> Result<(), String> {
        let Some(next) = header.and_then(|text| text.parse::<u64>().ok()) else {
            return Err("the answer has no X-Consul-Index, as if it was not Consul's".to_owned());
        };
        self.0 = match self.0 {
            Some(last) if next < last => None,
            // From 0 it would not wait.
            Some(_) | None => Some(next.max(1)),
        };
        Ok(())
    }

    /// Its number.
    pub fn number(self) -> Option<u64> {
        self.0
    }
}

/// An instance as it is listed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    /// Those of the instance, and those of its node.
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    /// Empty: its node's.
    #[serde(default)]
    address: String,
    /// 0: it was registered without one.
    port: i64,
    weights: Option<Weights>,
}

/// Since Consul 1.2.3.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
    warning: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    status: String,
}

/// Of several checks the worst holds, which is the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// Also in maintenance, and in a state that is not known.
    Critical,
    Warning,
    Passing,
}

impl Entry {
    fn state(&self) -> State {
        let states = self.checks.iter().flatten().map(|check| match check.status.as_str() {
            "passing" => State::Passing,
            "warning" => State::Warning,
            _ => State::Critical,
        });
        states.min().unwrap_or(State::Passing)
    }

    /// What it gets of the requests; `None`: nothing.
    fn share(&self, config: &Consul) -> Option<f64> {
        let weights = self.service.weights.as_ref();
        let share = match self.state() {
            State::Critical => return None,
            State::Warning if config.passing_only => return None,
            State::Warning => weights.map_or(1, |weights| weights.warning),
            State::Passing => weights.map_or(1, |weights| weights.passing),
        };
        (share > 0).then(|| share.into())
    }
}

#[cfg(test)]
mod tests;
