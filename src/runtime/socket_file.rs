//! The file of a Unix socket that the gateway listens at: taken at the start, removed at the end.
//!
//! A file that a process left behind when it was killed is replaced; one that a process listens at is
//! not. The directory is locked meanwhile: else another start, too, could take a socket that does not listen
//! yet for one that was left behind. Everyone who can read the directory can lock it, so a lock that is held for
//! long does not keep the gateway from starting. Nothing can be sent before the file has its mode: until the
//! socket listens, connections to it are refused.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::UnixSocket;

/// The owner reads and writes, which is what connecting needs.
const MODE: u32 = 0o600;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// How often another start is waited for, and how long each time. It needs the lock for a moment.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// A socket that listens, with its file.
#[derive(Debug)]
pub(super) struct Claim {
    listener: UnixListener,
    file: SocketFile,
}

/// Removed when dropped, unless another file has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and number: what tells it from another file at the same path.
    identity: (u64, u64),
    /// Another process's until this says otherwise: `None`, this one's.
    ours: Option<Arc<AtomicBool>>,
}

impl Claim {
    /// Listens at `path`, with mode 0600. Must be called inside a runtime.
    ///
    /// # Errors
    /// If a process listens there, another file is there, or the system refuses it.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        // Held until the socket listens, and given back by the system if this process is killed.
        let _lock = lock(path);
        remove_stale(path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        let file = SocketFile::at(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
        Ok(Claim { listener: socket.listen(BACKLOG)?.into_std()?, file })
    }

    /// The socket, and its file.
    pub(super) fn parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

impl SocketFile {
    /// The file that is there now.
    ///
    /// # Errors
    /// There is none, or it is not a socket's.
    pub fn at(path: &Path) -> io::Result<Self> {
        let metadata = path.symlink_metadata()?;
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "the file is not a socket"));
        }
        Ok(SocketFile {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
            ours: None,
        })
    }

    /// It is another process's, which removes it, until `ours` becomes true.
    pub fn once(mut self, ours: Arc<AtomicBool>) -> Self {
        self.ours = Some(ours);
        self
    }

    /// As configured.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether only its owner may open it.
    ///
    /// # Errors
    /// The file is gone.
    pub fn is_private(&self) -> io::Result<bool> {
        Ok(self.path.symlink_metadata()?.permissions().mode() & 0o077 == 0)
    }

    /// Leaves the file where it is: another process removes it.
    pub fn leave(mut self) {
        // No file has this identity.
        self.identity = (0, 0);
    }
}

/// `None` where the directory cannot be opened to be locked, its file system knows no locks, or another
/// process keeps the lock.
fn lock(path: &Path) -> Option<File> {
    let parent = path.parent()?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let directory = File::open(parent).ok()?;
    for _ in 0..TRIES {
        match directory.try_lock() {
            Ok(()) => return Some(directory),
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            Err(TryLockError::Error(_)) => return None,
        }
    }
    log::warn!(
        "{}: another process keeps {} locked; going on without",
        path.display(),
        parent.display()
    );
    None
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        let words = "there is a file that is not a socket; move it, or choose another path";
        return Err(io::Error::new(ErrorKind::AlreadyExists, words));
    }
    match UnixStream::connect(path) {
        Ok(_) => {
            let words = "another process listens there; end it, or choose another path";
            Err(io::Error::new(ErrorKind::AddrInUse, words))
        }
        // The process is gone that listened there.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ours.as_ref().is_some_and(|ours| !ours.load(Ordering::Acquire)) {
            return;
        }
        let metadata = self.path.symlink_metadata();
        if metadata.is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity) {
            // If it cannot be removed, the next start replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admin.sock");
        (directory, path)
    }

    #[tokio::test]
    async fn a_socket_is_its_owner_s_alone_and_gone_at_the_end() {
        let (_directory, path) = place();
        let claim = Claim::take(&path).expect("taken");
        let mode = path.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(claim);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_file_of_a_dead_process_is_replaced_and_a_live_one_is_not() {
        let (_directory, path) = place();
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "left behind");
        let claim = Claim::take(&path).expect("replaced");
        let second = Claim::take(&path).expect_err("it is taken");
        assert_eq!(second.kind(), ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&path).is_ok(), "the first is where it was");
        drop(claim);
    }

    /// Any local user may hold it.
    #[tokio::test]
    async fn a_lock_that_another_process_keeps_does_not_prevent_a_start() {
        let (directory, path) = place();
        let other = File::open(directory.path()).expect("the directory");
        other.try_lock().expect("free");
        assert!(Claim::take(&path).is_ok());
        drop(other);
    }

    /// Two starts at once, after one was killed: without the lock, the second may remove what the first has
    /// bound and does not listen at yet.
    #[test]
    fn of_many_that_start_at_once_one_gets_the_socket() {
        for _ in 0..20 {
            let (_directory, path) = place();
            drop(UnixListener::bind(&path).expect("bound"));
            let start = std::sync::Barrier::new(8);
            let claims: Vec<_> = std::thread::scope(|scope| {
                let take = || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build();
                    let runtime = runtime.expect("a runtime");
                    let _inside = runtime.enter();
                    start.wait();
                    Claim::take(&path)
                };
                let starts: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
                starts.into_iter().map(|start| start.join().expect("ended")).collect()
            });
            assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1, "{claims:?}");
            assert!(UnixStream::connect(&path).is_ok(), "it listens where its clients look for it");
        }
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let (_directory, path) = place();
        std::fs::write(&path, "text").expect("written");
        assert!(Claim::take(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "text");
    }

    #[tokio::test]
    async fn a_file_that_another_has_put_in_its_place_stays() {
        let (_directory, path) = place();
        let claim = Claim::take(&path).expect("taken");
        // Kept for the moment, so that its number is not used again.
        std::fs::rename(&path, path.with_extension("old")).expect("moved");
        let _other = UnixListener::bind(&path).expect("bound");
        drop(claim);
        assert!(path.exists());
    }
}
