//! What an error said, in its own words.

mod certificate;

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::sync::Arc;

use crate::policy::failure::Cause;

/// Longest error text in characters: part of it may come from the peer.
const MAX_WORDS: usize = 300;

/// An error's description, not formatted yet.
#[derive(Debug, Default)]
pub enum Words {
    /// The cause says it all.
    #[default]
    None,
    /// Shown as it is, in one line and cut at a limit.
    Text(Cow<'static, str>),
    /// The same, such as the error of a look-up.
    Shared(Arc<str>),
    /// The innermost source is shown.
    Error(Box<dyn Error + Send + Sync>),
}

/// Errors by which Linux says that it cannot open a connection, whatever the peer does: EPERM and
/// EACCES (a firewall of this host), EINVAL (an address that needs a link), EMFILE and ENFILE,
/// ENOMEM and ENOBUFS, EAFNOSUPPORT, EADDRINUSE and EADDRNOTAVAIL (no free port), ENETDOWN and
/// ENETUNREACH.
const OF_OWN_SYSTEM: [i32; 12] = [1, 12, 13, 22, 23, 24, 97, 98, 99, 100, 101, 105];

impl Words {
    /// Whether the gateway's own system could not open a connection.
    pub fn is_of_own_system(&self) -> bool {
        match self {
            Words::None | Words::Text(_) | Words::Shared(_) => false,
            Words::Error(error) => innermost(&**error)
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error)
                .is_some_and(|number| OF_OWN_SYSTEM.contains(&number)),
        }
    }

    /// What the error says besides `cause`: one line of bounded length, without control characters.
    pub fn of(&self, cause: Cause) -> Option<String> {
        let said = match (cause, self) {
            (Cause::Answered(status), _) => return Some(format!("status {status}")),
            // The upstream's own: nothing in it is a chain of errors.
            (Cause::Grpc(code), Words::Text(message)) => {
                return Some(plain(&format!("grpc-status {code}: {message}")));
            }
            (Cause::Grpc(code), _) => return Some(format!("grpc-status {code}")),
            // The error's message would repeat the cause; of a timer, which of several fired.
            (
                Cause::ConnectRefused
                | Cause::ConnectTimeout
                | Cause::AttemptTimeout
                | Cause::IdleTimeout
                | Cause::DeadlineExceeded,
                _,
            )
            | (_, Words::None) => return None,
            (_, Words::Text(text)) => text.to_string(),
            (_, Words::Shared(text)) => text.to_string(),
            (_, Words::Error(error)) => innermost(&**error).to_string(),
        };
        let told = certificate::told(cause, &said);
        let said = told.as_deref().unwrap_or_else(|| without_chain(&said));
        // rustls's words for what is no TLS record, such as text.
        let said = match said.ends_with("corrupt message of type InvalidContentType") {
            true => plain("the peer does not speak TLS"),
            false => plain(said),
        };
        (!said.is_empty()).then_some(said)
    }
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// Pingora reports a TLS error in one text with its whole context; the error itself comes last.
fn without_chain(text: &str) -> &str {
    let text = text.rsplit_once(", SNI: ").map_or(text, |(before, _)| before);
    let text = match (text.rsplit_once(" cause: "), text.rsplit_once(" context: ")) {
        (Some((_, last)), _) | (None, Some((_, last))) => last,
        (None, None) => text,
    };
    text.trim_start_matches("tls connect error: ").trim()
}

/// One line of bounded length, without control characters.
fn plain(text: &str) -> String {
    text.chars().take(MAX_WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_chain_the_last_error_is_told() {
        let chain = "TLS connect() failed:  TLSHandshakeFailure context: tls connect error cause: \
                     invalid peer certificate: UnknownIssuer, SNI: one.test";
        assert_eq!(without_chain(chain), "invalid peer certificate: UnknownIssuer");
        let chain = "TLS accept() failed:  TLSHandshakeFailure context: tls connect error: tls \
                     handshake eof";
        assert_eq!(without_chain(chain), "tls handshake eof");
    }

    #[test]
    fn what_the_own_system_refuses_is_told_from_what_a_peer_refuses() {
        let words = |number| Words::Error(Box::new(io::Error::from_raw_os_error(number)));
        for (number, own) in [(24, true), (99, true), (101, true), (111, false), (113, false)] {
            assert_eq!(words(number).is_of_own_system(), own, "{number}");
        }
        assert!(!Words::Text("os error 24".into()).is_of_own_system());
    }

    #[test]
    fn words_from_outside_stay_one_short_line() {
        let words = Words::Text(format!("a\nb\u{1b}[31m{}", "c".repeat(1000)).into());
        let said = words.of(Cause::TlsFailed).expect("words");
        assert!(said.starts_with("a b [31mc") && said.len() == MAX_WORDS, "{said}");
    }
}
