//! What an upstream makes of the answers of resolvers and sources: it keeps them, tells what has
//! changed, and puts another set in place.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Upstream;
use super::config::{Listed, Url};
use super::discovery::config::{self, Discover, Source};
use super::discovery::directory::{Directory, name};
use super::discovery::known::{Edge, Said};
use super::discovery::registry::{News, Registry};
use super::endpoint::Pair;
use super::resolve::{endpoints, pairs};
use crate::time::Moment;

/// What is known of the source of endpoints.
pub struct SourceReport {
    /// What it is.
    pub source: String,
    /// How many endpoints it named last.
    pub endpoints: usize,
    /// When it named them; `None` before.
    pub confirmed: Option<Moment>,
    /// Since when it has not answered, or names no endpoints; `None` while it names some.
    pub failing_since: Option<Moment>,
    /// Why.
    pub error: Option<Arc<str>>,
}

impl Upstream {
    /// What is known of its source; `None` if it has none.
    pub fn source(&self) -> Option<SourceReport> {
        let discover = self.config.discover.as_ref()?;
        let directory = self.directory();
        let found = directory.found();
        Some(SourceReport {
            source: discover.source.words(),
            endpoints: found.last().map_or(0, Vec::len),
            confirmed: found.confirmed(),
            failing_since: found.lacking_since(),
            error: self.lookups.source_error(),
        })
    }

    /// What is known of its endpoints.
    pub(super) fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoints that are an address of each family.
    pub fn pairs(&self) -> Vec<Pair> {
        let set = self.set();
        pairs(set.members().iter().map(|member| &member.endpoint.key.address))
    }

    /// The names that are to be looked up.
    pub(super) fn names(&self) -> HashSet<Url> {
        self.directory().names(&self.config)
    }

    /// Takes in what the source said. Logs one line when it stops answering, one when its endpoints are
    /// given up, and one when it is back.
    pub fn discovered(&self, said: Said<Vec<Listed>>, now: Moment) {
        let Some(discover) = &self.config.discover else { return };
        let said = self.fitting(said.at_most(self.config.max_endpoints, "endpoints"));
        let (name, source) = (&self.name, discover.source.words());
        let empty_after = *self.config.empty_after;
        let mut directory = self.directory();
        let said = self.without_refused(&mut directory, discover, said);
        let error = match &said {
            Said::These(_) => None,
            Said::Nothing(error) | Said::Failed(error) => Some(error.clone()),
        };
        let names = directory.names(&self.config);
        let (edge, has_changed) = directory.discover(said, empty_after, now);
        let errors = error.map(|error| format!("{source}: {error}"));
        self.lookups.source.note(errors.as_slice(), directory.found().lacking_since());
        if has_changed {
            self.rearrange(&directory, "its source says", now);
        }
        let has_other_names = directory.names(&self.config) != names;
        drop(directory);
        // What a line says is so once it is written.
        match edge {
            Some(Edge::Back(after)) => {
                log::info!("upstreams.{name}: {source} answers again, after {}s", after.as_secs());
            }
            Some(Edge::Lost(error)) => {
                log::warn!(
                    "upstreams.{name}: {source}: {error}; keeping the endpoints known so far"
                );
            }
            Some(Edge::Emptied) => log::warn!(
                "upstreams.{name}: {source} has had no endpoint for {empty_after:?}; giving up those \
                 known so far"
            ),
            None => {}
        }
        if has_other_names {
            self.asked.notify_one();
        }
    }

    /// Changes the register that is its source, and takes in what it then says if that is something else
    /// than this upstream knows: after a reload, instances may have come through the one before. `None` if
    /// the source is another one. An instance that deregisters says so itself: nothing is waited for, even
    /// if it was the last one.
    pub fn register<T>(
        &self,
        now: Moment,
        change: impl FnOnce(&mut Registry, &config::Registry) -> (T, News),
    ) -> Option<T> {
        let discover = self.config.discover.as_ref()?;
        let Source::Registry(rules) = &discover.source else { return None };
        // Held to the end, so that what is taken in last is what the register says.
        let mut registry = self.register.lock().unwrap_or_else(PoisonError::into_inner);
        let (result, news) = change(&mut registry, rules);
        let revision = registry.revision();
        // Relaxed: the lock orders it.
        let is_known = self.registered.swap(revision, Ordering::Relaxed) == revision;
        if is_known && news == News::None {
            return Some(result);
        }
        let knows_some = self.directory().found().last().is_some();
        match (news, registry.said(discover.form.as_ref())) {
            (News::Left, Said::Nothing(words)) => self.emptied(&words, now),
            // Where there are other endpoints, none needs to register.
            (_, Said::Nothing(_)) if !knows_some && !self.config.endpoints.is_empty() => {}
            (_, said) => self.discovered(said, now),
        }
        Some(result)
    }

    /// The source has certainly no endpoint any more.
    fn emptied(&self, words: &str, now: Moment) {
        let mut directory = self.directory();
        directory.forget_found(now);
        self.lookups.source.note(&[words.to_owned()], directory.found().lacking_since());
        self.rearrange(&directory, "its source says", now);
    }

