//! Where a route's requests go: one upstream, several, the gateway itself, or elsewhere.

use super::RouteCheck;
use crate::config::code::Code;
use crate::config::load::Problem;
use crate::policy::split::{Destination, Key};

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
                if let Some(pattern) = self.route.matches.without(&named.parameter) {
                    let message = format!("`{pattern}` has no parameter `:{}`", named.parameter);
                    self.report(Code::UpstreamParameter, &["upstream", "parameter"], message);
                }
            }
            None => {}
        }
        self.redirect();
        self.split();
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
        let matched = self.route.matches.scheme;
        if let Some(scheme) =
            redirect.only_scheme().filter(|to| matched.is_none_or(|from| from == *to))
        {
            let scheme = scheme.as_str();
            let other = if scheme == "https" { "http" } else { "https" };
            let message = format!("a request over {scheme} would be sent to itself for ever");
            let path = self.key(&["redirect"]);
            let problem = Problem::new(Code::RedirectToItself, path, message);
            let remedy = format!(
                "write `match: {{scheme: {other}}}`, or send clients to another `host`, `port` or path"
            );
            self.problems.push(problem.remedied(remedy));
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
