//! Memory that the process holds and has no use for.
//!
//! Two things make a crowd of idle connections dear. With huge pages one small block that lives keeps two
//! mebibytes. And the allocator gives pages back when other pages are freed: when the crowd has left,
//! nothing is, and they would stay.

use std::hint::black_box;
use std::time::Duration;

use rustix::thread::disable_transparent_huge_pages;

/// From one occasion to give pages back to the next; the allocator itself waits for a second.
const OCCASION: Duration = Duration::from_secs(1);
/// Large enough for pages of its own, whose end is such an occasion. It is not written to.
const BLOCK: usize = 8 << 20;

/// Whether the kernel may back memory with huge pages from now on. Containers of some kinds forbid to
/// say so.
pub(super) fn allow_huge_pages(allowed: bool) {
    if let Err(error) = disable_transparent_huge_pages(!allowed) {
        log::warn!("server.huge_pages: the kernel does not obey: {error}");
    }
}

/// Give back what is free, again and again: in a thread of its own, because it takes a millisecond for
/// every ten mebibytes.
///
/// # Errors
/// There is no thread to be had.
pub(super) fn keep_giving_back() -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("memory".to_owned());
    let giving_back = || {
        loop {
            std::thread::sleep(OCCASION);
            drop(black_box(Vec::<u8>::with_capacity(BLOCK)));
        }
    };
    thread.spawn(giving_back).map(drop)
}
