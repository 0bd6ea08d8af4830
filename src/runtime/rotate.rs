//! Exchanges certificates, keys and authorities whose files have changed, without a reload
//! (`server.watch_certificates`).
//!
//! ```text
//!            differs from what is in force               the same once more
//! settled ──────────────────────────────────> changing ──────────────────────> judged: compiled, and in force;
//!    ^                                         │   ^                            or refused, until it differs again
//!    └── as it is in force ────────────────────┘   └── differs again
//! ```
//!
//! Nothing else of the configuration is read: the files are those that the generation in force names. Each
//! listener and each upstream is judged by itself. A reload does the same work for all of them; it and this
//! run in one task, one after the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::shared::Shared;
use super::snapshot::Snapshot;
use super::tls;
use super::tls::{Handshakes, Material};
use super::trust::Trust;
use super::warnings;
use crate::config::Problem;
use crate::config::load::{Contents, KeyPath};
use crate::units::Timespan;

/// Files that have changed are looked at once more after this long, or half the interval if that is shorter: they may
/// be about to change again.
const SETTLES: Duration = Duration::from_millis(500);

/// What is known of the files.
#[derive(Default)]
struct Known {
    contents: Contents,
    /// By the path of `tls`, those whose files are not as they are in force.
    places: BTreeMap<String, Place>,
}

/// A listener or an upstream whose files are not as they are in force.
#[derive(Debug, Default)]
struct Place {
    /// What they held at the last look, if that is not decided yet: they may be about to change again.
    changing: Option<Material>,
    /// What they held when they could not be used.
    refused: Option<Material>,
}

/// What follows from a look at the files of one place.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing.
    Rest,
    /// They are as they are in force again, and had been refused.
    Back,
    /// They have changed; another look tells whether they stay so.
    Wait,
    /// They are to be taken.
    Judge,
}

/// What a look has found.
#[derive(Default)]
struct Found {
    listeners: BTreeMap<String, Arc<Handshakes>>,
    upstreams: BTreeMap<String, Trust>,
    refused: Vec<Vec<Problem>>,
    back: Vec<String>,
}

/// Looks at the files again and again.
pub(super) struct Rotator {
    /// Shared with the thread that looks.
    known: Arc<Mutex<Known>>,
    last: Instant,
    /// Something is about to be decided.
    is_changing: bool,
}

impl Rotator {
    pub(super) fn new() -> Self {
        Rotator { known: Arc::default(), last: Instant::now(), is_changing: false }
    }

    /// Waits for the next look, `every` so often; for ever if that is zero.
    pub(super) async fn due(&self, every: Timespan) {
        if every.is_zero() {
            return std::future::pending().await;
        }
        let pause = if self.is_changing { SETTLES.min(*every / 2) } else { *every };
        tokio::time::sleep_until(self.last + pause).await;
    }

    /// Looks at the files, and puts in force what has changed and can be used.
    pub(super) async fn look(&mut self, shared: &Shared) {
        let snapshot = shared.snapshot.load_full();
        let (known, of) = (self.known.clone(), snapshot.clone());
        let look = move || {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let found = known.look(&of);
            let changing = |place: &Place| place.changing.is_some();
            (found, known.places.values().any(changing), known.refused())
        };
        // The runtime logs a panic in it.
        let looked = tokio::task::spawn_blocking(look).await;
        self.last = Instant::now();
        let Ok((found, is_changing, refused)) = looked else { return };
        self.is_changing = is_changing;
        put_in_force(shared, &snapshot, found).await;
        shared.metrics.tls_files_refused.set(i64::try_from(refused).unwrap_or(i64::MAX));
    }
}

async fn put_in_force(shared: &Shared, snapshot: &Snapshot, found: Found) {
    let Found { listeners, upstreams, refused, back } = found;
    let taken = |place: &str| {
        shared.metrics.tls_rotations.with_label_values(&["ok"]).inc();
        log::info!("{place}: its files have changed, and are in force");
    };
    for (name, trust) in upstreams {
        if let Some(target) = snapshot.upstreams.get(&name) {
            target.trust.store(Arc::new(trust));
            taken(&of_upstream(&name).to_string());
        }
    }
    if !listeners.is_empty() {
        let mut all = BTreeMap::clone(&snapshot.tls.load());
        let names: Vec<_> = listeners.keys().cloned().collect();
        all.extend(listeners);
        snapshot.tls.store(Arc::new(all));
        // `None`: the gateway accepts no more connections.
        let draining = shared.listening.change(BTreeMap::new()).await.unwrap_or_default();
        for name in names {
            taken(&of_listener(&name).to_string());
            for problem in warnings::of_listener(snapshot, &name, SystemTime::now()) {
                log::warn!("{}: {}", problem.path, problem.message);
            }
        }
        for one in draining {
            let s = if one.connections == 1 { "" } else { "s" };
            log::info!(
                "listeners.{}: other clients may connect now: {} connection{s} drain",
                one.listener,
                one.connections
            );
        }
    }
    for problems in refused {
        shared.metrics.tls_rotations.with_label_values(&["failed"]).inc();
        for problem in problems {
            log::error!(
                "{}: its files have changed, and cannot be used: {}; what is in force goes on",
                problem.path,
                problem.message
            );
        }
    }
    for place in back {
        log::info!("{place}: its files are as they are in force");
    }
}

