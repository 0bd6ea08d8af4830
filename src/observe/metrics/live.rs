//! Counts for named things (routes, upstreams) that a reload can add or remove.
//!
//! A thing takes memory only once it is first counted, and a route is shown only then: if ten of ten
//! thousand routes are used, a scrape costs as much as for ten. Things that a reload keeps go on
//! counting under their name. A thing that no generation and no request holds any more is forgotten.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use prometheus::core::{Collector, Desc, Describer};
use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::register::opts;
use super::words::Facets;

/// A family of metrics with one part per thing.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    /// In sorted order.
    pub(super) labels: &'static [&'static str],
}

/// The counts of one thing.
pub(super) trait Counted: Default + Send + Sync + 'static {
    const SHAPES: &'static [Shape];
    /// Whether a thing is shown before it is first counted, as zero.
    const FROM_THE_START: bool;

    /// Adds the thing's metrics to the families, which are in the order of the shapes.
    fn show(&self, name: &str, facets: Facets, families: &mut [Vec<Metric>]);
}

/// All things of one kind, as a collector of their metrics.
pub(super) struct Live<T: Counted>(Arc<Names<T>>);

struct Names<T: Counted> {
    descriptions: Vec<Desc>,
    /// Locked by compilations and scrapes, not by requests.
    entries: Mutex<Entries<T>>,
}

type Entries<T> = BTreeMap<Arc<str>, Weak<Entry<T>>>;

/// One thing with its counts.
pub(super) struct Entry<T: Counted> {
    name: Arc<str>,
    counts: OnceLock<Box<T>>,
    /// Those of the generation in force.
    facets: AtomicU64,
    names: Weak<Names<T>>,
}

impl<T: Counted> Live<T> {
    pub(super) fn new() -> prometheus::Result<Self> {
        let describe = |shape: &Shape| {
            let labels = shape.labels.iter().map(ToString::to_string).collect();
            opts(shape.name, shape.help).variable_labels(labels).describe()
        };
        let descriptions = T::SHAPES.iter().map(describe).collect::<prometheus::Result<_>>()?;
        Ok(Live(Arc::new(Names { descriptions, entries: Mutex::default() })))
    }

    /// The counts under `name`: the existing ones, as long as they are held anywhere; else new ones with
    /// these `facets`.
    pub(super) fn of(&self, name: &Arc<str>, facets: Facets) -> Arc<Entry<T>> {
        let mut entries = self.0.lock();
        if let Some(entry) = entries.get(name).and_then(Weak::upgrade) {
            return entry;
        }
        let (counts, names) = (OnceLock::new(), Arc::downgrade(&self.0));
        let facets = AtomicU64::new(facets.to_bits());
        let entry = Arc::new(Entry { name: name.clone(), counts, facets, names });
        entries.insert(name.clone(), Arc::downgrade(&entry));
        entry
    }
}

impl<T: Counted> Names<T> {
    fn lock(&self) -> MutexGuard<'_, Entries<T>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Counted> Entry<T> {
    /// The counts, for adding. Neither locks nor allocates after the first call.
    pub(super) fn counts(&self) -> &T {
        self.counts.get_or_init(Box::default)
    }

    /// The counts, if anything was counted.
    pub(super) fn counted(&self) -> Option<&T> {
        self.counts.get().map(|counts| &**counts)
    }

    /// The generation with these facets is in force.
    pub(super) fn set_facets(&self, facets: Facets) {
        // Relaxed: they only say what is counted and shown.
        self.facets.store(facets.to_bits(), Ordering::Relaxed);
    }

    pub(super) fn facets(&self) -> Facets {
        Facets::from_bits(self.facets.load(Ordering::Relaxed))
    }
}

impl<T: Counted> Drop for Entry<T> {
    fn drop(&mut self) {
        let Some(names) = self.names.upgrade() else { return };
        let mut entries = names.lock();
        // A new entry may have taken the name meanwhile.
        if entries.get(&self.name).is_some_and(|entry| entry.strong_count() == 0) {
            entries.remove(&self.name);
        }
    }
}

impl<T: Counted> Clone for Live<T> {
    fn clone(&self) -> Self {
        Live(self.0.clone())
    }
}

impl<T: Counted> Collector for Live<T> {
    fn desc(&self) -> Vec<&Desc> {
        self.0.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Collected first, so that no entry is dropped while the lock is held: dropping the last
        // reference to an entry takes the lock.
        let entries: Vec<_> = self.0.lock().values().filter_map(Weak::upgrade).collect();
        let mut metrics: Vec<Vec<Metric>> = T::SHAPES.iter().map(|_| Vec::new()).collect();
        let nothing = T::default();
        for entry in &entries {
            let counts = entry.counted().or(T::FROM_THE_START.then_some(&nothing));
            if let Some(counts) = counts {
                counts.show(&entry.name, entry.facets(), &mut metrics);
            }
        }
        let shapes = T::SHAPES.iter().zip(&self.0.descriptions);
        let family = |((shape, description), metrics): ((&Shape, &Desc), _)| {
            let mut family = MetricFamily::default();
            family.set_name(description.fq_name.clone());
            family.set_help(description.help.clone());
            family.set_field_type(shape.kind);
            family.set_metric(metrics);
            family
        };
        shapes.zip(metrics).map(family).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::shown;
    use super::*;

    #[derive(Default)]
    struct Seen(AtomicU64);

    impl Counted for Seen {
        const SHAPES: &'static [Shape] = &[Shape {
            name: "seen_total",
            help: "Seen",
            kind: MetricType::COUNTER,
            labels: &["thing"],
        }];
        const FROM_THE_START: bool = false;

        fn show(&self, name: &str, _: Facets, families: &mut [Vec<Metric>]) {
            families[0].push(shown::counter(&[("thing", name)], self.0.load(Ordering::Relaxed)));
        }
    }

    impl Entry<Seen> {
        fn see(&self) {
            self.counts().0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The names and counts that a scrape shows.
    fn shown(live: &Live<Seen>) -> Vec<(String, f64)> {
        let families = live.collect();
        let metrics = families[0].get_metric().iter();
        metrics
            .map(|m| (m.get_label()[0].value().to_owned(), m.get_counter().get_value()))
            .collect()
    }

    fn of(live: &Live<Seen>, name: &str) -> Arc<Entry<Seen>> {
        live.of(&name.into(), Facets::default())
    }

    fn live() -> Live<Seen> {
        Live::new().expect("descriptions that are right")
    }

    #[test]
    fn what_was_never_counted_is_not_shown() {
        let live = live();
        let (used, _unused) = (of(&live, "used"), of(&live, "unused"));
        assert_eq!(shown(&live), []);
        used.see();
        assert_eq!(shown(&live), [("used".to_owned(), 1.0)]);
    }

    #[test]
    fn a_name_that_is_kept_goes_on_counting() {
        let live = live();
        let before = of(&live, "a");
        before.see();
        let after = of(&live, "a");
        drop(before);
        after.see();
        assert_eq!(shown(&live), [("a".to_owned(), 2.0)]);
    }

    #[test]
    fn a_name_that_nothing_holds_is_forgotten_and_begins_anew() {
        let live = live();
        of(&live, "a").see();
        assert_eq!(live.0.lock().len(), 0);
        let again = of(&live, "a");
        assert_eq!(shown(&live), []);
        again.see();
        assert_eq!(shown(&live), [("a".to_owned(), 1.0)]);
    }
}
