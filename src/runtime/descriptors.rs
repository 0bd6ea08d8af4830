//! The limit on open files, and how it is shared out.
//!
//! Clients decide how many connections they open, and through their requests how many go to
//! upstreams. Together those must not take every descriptor: some are reserved for the admin
//! listener, the stores and files.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Problem;
use crate::config::code::Code;
use crate::config::server::Server;

/// Least and most descriptors reserved for the gateway's own files, its stores and the admin
/// listener.
const RESERVE: (usize, usize) = (64, 1024);
/// Below this limit the gateway warns the operator.
const FEW: usize = 1024;
/// The most connections of probes, scrapes and operators.
const ADMIN: usize = 64;

/// How many files and sockets the process may have open. The kernel gives each new one the lowest
/// free number, so that number tells how many are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    limit: usize,
}

impl Descriptors {
    /// Raises the limit as far as the process may, and returns it.
    pub fn raise() -> Self {
        let before = getrlimit(Resource::Nofile);
        if before.current != before.maximum {
            let wanted = Rlimit { current: before.maximum, maximum: before.maximum };
            if let Err(error) = setrlimit(Resource::Nofile, wanted) {
                log::warn!("the limit of open files cannot be raised: {error}");
            }
        }
        Descriptors::current()
    }

    /// The limit as it is now.
    pub fn current() -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        Descriptors { limit }
    }

    /// How many client connections all listeners may hold together.
    pub fn connections(self, server: &Server) -> usize {
        let most = self.most();
        match server.max_connections {
            None => most / 2,
            Some(0) => most,
            Some(wanted) => wanted.min(most),
        }
    }

    /// How many idle connections to upstreams are kept for reuse. Each client may leave one behind,
    /// and a request that finds none opens a new one; but idle connections must not crowd out
    /// clients.
    pub fn upstream_pool(self, server: &Server) -> usize {
        let most = self.most();
        match server.upstream_pool {
            None => self.connections(server).min(most / 2),
            Some(0) => most,
            Some(wanted) => wanted.min(most),
        }
    }

    /// How many connections clients and upstreams may have together.
    fn most(self) -> usize {
        self.limit - self.reserve()
    }

    /// How many connections the admin listener may hold.
    pub fn admin_connections(self) -> usize {
        (self.kept() / 2).clamp(1, ADMIN)
    }

    /// How many files are open, about: the lowest free number, or the limit if there is none.
    pub(super) fn open(self) -> usize {
        let next = std::io::stderr().as_fd().try_clone_to_owned();
        let number = next.ok().and_then(|next| usize::try_from(next.as_raw_fd()).ok());
        number.unwrap_or(self.limit)
    }

    /// From this number on a descriptor is for neither clients nor upstreams.
    pub(super) fn for_clients(self) -> usize {
        self.limit - self.kept()
    }

    /// Whether this descriptor is one of the last, which neither clients nor upstreams may use.
    pub fn keeps(self, descriptor: &impl AsRawFd) -> bool {
        self.keeps_number(descriptor.as_raw_fd())
    }

    fn keeps_number(self, number: RawFd) -> bool {
        usize::try_from(number).is_ok_and(|number| number >= self.for_clients())
    }

    /// How many descriptors are not for clients or upstreams. Half of them are already in use once
    /// the gateway runs.
    fn reserve(self) -> usize {
        (self.limit / 10).clamp(RESERVE.0, RESERVE.1).min(self.limit / 2)
    }

    fn kept(self) -> usize {
        self.reserve() / 2
    }

    /// The least limit with which clients and upstreams may have so many connections together.
    fn for_connections(wanted: usize) -> usize {
        let (least, most) = RESERVE;
        // A tenth of the limit is reserved, which is a ninth of the rest.
        wanted.saturating_add(wanted.div_ceil(9).clamp(least, most))
    }

    /// What the operator should know about `server` under this limit.
    pub fn warnings(self, server: &Server) -> Vec<Problem> {
        let Descriptors { limit } = self;
        let (connections, pool) = (self.connections(server), self.upstream_pool(server));
        let mut warnings = Vec::new();
        if limit < FEW {
            let message = format!(
                "this process may have only {limit} files open, enough for {connections} client connections"
            );
            warnings.push(Problem::new(Code::FewFiles, "", message));
        }
        if server.max_connections.is_some_and(|wanted| wanted > connections) {
            let message = format!(
                "no more than {connections} connections are accepted: this process may have only \
                 {limit} files open"
            );
            let path = "server.max_connections";
            let problem = Problem::new(Code::ConnectionsLowered, path, message);
            let least = Descriptors::for_connections(server.max_connections.unwrap_or_default());
            warnings.push(problem.remedied(raise_to(least, connections)));
        }
        let Some(wanted) = server.upstream_pool.filter(|wanted| *wanted != 0) else {
            return warnings;
        };
        let path = "server.upstream_pool";
        if wanted > pool {
            let message = format!(
                "no more than {pool} idle connections are kept: this process may have only {limit} \
                 files open"
            );
            let problem = Problem::new(Code::PoolLowered, path, message);
            let least = Descriptors::for_connections(wanted);
            warnings.push(problem.remedied(raise_to(least, pool)));
        } else if let Some(most) =
            server.max_connections.filter(|most| *most != 0 && most + pool > self.most())
        {
            let message = format!(
                "`max_connections` and {pool} idle connections take up to {} files, and the {limit} \
                 that this process may have open leave {} for both",
                most + pool,
                self.most()
            );
            let problem = Problem::new(Code::ConnectionsAndPool, path, message);
            let least = Descriptors::for_connections(most + pool);
            warnings.push(problem.remedied(raise_to(least, self.most().saturating_sub(most))));
        } else if pool < connections {
            let message = format!(
                "{pool} idle connections are kept for {connections} clients: with more of them at \
                 work, requests wait for new connections"
            );
            warnings.push(Problem::new(Code::PoolSmall, path, message));
        }
        warnings
    }

    /// Logs how many clients there is room for.
    pub fn report(self, server: &Server) {
        let (connections, pool) = (self.connections(server), self.upstream_pool(server));
        log::info!(
            "at most {connections} client connections, {pool} idle ones to upstreams: {} files may be \
             open",
            self.limit
        );
        if let Some(bytes) = getrlimit(Resource::Fsize).current {
            log::warn!(
                "no file may have more than {bytes} bytes (ulimit -f): the access log, the journal and \
                 the embedded store end there"
            );
        }
    }
}

