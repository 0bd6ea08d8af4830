//! Watches the configuration's files (`server.watch`), or only those of its values (`server.watch_secrets`),
//! and decides when they are to be reloaded.
//!
//! ```text
//!          differs from what was judged              the same once more
//! settled ─────────────────────────────> changing ──────────────────────> judged: reload, unless
//!    ^                                    │   ^                            files are only missing,
//!    └── as it was judged ────────────────┘   └── differs again            or all is as in force
//! ```
//!
//! So a file that is being written is left alone until it has stayed the same from one look to the
//! next, and several changes in a row are one reload.
//!
//! Where only values are watched, a reload must not bring anything else: while files of the configuration itself
//! differ from those in force, a changed value waits for a signal.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::load::{Seen, Values, Watch, apart};
use crate::config::{Config, Location};

/// Time between two looks at the files.
pub(super) const EVERY: Duration = Duration::from_millis(500);

/// Of which files a change is taken without a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// All.
    All,
    /// Those whose text is a value (`${file:…}`), looked at this often; zero: none.
    Secrets(Duration),
}

/// What is known of the files that the gateway runs with.
pub(super) struct Follower {
    /// Shared with the thread that looks.
    watch: Arc<Mutex<Watch>>,
    /// The files of the generation in force.
    in_force: Seen,
    /// The files as they were when the last decision was made.
    judged: Seen,
    /// Not decided yet: they may be about to change again.
    changing: Option<Seen>,
    /// The same two of values alone, as far as they differ from those in force.
    judged_values: Values,
    changing_values: Option<Values>,
    trouble: Trouble,
    last: Instant,
}

/// Why the files are not those in force. Logged when it begins and when it ends.
#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// A reload has refused them.
    Refused,
    /// This file is missing, and nothing else has changed.
    Missing(PathBuf),
    /// A value has changed, and this file of the configuration as well.
    Held(PathBuf),
}

impl Follower {
    /// Looks at the files, which are about to be loaded.
    pub(super) fn begin(location: &Location) -> Self {
        let mut watch =
            Watch::new(location.clone(), |location| apart(|| Config::named_files(location)));
        let seen = watch.look();
        Follower {
            watch: Arc::new(Mutex::new(watch)),
            in_force: seen.clone(),
            judged: seen,
            changing: None,
            judged_values: Values::default(),
            changing_values: None,
            trouble: Trouble::None,
            last: Instant::now(),
        }
    }

    /// Whether it is time to look at the files.
    pub(super) fn is_due(&self, scope: Scope) -> bool {
        match scope {
            Scope::All => true,
            Scope::Secrets(every) => {
                let is_changing = self.changing_values.is_some();
                !every.is_zero() && (is_changing || self.last.elapsed() >= every)
            }
        }
    }

    /// The files as they are now; `None` if that cannot be found out.
    pub(super) async fn look(&mut self) -> Option<Seen> {
        self.last = Instant::now();
        let watch = self.watch.clone();
        // A panic leaves at most less known of the files. The runtime logs it.
        let look = move || watch.lock().unwrap_or_else(PoisonError::into_inner).look();
        tokio::task::spawn_blocking(look).await.ok()
    }

    /// Whether `seen` is to be reloaded. Logs what is the matter otherwise.
    pub(super) fn judge(&mut self, seen: &Seen, scope: Scope, generation: u64) -> bool {
        match scope {
            Scope::All => self.judge_all(seen, generation),
            Scope::Secrets(_) => self.judge_values(seen.values_since(&self.in_force), generation),
        }
    }

    fn judge_values(&mut self, values: Values, generation: u64) -> bool {
        if values == self.judged_values {
            self.changing_values = None;
            return false;
        }
        if self.changing_values.as_ref() != Some(&values) {
            self.changing_values = Some(values);
            return false;
        }
        self.changing_values = None;
        self.judged_values = values;
        let Values { changed, own } = &self.judged_values;
        let Some((first, _)) = changed.first() else {
            if self.trouble != Trouble::None {
                log::info!("the files of values are as they were; generation {generation} goes on");
            }
            self.trouble = Trouble::None;
            return false;
        };
        let missing = changed.iter().find_map(|(file, now)| Some((file, now.as_ref().err()?)));
        let (trouble, level, why) = match (missing, own) {
            (None, None) => {
                log::info!("{}: has changed; the configuration is reloaded", first.display());
                return true;
            }
            (Some((file, why)), _) => {
                let why = format!(
                    "{}: {why}; generation {generation} goes on until it is there again, or SIGHUP",
                    file.display()
                );
                (Trouble::Missing(file.clone()), log::Level::Error, why)
            }
            (None, Some(own)) => {
                let why = format!(
                    "{}: has changed, and so has {}, which is not watched; generation {generation} goes on until \
                     SIGHUP, which takes both",
                    first.display(),
                    own.display()
                );
                (Trouble::Held(own.clone()), log::Level::Warn, why)
            }
        };
        if self.trouble != trouble {
            log::log!(level, "{why}");
        }
        self.trouble = trouble;
        false
    }

