//! What of a listener's certificates is valid but probably not meant. Reads their files.

use std::collections::BTreeMap;
use std::path::Path;

use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

use super::files::certificates;
use super::names;
use super::names::Name;
use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::config::tls::Tls;
use crate::config::{Config, Problem};

/// Names that are shown of those which two certificates share.
const SHOWN: usize = 3;

/// Chains that are out of order, and names that several certificates of a listener are for. A file
/// that cannot be read is an error elsewhere.
pub(in crate::runtime) fn doubts(config: &Config) -> Vec<Problem> {
    let listeners = config.listeners.iter();
    let with_tls = listeners.filter_map(|(name, listener)| Some((name, listener.tls.as_ref()?)));
    with_tls.flat_map(|(name, tls)| of_listener(name, tls)).collect()
}

fn of_listener(listener: &str, tls: &Tls) -> Vec<Problem> {
    let section = KeyPath::root().key("listeners").key(listener).key("tls").key("certificates");
    let mut problems = Vec::new();
    let mut taken: BTreeMap<Name, usize> = BTreeMap::new();
    for (place, files) in tls.certificates.iter().enumerate() {
        let file = &files.certificate;
        let Ok(chain) = certificates(file) else { continue };
        let path = || section.clone().index(place).key("certificate");
        if let Some(message) = out_of_order(file, &chain) {
            problems.push(Problem::new(Code::CertificateChain, path(), message));
        }
        let mut of_earlier: BTreeMap<usize, Vec<Name>> = BTreeMap::new();
        for name in chain.first().map(names::of).unwrap_or_default() {
            match taken.get(&name) {
                Some(first) if *first == place => {}
                Some(first) => of_earlier.entry(*first).or_default().push(name),
                None => drop(taken.insert(name, place)),
            }
        }
        for (first, shared) in of_earlier {
            let shown: Vec<_> = shared.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
            let more = match shared.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let message = format!(
                "`{}` is for {}{more}, as certificates[{first}] is: clients that ask for it get the \
                 latter",
                file.display(),
                shown.join(", "),
            );
            problems.push(Problem::new(Code::CertificateName, path(), message));
        }
    }
    problems
}

/// Clients look for the next certificate of a chain where it must be, or not at all.
fn out_of_order(file: &Path, chain: &[CertificateDer<'_>]) -> Option<String> {
    let parsed: Vec<_> = chain.iter().map_while(|one| parse_x509_certificate(one).ok()).collect();
    // One that begins with an authority's is refused, because the key is not of that.
    if parsed.first().is_some_and(|(_, first)| first.is_ca()) {
        return None;
    }
    let wrong = parsed.windows(2).position(|pair| match pair {
        [(_, one), (_, next)] => one.issuer() != next.subject(),
        _ => false,
    })?;
    Some(format!(
        "`{}`: certificate {} is not issued by the next one in the file",
        file.display(),
        wrong + 1,
    ))
}
