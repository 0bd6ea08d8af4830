//! Where a route's requests go: one upstream, several, the gateway itself, or elsewhere.

use super::RouteCheck;
use crate::config::code::Code;
use crate::config::load::Problem;
use crate::policy::split::named::{By, Named};
use crate::policy::split::{Destination, Key};
use crate::routing::{Scheme, host};

impl RouteCheck<'_> {
    pub(super) fn target(&mut self) {
        self.is_one();
        match &self.route.upstream {
            Some(Destination::One(upstream)) => {
                self.reference(&["upstream"], "upstreams", upstream, &self.config.upstreams);
            }
            Some(Destination::Split(upstreams)) => {
                for (place, upstream) in upstreams.iter().enumerate() {
                    let path = self.key(&["upstream"]).index(place).key("name");
                    let known = &self.config.upstreams;
                    self.reference_at(path, "upstreams", &upstream.name, known);
                }
            }
            Some(Destination::Named(named)) => {
                for (place, upstream) in named.among.iter().enumerate() {
                    let path = self.key(&["upstream", "among"]).index(place);
                    self.reference_at(path, "upstreams", upstream, &self.config.upstreams);
                }
                self.can_be_named(named);
            }
            None => {}
        }
        self.redirect();
        self.split();
    }

    /// There must be requests that name each of these.
    fn can_be_named(&mut self, named: &Named) {
        match &named.by {
            By::Parameter(parameter) => {
                if let Some(pattern) = self.route.matches.without(parameter) {
                    let message = format!("`{pattern}` has no parameter `:{parameter}`");
                    self.report(Code::UpstreamParameter, &["upstream", "parameter"], message);
                }
            }
            By::Host(_) => {
                let is_host =
                    |name: &str| host::normalize(name.as_bytes()).is_ok_and(|n| n == name);
                let mut names = named.among.iter().enumerate();
                if let Some((place, name)) = names.find(|(_, name)| !is_host(name)) {
                    let path = self.key(&["upstream", "among"]).index(place);
                    let message = format!("`{name}` is not a host as requests name it");
                    self.problems.push(Problem::new(Code::UpstreamHost, path, message));
                }
            }
        }
    }

    /// A route has exactly one of the keys that say who answers.
    fn is_one(&mut self) {
        let route = self.route;
        let keys = [
            ("upstream", route.upstream.is_some()),
            ("serve", route.serve.is_some()),
            ("respond", route.respond.is_some()),
            ("redirect", route.redirect.is_some()),
        ];
        let mut written = keys.into_iter().filter(|(_, written)| *written).map(|(key, _)| key);
        match (written.next(), written.next()) {
            (Some(_), None) => {}
            (Some(first), Some(second)) => {
                let article = if first == "upstream" { "an" } else { "a" };
                let message = format!("a route has {article} `{first}` or a `{second}`, not both");
                self.report(Code::TwoTargets, &[second], message);
            }
            (None, _) => {
                let message =
                    "a route needs an `upstream`, or one of `serve`, `respond` and `redirect`";
                self.report(Code::NoTarget, &[], message);
            }
        }
    }

    fn redirect(&mut self) {
        let Some(redirect) = &self.route.redirect else { return };
        if self.route.rewrite.is_some() {
            let message = "nothing is forwarded, and the redirect has a path of its own";
            self.report(Code::RewriteOfRedirect, &["rewrite"], message);
        }
        let hosts = self.route.matches.host.values().unwrap_or_default();
        // One that covers more than the host may leave the host itself to another route.
        let is_matched = |host: &str| hosts.iter().any(|matched| matched.is_exactly(host));
        let repeats = |scheme: &Scheme| redirect.repeats(*scheme, is_matched);
        let mut schemes = [Scheme::Https, Scheme::Http].into_iter();
        let written = redirect.scheme();
        let Some(scheme) = schemes.find(|scheme| repeats(scheme) && self.has(*scheme, written))
        else {
            return;
        };
        let (scheme, other) = match scheme {
            Scheme::Http => ("http", Scheme::Https),
            Scheme::Https => ("https", Scheme::Http),
        };
        let (message, remedy) = match redirect.host().filter(|_| repeats(&other)) {
            None => (
                format!("a request over {scheme} would be sent to itself for ever"),
                format!(
                    "write `match: {{scheme: {}}}`, or send clients to another `host`, `port` or path",
                    other.as_str()
                ),
            ),
            Some(host) => (
                format!("a request for {host} would be sent to itself for ever"),
                "match other hosts only, or send clients to another `scheme`, `host`, `port` or path"
                    .to_owned(),
            ),
        };
        let problem = Problem::new(Code::RedirectToItself, self.key(&["redirect"]), message);
        self.problems.push(problem.remedied(remedy));
    }

    /// Whether the route, which redirects to the scheme that is `written`, has requests over `scheme`.
    fn has(&self, scheme: Scheme, written: Option<Scheme>) -> bool {
        match self.route.matches.scheme {
            Some(matched) => matched == scheme,
            // That one is expected to have a listener, here or at a proxy in front, which may have any.
            None if written.is_some() => true,
            None if !self.config.client_address.trusted_proxies.is_empty() => true,
            None => self.config.listeners.iter().any(|(name, listener)| {
                let own = self.route.matches.listener.values();
                own.is_none_or(|own| own.contains(name))
                    && match scheme {
                        Scheme::Http => listener.tls.is_none(),
                        Scheme::Https => listener.tls.is_some(),
                    }
            }),
        }
    }

    fn split(&mut self) {
        let Some(split) = &self.route.split else { return };
        match &self.route.upstream {
            Some(Destination::Split(_)) => {}
            Some(Destination::One(_) | Destination::Named(_)) | None => {
                let message = "has no effect: `upstream` is not a list";
                self.report(Code::SplitOfOne, &["split"], message);
            }
        }
        if split.key == Some(Key::Consumer) && self.route.auth.is_none() {
            let message = "the route requires no credentials, so its requests have no consumer";
            self.report(Code::SplitWithoutConsumer, &["split", "key"], message);
        }
    }
}
