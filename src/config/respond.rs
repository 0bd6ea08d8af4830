//! The `respond:` of a route: a response that the gateway gives by itself, the same for every client.

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::header_fields::Fields;
use crate::units;
use crate::units::schema::written_as;

/// The largest `body`: the configuration is no place for files, and memory holds it all the time.
const MAX_BODY: usize = 64 * 1024;

/// A response.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(with = "Written")]
#[serde(try_from = "Written")]
pub struct Respond {
    /// 200 to 599, but no redirect.
    pub status: u16,
    /// `None` if there is no body, and none is named.
    pub content_type: Option<HeaderValue>,
    /// Besides the content type.
    pub headers: Fields,
    /// Empty for a status without a body.
    pub body: Bytes,
}

/// The keys as in the file.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// 200 to 299, or 400 to 599; default 200.
    #[serde(default = "ok", deserialize_with = "units::bounded::<_, 200, 599>")]
    #[schemars(range(min = 200, max = 599))]
    status: u32,
    /// At most 64 KiB; `${file:maintenance.html}` reads a file. Default: none.
    #[serde(default)]
    body: String,
    /// Default: `text/plain; charset=utf-8`, if there is a body.
    content_type: Option<ContentType>,
    /// Further header fields, with the placeholders of `headers.response`. Default: none.
    #[serde(default)]
    headers: Fields,
}

struct ContentType(HeaderValue);

impl<'de> serde::Deserialize<'de> for ContentType {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(from)?;
        let value = HeaderValue::from_str(&text).ok().filter(|_| text.contains('/'));
        value.map(ContentType).ok_or_else(|| {
            serde::de::Error::custom(
                "a content type is one line such as `text/html; charset=utf-8`",
            )
        })
    }
}

written_as!(ContentType, "ContentType", {
    "description": "A content type, such as text/html; charset=utf-8.",
    "type": "string",
    "pattern": "^[^\\r\\n]*/[^\\r\\n]*$",
});

fn ok() -> u32 {
    200
}

impl TryFrom<Written> for Respond {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { status, body, content_type, headers } = written;
        let status = u16::try_from(status).unwrap_or(200);
        if (300..400).contains(&status) {
            return Err(format!(
                "status: {status} sends clients elsewhere: write `redirect` instead"
            ));
        }
        if matches!(status, 204 | 205) && !body.is_empty() {
            return Err(format!(
                "body: a response with {status} has no body; use another status, or leave it out"
            ));
        }
        if body.len() > MAX_BODY {
            return Err(format!(
                "body: {} bytes are more than the 64KiB that there is room for",
                body.len()
            ));
        }
        if headers.0.iter().any(|(name, _)| *name == CONTENT_TYPE) {
            return Err("headers: write the content type as `content_type`".to_owned());
        }
        let plain =
            (!body.is_empty()).then(|| HeaderValue::from_static("text/plain; charset=utf-8"));
        let content_type = content_type.map(|written| written.0).or(plain);
        Ok(Respond { status, content_type, headers, body: body.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Respond, String> {
        serde_yaml::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn a_body_is_plain_text_unless_it_says_otherwise() {
        let typed = |text: &str| parse(text).map(|respond| respond.content_type);
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        assert_eq!(typed("{body: ok}"), Ok(Some(plain)));
        let html = HeaderValue::from_static("text/html");
        assert_eq!(typed("{body: <p>, content_type: text/html}"), Ok(Some(html)));
        assert_eq!(typed("{status: 204}"), Ok(None));
    }

    #[test]
    fn what_could_not_be_sent_is_refused() {
        let large = format!("{{body: {}}}", "x".repeat(MAX_BODY + 1));
        for (text, why) in [
            ("{status: 199}", "must be from 200 to 599"),
            ("{status: 600}", "must be from 200 to 599"),
            ("{status: 301}", "write `redirect`"),
            ("{status: 304}", "write `redirect`"),
            ("{status: 204, body: x}", "has no body"),
            ("{content_type: \"text/html\\r\\nX: 1\"}", "one line"),
            ("{content_type: html}", "one line"),
            ("{headers: {X-A: \"1\\r\\nX-B: 2\"}}", "one line"),
            ("{headers: {Content-Length: '1'}}", "frames the message"),
            ("{headers: {Content-Type: text/html}}", "as `content_type`"),
            ("{bodyy: x}", "unknown field"),
            (&large, "more than the 64KiB"),
        ] {
            let error = parse(text).expect_err(why);
            assert!(error.contains(why), "{why}: {}", error.chars().take(200).collect::<String>());
        }
        assert!(parse(&large.replacen('x', "", 1)).is_ok(), "the largest one");
    }
}
