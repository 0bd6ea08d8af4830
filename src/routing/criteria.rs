//! The `match:` of a route, as the operator configures it. The router decides between routes.

use std::fmt;
use std::marker::PhantomData;

use http::Method;
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, SeqAccess, Visitor};

use super::conditions::{Cookie, Header, Parameter, Tests};
use super::host::HostPattern;
use super::pattern::Pattern;
use crate::identity::pattern as peer;
use crate::units::schema::{self, written_as};

/// Which requests a route takes: those that match one value of `listener`, `host`, `path` and `methods` each,
/// and meet all conditions of `headers`, `query`, `cookies` and `client_certificate`. An absent key matches all.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// The listener that a request has come in by, or a list, by their names in `listeners`: other requests
    /// never take the route. Default: any. Routes that name a listener go before all others, whatever else
    /// they match.
    pub listener: Choice<String>,
    /// `http` or `https`: how the client reached the gateway, or the trusted proxy in front of it, by the
    /// last value of `X-Forwarded-Proto`, which that proxy wrote. Default: either. Routes that name a scheme go before
    /// all others, whatever their host and path.
    pub scheme: Option<Scheme>,
    /// `api.example.com`, or `*.example.com` for every name below it; default: any host, or none.
    pub host: Choice<HostPattern>,
    /// Literals, `:name` for one segment, `*` for one or, at the end, for the rest; default: any
    /// path.
    pub path: Choice<Pattern>,
    /// Default: any. `GET` includes `HEAD`, as RFC 9110 section 9.1 requires of every server. A
    /// route that names `HEAD` itself takes precedence over one with the same pattern that names
    /// only `GET`.
    pub methods: Choice<Verb>,
    /// What headers must be, by name: `X-Version: v2` (the whole value), or one of `{exact: v2}`,
    /// `{prefix: v2.}`, `{present: true}` and `{present: false}`. Of several fields of a name the first counts.
    pub headers: Tests<Header>,
    /// The same of parameters of the query, decoded.
    pub query: Tests<Parameter>,
    /// The same of cookies, over all `Cookie` fields of the request.
    pub cookies: Tests<Cookie>,
    /// What the client's certificate must name, as in `auth.NAME.client_certificate.allow`: one of these. It is that
    /// of the request's own connection, verified and not expired; what proxies say of it does not count, nor
    /// does a common name. One condition, however many names it lists. Default: any certificate, or none.
    pub client_certificate: Choice<peer::Pattern>,
    /// Whether the path may have encoded slashes and empty segments; default `strict`.
    pub slashes: Slashes,
}

impl Match {
    /// The first pattern of a path that has no parameter of this name.
    pub fn without(&self, parameter: &str) -> Option<String> {
        let everything = [Pattern::everything()];
        let mut patterns = self.path.values().unwrap_or(&everything).iter();
        let lacks = |pattern: &&Pattern| pattern.names().all(|name| name != parameter);
        patterns.find(lacks).map(|pattern| pattern.text().to_string())
    }
}

/// How a client reached the gateway, or the trusted proxy in front of it.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port that a URL need not name.
    pub const fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// Whether a path may contain `%2F`, or nothing between two slashes. Servers interpret both in
/// different ways, so only a route whose upstream distinguishes them should accept them.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Deserialize,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Slashes {
    /// Such a path gets a 400.
    #[default]
    Strict,
    /// The path is matched segment by segment as it came, and forwarded unchanged.
    AsSent,
}

/// One value or a list: never empty, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Choice<T> {
    /// The key is absent.
    #[default]
    Any,
    /// At least one.
    Of(Vec<T>),
}

impl<T> Choice<T> {
    /// The values, if the key is present.
    pub fn values(&self) -> Option<&[T]> {
        match self {
            Choice::Any => None,
            Choice::Of(values) => Some(values),
        }
    }
}

impl<'de, T> Deserialize<'de> for Choice<T>
where
    T: Deserialize<'de> + PartialEq + fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMany(PhantomData))
    }
}

