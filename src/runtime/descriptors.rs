//! The limit of open files, and what of it is for whom.
//!
//! Clients decide how many connections there are to them and, through their requests, to upstreams.
//! Those may not take every descriptor: some are kept for the admin listener, the stores and files.

use std::os::fd::{AsRawFd, RawFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For the gateway's own files, its stores and the admin listener, at least and at most.
const RESERVE: (usize, usize) = (64, 1024);
/// Below this limit the operator is told.
const FEW: usize = 1024;
/// Connections of probes, scrapes and operators.
const ADMIN: usize = 64;

/// How many files and sockets the process may have open. The kernel gives each new one the lowest
/// number that is free, so its number says how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    limit: usize,
}

impl Descriptors {
    /// Raise the limit as far as the process may, and say which it is.
    pub fn raise() -> Self {
        let before = getrlimit(Resource::Nofile);
        if before.current != before.maximum {
            let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
            if let Err(error) = setrlimit(Resource::Nofile, wanted) {
                log::warn!("the limit of open files cannot be raised: {error}");
            }
        }
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        Descriptors { limit }
    }

    /// Client connections that all listeners may hold together; `wanted` as in
    /// `server.max_connections`.
    pub fn connections(self, wanted: Option<usize>) -> usize {
        let most = self.limit - self.reserve();
        match wanted {
            None => most / 2,
            Some(0) => most,
            Some(wanted) => wanted.min(most),
        }
    }

    /// Connections that the admin listener may hold.
    pub fn admin_connections(self) -> usize {
        (self.kept() / 2).clamp(1, ADMIN)
    }

    /// Whether this descriptor is one of the last, which neither clients nor upstreams may take.
    pub fn keeps(self, descriptor: &impl AsRawFd) -> bool {
        self.keeps_number(descriptor.as_raw_fd())
    }

    fn keeps_number(self, number: RawFd) -> bool {
        usize::try_from(number).is_ok_and(|number| number >= self.limit - self.kept())
    }

    /// What client connections and those to upstreams leave over. Half of it is open already once
    /// the gateway runs.
    fn reserve(self) -> usize {
        (self.limit / 10).clamp(RESERVE.0, RESERVE.1).min(self.limit / 2)
    }

    fn kept(self) -> usize {
        self.reserve() / 2
    }

    /// Say how many clients there is room for, and what to do if those are few.
    pub fn report(self, wanted: Option<usize>) {
        let (limit, connections) = (self.limit, self.connections(wanted));
        if limit < FEW {
            log::warn!(
                "{limit} files may be open, enough for {connections} client connections: raise the \
                 hard limit (ulimit -Hn, LimitNOFILE= of systemd, --ulimit nofile= of Docker)"
            );
        } else {
            log::info!("at most {connections} client connections: {limit} files may be open");
        }
        if wanted.is_some_and(|wanted| wanted > connections) && wanted != Some(0) {
            log::warn!(
                "server.max_connections: only {connections} while {limit} files may be open"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(limit: usize) -> Descriptors {
        Descriptors { limit }
    }

    #[test]
    fn every_client_can_have_an_upstream_and_the_reserve_stays() {
        for limit in [128, 256, 1024, 20_000, 1 << 20, usize::MAX] {
            let connections = of(limit).connections(None);
            assert!(connections >= 32, "{limit}");
            assert!(connections <= (limit - 64) / 2, "{limit}");
        }
        assert_eq!(of(20_000).connections(None), (20_000 - 1024) / 2);
    }

    #[test]
    fn what_the_operator_wants_is_obeyed_as_far_as_the_limit_goes() {
        assert_eq!(of(1024).connections(Some(700)), 700);
        assert_eq!(of(1024).connections(Some(5000)), 1024 - 102);
        assert_eq!(of(1024).connections(Some(0)), 1024 - 102);
    }

    #[test]
    fn the_last_descriptors_are_kept_with_any_limit() {
        for limit in [1, 2, 16, 64, 128, 1024, 1 << 20] {
            let descriptors = of(limit);
            let kept = (0..limit).filter(|n| descriptors.keeps_number(*n as RawFd)).count();
            assert!(kept >= (limit / 4).min(32), "{kept} of {limit}");
            assert!(kept <= 512 && kept <= limit / 2, "{kept} of {limit}");
            assert!(descriptors.admin_connections() <= kept.max(1), "{limit}");
        }
        assert!(!of(128).keeps_number(95) && of(128).keeps_number(96));
    }
}
