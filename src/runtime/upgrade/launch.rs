//! SIGUSR2: the gateway starts the process that takes over from it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::runtime::shared::Shared;

/// How this process was started, so that another can be started like it.
#[derive(Debug)]
pub(in crate::runtime) struct Launcher {
    program: Result<PathBuf, String>,
    /// The name of the program, and its arguments.
    arguments: Vec<OsString>,
    running: Arc<AtomicBool>,
}

impl Launcher {
    /// To be called at the start: later, another file may be at this program's path, which is what an
    /// upgrade is.
    pub(in crate::runtime) fn of_this_process() -> Self {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let program = std::env::current_exe().map_err(|error| error.to_string());
        let program = program.map(|program| {
            let called = arguments.first().and_then(|called| as_called(called.as_ref(), &program));
            called.unwrap_or(program)
        });
        Launcher { program, arguments, running: Arc::default() }
    }

    /// Starts another process at each SIGUSR2. `offers`: whether it could take over.
    pub(in crate::runtime) fn start_on_request(
        self,
        runtime: &Runtime,
        shared: Arc<Shared>,
        offers: bool,
    ) {
        let _inside = runtime.enter();
        let mut signals = match signal(SignalKind::user_defined2()) {
            Ok(signals) => signals,
            Err(error) => return log::error!("SIGUSR2 cannot be received: {error}"),
        };
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                if let Err(why) = self.start(&shared, offers) {
                    log::warn!("SIGUSR2: no process is started to take over: {why}");
                }
            }
        });
    }

    fn start(&self, shared: &Arc<Shared>, offers: bool) -> Result<(), String> {
        if !offers {
            return Err("server.upgrade_socket is not set".to_owned());
        }
        if std::process::id() == 1 {
            return Err("this is process 1, with which its container would end; start another \
                        container"
                .to_owned());
        }
        if shared.lifecycle.is_draining() || shared.lifecycle.has_successor() {
            return Err("this one drains".to_owned());
        }
        if !shared.lifecycle.is_ready() {
            return Err("this one is not ready itself".to_owned());
        }
        if self.running.swap(true, Ordering::AcqRel) {
            return Err("one is starting already".to_owned());
        }
        let started = self.spawn().inspect_err(|_| self.running.store(false, Ordering::Release))?;
        log::info!("SIGUSR2: process {} is to take over", started.id());
        let (shared, running) = (shared.clone(), self.running.clone());
        let waits = std::thread::Builder::new().name("successor".to_owned());
        let waited = waits.spawn(move || {
            reap(started, &shared);
            running.store(false, Ordering::Release);
        });
        waited.map(drop).map_err(|error| {
            self.running.store(false, Ordering::Release);
            format!("no thread that waits for its end: {error}")
        })
    }

    fn spawn(&self) -> Result<Child, String> {
        let program = self.program.as_ref().map_err(|error| {
            format!("the path of this program was not to be found at the start: {error}")
        })?;
        let mut command = Command::new(program);
        if let [name, arguments @ ..] = &self.arguments[..] {
            command.arg0(name).args(arguments);
        }
        // Of a service manager that has passed sockets; they are handed over.
        command.env_remove("LISTEN_FDNAMES");
        command.spawn().map_err(|error| format!("{}: {error}", program.display()))
    }
}

/// Waits for the end of the process, and tells of it unless it has taken over.
fn reap(mut started: Child, shared: &Shared) {
    let process = started.id();
    let ended = started.wait();
    if shared.lifecycle.has_successor() {
        return;
    }
    let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
    log::error!(
        "upgrade: process {process} ended before it took over: {how}; this gateway goes on"
    );
}

/// The path by which this program was called, if it is the program's: a link that an upgrade points
/// elsewhere is followed anew.
fn as_called(name: &Path, program: &Path) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| path.canonicalize().is_ok_and(|found| found == program);
    if name.components().count() > 1 || name.is_absolute() {
        return std::path::absolute(name).ok().filter(is_program);
    }
    let directories = std::env::var_os("PATH")?;
    std::env::split_paths(&directories).map(|directory| directory.join(name)).find(is_program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_a_link_and_another_program_is_not_taken() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().canonicalize().expect("there").join(name);
        std::fs::write(path("v1"), "").expect("written");
        std::fs::write(path("other"), "").expect("written");
        std::os::unix::fs::symlink(path("v1"), path("current")).expect("linked");
        assert_eq!(as_called(&path("current"), &path("v1")), Some(path("current")));
        assert_eq!(as_called(&path("v1"), &path("v1")), Some(path("v1")));
        assert_eq!(as_called(&path("other"), &path("v1")), None);
        assert_eq!(as_called(Path::new("no-such-program-anywhere"), &path("v1")), None);
    }
}