struct OneOrMany<T>(PhantomData<T>);

impl<'de, T> Visitor<'de> for OneOrMany<T>
where
    T: Deserialize<'de> + PartialEq + fmt::Display,
{
    type Value = Choice<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Choice::Of(vec![T::deserialize(text.into_deserializer())?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            if values.contains(&value) {
                return Err(de::Error::custom(format_args!("`{value}` is listed twice")));
            }
            values.push(value);
        }
        if values.is_empty() {
            return Err(de::Error::custom("an empty list matches nothing; leave it out for all"));
        }
        Ok(Choice::Of(values))
    }
}

/// An HTTP method by name. Methods are case-sensitive (RFC 9110 section 9.1), so `get` is refused:
/// no client sends it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Verb(pub Method);

impl TryFrom<String> for Verb {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let wrong = |_| format!("`{name}` is not a method");
        let method = Method::from_bytes(name.as_bytes()).map_err(wrong)?;
        if name.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(format!(
                "`{name}`: methods are upper case, such as {}",
                name.to_ascii_uppercase()
            ));
        }
        Ok(Verb(method))
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// The methods that an entry of the router takes.
pub type Methods = Choice<Verb>;

impl Methods {
    /// Whether `method` is named, or any method is accepted.
    pub fn name(&self, method: &Method) -> bool {
        match self {
            Choice::Any => true,
            Choice::Of(verbs) => verbs.iter().any(|verb| verb.0 == *method),
        }
    }

    /// Whether a request with `method` is taken: `GET` includes `HEAD`.
    pub fn serve(&self, method: &Method) -> bool {
        self.name(method) || (*method == Method::HEAD && self.name(&Method::GET))
    }

    /// A method that both accept; `Any` if both accept all.
    pub(super) fn overlap(&self, other: &Methods) -> Option<Methods> {
        match (self, other) {
            (Choice::Any, methods) | (methods, Choice::Any) => Some(methods.clone()),
            (Choice::Of(ours), Choice::Of(theirs)) => {
                let both: Vec<_> = ours.iter().filter(|v| theirs.contains(v)).cloned().collect();
                (!both.is_empty()).then_some(Choice::Of(both))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "the YAML is literal")]
mod tests {
    use super::*;

    fn parse(yaml: &str) -> Result<Match, String> {
        serde_yaml::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_may_be_one_or_a_list() {
        let one = parse("{host: a.example, path: /a, methods: GET}").unwrap();
        let many = parse("{host: [a.example], path: [/a], methods: [GET]}").unwrap();
        assert_eq!(one, many);
        assert_eq!(one.methods, Choice::Of(vec![Verb(Method::GET)]));
    }

    #[test]
    fn what_is_left_out_matches_all() {
        assert_eq!(parse("{}").unwrap(), Match::default());
        assert_eq!(Match::default().path.values(), None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_remedy() {
        for (yaml, remedy) in [
            ("{path: }", "a string or a list of strings"),
            ("{path: []}", "leave it out"),
            ("{path: [/a, /a]}", "`/a` is listed twice"),
            ("{path: api}", "begins with `/`"),
            ("{methods: [GET, GET]}", "`GET` is listed twice"),
            ("{methods: get}", "such as GET"),
            ("{methods: 'G T'}", "not a method"),
            ("{methods: ''}", "not a method"),
            ("{host: 'a.example:80'}", "without a port"),
            ("{hosts: a.example}", "unknown field `hosts`"),
        ] {
            let error = parse(yaml).unwrap_err();
            assert!(error.contains(remedy), "{yaml}: {error}");
        }
    }
}

written_as!(Verb, "Method", {
    "description": "An HTTP method, in upper case.",
    "type": "string",
    "pattern": "^[^a-z\\s]+$",
});

impl<T: schemars::JsonSchema> schemars::JsonSchema for Choice<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        schema::one_or_many_name::<T>()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schema::one_or_many::<T>(generator)
    }
}
