//! What files of certificates, keys and authorities hold, as a number to compare.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::config::load::Contents;
use crate::config::tls::{Tickets, Tls};

/// A hash of the contents of files, one after the other. A file that cannot be read counts as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::runtime) struct Material(u64);

impl Material {
    /// What `files` hold now. Blocks.
    pub(in crate::runtime) fn of<'a>(
        files: impl IntoIterator<Item = &'a Path>,
        contents: &mut Contents,
    ) -> Self {
        let mut hasher = DefaultHasher::new();
        for file in files {
            contents.of(file).hash(&mut hasher);
        }
        Material(hasher.finish())
    }

    /// What the files of a listener hold now. Blocks.
    pub(in crate::runtime) fn of_listener(tls: &Tls, contents: &mut Contents) -> Self {
        Material::of(files(tls), contents)
    }
}

/// All files that `tls` names.
pub(in crate::runtime) fn files(tls: &Tls) -> impl Iterator<Item = &Path> {
    let pairs = tls.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.key]);
    let keys = match &tls.tickets {
        Tickets::Keys(file) => Some(file),
        Tickets::On | Tickets::Off => None,
    };
    pairs.chain(&tls.client_ca).chain(keys).map(|file| file.as_path())
}
