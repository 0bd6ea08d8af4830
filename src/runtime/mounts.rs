//! Whether a folder outlives the container or the machine's run, as far as the system's mounts tell.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Why what is in a folder will be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ephemeral {
    /// With the machine's next start, or the container's.
    Memory,
    /// With the container.
    Container,
    /// With the pod.
    Pod,
    /// With the container: a new one is given another volume.
    NamelessVolume,
}

impl fmt::Display for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ephemeral::Memory => "in memory",
            Ephemeral::Container => "in the container's own layer",
            Ephemeral::Pod => "an emptyDir, which ends with its pod",
            Ephemeral::NamelessVolume => "a volume without a name, which only this container has",
        })
    }
}

/// Looks at the mounts of this process. A folder that does not exist yet will be where the nearest one
/// above it is.
pub(super) fn of(folder: &Path) -> Option<Ephemeral> {
    let absolute = std::path::absolute(folder).ok()?;
    let existing = absolute.ancestors().find_map(|folder| folder.canonicalize().ok())?;
    judge(&std::fs::read("/proc/self/mountinfo").ok()?, &existing)
}

/// What `mountinfo`, in the form of `proc_pid_mountinfo(5)`, says of an absolute path without links.
fn judge(mountinfo: &[u8], folder: &Path) -> Option<Ephemeral> {
    let mounts = mountinfo.split(|byte| *byte == b'\n').filter_map(Mount::read);
    let holds = mounts.filter(|mount| folder.starts_with(&mount.point));
    // The longest; of several at one place the last, which hides the others.
    holds.max_by_key(|mount| mount.point.as_os_str().len())?.ephemeral()
}

struct Mount {
    /// What of the file system is mounted.
    root: PathBuf,
    point: PathBuf,
    kind: Vec<u8>,
}

impl Mount {
    fn read(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let (root, point) = (fields.nth(3)?, fields.next()?);
        // Any number of optional fields ends with a dash.
        let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
        Some(Mount { root: unescaped(root), point: unescaped(point), kind: kind.to_vec() })
    }

    fn ephemeral(&self) -> Option<Ephemeral> {
        let names: Vec<_> = self.root.iter().filter_map(|name| name.to_str()).collect();
        let nameless = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        match &self.kind[..] {
            b"tmpfs" | b"ramfs" => Some(Ephemeral::Memory),
            b"overlay" | b"aufs" => Some(Ephemeral::Container),
            _ if names.contains(&"kubernetes.io~empty-dir") => Some(Ephemeral::Pod),
            _ if matches!(names[..], [.., "volumes", name, "_data"] if nameless(name)) => {
                Some(Ephemeral::NamelessVolume)
            }
            _ => None,
        }
    }
}

/// A space, a tab, a line's end and a backslash are written as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "\
        600 500 0:100 / / rw,relatime master:30 - overlay overlay rw,lowerdir=/a:/b,upperdir=/c\n\
        601 600 0:101 / /proc rw,nosuid - proc proc rw\n\
        602 600 0:102 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k\n\
        603 600 259:1 /var/lib/kubelet/pods/6f2e/volumes/kubernetes.io~empty-dir/data /scratch rw - ext4 /dev/root rw\n\
        604 600 259:7 / /var/lib/portcullis rw,relatime shared:9 master:2 - ext4 /dev/sdb rw\n\
        605 600 259:1 /var/lib/kubelet/pods/6f2e/volumes/kubernetes.io~configmap/config /etc/portcullis ro - ext4 /dev/root rw\n";

    fn judged(mounts: &str, folder: &str) -> Option<Ephemeral> {
        judge(mounts.as_bytes(), Path::new(folder))
    }

    #[test]
    fn the_mount_that_holds_a_folder_decides() {
        assert_eq!(judged(POD, "/var/lib/portcullis"), None);
        assert_eq!(judged(POD, "/var/lib/portcullis/deep/er"), None);
        assert_eq!(judged(POD, "/var/lib/portcullis-2"), Some(Ephemeral::Container));
        assert_eq!(judged(POD, "/data"), Some(Ephemeral::Container));
        assert_eq!(judged(POD, "/dev/shm"), Some(Ephemeral::Memory));
        assert_eq!(judged(POD, "/scratch/journal"), Some(Ephemeral::Pod));
    }

    #[test]
    fn a_volume_of_docker_lasts_if_it_has_a_name() {
        let volume = |name: &str| {
            format!(
                "1 0 0:1 / / rw - overlay overlay rw\n\
                 2 1 8:1 /var/lib/docker/volumes/{name}/_data /var/lib/portcullis rw - ext4 /dev/sda1 rw\n"
            )
        };
        let nameless = "0123456789abcdef".repeat(4);
        let folder = "/var/lib/portcullis";
        assert_eq!(judged(&volume("journal"), folder), None);
        assert_eq!(judged(&volume(&nameless), folder), Some(Ephemeral::NamelessVolume));
    }

    #[test]
    fn of_two_mounts_at_one_place_the_later_one_counts() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      2 1 0:5 / /data rw - tmpfs tmpfs rw\n\
                      3 2 8:2 / /data rw - xfs /dev/sdb rw\n";
        assert_eq!(judged(mounts, "/data"), None);
    }

    #[test]
    fn names_with_spaces_are_understood_and_odd_lines_passed_over() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
                      nonsense\n\
                      2 1 0:5 / /my\\040data\\134x rw - tmpfs tmpfs rw\n\
                      3 1 0:6 / /cut";
        assert_eq!(judged(mounts, "/my data\\x/journal"), Some(Ephemeral::Memory));
        assert_eq!(judged(mounts, "/cut"), None);
    }

    #[test]
    fn a_folder_that_is_yet_to_be_made_is_where_the_one_above_it_is() {
        assert_eq!(of(Path::new("/dev/shm/not/there/yet")), Some(Ephemeral::Memory));
    }
}
