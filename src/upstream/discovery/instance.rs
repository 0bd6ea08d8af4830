//! What sources have in common that know instances by a host, a port and a share.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::config::is_host;
use super::known::Said;
use crate::upstream::config::{Config, Listed, Place, Protocol, Url};

/// The largest weight of an endpoint. Other systems have larger ones.
const MOST_WEIGHT: u32 = 1000;
/// Characters that are shown of a text that others have written.
const LONGEST_TEXT: usize = 100;

/// What a registry's answer means.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// The endpoints that are used.
    pub said: Said<Vec<Listed>>,
    /// An instance that would be used, but says of itself what cannot be, and how many there are.
    pub unusable: Option<String>,
}

/// How instances are reached, and what keeps one from being used: what their upstream says.
#[derive(Debug, Clone)]
pub struct Terms(Arc<Config>);

/// An instance that is to get requests.
pub(super) struct Instance {
    pub(super) url: Url,
    /// Above 0.
    pub(super) share: f64,
}

impl Terms {
    /// Of the instances of this upstream.
    pub fn of(config: &Config) -> Self {
        Terms(Arc::new(config.clone()))
    }

    /// Scheme, `Host` header, certificate's name and base path, if they are written.
    pub(super) fn form(&self) -> Option<&Url> {
        self.0.discover.as_ref()?.form.as_ref()
    }

    /// Whether an instance that can be reached with TLS and without is reached with it.
    pub(super) fn prefers_tls(&self) -> bool {
        self.form().map_or(self.0.protocol == Protocol::H2, |form| form.tls)
    }

    fn mistake(&self, url: &Url) -> Option<String> {
        let refusal = self.0.discover.as_ref().and_then(|discover| discover.refuses_url(url));
        refusal.or_else(|| self.0.unfit(url).map(str::to_owned))
    }
}

impl Found {
    /// The instances as endpoints, in the order of their places: registries have none, or another one
    /// each time. `nothing`: what it means that there is none.
    pub(super) fn of(instances: Vec<Result<Instance, String>>, nothing: &str) -> Self {
        let (mut usable, mut unusable) = (Vec::new(), Vec::new());
        for instance in instances {
            match instance {
                Ok(instance) => usable.push(instance),
                Err(why) => unusable.push(why),
            }
        }
        let shares: Vec<_> = usable.iter().map(|instance| instance.share).collect();
        let weighed = usable.into_iter().zip(weights(&shares));
        let mut listed: Vec<_> = weighed
            .map(|(Instance { url, .. }, weight)| Listed { url, weight, backup: false })
            .collect();
        listed.sort_by_cached_key(|listed| (place(&listed.url), listed.weight));
        listed.dedup_by(|one, other| one.url == other.url);
        let unusable = unusable.first().map(|first| match unusable.len() {
            1 => first.clone(),
            all => format!("{first}, and {} more", all - 1),
        });
        let said = match &unusable {
            Some(unusable) if listed.is_empty() => Said::Failed(unusable.clone()),
            Some(_) | None => Said::of(listed, nothing),
        };
        Found { said, unusable }
    }

    /// An answer that cannot be used at all.
    pub(super) fn nonsense(why: impl Into<String>) -> Self {
        Found { said: Said::Failed(why.into()), unusable: None }
    }
}

/// Shares as weights. What is not whole, or larger than weights may be, is scaled so that the largest is
/// [`MOST_WEIGHT`]; no share becomes nothing.
pub(super) fn weights(shares: &[f64]) -> Vec<u32> {
    let most = shares.iter().copied().fold(0.0, f64::max);
    let fits = |share: f64| share.fract() == 0.0 && share <= f64::from(MOST_WEIGHT);
    let scale = match shares.iter().all(|share| fits(*share)) {
        true => 1.0,
        false => f64::from(MOST_WEIGHT) / most,
    };
    let weight = |share: &f64| (share * scale).round().clamp(1.0, f64::from(MOST_WEIGHT)) as u32;
    shares.iter().map(weight).collect()
}

