//! The token that a connection has brought last, and its digest: a caller sends the same one with every
//! request, and comparing it takes a hundredth of the time of a digest.

use std::fmt;
use std::sync::Mutex;

use super::digest::Digest;

/// Longer tokens are not kept, in bytes: most connections keep one, and many connections are idle.
const MAX_KEPT: usize = 2 * 1024;

/// Belongs to one connection, and ends with it. It holds a credential, as the connection's buffers do, so it prints
/// nothing.
#[derive(Default)]
pub struct Recent(Mutex<Latest>);

#[derive(Default)]
struct Latest {
    token: Vec<u8>,
    /// That of `token`; `None` before the first one.
    digest: Option<Digest>,
}

impl Recent {
    /// The digest of `token`.
    pub(super) fn digest(&self, token: &[u8]) -> Digest {
        // Another request of the connection has it now, on another thread: waiting would take longer.
        let Ok(mut latest) = self.0.try_lock() else { return Digest::of([token]) };
        if let Some(digest) = latest.digest
            && is_same(&latest.token, token)
        {
            return digest;
        }
        let digest = Digest::of([token]);
        if token.len() <= MAX_KEPT {
            latest.token.clear();
            latest.token.extend_from_slice(token);
            latest.digest = Some(digest);
        }
        digest
    }
}

impl fmt::Debug for Recent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recent").finish_non_exhaustive()
    }
}

/// Looks at every octet, whatever the first ones are: behind a proxy the last token may be another caller's,
/// and the time must not tell how much of it was guessed.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differs = |differs: u8, (a, b): (&u8, &u8)| differs | (a ^ b);
    one.len() == other.len() && one.iter().zip(other).fold(0, differs) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_has_its_own_digest_whichever_came_before() {
        let recent = Recent::default();
        let long = vec![b'a'; MAX_KEPT + 1];
        for token in [&b"one"[..], b"one", b"two", b"one", b"ones", b"", b"", &long, &long, b"one"]
        {
            assert_eq!(recent.digest(token), Digest::of([token]), "{token:?}");
        }
    }

    #[test]
    fn what_is_kept_is_used_and_what_is_long_is_not_kept() {
        let recent = Recent::default();
        let kept = |recent: &Recent| recent.0.lock().expect("no panic").token.clone();
        recent.digest(b"one");
        assert_eq!(kept(&recent), b"one");
        recent.digest(&vec![b'a'; MAX_KEPT + 1]);
        assert_eq!(kept(&recent), b"one");
        // As if it were that of another: so it is not computed again.
        recent.0.lock().expect("no panic").digest = Some(Digest::of([&b"other"[..]]));
        assert_eq!(recent.digest(b"one"), Digest::of([&b"other"[..]]));
    }

    #[test]
    fn no_token_is_printed() {
        let recent = Recent::default();
        recent.digest(b"secret");
        assert_eq!(format!("{recent:?}"), "Recent { .. }");
    }
}
