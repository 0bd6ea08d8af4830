//! A route's `auth:`, compiled: which clients it admits, and how it refuses others.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};

use super::caller::Unclear;
use super::denial::{Denial, Verdict};
use super::identity::Identity;
use super::permit::Permits;
use super::refusal::{Forbidden, Refusal};
use super::requirement::{Prefix, Requirement, Scope, ScopesMatch};
use super::verifier::Verifier;
use super::{Now, Presented};

/// Authenticates and authorizes the requests of one route.
#[derive(Debug)]
pub struct Guard {
    verifiers: Box<[Arc<Verifier>]>,
    asks: bool,
    scopes: Box<[Scope]>,
    scopes_match: ScopesMatch,
    role: Option<Box<str>>,
    permits: Option<Permits>,
    anonymous: Box<[Prefix]>,
    stripped: Box<[HeaderName]>,
    challenges: Challenges,
}

/// Why a route's `auth:` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It requires an authority that is not in `auth:`.
    #[error("require: there is no `{0}` in `auth`")]
    Authority(String),
    /// It permits a caller whom none of its authorities can name, or more than one can.
    #[error("permit: {0}")]
    Caller(#[from] Unclear),
}

impl Guard {
    /// `find` looks up verifiers by name.
    ///
    /// # Errors
    /// [`Unusable`], for the first name that `find` does not know, or the first caller that is not clear.
    pub fn try_new(
        config: &Requirement,
        find: impl Fn(&str) -> Option<Arc<Verifier>>,
    ) -> Result<Self, Unusable> {
        let verifiers: Box<[Arc<Verifier>]> = config
            .require
            .iter()
            .map(|name| find(name).ok_or_else(|| Unusable::Authority(name.to_owned())))
            .collect::<Result<_, _>>()?;
        let mut stripped: Vec<HeaderName> = Vec::new();
        let keeps = config.forward_credentials || config.enforce.is_dry();
        for verifier in &verifiers {
            let credentials: &[HeaderName] =
                if keeps { &[] } else { verifier.credential_headers() };
            // A dry run changes nothing for the upstream, except that a client cannot speak for a service.
            let asserted = verifier.asserted_headers().iter().filter(|header| {
                !(config.enforce.is_dry() && verifier.credential_headers().contains(header))
            });
            for header in credentials.iter().chain(asserted) {
                if !stripped.contains(header) {
                    stripped.push(header.clone());
                }
            }
        }
        let accepted = verifiers.iter().map(|verifier| verifier.accepted());
        let permits = Permits::try_new(&config.permit, &accepted.collect::<Vec<_>>())?;
        Ok(Guard {
            permits,
            challenges: Challenges::new(&verifiers, &config.scopes),
            asks: verifiers.iter().any(|verifier| verifier.inquiry().is_some()),
            verifiers,
            scopes: config.scopes.clone().into(),
            scopes_match: config.scopes_match,
            role: config.role.as_deref().map(Box::from),
            anonymous: config.anonymous.clone().into(),
            stripped: stripped.into(),
        })
    }

    /// The authorities in the order in which they are tried.
    pub fn verifiers(&self) -> &[Arc<Verifier>] {
        &self.verifiers
    }