/// The URL of an instance at an address, or at a name that is looked up: as `as` says, else over TLS if
/// `is_tls`, with its own name and port.
///
/// # Errors
/// Nothing can be reached there, or nothing is to be.
pub(super) fn url(host: &str, port: u16, is_tls: bool, terms: &Terms) -> Result<Url, String> {
    let url = reached(host, port, is_tls, terms.form())?;
    terms.mistake(&url).map_or(Ok(url), Err)
}

fn reached(host: &str, port: u16, is_tls: bool, form: Option<&Url>) -> Result<Url, String> {
    let is_tls = form.map_or(is_tls, |form| form.tls);
    if port == 0 {
        return Err(format!("`{}` has no port", shown(host)));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        let ip = ip.to_canonical();
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(format!("{ip} cannot be connected to"));
        }
        return Ok(Url { tls: is_tls, ..Url::at(SocketAddr::new(ip, port), form) });
    }
    match is_host(host) {
        true => Ok(named(host.to_ascii_lowercase(), port, is_tls, form)),
        false => Err(format!("`{}` is no address and no name of a host", shown(host))),
    }
}

/// The same for what is known to be a name.
pub(super) fn named(host: String, port: u16, is_tls: bool, form: Option<&Url>) -> Url {
    let place = Place::Host { host: host.clone(), port };
    if let Some(form) = form {
        return Url { place, ..form.clone() };
    }
    let standard = if is_tls { 443 } else { 80 };
    let authority = if port == standard { host } else { format!("{host}:{port}") };
    Url { tls: is_tls, place, authority, base_path: String::new() }
}

/// `host:port`.
fn place(url: &Url) -> String {
    match &url.place {
        Place::Host { host, port } => format!("{host}:{port}"),
        Place::Pair(_) | Place::Unix(_) => url.to_string(),
    }
}

/// A text that others have written, for a line of the log.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_beyond_what_endpoints_have_are_scaled() {
        for (shares, expected) in [
            (vec![], vec![]),
            (vec![1.0, 3.0, 1000.0], vec![1, 3, 1000]),
            (vec![65_535.0, 32_767.5, 1.0], vec![1000, 500, 1]),
            (vec![0.5, 1.0], vec![500, 1000]),
        ] {
            assert_eq!(weights(&shares), expected, "{shares:?}");
        }
    }

    #[test]
    fn an_instance_is_at_an_address_or_a_name_and_reached_as_is_written() {
        let form: Url = "https://orders.internal/api".parse().expect("a URL");
        for (host, port, is_tls, form, expected, at) in [
            ("10.0.0.1", 80, false, None, "http://10.0.0.1:80", "10.0.0.1:80"),
            ("::1", 8443, true, None, "https://[::1]:8443", "::1:8443"),
            ("::ffff:10.0.0.1", 81, false, None, "http://10.0.0.1:81", "10.0.0.1:81"),
            ("A.internal", 8080, false, None, "http://a.internal:8080", "a.internal:8080"),
            ("a.internal", 443, true, None, "https://a.internal", "a.internal:443"),
            ("10.0.0.1", 80, false, Some(&form), "https://orders.internal/api", "10.0.0.1:80"),
            ("a.internal", 81, false, Some(&form), "https://orders.internal/api", "a.internal:81"),
        ] {
            let url = reached(host, port, is_tls, form).expect(host);
            assert_eq!((url.to_string().as_str(), place(&url).as_str()), (expected, at));
        }
    }

    #[test]
    fn where_nothing_can_be_reached_is_named() {
        for (host, port, says) in [
            ("10.0.0.1", 0, "`10.0.0.1` has no port"),
            ("0.0.0.0", 80, "0.0.0.0 cannot be connected to"),
            ("::ffff:224.0.0.1", 80, "224.0.0.1 cannot be connected to"),
            ("", 80, "`` is no address"),
            ("a b", 80, "`a b` is no address"),
            ("a/b\n", 80, "`a/b` is no address"),
        ] {
            let error = reached(host, port, false, None).expect_err(host);
            assert!(error.contains(says), "{error}");
        }
    }
}
