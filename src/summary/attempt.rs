//! Attempts at a request: how they failed, and what took the time.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::failure::Cause;
use crate::summary::words::Words;

/// What took a request's time, over all of its attempts. What is not in here is waiting for the
/// client, or for what the response's head was withheld for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// From the head to the first attempt: stores that were asked, a body that had to be read, the
    /// wait for a slot. Of a request that waited for a slot in vain, up to then.
    pub queue: Duration,
    /// Waiting for connections, new or pooled, TLS included.
    pub connect: Duration,
    /// From there to the heads of responses, or to the ends of attempts without one.
    pub first_byte: Duration,
    /// From the last response's head to its end.
    pub body: Duration,
    /// Waiting between attempts.
    pub backoff: Duration,
}

/// How an upstream failed an attempt.
#[derive(Debug)]
pub struct Failure {
    /// In one word.
    pub cause: Cause,
    /// What the engine or the system said.
    pub words: Words,
    /// Its name.
    pub upstream: Arc<str>,
    /// Its address, as the configuration has it; `None` if there was none to ask.
    pub endpoint: Option<Arc<str>>,
}

/// An attempt that was followed by another.
#[derive(Debug)]
pub struct Past {
    /// Its address, as the configuration has it.
    pub endpoint: Arc<str>,
    /// From the request's head to the attempt's start.
    pub after: Duration,
    /// To the moment when its outcome was known.
    pub duration: Duration,
    /// That of its response.
    pub status: Option<u16>,
    /// Why it was not the last.
    pub failure: Option<Arc<Failure>>,
}
