//! What the operator configures under `upstreams.NAME.discover`.

use std::path::PathBuf;

use serde::Deserialize;

use crate::upstream::config::Url;

/// A source of endpoints, and how those that it gives as addresses are reached.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
#[schemars(with = "Written", rename = "Discover")]
#[serde(try_from = "Written")]
pub struct Discover {
    /// What knows the endpoints.
    pub source: Source,
    /// Scheme, `Host` header, certificate's name and base path of endpoints that the source gives as
    /// addresses; `None`: `http://` and the address.
    pub form: Option<Url>,
}

/// The kinds of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A list of endpoints in a file.
    File(File),
}

/// `file:`, a list of endpoints in YAML or JSON, written as under `endpoints`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FileSource")]
pub struct File {
    /// The file, relative to the configuration's. It is looked at twice a second, and taken once it
    /// has stayed the same from one look to the next.
    pub path: PathBuf,
}

/// The keys as in the file, before one kind is picked.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    /// A list of endpoints in a file.
    #[serde(default)]
    file: Option<File>,
    /// How endpoints are reached that the source gives as addresses, such as `https://orders.internal/api`:
    /// scheme, `Host` header, name of the certificate, and base path. Default: `http://` and the address.
    #[serde(default, rename = "as")]
    form: Option<Url>,
}

impl TryFrom<Written> for Discover {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { file, form } = written;
        let sources = [file.map(Source::File)];
        let mut sources = sources.into_iter().flatten();
        let source = sources.next().ok_or("needs a source, such as `file: {path: orders.yaml}`")?;
        if sources.next().is_some() {
            return Err("has more than one source: write one".to_owned());
        }
        if form.as_ref().is_some_and(|form| form.place.is_socket()) {
            return Err("as: is http:// or https:// with a host, not a socket".to_owned());
        }
        Ok(Discover { source, form })
    }
}

impl Discover {
    /// Whether `other` asks the same source for the same endpoints, so that they are kept until it
    /// answers anew.
    pub fn has_same_endpoints(&self, other: &Discover) -> bool {
        self.form == other.form && self.source.is_same(&other.source)
    }
}

impl Source {
    fn is_same(&self, other: &Source) -> bool {
        match (self, other) {
            (Source::File(one), Source::File(other)) => one.path == other.path,
        }
    }

    /// The kind of source, as it is written.
    pub fn as_str(&self) -> &'static str {
        match self {
            Source::File(_) => "file",
        }
    }

    /// The source in words, for log lines and `/status`.
    pub fn words(&self) -> String {
        match self {
            Source::File(file) => format!("file {}", file.path.display()),
        }
    }
}
