//! `api_key:`: shared secrets in a header.

use std::collections::BTreeMap;
use std::fmt;

use http::HeaderName;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use crate::policy::auth::{Consumer, Scope};
use crate::units::Secret;

/// API keys, by the consumer each belongs to.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "WrittenApiKeys")]
#[serde(try_from = "WrittenApiKeys")]
pub struct ApiKeys {
    /// The header that carries the key; default `X-Api-Key`.
    pub header: HeaderName,
    /// At least one; no two consumers have the same key.
    pub keys: BTreeMap<Consumer, ApiKey>,
}

/// One key: the secret itself, or a map if it has scopes or a role.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiKey {
    /// Visible ASCII without spaces.
    pub key: Secret,
    /// What the consumer may do, for routes that require scopes; default: none.
    pub scopes: Vec<Scope>,
    /// For routes that require a role; absent: none.
    pub role: Option<String>,
}

impl ApiKey {
    fn try_new(key: Secret, scopes: Vec<Scope>, role: Option<String>) -> Result<Self, String> {
        if !key.expose().bytes().all(|b| b.is_ascii_graphic()) {
            return Err("an API key is visible ASCII without spaces, or no client could send it; \
                        look for a line break at its end"
                .to_owned());
        }
        Ok(ApiKey { key, scopes, role })
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenApiKeys {
    /// The header that carries the key; default `X-Api-Key`.
    #[serde(default = "x_api_key")]
    header: String,
    /// At least one, by the consumer each belongs to; no two consumers have the same key.
    #[serde(deserialize_with = "at_least_one")]
    #[schemars(extend("minProperties" = 1))]
    keys: BTreeMap<Consumer, ApiKey>,
}

/// Checked here so that the error names `keys`, and only if each of them is valid.
fn at_least_one<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<Consumer, ApiKey>, D::Error> {
    let keys = BTreeMap::deserialize(deserializer)?;
    if keys.is_empty() {
        return Err(de::Error::custom("name at least one consumer and its key"));
    }
    Ok(keys)
}

impl TryFrom<WrittenApiKeys> for ApiKeys {
    type Error = String;

    fn try_from(written: WrittenApiKeys) -> Result<Self, String> {
        let header = written
            .header
            .parse()
            .map_err(|_| "header: expected a header name, such as X-Api-Key".to_owned())?;
        let mut owners = BTreeMap::new();
        for (consumer, entry) in &written.keys {
            if let Some(other) = owners.insert(entry.key.expose(), consumer) {
                return Err(format!("keys: {other} and {consumer} have the same key"));
            }
        }
        Ok(ApiKeys { header, keys: written.keys })
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenApiKey {
    /// Visible ASCII without spaces.
    key: Secret,
    /// What the consumer may do, for routes that require scopes; default: none.
    #[serde(default)]
    scopes: Vec<Scope>,
    /// For routes that require a role; absent: none.
    role: Option<String>,
}

impl<'de> Deserialize<'de> for ApiKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyOrMap;

        impl<'de> Visitor<'de> for KeyOrMap {
            type Value = ApiKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key, or a map of key, scopes and role")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ApiKey, E> {
                let key = text.parse().map_err(E::custom)?;
                ApiKey::try_new(key, Vec::new(), None).map_err(E::custom)
            }

            // A key of digits only, which YAML reads as a number.
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<ApiKey, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ApiKey, A::Error> {
                let WrittenApiKey { key, scopes, role } =
                    WrittenApiKey::deserialize(MapAccessDeserializer::new(map))?;
                ApiKey::try_new(key, scopes, role).map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_any(KeyOrMap)
    }
}

fn x_api_key() -> String {
    "x-api-key".to_owned()
}

impl schemars::JsonSchema for ApiKey {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ApiKey".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let secret = generator.subschema_for::<Secret>();
        let with_rights = generator.subschema_for::<WrittenApiKey>();
        schemars::json_schema!({ "anyOf": [secret, with_rights] })
    }
}
