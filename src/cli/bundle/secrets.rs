//! What must not be in a bundle, wherever it turns up: the values that `portcullis config` hides, and those
//! of variables that hold secrets by their names.
//!
//! The parts of a bundle hold no secrets by themselves. This is for what no part can know: a token in the text
//! of an error, a password in a line of a log.

use percent_encoding::percent_decode_str;

use crate::config::Environment;
use crate::config::effective::{Effective, Origin, Shape};

/// Shown instead.
const HIDDEN: &[u8] = b"***";
/// Shorter ones would be found in ordinary words.
const SHORTEST: usize = 6;
/// Words in the names of variables whose values are secrets.
const NAMES: [&str; 8] =
    ["TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL", "API_KEY", "PRIVATE", "HEADERS"];

/// Longest first, so that no part of one is left.
#[derive(Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Those of the configuration, if there is one; of this command's own environment; and `more`.
    pub(super) fn of(
        config: Option<&Effective>,
        environment: &Environment,
        more: impl IntoIterator<Item = String>,
    ) -> Self {
        let mut secrets = Secrets(more.into_iter().collect());
        if let Some(config) = config {
            secrets.collect(config, environment);
        }
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().to_uppercase();
            if NAMES.iter().any(|word| name.contains(word)) {
                secrets.add(&value.to_string_lossy());
            }
        }
        secrets.0.retain(|secret| secret.len() >= SHORTEST);
        secrets.0.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.0.dedup();
        secrets
    }

    fn collect(&mut self, part: &Effective, environment: &Environment) {
        match &part.value {
            Shape::Map(entries) => {
                entries.iter().for_each(|(_, part)| self.collect(part, environment));
            }
            Shape::List(elements) => {
                elements.iter().for_each(|part| self.collect(part, environment));
            }
            Shape::Scalar(value) if part.hidden => {
                self.add(value.as_str().unwrap_or(&value.to_string()));
                let Origin::File { references, .. } = &part.origin else { return };
                for name in references.iter().filter_map(|reference| variable(reference)) {
                    if let Ok(Some(value)) = environment.lookup(name) {
                        self.add(&value);
                    }
                }
            }
            Shape::Scalar(_) => {}
        }
    }

    /// A value as it is, and what of it is the secret proper: what follows a scheme (`Bearer …`), the password
    /// of a URL, each value of a list of headers.
    fn add(&mut self, value: &str) {
        self.0.push(value.to_owned());
        self.0.extend(value.split_whitespace().last().map(str::to_owned));
        let password = value.split_once("://").and_then(|(_, rest)| {
            let authority = rest.split(['/', '?', '#']).next()?;
            authority.rsplit_once('@')?.0.split_once(':').map(|(_, password)| password)
        });
        let headers = value.split(',').filter_map(|pair| pair.split_once('=')).map(|(_, v)| v);
        for part in password.into_iter().chain(headers) {
            let decoded = percent_decode_str(part).decode_utf8_lossy();
            self.0.extend(decoded.split_whitespace().last().map(str::to_owned));
            self.0.extend([part.to_owned(), decoded.into_owned()]);
        }
    }

    /// `content` without them.
    pub(super) fn hide(&self, mut content: Vec<u8>) -> Vec<u8> {
        for secret in &self.0 {
            let found: Vec<_> = memchr::memmem::find_iter(&content, secret.as_bytes()).collect();
            if found.is_empty() {
                continue;
            }
            let (mut without, mut from) = (Vec::with_capacity(content.len()), 0);
            for at in found {
                without.extend_from_slice(&content[from..at]);
                without.extend_from_slice(HIDDEN);
                from = at + secret.len();
            }
            without.extend_from_slice(&content[from..]);
            content = without;
        }
        content
    }
}

/// The name in `${NAME}`, `${NAME:-default}` and `${NAME:?why}`; `None` of a file.
pub(super) fn variable(reference: &str) -> Option<&str> {
    let inner = reference.strip_prefix("${")?.strip_suffix('}')?;
    let name = inner.split(':').next()?;
    (!inner.starts_with("file:")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(secrets: &[&str], text: &str) -> String {
        let environment = Environment::fixed([("", ""); 0]);
        let mut all = Secrets::default();
        secrets.iter().for_each(|secret| all.add(secret));
        let all = Secrets::of(None, &environment, all.0);
        String::from_utf8(all.hide(text.into())).expect("text")
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_is_and_so_is_its_core() {
        let text = "Bearer hunter2-hunter2, hunter2-hunter2; x";
        assert_eq!(hidden(&["Bearer hunter2-hunter2"], text), "***, ***; x");
        let url = "postgres://me:pass%40word@db:5432/main";
        assert_eq!(hidden(&[url], &format!("{url} pass@word pass%40word")), "*** *** ***");
        let headers = "authorization=Bearer%20s3cret-1,x-tenant=tenant-7";
        assert_eq!(hidden(&[headers], "s3cret-1 of tenant-7"), "*** of ***");
    }

    #[test]
    fn what_is_too_short_to_be_told_from_a_word_stays() {
        assert_eq!(hidden(&["abc"], "abcdef"), "abcdef");
    }

    #[test]
    fn a_reference_names_a_variable_or_a_file() {
        assert_eq!(variable("${TOKEN}"), Some("TOKEN"));
        assert_eq!(variable("${TOKEN:-none}"), Some("TOKEN"));
        assert_eq!(variable("${TOKEN:?it must be set}"), Some("TOKEN"));
        assert_eq!(variable("${file:token.txt}"), None);
    }
}