/// What to do where `fitting` connections fit, and all those wanted with a limit of `least`.
fn raise_to(least: usize, fitting: usize) -> String {
    format!(
        "write at most {fitting}, or raise the hard limit on open files to {least} (ulimit -Hn, \
         LimitNOFILE= of systemd, --ulimit nofile= of Docker)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(limit: usize) -> Descriptors {
        Descriptors { limit }
    }

    fn server(max_connections: Option<usize>, upstream_pool: Option<usize>) -> Server {
        Server { max_connections, upstream_pool, ..Server::default() }
    }

    #[test]
    fn every_client_can_leave_a_connection_in_the_pool_and_none_is_crowded_out() {
        for limit in [128, 256, 1024, 20_000, 1 << 20, usize::MAX] {
            let (of, most) = (of(limit), of(limit).most());
            assert_eq!(of.upstream_pool(&Server::default()), of.connections(&Server::default()));
            assert_eq!(of.upstream_pool(&server(Some(50), None)), 50.min(most / 2));
            assert_eq!(of.upstream_pool(&server(Some(0), None)), most / 2);
            assert_eq!(of.upstream_pool(&server(None, Some(7))), 7);
            assert_eq!(of.upstream_pool(&server(None, Some(0))), most);
        }
    }

    #[test]
    fn a_pool_that_does_not_fit_is_told() {
        let told = |server: &Server| {
            let told = of(20_000).warnings(server).into_iter();
            told.map(|w| format!("{}: {}", w.path, w.message)).collect::<Vec<_>>().join("; ")
        };
        for fits in [server(None, None), server(None, Some(0)), server(Some(5000), Some(5000))] {
            assert_eq!(told(&fits), "");
        }
        for (server, about) in [
            (server(None, Some(30_000)), "no more than 18976 idle connections"),
            (server(Some(10_000), Some(10_000)), "18976"),
            (server(Some(5000), Some(100)), "100 idle connections are kept for 5000"),
        ] {
            let told = told(&server);
            assert!(told.starts_with("server.upstream_pool: ") && told.contains(about), "{told}");
        }
    }

    #[test]
    fn the_limit_that_is_advised_is_enough_and_no_larger_than_needed() {
        for wanted in [100, 575, 576, 577, 3000, 9215, 9216, 9217, 100_000] {
            let advised = Descriptors::for_connections(wanted);
            assert!(of(advised).most() >= wanted, "{wanted}: {advised}");
            let less = of(advised - advised.div_ceil(50)).most();
            assert!(less < wanted, "{wanted}: {advised} is more than is needed");
        }
    }

    #[test]
    fn every_client_can_have_an_upstream_and_the_reserve_stays() {
        for limit in [128, 256, 1024, 20_000, 1 << 20, usize::MAX] {
            let connections = of(limit).connections(&Server::default());
            assert!(connections >= 32, "{limit}");
            assert!(connections <= (limit - 64) / 2, "{limit}");
        }
        assert_eq!(of(20_000).connections(&Server::default()), (20_000 - 1024) / 2);
    }

    #[test]
    fn what_the_operator_wants_is_obeyed_as_far_as_the_limit_goes() {
        assert_eq!(of(1024).connections(&server(Some(700), None)), 700);
        assert_eq!(of(1024).connections(&server(Some(5000), None)), 1024 - 102);
        assert_eq!(of(1024).connections(&server(Some(0), None)), 1024 - 102);
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
