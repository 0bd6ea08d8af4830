//! Names of peers as an operator allows them: whole, or by segments.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};

use super::{Name, NotSpiffe, SCHEME, is_segment, is_trust_domain};
use crate::units::schema::written_as;

/// Which peers are meant: `spiffe://prod/ns/shop/*`, `web.shop.internal`, `*.shop.internal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    written: Box<str>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A trust domain and the segments of a path. `open`: and everything below them.
    Spiffe { domain: Box<str>, segments: Box<[Segment]>, open: bool },
    /// A DNS name or a common name, whole; DNS names are compared in lower case.
    Whole,
    /// One label, and then this: a dot and the rest of a DNS name.
    Below(Box<str>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Any,
    One(Box<str>),
}

impl Pattern {
    /// Whether `name` is meant. A SPIFFE id is matched by patterns of SPIFFE ids only.
    pub fn matches(&self, name: Name<'_>) -> bool {
        match (&self.kind, name) {
            (Kind::Spiffe { domain, segments, open }, Name::Spiffe(id)) => {
                is_in(id, domain, segments, *open)
            }
            (Kind::Whole, Name::Dns(name)) => self.written.eq_ignore_ascii_case(name),
            (Kind::Whole, Name::Common(name)) => *self.written == *name,
            (Kind::Below(suffix), Name::Dns(name)) => {
                let label = name.strip_suffix(&**suffix);
                label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
            }
            (Kind::Spiffe { .. }, Name::Dns(_) | Name::Common(_))
            | (Kind::Whole, Name::Spiffe(_))
            | (Kind::Below(_), Name::Spiffe(_) | Name::Common(_)) => false,
        }
    }
}

impl Pattern {
    /// Whether it names one name, and no others.
    pub fn is_exact(&self) -> bool {
        match &self.kind {
            Kind::Spiffe { segments, open, .. } => !open && !segments.contains(&Segment::Any),
            Kind::Whole => true,
            Kind::Below(_) => false,
        }
    }

    /// How much of a name it says: characters but `*`.
    pub fn specificity(&self) -> usize {
        self.written.chars().filter(|c| *c != '*').count()
    }

    /// Whether a name can match both. Of common names nothing is known.
    pub fn meets(&self, other: &Pattern) -> bool {
        match (&self.kind, &other.kind) {
            (
                Kind::Spiffe { domain, segments, open },
                Kind::Spiffe { domain: theirs, segments: others, open: are_open },
            ) => {
                let mut both = segments.iter().zip(others);
                domain == theirs
                    && both.all(|(a, b)| *a == *b || [a, b].contains(&&Segment::Any))
                    // What is longer lies below what is shorter, which then has to be open.
                    && match segments.len().cmp(&others.len()) {
                        Ordering::Less => *open,
                        Ordering::Equal => open == are_open,
                        Ordering::Greater => *are_open,
                    }
            }
            (Kind::Below(ours), Kind::Below(theirs)) => ours == theirs,
            (Kind::Whole, _) => other.matches(Name::Dns(&self.written.to_ascii_lowercase())),
            (_, Kind::Whole) => self.matches(Name::Dns(&other.written.to_ascii_lowercase())),
            (Kind::Spiffe { .. }, Kind::Below(_)) | (Kind::Below(_), Kind::Spiffe { .. }) => false,
        }
    }

    /// Whether every name that this matches matches `other`.
    pub fn implies(&self, other: &Pattern) -> bool {
        match (&self.kind, &other.kind) {
            (
                Kind::Spiffe { domain, segments, open },
                Kind::Spiffe { domain: theirs, segments: others, open: are_open },
            ) => {
                let mut both = segments.iter().zip(others);
                domain == theirs
                    && both.all(|(a, b)| *b == Segment::Any || a == b)
                    && match segments.len().cmp(&others.len()) {
                        Ordering::Less => false,
                        Ordering::Equal => open == are_open,
                        Ordering::Greater => *are_open,
                    }
            }
            (Kind::Below(ours), Kind::Below(theirs)) => ours == theirs,
            (Kind::Whole, _) => self.meets(other),
            (Kind::Spiffe { .. } | Kind::Below(_), _) => false,
        }
    }
}

fn is_in(id: &str, domain: &str, segments: &[Segment], open: bool) -> bool {
    let Some(rest) = id.strip_prefix(SCHEME) else { return false };
    let (its, path) = rest.split_once('/').map_or((rest, None), |(d, p)| (d, Some(p)));
    if its != domain {
        return false;
    }
    let mut path = path.into_iter().flat_map(|path| path.split('/'));
    for segment in segments {
        let is_met = match (segment, path.next()) {
            (_, None) => false,
            (Segment::Any, Some(_)) => true,
            (Segment::One(wanted), Some(has)) => **wanted == *has,
        };
        if !is_met {
            return false;
        }
    }
    // What is open has at least one segment more.
    path.next().is_some() == open
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let never = |why: &str| format!("`{text}` can match nothing: {why}");
        let kind = if let Some(rest) = text.strip_prefix(SCHEME) {
            spiffe(rest).map_err(|why| never(&why))?
        } else if text.contains("://") {
            return Err(never("of URIs only SPIFFE ids are looked at: spiffe://…"));
        } else if let Some(suffix) = text.strip_prefix('*') {
            let labels = suffix.strip_prefix('.').filter(|labels| is_dns(labels));
            let why = "a wildcard stands for the first label of a DNS name: *.shop.internal";
            labels.ok_or_else(|| never(why))?;
            Kind::Below(suffix.to_ascii_lowercase().into())
        } else if text.contains('*') {
            return Err(never(
                "a wildcard stands for the first label, or for a segment of a SPIFFE id",
            ));
        } else if text.is_empty() || text.trim() != text {
            return Err(never("it is empty, or has a space at an end"));
        } else {
            Kind::Whole
        };
        Ok(Pattern { written: text.into(), kind })
    }
}

fn spiffe(rest: &str) -> Result<Kind, String> {
    let (domain, path) = rest.split_once('/').map_or((rest, None), |(d, p)| (d, Some(p)));
    if domain.contains('*') {
        return Err("a trust domain is written out".to_owned());
    }
    let domain = domain.to_ascii_lowercase();
    if !is_trust_domain(&domain) {
        return Err(NotSpiffe::TrustDomain.to_string());
    }
    let mut segments: Vec<&str> = path.map(|path| path.split('/').collect()).unwrap_or_default();
    let open = segments.last() == Some(&"*");
    if open {
        segments.pop();
    }
    let segments = segments.into_iter().map(|segment| match segment {
        "*" => Ok(Segment::Any),
        one if is_segment(one) => Ok(Segment::One(one.into())),
        one if one.contains('*') => Err("`*` stands for a whole segment".to_owned()),
        _ => Err(NotSpiffe::Path.to_string()),
    });
    Ok(Kind::Spiffe { domain: domain.into(), segments: segments.collect::<Result<_, _>>()?, open })
}

pub(crate) fn is_dns(name: &str) -> bool {
    let fits = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.split('.').all(fits)
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

written_as!(Pattern, "PeerPattern", {
    "description": "A SPIFFE id, whose segments may be `*`, and whose last `*` stands for everything below; or a DNS name, whose first label may be `*`; or a common name.",
    "type": "string",
});
