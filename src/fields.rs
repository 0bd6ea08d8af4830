//! Single values of a request: a cookie, a parameter of the query. Found where they lie, without a copy.
//!
//! Both come in forms that servers read in different ways. Here the first one of a name counts, and
//! names are compared exactly.

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};
use serde::de::{self, Deserialize, Deserializer};

/// The value of the first cookie of this name, without the quotes that may enclose it.
///
/// As RFC 6265, section 5.2, reads cookies: pairs are separated by semicolons, blanks around names and
/// values do not count, and what has no `=` is passed over. A client of HTTP/2 may send several lines;
/// they are read in their order. Nothing is decoded.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(COOKIE).into_iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let is_it = pair[..equals].trim_ascii() == name.as_bytes();
        is_it.then(|| unquoted(pair[equals + 1..].trim_ascii()))
    })
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// Whether a cookie can have this name: RFC 6265, section 4.1.1.
pub fn is_cookie_name(name: &str) -> bool {
    // The names of headers and of cookies are both tokens of HTTP.
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !SEPARATORS.contains(&byte))
}

/// What separates tokens: RFC 9110, section 5.6.2.
const SEPARATORS: &[u8] = b"\"(),/:;<=>?@[\\]{}";

/// The value of the first parameter of this name; empty if it has none.
///
/// As forms write queries: pairs are separated by `&`, `+` is a blank, and `%` begins an octet. A `%`
/// that does not is taken as it stands. A semicolon separates nothing.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<Encoded<'a>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // An empty pair is between two separators, and is no parameter.
        let is_it = !pair.is_empty() && Encoded(key).is(name.as_bytes());
        is_it.then_some(Encoded(value))
    })
}

/// A part of a query as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded<'a>(pub &'a str);

impl<'a> Encoded<'a> {
    /// Whether it decodes to `text`.
    pub fn is(self, text: &[u8]) -> bool {
        self.octets().eq(text.iter().copied())
    }

    /// Whether it decodes to something that begins with `text`.
    pub fn begins_with(self, text: &[u8]) -> bool {
        let mut octets = self.octets();
        text.iter().all(|byte| octets.next() == Some(*byte))
    }

    /// What it decodes to.
    pub fn octets(self) -> impl Iterator<Item = u8> + 'a {
        let mut rest = self.0.as_bytes();
        std::iter::from_fn(move || {
            let (&first, tail) = rest.split_first()?;
            rest = tail;
            Some(match first {
                b'+' => b' ',
                b'%' => match escaped(tail) {
                    Some(octet) => {
                        rest = &tail[2..];
                        octet
                    }
                    None => b'%',
                },
                plain => plain,
            })
        })
    }
}

/// The octet that two hexadecimal digits at the start of `text` stand for.
fn escaped(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|&byte| char::from(byte).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// Reads the name of a header in a configuration.
///
/// # Errors
/// It is not the name of a header.
pub fn header_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderName, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map_err(|_| de::Error::custom(format_args!("`{name}` is not a header name")))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    use super::*;

    fn in_lines(lines: &[&str], name: &str) -> Option<String> {
        let line =
            |line: &&str| (COOKIE, HeaderValue::from_bytes(line.as_bytes()).expect("a value"));
        let headers: HeaderMap = lines.iter().map(line).collect();
        cookie(&headers, name).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    #[test]
    fn the_first_cookie_of_a_name_counts_over_all_lines() {
        for (lines, value) in [
            (&["a=1; b=2"][..], Some("2")),
            (&["b=1; b=2"], Some("1")),
            (&["a=1", "b=2", "b=3"], Some("2")),
            (&["a=b=1;b=c=d"], Some("c=d")),
            (&["b=", "b=2"], Some("")),
            (&[" b = 2 ;a=1"], Some("2")),
            (&["a;b;;b=2"], Some("2")),
            (&["b=\"2 3\""], Some("2 3")),
            (&["b=\""], Some("\"")),
            (&["b=%32"], Some("%32")),
            (&["B=2; bb=2; =b"], None),
            (&[], None),
        ] {
            assert_eq!(in_lines(lines, "b").as_deref(), value, "{lines:?}");
        }
    }

    #[test]
    fn the_first_parameter_of_a_name_counts_and_is_decoded() {
        let value = |query: &str| {
            parameter(query, "v")
                .map(|v| String::from_utf8_lossy(&v.octets().collect::<Vec<_>>()).into_owned())
        };
        for (query, expected) in [
            ("v=1&v=2", Some("1")),
            ("a=v=2&v=1=3", Some("1=3")),
            ("v", Some("")),
            ("v=", Some("")),
            ("%76=%31+%zz%3", Some("1 %zz%3")),
            ("a=1;v=2", None),
            ("V=1&vv=2&", None),
            ("", None),
        ] {
            assert_eq!(value(query).as_deref(), expected, "{query}");
        }
        assert_eq!(parameter("", ""), None);
        assert_eq!(parameter("=1", ""), Some(Encoded("1")));
    }

    /// The rule in other words, by strings.
    fn model(lines: &[String], name: &str) -> Option<String> {
        let joined = lines.join(";");
        let pairs = joined.split(';').filter_map(|pair| pair.split_once('='));
        let blank = |c: char| c.is_ascii_whitespace();
        let mut named =
            pairs.map(|(key, value)| (key.trim_matches(blank), value.trim_matches(blank)));
        let value = named.find(|(key, _)| *key == name)?.1;
        let quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
        Some(if quoted { &value[1..value.len() - 1] } else { value }.to_owned())
    }

    proptest! {
        #[test]
        fn any_lines_of_cookies_are_read_by_the_same_rule(
            lines in proptest::collection::vec("[ab=;\" ,\t]{0,12}", 0..4),
            name in "[ab]{1,2}",
        ) {
            let borrowed: Vec<&str> = lines.iter().map(String::as_str).collect();
            prop_assert_eq!(in_lines(&borrowed, &name), model(&lines, &name));
        }

        #[test]
        fn a_value_is_compared_as_it_would_be_decoded(
            sent in "[a%+ 0-9A-Fé]{0,12}",
            text in "[a%+ 0-9A-F]{0,4}",
        ) {
            let decoded: Vec<u8> = percent_decode_str(&sent.replace('+', " ")).collect();
            let encoded = Encoded(&sent);
            prop_assert_eq!(encoded.octets().collect::<Vec<_>>(), decoded.clone());
            prop_assert!(encoded.is(&decoded) && encoded.begins_with(&decoded));
            prop_assert_eq!(encoded.is(text.as_bytes()), decoded == text.as_bytes());
            prop_assert_eq!(encoded.begins_with(text.as_bytes()), decoded.starts_with(text.as_bytes()));
        }
    }
}
