//! Where a route's requests go: one upstream, several, or the gateway itself.

use super::RouteCheck;
use crate::config::code::Code;
use crate::config::route::Serve;
use crate::policy::split::{Destination, Key};

impl RouteCheck<'_> {
    pub(super) fn target(&mut self) {
        match (&self.route.upstream, self.route.serve) {
            (Some(Destination::One(upstream)), None) => {
                self.reference(&["upstream"], "upstreams", upstream, &self.config.upstreams);
            }
            (Some(Destination::Split(upstreams)), None) => {
                for (place, upstream) in upstreams.iter().enumerate() {
                    let path = self.key(&["upstream"]).index(place).key("name");
                    let known = &self.config.upstreams;
                    self.reference_at(path, "upstreams", &upstream.name, known);
                }
            }
            (Some(Destination::Named(named)), None) => {
                for (place, upstream) in named.among.iter().enumerate() {
                    let path = self.key(&["upstream", "among"]).index(place);
                    self.reference_at(path, "upstreams", upstream, &self.config.upstreams);
                }
                if let Some(pattern) = self.route.matches.without(&named.parameter) {
                    let message = format!("`{pattern}` has no parameter `:{}`", named.parameter);
                    self.report(Code::UpstreamParameter, &["upstream", "parameter"], message);
                }
            }
            (
                None,
                Some(
                    Serve::Health
                    | Serve::HealthDetails
                    | Serve::Ready
                    | Serve::Live
                    | Serve::Status,
                ),
            ) => {}
            (Some(_), Some(_)) => {
                let message = "a route has an `upstream` or a `serve`, not both";
                self.report(Code::TwoTargets, &["serve"], message);
            }
            (None, None) => {
                self.report(Code::NoTarget, &[], "a route needs an `upstream` or a `serve`");
            }
        }
        self.split();
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