    /// Whether one of them has to ask a service, which [`Guard::check`] cannot.
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// Whether the request may pass, and with which identity; `None` if the path is open and
    /// credentials are not checked. `path` must be canonical, and as it was before a rewrite.
    ///
    /// # Errors
    /// The [`Refusal`]. If it has [`Refusal::wanted_keys`], the caller may have them fetched and
    /// check once more.
    pub fn check<'a>(
        &self,
        method: &Method,
        path: &str,
        presented: impl Into<Presented<'a>>,
        now: Now,
    ) -> Result<Option<Arc<Identity>>, Refusal> {
        if self.is_anonymous(path) {
            return Ok(None);
        }
        let identity = self.authenticate(presented, now).map_err(Refusal::Unauthenticated)?;
        self.authorize(&identity, method, path).map_err(Refusal::Forbidden)?;
        Ok(Some(identity))
    }

    /// Authenticates a request. The first authority that accepts the credentials decides the
    /// identity.
    ///
    /// # Errors
    /// The most telling denial, if no authority accepts them.
    pub fn authenticate<'a>(
        &self,
        presented: impl Into<Presented<'a>>,
        now: Now,
    ) -> Result<Arc<Identity>, Denial> {
        let presented = presented.into();
        let mut told = Denial::Missing;
        for verifier in &self.verifiers {
            match verifier.verify(presented, now) {
                Ok(identity) => return Ok(identity),
                Err(denial) if denial.outweighs(&told) => told = denial,
                Err(_) => {}
            }
        }
        Err(told)
    }

    /// Checks that a client has the route's scopes and role, and may make this call.
    ///
    /// # Errors
    /// What the client lacks.
    pub fn authorize(
        &self,
        identity: &Identity,
        method: &Method,
        path: &str,
    ) -> Result<(), Forbidden> {
        let mut scopes = self.scopes.iter().map(|scope| identity.has_scope(scope.as_str()));
        let enough = match self.scopes_match {
            ScopesMatch::All => scopes.all(|held| held),
            ScopesMatch::Any => self.scopes.is_empty() || scopes.any(|held| held),
        };
        if !enough {
            return Err(Forbidden::Scopes);
        }
        if self.role.as_deref().is_some_and(|role| !identity.has_role(role)) {
            return Err(Forbidden::Role);
        }
        match &self.permits {
            None => Ok(()),
            Some(permits) => permits.check(identity, method, path).map_err(Forbidden::Call),
        }
    }

    /// Whether the canonical `path` needs no credentials.
    pub fn is_anonymous(&self, path: &str) -> bool {
        self.anonymous.iter().any(|prefix| prefix.covers(path))
    }

    /// The request headers to hide from the upstream, on open paths too; empty if the route
    /// forwards credentials.
    pub fn credential_headers(&self) -> &[HeaderName] {
        &self.stripped
    }

    /// The `WWW-Authenticate` field for a refusal, if no service has said it. A 401 always has one (RFC 9110, section 11.6.1),
    /// a 403 only if tokens are accepted (RFC 6750, section 3.1), and a 503 none, because other
    /// credentials would not help.
    pub fn challenge(&self, refusal: &Refusal) -> Option<&HeaderValue> {
        match refusal {
            Refusal::Unauthenticated(
                Denial::KeysUnavailable { .. }
                | Denial::Unanswered { .. }
                | Denial::NotAllowed { .. },
            ) => None,
            Refusal::Unauthenticated(Denial::Said(said))
                if said.verdict != Verdict::Unauthorized =>
            {
                None
            }
            // Missing credentials are not invalid ones.
            Refusal::Unauthenticated(Denial::Missing) => Some(&self.challenges.plain),
            Refusal::Unauthenticated(_) => Some(&self.challenges.invalid),
            // Other credentials of the same caller would not help.
            Refusal::Forbidden(Forbidden::Call(_)) => None,
            Refusal::Forbidden(Forbidden::Scopes | Forbidden::Role) => {
                self.challenges.insufficient.as_ref()
            }
        }
    }
}

#[derive(Debug)]
struct Challenges {
    plain: HeaderValue,
    invalid: HeaderValue,
    insufficient: Option<HeaderValue>,
}

impl Challenges {
    fn new(verifiers: &[Arc<Verifier>], scopes: &[Scope]) -> Self {
        let names: Vec<&str> = scopes.iter().map(Scope::as_str).collect();
        let insufficient = match names.join(" ") {
            none if none.is_empty() => ", error=\"insufficient_scope\"".to_owned(),
            names => format!(", error=\"insufficient_scope\", scope=\"{names}\""),
        };
        let tokens: Vec<_> = verifiers.iter().filter(|v| v.takes_tokens()).cloned().collect();
        Challenges {
            plain: challenge(verifiers, ""),
            invalid: challenge(verifiers, ", error=\"invalid_token\""),
            insufficient: (!tokens.is_empty()).then(|| challenge(&tokens, &insufficient)),
        }
    }
}

