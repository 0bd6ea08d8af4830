//! The system's limit on the size of files (`ulimit -f`).
//!
//! SQLite does not know it, and takes a write beyond it for a failure of the disk, after which it can
//! no longer shrink the file. So files end before it, as at a `max_size`.

use rustix::process::{Resource, getrlimit};

/// The largest size in bytes that a file may get; `None` without a limit.
pub(crate) fn file_limit() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// How many pages of `page` bytes a file may have whose size is configured as `max_size`, where 0 means
/// no limit; `None` if nothing limits it.
pub(crate) fn pages(max_size: u64, page: u64, limit: Option<u64>) -> Option<u64> {
    let sizes = (max_size > 0).then_some(max_size).into_iter().chain(limit);
    sizes.min().map(|size| size / page.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_counts() {
        assert_eq!(pages(0, 4096, None), None);
        assert_eq!(pages(8192, 4096, None), Some(2));
        assert_eq!(pages(0, 4096, Some(5000)), Some(1));
        assert_eq!(pages(8192, 4096, Some(5000)), Some(1));
        assert_eq!(pages(8192, 4096, Some(1 << 30)), Some(2));
    }
}