fn of_listener(name: &str) -> KeyPath {
    KeyPath::root().key("listeners").key(name).key("tls")
}

fn of_upstream(name: &str) -> KeyPath {
    KeyPath::root().key("upstreams").key(name).key("tls")
}

impl Known {
    fn refused(&self) -> usize {
        self.places.values().filter(|place| place.refused.is_some()).count()
    }

    /// Looks at all files that `snapshot` names.
    fn look(&mut self, snapshot: &Snapshot) -> Found {
        let mut found = Found::default();
        let in_force = snapshot.tls.load();
        let mut seen = Vec::new();
        for (name, listener) in &snapshot.config.listeners {
            let (Some(wanted), Some(old)) = (&listener.tls, in_force.get(name)) else { continue };
            let place = of_listener(name).to_string();
            let now = Material::of_listener(wanted, &mut self.contents);
            match self.step(&place, now, old.material) {
                Step::Rest | Step::Wait => {}
                Step::Back => found.back.push(place.clone()),
                Step::Judge => match tls::compile(name, wanted, Some(old)) {
                    Ok(new) => {
                        self.take(&place);
                        found.listeners.insert(name.clone(), Arc::new(new));
                    }
                    Err(problems) => self.refuse(place.clone(), now, problems, &mut found),
                },
            }
            seen.push(place);
        }
        for (name, target) in &snapshot.upstreams {
            let config = target.upstream.config();
            if config.tls.files().next().is_none() {
                continue;
            }
            let place = of_upstream(name).to_string();
            let now = Trust::material(config, &mut self.contents);
            match self.step(&place, now, target.trust.load().material) {
                Step::Rest | Step::Wait => {}
                Step::Back => found.back.push(place.clone()),
                Step::Judge => match Trust::of(name, config) {
                    Ok(new) => {
                        self.take(&place);
                        found.upstreams.insert(name.clone(), new);
                    }
                    Err(problem) => self.refuse(place.clone(), now, vec![problem], &mut found),
                },
            }
            seen.push(place);
        }
        // A reload may have removed some.
        self.places.retain(|place, _| seen.contains(place));
        found
    }

    /// What is to be done about a place whose files hold `now`, where `in_force` counts.
    fn step(&mut self, name: &str, now: Material, in_force: Material) -> Step {
        if now == in_force {
            let before = self.places.remove(name).and_then(|place| place.refused);
            return if before.is_some() { Step::Back } else { Step::Rest };
        }
        let place = self.places.entry(name.to_owned()).or_default();
        if place.refused == Some(now) {
            place.changing = None;
            return Step::Rest;
        }
        if place.changing == Some(now) {
            place.changing = None;
            return Step::Judge;
        }
        place.changing = Some(now);
        Step::Wait
    }

    fn take(&mut self, name: &str) {
        self.places.remove(name);
    }

    fn refuse(&mut self, name: String, now: Material, problems: Vec<Problem>, found: &mut Found) {
        self.places.entry(name).or_default().refused = Some(now);
        found.refused.push(problems);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contents of a file, as a number to compare.
    fn material(text: &str) -> Material {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Material::of([file.path()], &mut Contents::default())
    }

    #[test]
    fn what_has_changed_is_judged_once_it_has_stayed_the_same() {
        let (old, half, new) = (material("old"), material("half"), material("new"));
        let mut known = Known::default();
        let mut step = |now| known.step("a", now, old);
        assert_eq!([old, half, new].map(&mut step), [Step::Rest, Step::Wait, Step::Wait]);
        assert_eq!(step(new), Step::Judge);
        assert_eq!([half, old].map(step), [Step::Wait, Step::Rest], "it was taken back");
    }

    #[test]
    fn what_was_refused_is_judged_again_once_it_has_changed() {
        let (old, bad, new) = (material("old"), material("bad"), material("new"));
        let mut known = Known::default();
        assert_eq!([bad, bad].map(|now| known.step("a", now, old)), [Step::Wait, Step::Judge]);
        known.refuse("a".to_owned(), bad, Vec::new(), &mut Found::default());
        assert_eq!([bad, bad].map(|now| known.step("a", now, old)), [Step::Rest, Step::Rest]);
        assert_eq!(known.refused(), 1);
        assert_eq!([new, new].map(|now| known.step("a", now, old)), [Step::Wait, Step::Judge]);
        assert_eq!(known.refused(), 1, "until it is known to be good");
        known.take("a");
        assert_eq!(known.refused(), 0);
        known.refuse("a".to_owned(), bad, Vec::new(), &mut Found::default());
        assert_eq!(known.step("a", old, old), Step::Back);
        assert_eq!(known.refused(), 0);
    }
}
