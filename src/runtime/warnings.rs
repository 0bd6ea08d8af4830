//! What is valid but probably not meant, with what only this host knows: its files, its mounts, its
//! limits, the time.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::descriptors::Descriptors;
use super::mounts;
use super::snapshot::Snapshot;
use super::tls::{self, doubts, end_of};
use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::config::{Config, Problem, Sources, warnings};
use crate::record::{Chosen, Mode};

/// An operator needs this long to renew a certificate.
const SOON: Duration = Duration::from_secs(14 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// All warnings about a valid configuration.
pub(super) fn of(
    config: &Config,
    sources: &Sources,
    descriptors: Descriptors,
    now: SystemTime,
) -> Vec<Problem> {
    let mut problems = warnings::warnings(config, sources);
    problems.extend(descriptors.warnings(&config.server));
    problems.extend(certificates(config, now));
    problems.extend(doubts(config));
    problems.extend(rows(config));
    problems
}

/// Rows that are committed on the local disk before their responses, and that will go with it.
fn rows(config: &Config) -> Option<Problem> {
    let record = &config.record;
    let mut policies =
        config.routes.values().map(|route| route.record.as_ref().unwrap_or(&record.default));
    let (path, file, lost) = match record.store.chosen()? {
        Chosen::Postgres(..) => policies.any(|policy| record.needs_journal(policy)).then_some((
            "record.journal.path",
            record.journal.path.as_path(),
            "rows that PostgreSQL does not have yet are lost with it",
        )),
        Chosen::Sqlite(_, file) => policies
            .any(|policy| matches!(policy.mode, Mode::Durable | Mode::Sync))
            .then_some(("record.store.sqlite.path", file, "the record is lost with it")),
    }?;
    let folder = file.parent()?;
    let kind = mounts::of(folder)?;
    let message = format!("{} is {kind}: {lost}", folder.display());
    Some(Problem::new(Code::EphemeralFolder, path, message))
}

/// Certificates and authorities that have ended, or will soon. Reads their files.
fn certificates(config: &Config, now: SystemTime) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, listener) in &config.listeners {
        let Some(tls) = &listener.tls else { continue };
        for (index, files) in tls.certificates.iter().enumerate() {
            // A chain ends with the first of its certificates.
            let ends = ends_in(&files.certificate).into_iter().min();
            problems.extend(expiry(certificate(name, index), &files.certificate, ends, now));
        }
    }
    problems.extend(authorities(config, now));
    problems
}

/// The same of what `snapshot` has in force, which may be older than the files of its listeners.
pub(super) fn in_force(snapshot: &Snapshot, now: SystemTime) -> Vec<Problem> {
    let listeners = snapshot.config.listeners.keys();
    let shown = listeners.flat_map(|name| of_listener(snapshot, name, now));
    shown.chain(authorities(&snapshot.config, now)).collect()
}

/// Certificates that the listener `name` shows and that have ended, or will soon.
pub(super) fn of_listener(snapshot: &Snapshot, name: &str, now: SystemTime) -> Vec<Problem> {
    let all = snapshot.tls.load();
    let shown = all.get(name).map(|tls| &tls.not_after[..]).unwrap_or_default();
    let warning = |(index, (file, ends)): (usize, &(String, i64))| {
        expiry(certificate(name, index), Path::new(file), Some(*ends), now)
    };
    shown.iter().enumerate().filter_map(warning).collect()
}

fn certificate(listener: &str, index: usize) -> KeyPath {
    let tls = KeyPath::root().key("listeners").key(listener).key("tls");
    tls.key("certificates").index(index).key("certificate")
}

/// Authorities of clients and of upstreams that have ended, or will soon. Reads their files.
fn authorities(config: &Config, now: SystemTime) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, listener) in &config.listeners {
        let Some(tls) = &listener.tls else { continue };
        let path = KeyPath::root().key("listeners").key(name).key("tls");
        if let Some(file) = &tls.client_ca {
            let ends = ends_in(file).into_iter().max();
            problems.extend(expiry(path.key("client_ca"), file, ends, now));
        }
    }
    for (name, upstream) in &config.upstreams {
        let path = KeyPath::root().key("upstreams").key(name).key("tls");
        if let Some(own) = &upstream.tls.client_certificate {
            let file = &own.certificate;
            let ends = ends_in(file).into_iter().min();
            let path = path.clone().key("client_certificate").key("certificate");
            problems.extend(expiry(path, file, ends, now));
        }
        let Some(file) = &upstream.tls.ca else { continue };
        let path = path.key("ca");
        // Any authority of a bundle may be the one that is needed, until the last one ends.
        let ends = ends_in(file).into_iter().max();
        problems.extend(expiry(path, file, ends, now));
    }
    problems
}

/// When the certificates in a file end, in seconds since 1970. A file that cannot be read is an
/// error elsewhere.
fn ends_in(file: &Path) -> Vec<i64> {
    tls::certificates(file).unwrap_or_default().iter().filter_map(end_of).collect()
}

fn expiry(path: KeyPath, file: &Path, ends: Option<i64>, now: SystemTime) -> Option<Problem> {
    let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(ends?).unwrap_or(0));
    let file = file.display();
    let days = |span: Duration| match span.as_secs() / DAY {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    match ends.duration_since(now) {
        Ok(left) if left > SOON => None,
        Ok(left) => {
            let message = format!("{file} expires in {}", days(left));
            Some(Problem::new(Code::CertificateExpiring, path, message))
        }
        Err(past) => {
            let message = format!("{file} expired {} ago", days(past.duration()));
            Some(Problem::new(Code::CertificateExpired, path, message))
        }
    }
}
