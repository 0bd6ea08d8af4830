//! `timeout:` of a route: how long everything may take, and how slow a client may be.

use std::time::Duration;

use serde::Deserialize;

use crate::units::{Size, Timespan};

/// Time limits. Zero means no limit.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Limit on establishing one attempt's TCP and TLS connection; default 1 s.
    pub connect: Timespan,
    /// Limit on one attempt, from its start to the last byte of its response; default: none. At
    /// most `request`.
    pub attempt: Timespan,
    /// Limit on the wait for the head of an attempt's response, once the request has been sent. It
    /// bounds neither the upload nor the rest of the response. Absent: 15 s, or none where the
    /// route says what it needs instead, by `attempt`, or by a `request` of 0 or more than 60 s:
    /// such a route streams, or is known to be slow.
    pub first_byte: Option<Timespan>,
    /// Limit on the whole request, from its head to the last byte of the response, retries and
    /// waits included; default 60 s. RPC callers may set a shorter one.
    pub request: Timespan,
    /// Limit on the silence of the upstream, or of a client that is sending a body; default 60 s.
    pub idle: Timespan,
    /// The least number of bytes that a client must send of a body in each second in which it is waited for,
    /// on average over 5 s; 408 below it. Does not apply to streams of RPC and WebSockets. 0: no limit.
    /// Absent: 256 B for bodies with a `Content-Length`, none for others, which may be live.
    pub min_upload_rate: Option<Size>,
    /// How long a client may be waited for before `min_upload_rate` applies; default 10 s.
    pub upload_grace: Timespan,
    /// The same for a client that reads a response over HTTP/1 more slowly than it comes, on average over
    /// `idle`; the connection is closed below it. What counts is what the gateway's system has taken, in pieces of
    /// about 64 KiB, and a client's system may take more at once than its program reads. 0: no limit. Default 256 B.
    pub min_download_rate: Size,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Timespan::from_secs(1),
            attempt: Timespan::default(),
            first_byte: None,
            request: DEFAULT_REQUEST,
            idle: Timespan::from_secs(60),
            min_upload_rate: None,
            upload_grace: Timespan::from_secs(10),
            min_download_rate: MIN_RATE,
        }
    }
}

/// The default of `request`.
const DEFAULT_REQUEST: Timespan = Timespan::from_secs(60);
/// The default of `first_byte`, where there is one.
const DEFAULT_FIRST_BYTE: Timespan = Timespan::from_secs(15);

/// Bytes a second, below which a client holds a connection and does not use it.
const MIN_RATE: Size = Size(256);
/// The time over which an upload's rate is taken.
const UPLOAD_WINDOW: Duration = Duration::from_secs(5);

impl Timeouts {
    /// The least rate of a request's body, in bytes a second, and the time over which it is taken: at first, and from
    /// then on. Zero means no limit.
    pub fn upload_pace(&self, has_length: bool) -> (u64, Duration, Duration) {
        let default = if has_length { MIN_RATE.0 } else { 0 };
        let rate = self.min_upload_rate.map_or(default, |written| written.0);
        let grace = *self.upload_grace;
        // Who is less patient at first is so later.
        let window = if grace.is_zero() { UPLOAD_WINDOW } else { UPLOAD_WINDOW.min(grace) };
        (rate, grace, window)
    }

    /// The same of a response that a client reads; the time is always the same.
    pub fn download_pace(&self) -> (u64, Duration) {
        (self.min_download_rate.0, *self.idle)
    }

    /// The limit on the wait for the head of a response; `None` means no limit.
    pub fn first_byte(&self) -> Option<Duration> {
        let streams = self.request.is_zero() || self.request > DEFAULT_REQUEST;
        let limit = match self.first_byte {
            Some(written) => written,
            None if streams || !self.attempt.is_zero() => return None,
            None => DEFAULT_FIRST_BYTE,
        };
        (!limit.is_zero()).then_some(*limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_is_waited_for_15_seconds_unless_the_route_streams() {
        for (yaml, seconds) in [
            ("{}", Some(15)),
            ("{request: 30s}", Some(15)),
            ("{request: 60s, attempt: 0}", Some(15)),
            ("{request: 0}", None),
            ("{request: 61s}", None),
            ("{attempt: 30s}", None),
            ("{first_byte: 0}", None),
            ("{first_byte: 3s, request: 0}", Some(3)),
            ("{first_byte: 3s, attempt: 5s}", Some(3)),
        ] {
            let timeouts: Timeouts = serde_yaml::from_str(yaml).expect("valid");
            assert_eq!(timeouts.first_byte(), seconds.map(Duration::from_secs), "{yaml}");
        }
    }

    #[test]
    fn a_body_without_a_length_may_be_live_unless_the_operator_says_otherwise() {
        for (yaml, with_length, without) in [
            ("{}", 256, 0),
            ("{min_upload_rate: 1KiB}", 1024, 1024),
            ("{min_upload_rate: 0}", 0, 0),
        ] {
            let timeouts: Timeouts = serde_yaml::from_str(yaml).expect("valid");
            let rates = (timeouts.upload_pace(true).0, timeouts.upload_pace(false).0);
            assert_eq!(rates, (with_length, without), "{yaml}");
        }
    }
}