    fn judge_all(&mut self, seen: &Seen, generation: u64) -> bool {
        if *seen == self.judged {
            self.changing = None;
            return false;
        }
        if self.changing.as_ref() != Some(seen) {
            self.changing = Some(seen.clone());
            return false;
        }
        self.changing = None;
        self.judged = seen.clone();
        if *seen == self.in_force {
            log::info!(
                "the configuration's files are as they were; generation {generation} goes on"
            );
            self.trouble = Trouble::None;
            return false;
        }
        // Files that vanish may be on their way to be replaced, or on a volume that is gone.
        let missing = seen.missing(&self.in_force).filter(|_| seen.only_lacks(&self.in_force));
        let Some((file, why)) = missing else { return true };
        let trouble = Trouble::Missing(file.clone());
        if self.trouble != trouble {
            log::error!(
                "{}: {why}; generation {generation} goes on until it is there again, or SIGHUP",
                file.display(),
            );
        }
        self.trouble = trouble;
        false
    }

    /// Notes a reload of these files, and whether they were taken.
    pub(super) fn reloaded(&mut self, seen: Seen, taken: bool) {
        (self.changing, self.changing_values) = (None, None);
        self.judged = seen.clone();
        let values = if taken { Values::default() } else { seen.values_since(&self.in_force) };
        self.judged_values = values;
        self.trouble = if taken { Trouble::None } else { Trouble::Refused };
        if taken {
            self.in_force = seen;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks, and judges what is seen.
    fn look(follower: &mut Follower) -> bool {
        let seen = follower.watch.lock().expect("no panic").look();
        let due = follower.judge(&seen, Scope::All, 1);
        if due {
            follower.reloaded(seen, true);
        }
        due
    }

    #[test]
    fn a_change_is_due_once_it_has_stayed_the_same_from_one_look_to_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("c.yaml");
        // Of the same size, and perhaps within one step of the file system's clock.
        let write = |letter: &str| std::fs::write(&file, letter).expect("written");
        write("a");
        let mut follower = Follower::begin(&Location::new(&file));
        assert!(!look(&mut follower), "nothing has changed");
        write("b");
        assert!(!look(&mut follower));
        write("c");
        assert!(!look(&mut follower), "it has changed again");
        assert!(look(&mut follower));
        assert!(!look(&mut follower), "it is reloaded once");
        write("d");
        assert!(!look(&mut follower));
        write("c");
        assert_eq!([(); 3].map(|()| look(&mut follower)), [false; 3], "it was taken back");
    }

    #[test]
    fn a_file_that_is_missing_is_waited_for_and_what_it_returns_with_is_due() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("c.yaml"), "include: ['*.yml']").expect("written");
        std::fs::write(at("a.yml"), "a").expect("written");
        let mut follower = Follower::begin(&Location::new(at("c.yaml")));
        let looks = |follower: &mut Follower| [(); 3].map(|()| look(follower));
        std::fs::remove_file(at("a.yml")).expect("removed");
        assert_eq!(looks(&mut follower), [false; 3]);
        assert_eq!(follower.trouble, Trouble::Missing(at("a.yml")));
        std::fs::write(at("a.yml"), "a").expect("written");
        assert_eq!(looks(&mut follower), [false; 3]);
        assert_eq!(follower.trouble, Trouble::None);
        std::fs::remove_file(at("a.yml")).expect("removed");
        assert_eq!(looks(&mut follower), [false; 3]);
        std::fs::write(at("a.yml"), "b").expect("written");
        assert_eq!(looks(&mut follower), [false, true, false]);
        // Gone and replaced by another: not only missing.
        std::fs::rename(at("a.yml"), at("b.yml")).expect("renamed");
        assert_eq!(looks(&mut follower), [false, true, false]);
    }
}
