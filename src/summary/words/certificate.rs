//! What is wrong with an upstream's certificate, so that a person sees it at once.
//!
//! rustls reports it in seconds since 1970 or by the name of a variant, and Pingora adds the name
//! that the certificate should have been for.

use crate::policy::failure::Cause;

const PREFIX: &str = "invalid peer certificate: ";
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `certificate of orders.internal expired 2 days ago`, from Pingora's whole text. `None` if the
/// certificate is not the reason, or the text is not as expected.
pub(super) fn told(cause: Cause, text: &str) -> Option<String> {
    let (said, name) = text.rsplit_once(", SNI: ")?;
    let (_, said) = said.rsplit_once(PREFIX)?;
    let of_name = format!("certificate of {name}");
    Some(match cause {
        Cause::TlsExpired => format!("{of_name} expired {} ago", span(said, " seconds ago)")?),
        Cause::TlsNotYetValid => {
            format!("{of_name} becomes valid in {}", span(said, " seconds in future)")?)
        }
        Cause::TlsUnknownAuthority => {
            format!(
                "{of_name} is not signed by an authority that the gateway trusts: {}",
                signer(said)
            )
        }
        Cause::TlsCertificate => format!("{of_name} is not accepted: {said}"),
        // rustls names both the name that was expected and those that the certificate has.
        Cause::TlsWrongName => said.replace("DnsName(\"", "").replace("\")", ""),
        Cause::Dns
        | Cause::NoEndpoint
        | Cause::EndpointsFull
        | Cause::NoneAvailable
        | Cause::ConnectRefused
        | Cause::Unreachable
        | Cause::ConnectTimeout
        | Cause::ConnectFailed
        | Cause::TlsUnpinned
        | Cause::TlsFailed
        | Cause::RefusedStream
        | Cause::StaleConnection
        | Cause::Reset
        | Cause::Closed
        | Cause::AttemptTimeout
        | Cause::IdleTimeout
        | Cause::DeadlineExceeded
        | Cause::InvalidResponse
        | Cause::AnswerUnreadable
        | Cause::Answered(_)
        | Cause::Grpc(_) => return None,
    })
}

/// What rustls means by the names of its variants.
fn signer(said: &str) -> &str {
    match said {
        "UnknownIssuer" => "its issuer is not known",
        "BadSignature" => "an authority of the issuer's name is trusted, and has another key",
        other => other,
    }
}

/// The number of seconds before `unit`, in the largest unit that fits.
fn span(said: &str, unit: &str) -> Option<String> {
    let (before, _) = said.rsplit_once(unit)?;
    let (_, seconds) = before.rsplit_once('(')?;
    let seconds: u64 = seconds.parse().ok()?;
    let (number, unit) = match seconds {
        DAY.. => (seconds / DAY, "day"),
        HOUR.. => (seconds / HOUR, "hour"),
        MINUTE.. => (seconds / MINUTE, "minute"),
        _ => (seconds, "second"),
    };
    Some(format!("{number} {unit}{}", if number == 1 { "" } else { "s" }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::CertificateError as Bad;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    fn of(cause: Cause, error: Bad) -> Option<String> {
        let error = rustls::Error::InvalidCertificate(error);
        told(cause, &format!("TLS connect() failed: {error}, SNI: orders.internal"))
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_with_its_name_and_age() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        for (seconds, age) in
            [(2 * DAY + HOUR, "2 days"), (DAY, "1 day"), (3 * HOUR, "3 hours"), (59, "59 seconds")]
        {
            let expired = Bad::ExpiredContext { time: at(seconds + 7), not_after: at(7) };
            let said = of(Cause::TlsExpired, expired).expect("words");
            assert_eq!(said, format!("certificate of orders.internal expired {age} ago"));
        }
        let early = Bad::NotValidYetContext { time: at(5), not_before: at(5 + HOUR) };
        let said = of(Cause::TlsNotYetValid, early).expect("words");
        assert_eq!(said, "certificate of orders.internal becomes valid in 1 hour");
        let unknown = of(Cause::TlsUnknownAuthority, Bad::UnknownIssuer).expect("words");
        assert!(unknown.contains("of orders.internal is not signed by"), "{unknown}");
        let expected = ServerName::try_from("orders.internal").expect("a name");
        let presented = vec!["DnsName(\"users.internal\")".to_owned()];
        let other = Bad::NotValidForNameContext { expected, presented };
        let said = of(Cause::TlsWrongName, other).expect("words");
        assert!(said.contains("orders.internal") && said.contains("users.internal"), "{said}");
    }

    #[test]
    fn words_that_are_not_as_expected_are_left_as_they_are() {
        assert_eq!(told(Cause::TlsExpired, "certificate expired"), None);
        assert_eq!(of(Cause::TlsExpired, Bad::Expired), None, "an age is not known");
        assert_eq!(told(Cause::TlsFailed, "TLS connect() failed: eof, SNI: a"), None);
    }
}
