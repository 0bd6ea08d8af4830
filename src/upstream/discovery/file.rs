//! A list of endpoints in a file, in YAML or JSON.

use serde::Deserialize;

use super::known::Said;
use crate::upstream::config::Listed;

/// What a file may look like.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a list of endpoints, alone or under `endpoints`")]
enum Document {
    List(Vec<serde_yaml::Value>),
    Mapping(Mapping),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    endpoints: Vec<serde_yaml::Value>,
}

/// The endpoints that the file's text lists.
pub fn read(text: &str) -> Said<Vec<Listed>> {
    let document = match serde_yaml::from_str(text) {
        Ok(document) => document,
        Err(error) => return Said::Failed(error.to_string()),
    };
    let entries = match document {
        Some(Document::List(entries) | Document::Mapping(Mapping { endpoints: entries })) => {
            entries
        }
        None => Vec::new(),
    };
    let mut listed = Vec::with_capacity(entries.len());
    for (place, entry) in entries.into_iter().enumerate() {
        match serde_yaml::from_value(entry) {
            Ok(entry) => listed.push(entry),
            Err(error) => return Said::Failed(format!("endpoint {}: {error}", place + 1)),
        }
    }
    Said::of(listed, "it lists no endpoint")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> Result<usize, String> {
        match read(text) {
            Said::These(listed) => Ok(listed.len()),
            Said::Nothing(_) => Ok(0),
            Said::Failed(error) => Err(error),
        }
    }

    #[test]
    fn a_list_may_be_yaml_or_json_alone_or_under_its_name() {
        for text in [
            "- http://10.0.0.1:80\n- {url: 'http://10.0.0.2:80', weight: 3}\n",
            "endpoints:\n  - http://10.0.0.1:80\n  - http://a.internal:80\n",
            r#"["http://10.0.0.1:80", {"url": "unix:/run/a.sock", "backup": true}]"#,
            r#"{"endpoints": ["http://10.0.0.1:80", "http://10.0.0.2:80"]}"#,
        ] {
            assert_eq!(count(text), Ok(2), "{text}");
        }
    }

    #[test]
    fn a_file_without_endpoints_says_that_there_is_nothing() {
        for text in ["", "# none\n", "[]", "endpoints: []"] {
            assert_eq!(count(text), Ok(0), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_is_named() {
        for (text, says) in [
            ("- http://10.0.0.1:80\n- {url: 'http://10.0.0.2:80', weight: 0}\n", "endpoint 2: "),
            ("- ftp://10.0.0.1\n", "endpoint 1: "),
            ("endpoint: [a]", "endpoints"),
            ("7", "expected a list of endpoints"),
            ("[", "while parsing"),
        ] {
            let error = count(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
