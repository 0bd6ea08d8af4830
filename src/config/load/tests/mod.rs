//! The loader's interface, tested with a small configuration of its own.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod defaults;
mod include;
mod merge;
mod mistakes;
mod robustness;
mod templates;
mod values;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::Deserialize;

use super::*;
use crate::config::code::Code;
use crate::units::{Percent, Secret, Timespan};

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    server: Server,
    routes: BTreeMap<String, Route>,
    upstreams: BTreeMap<String, Upstream>,
    keys: BTreeMap<String, Secret>,
    store: Option<Store>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Server {
    threads: u16,
    drain_timeout: Timespan,
    verbose: bool,
    ratio: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    path: String,
    upstream: String,
    #[serde(default)]
    methods: Vec<Method>,
    retry: Option<Retry>,
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    max_retries: NonZeroU32,
    #[serde(default)]
    on: Vec<u16>,
    #[serde(default)]
    jitter: Percent,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Upstream {
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "String")]
struct Endpoint(String);

impl TryFrom<String> for Endpoint {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let usable = text.starts_with("http://");
        usable.then(|| Endpoint(text.clone())).ok_or_else(|| format!("`{text}` is not an http URL"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Off,
    Async,
    Sync,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    Get,
    Post,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Store {
    Memory,
    Sqlite(Sqlite),
    Postgres { url: Secret, pool_size: Option<u32> },
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sqlite {
    path: PathBuf,
}

/// A directory with files; the first one is the main file.
struct Files(tempfile::TempDir, PathBuf);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let main = directory.path().join(files[0].0);
        Files(directory, main)
    }

    fn draft(&self, environment: &[(&str, &str)]) -> Draft<Config> {
        plain(&self.1, &Environment::fixed(environment.iter().copied()))
    }

    fn load(&self, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let loaded = self.draft(environment).validate(|_, _| Vec::new());
        loaded.map(|(config, _)| config).map_err(|found| self.print(&found))
    }

    /// The printed diagnostics, without the directory.
    fn print(&self, diagnostics: &[Diagnostic]) -> Vec<String> {
        let directory = format!("{}/", self.0.path().display());
        diagnostics.iter().map(|found| found.to_string().replace(&directory, "")).collect()
    }
}

static NO_TEMPLATES: Templates =
    Templates { section: "no templates", list: "no names", uses: &["no uses"] };

static NO_DEFAULTS: Layering =
    Layering { defaults: "no defaults", things: "no things", keys: &[], own: &[] };

/// Defaults of which there are none.
#[derive(Deserialize)]
struct Nothing {}

/// Reads what has no templates, no defaults and no earlier names.
fn plain<T: DeserializeOwned>(path: &Path, environment: &Environment) -> Draft<T> {
    load_layered::<T, Nothing>(path, environment, &NO_TEMPLATES, &NO_DEFAULTS, &[])
}

/// Reads without a check of its own.
fn load<T: DeserializeOwned>(
    path: &Path,
    environment: &Environment,
) -> Result<(T, Sources), Vec<Diagnostic>> {
    plain(path, environment).validate(|_, _| Vec::new())
}

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    Files::new(&[("c", text)]).load(environment)
}

fn mistakes(text: &str) -> Vec<String> {
    load_text(text, &[]).expect_err("mistakes")
}

const ROUTE: &str = "routes: {users: {path: /users, upstream: users}}\n";
