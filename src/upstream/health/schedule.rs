//! Which endpoint is checked next, and which are being checked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::time::Moment;
use crate::upstream::Endpoint;

/// Endpoints in the order of their next checks. An endpoint is either waiting or being checked.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// The number tells apart those that are due in the same moment.
    waiting: BTreeMap<(Moment, u64), Arc<Endpoint>>,
    checking: HashSet<Id>,
    numbers: u64,
}

/// What tells endpoints apart: while it is held, no other one has its address.
pub(super) type Id = usize;

pub(super) fn id(endpoint: &Arc<Endpoint>) -> Id {
    Arc::as_ptr(endpoint).addr()
}

impl Schedule {
    /// Takes over the endpoints of a set. Those that are new are due when `plan` says; of those that
    /// are gone, returns which ones were being checked.
    pub(super) fn sync<'a>(
        &mut self,
        members: impl Iterator<Item = &'a Arc<Endpoint>>,
        plan: impl Fn(&Arc<Endpoint>) -> Moment,
    ) -> Vec<Id> {
        let mut members: HashMap<Id, &Arc<Endpoint>> = members.map(|e| (id(e), e)).collect();
        self.waiting.retain(|_, endpoint| members.remove(&id(endpoint)).is_some());
        let gone: Vec<Id> =
            self.checking.iter().filter(|id| members.remove(id).is_none()).copied().collect();
        for id in &gone {
            self.checking.remove(id);
        }
        for endpoint in members.into_values() {
            self.wait(endpoint.clone(), plan(endpoint));
        }
        gone
    }

    /// The endpoint that has been due for longest. It counts as being checked until [`Self::ended`].
    pub(super) fn take_due(&mut self, now: Moment) -> Option<Arc<Endpoint>> {
        let first = self.waiting.first_entry().filter(|first| first.key().0 <= now)?;
        let endpoint = first.remove();
        self.checking.insert(id(&endpoint));
        Some(endpoint)
    }

    /// Whether the check of an endpoint that has ended still counts: not if the endpoint is gone.
    pub(super) fn ended(&mut self, endpoint: &Arc<Endpoint>) -> bool {
        self.checking.remove(&id(endpoint))
    }

    /// The endpoint's next check is at `due`.
    pub(super) fn wait(&mut self, endpoint: Arc<Endpoint>, due: Moment) {
        self.numbers += 1;
        self.waiting.insert((due, self.numbers), endpoint);
    }

    /// When the next check is due.
    pub(super) fn next(&self) -> Option<Moment> {
        self.waiting.first_key_value().map(|((due, _), _)| *due)
    }
}