/// One challenge per scheme and header; `error` is added for tokens only.
fn challenge(verifiers: &[Arc<Verifier>], error: &str) -> HeaderValue {
    let mut challenges: Vec<String> = Vec::new();
    for challenge in verifiers.iter().filter_map(|verifier| verifier.challenge(error)) {
        if !challenges.contains(&challenge) {
            challenges.push(challenge);
        }
    }
    if challenges.is_empty() {
        // It is the service's to say, or the connection's; a 401 needs a challenge all the same.
        challenges.push("Bearer realm=\"portcullis\"".to_owned());
    }
    HeaderValue::from_str(&challenges.join(", "))
        .expect("scopes and header names are visible ASCII by their types")
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::testing::{bearer, claims, config, headers, now};
    use super::*;
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::{Value, json};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    /// A route with two authorities, `accounts` (tokens) and `partners` (keys).
    fn guard(requirement: &str) -> Guard {
        let requirement = serde_yaml::from_str(requirement).expect("a requirement");
        Guard::try_new(&requirement, find).expect("known authorities")
    }

    fn find(name: &str) -> Option<Arc<Verifier>> {
        let yaml = match name {
            "accounts" => format!("jwt: {{audience: any, algorithms: [HS256], secret: {SECRET}}}"),
            "partners" => "api_key: {keys: {acme: k-acme}}".to_owned(),
            _ => return None,
        };
        Some(Arc::new(Verifier::try_new(name, &config(&yaml)).expect("a verifier")))
    }

    fn token(more: Value) -> String {
        let mut claims = claims();
        for (name, value) in more.as_object().expect("a map") {
            claims[name] = value.clone();
        }
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a token")
    }

    fn check(guard: &Guard, headers: &HeaderMap) -> Result<Option<Arc<Identity>>, Refusal> {
        guard.check(&Method::GET, "/api", headers, now(0))
    }

    #[test]
    fn any_of_the_authorities_will_do() {
        let guard = guard("{require: [accounts, partners]}");
        let who = |headers| {
            let identity = check(&guard, &headers).expect("let in").expect("someone");
            (identity.authority().to_owned(), identity.consumer().to_owned())
        };
        assert_eq!(who(bearer(&token(json!({})))), ("accounts".to_owned(), "ada".to_owned()));
        let acme = ("partners".to_owned(), "acme".to_owned());
        assert_eq!(who(headers(&[("x-api-key", "k-acme")])), acme);
    }

    #[test]
    fn an_authority_that_is_not_required_does_not_vouch() {
        let outcome = check(&guard("{require: accounts}"), &headers(&[("x-api-key", "k-acme")]));
        assert_eq!(outcome, Err(Refusal::Unauthenticated(Denial::Missing)));
    }

    #[test]
    fn the_refusal_speaks_of_the_credentials_presented() {
        let guard = guard("{require: [accounts, partners]}");
        let outcome = check(&guard, &headers(&[("x-api-key", "wrong")]));
        assert_eq!(outcome, Err(Refusal::Unauthenticated(Denial::UnknownApiKey)));
    }

    #[test]
    fn an_unknown_authority_is_named() {
        let requirement = serde_yaml::from_str("{require: [accounts, acounts]}").expect("valid");
        let error = Guard::try_new(&requirement, find).expect_err("unknown");
        assert_eq!(error.to_string(), "require: there is no `acounts` in `auth`");
    }

    #[test]
    fn scopes_are_all_needed_unless_any_is_said() {
        let held = bearer(&token(json!({"scope": "a x"})));
        let lacking = Err(Refusal::Forbidden(Forbidden::Scopes));
        let outcome = |yaml| check(&guard(yaml), &held).map(|_| ());
        assert_eq!(outcome("{require: accounts, scopes: [a, x]}"), Ok(()));
        assert_eq!(outcome("{require: accounts, scopes: [a, b]}"), lacking);
        assert_eq!(outcome("{require: accounts, scopes: [a, b], scopes_match: any}"), Ok(()));
        assert_eq!(outcome("{require: accounts, scopes: [b, c], scopes_match: any}"), lacking);
        assert_eq!(outcome("{require: accounts, scopes_match: any}"), Ok(()));
    }

    #[test]
    fn a_role_must_be_held() {
        let guard = guard("{require: accounts, role: admin}");
        let outcome = |role: Value| check(&guard, &bearer(&token(json!({ "role": role }))));
        assert!(outcome(json!("admin")).is_ok());
        assert!(outcome(json!(["viewer", "admin"])).is_ok());
        let lacking = Err(Refusal::Forbidden(Forbidden::Role));
        for role in [json!("administrator"), json!("viewer admin"), json!(null), json!(1)] {
            assert_eq!(outcome(role.clone()), lacking, "{role}");
        }
    }

    #[test]
    fn an_open_path_is_nobodys_and_its_credentials_are_not_read() {
        let guard = guard("{require: accounts, anonymous: [/health]}");
        let outcome = |path| guard.check(&Method::GET, path, &bearer("garbage"), now(0));
        assert_eq!(outcome("/health/db"), Ok(None));
        assert!(outcome("/healthX").is_err());
    }

    #[test]
    fn credentials_stay_here_unless_forwarded() {
        let stripped = |yaml| guard(yaml).credential_headers().to_vec();
        assert_eq!(stripped("{require: [accounts, partners]}"), ["authorization", "x-api-key"]);
        assert!(stripped("{require: accounts, forward_credentials: true}").is_empty());
    }

    #[test]
    fn a_challenge_says_how_to_do_better() {
        let guard = guard("{require: [accounts, partners], scopes: [a, b]}");
        let said = |refusal| guard.challenge(&refusal).expect("a challenge").clone();
        assert_eq!(
            said(Refusal::Unauthenticated(Denial::Missing)),
            "Bearer realm=\"portcullis\", ApiKey realm=\"portcullis\", header=\"x-api-key\""
        );
        assert_eq!(
            said(Refusal::Unauthenticated(Denial::Expired { at: 1 })),
            "Bearer realm=\"portcullis\", error=\"invalid_token\", ApiKey realm=\"portcullis\", \
             header=\"x-api-key\""
        );
        assert_eq!(
            said(Refusal::Forbidden(Forbidden::Scopes)),
            "Bearer realm=\"portcullis\", error=\"insufficient_scope\", scope=\"a b\""
        );
    }

    #[test]
    fn keys_alone_have_no_challenge_for_a_known_caller() {
        let guard = guard("{require: partners, role: admin}");
        let outcome = check(&guard, &headers(&[("x-api-key", "k-acme")]));
        let refusal = outcome.expect_err("no role");
        assert_eq!(guard.challenge(&refusal), None);
    }
}