    /// The same, if each endpoint can be spoken to.
    fn fitting(&self, said: Said<Vec<Listed>>) -> Said<Vec<Listed>> {
        let Said::These(these) = said else { return said };
        let unfit =
            these.iter().find_map(|entry| Some((&entry.url, self.config.unfit(&entry.url)?)));
        match unfit {
            Some((url, why)) => Said::Failed(format!("{url}: {why}")),
            None => Said::These(these),
        }
    }

    /// The same without endpoints that are given by an address at which none may be. Each is told once.
    fn without_refused(
        &self,
        directory: &mut Directory,
        discover: &Discover,
        said: Said<Vec<Listed>>,
    ) -> Said<Vec<Listed>> {
        let Said::These(these) = said else { return said };
        directory.forget_refused(&these);
        let mut why = String::new();
        let is_used = |entry: &Listed| {
            let refusal = discover.refuses_url(&entry.url);
            if let Some(refusal) = &refusal {
                refusal.clone_into(&mut why);
            }
            // Names are told of when they are looked up.
            if name(&entry.url).is_none() && directory.refuse(&entry.url, refusal.is_some()) {
                let (name, source) = (&self.name, discover.source.words());
                log::warn!("upstreams.{name}: {source}: {why}; not used");
            }
            refusal.is_none()
        };
        let used: Vec<_> = these.into_iter().filter(is_used).collect();
        match used.is_empty() {
            true => Said::Failed(why),
            false => Said::These(used),
        }
    }

    /// The addresses of a name at which an endpoint may be. The operator's own names may be anywhere.
    fn allowed(
        &self,
        directory: &mut Directory,
        url: &Url,
        said: Said<Vec<SocketAddr>>,
    ) -> Said<Vec<SocketAddr>> {
        let is_written = || self.config.endpoints.iter().any(|entry| entry.url == *url);
        let (said, discover) = match (said, &self.config.discover) {
            (Said::These(these), Some(discover)) if !is_written() => (these, discover),
            (said, _) => return said,
        };
        let refusal = said.iter().find_map(|address| discover.refusal(*address));
        let is_news = directory.refuse(url, refusal.is_some());
        let Some(why) = refusal else { return Said::These(said) };
        let used: Vec<_> =
            said.into_iter().filter(|address| discover.refusal(*address).is_none()).collect();
        if used.is_empty() {
            return Said::Failed(why);
        }
        if is_news {
            let (name, host) = (&self.name, url.host());
            log::warn!("upstreams.{name}: {host}: {why}; not used");
        }
        Said::These(used)
    }

    /// Takes in the answers to a round of lookups. Logs one line when a name stops resolving, one when
    /// its addresses are given up, and one when it is back.
    pub(super) fn resolved(&self, found: Vec<(Url, Said<Vec<SocketAddr>>)>, now: Moment) {
        let mut errors = Vec::new();
        let mut directory = self.directory();
        for (url, said) in found {
            errors.extend(self.take_in(&mut directory, &url, said, now));
        }
        let wanted = directory.names(&self.config);
        directory.keep(&wanted);
        errors.sort_unstable();
        self.lookups.names.note(&errors, directory.unresolved_since());
        self.rearrange(&directory, "its names resolve", now);
    }

    /// Returns the error in words if there is one.
    fn take_in(
        &self,
        directory: &mut Directory,
        url: &Url,
        said: Said<Vec<SocketAddr>>,
        now: Moment,
    ) -> Option<String> {
        let said = self.allowed(directory, url, said);
        let known = pairs(&directory.addresses(url, &self.set()));
        let said = said.map(|found| endpoints(found, self.config.ip_family, &known));
        let said = said.at_most(self.config.max_endpoints, "addresses");
        let (host, _) = name(url).unwrap_or_default();
        let name = &self.name;
        let error = match &said {
            Said::These(_) => None,
            Said::Nothing(error) | Said::Failed(error) => Some(format!("{host}: {error}")),
        };
        let empty_after = *self.config.empty_after;
        match directory.look_up(url, said, empty_after, now) {
            Some(Edge::Back(after)) => {
                log::info!(
                    "upstreams.{name}: {host} is resolved again, after {}s",
                    after.as_secs()
                );
            }
            Some(Edge::Lost(error)) => log::warn!(
                "upstreams.{name}: cannot resolve {host}: {error}; keeping the addresses known so far"
            ),
            Some(Edge::Emptied) => log::warn!(
                "upstreams.{name}: {host} has had no address for {empty_after:?}; giving up those \
                 known so far"
            ),
            None => {}
        }
        error
    }

    /// Puts the endpoints in place that are known now, and tells what that changes.
    fn rearrange(&self, directory: &Directory, why: &str, now: Moment) {
        let before = self.set();
        let members = directory.members(&self.config, &before);
        let mut stay = Vec::new();
        if directory.is_waiting(&before) {
            // What a source has named is not known yet: until then, what it named before is.
            let keys: HashSet<_> = members.iter().map(|member| &member.endpoint.key).collect();
            let left = before.members().iter().filter(|one| !keys.contains(&one.endpoint.key));
            stay.extend(left.cloned());
        }
        self.replace_beside(members, stay, now);
        self.tell();
        if let Some(change) = before.change(&self.set()) {
            log::info!("upstreams.{}: {change}, as {why}", self.name);
        }
    }
}
