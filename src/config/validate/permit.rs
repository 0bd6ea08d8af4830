//! Whom the `permit` of a route's `auth` names.

use super::RouteCheck;
use crate::config::code::Code;
use crate::config::load::Problem;
use crate::policy::auth::{Accepted, Unclear};

impl RouteCheck<'_> {
    /// Every caller must be one of an authority that the route accepts.
    pub(super) fn permit(&mut self) {
        let Some(auth) = &self.route.auth else { return };
        let known = auth.require.iter().map(|name| {
            let names = self.config.auth.get(name)?.names();
            Some(Accepted { authority: name, names })
        });
        // A missing or invalid authority is reported elsewhere.
        let Some(accepted) = known.collect::<Option<Vec<_>>>() else { return };
        for (nth, permit) in auth.permit.iter().enumerate() {
            let callers = self.key(&["auth", "permit"]).index(nth).key("callers");
            for (index, caller) in permit.callers.values().unwrap_or_default().iter().enumerate() {
                let Err(unclear) = caller.check(&accepted) else { continue };
                let code = match unclear {
                    Unclear::NotAccepted(_) | Unclear::NoCertificates => Code::CallerNotAccepted,
                    Unclear::Ambiguous { .. } => Code::CallerAmbiguous,
                    Unclear::Invalid(_) => Code::InvalidValue,
                };
                let path = self.sources.element(&callers, index);
                let problem = Problem::new(code, path, unclear.to_string());
                self.problems.push(problem.with(self.key(&["auth", "require"])));
            }
        }
    }
}
