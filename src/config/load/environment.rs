//! The source of `${VAR}`.

use std::collections::BTreeMap;
use std::fmt;

/// The variables a configuration may refer to.
#[derive(Clone)]
pub struct Environment(Variables);

#[derive(Clone)]
enum Variables {
    Process,
    ProcessOr(BTreeMap<String, String>),
    Fixed(BTreeMap<String, String>),
}

impl Environment {
    /// The variables of the process, read at each look-up.
    pub fn process() -> Self {
        Environment(Variables::Process)
    }

    /// The variables of the process, and these where the process has none of the name.
    pub(super) fn process_or(variables: BTreeMap<String, String>) -> Self {
        Environment(Variables::ProcessOr(variables))
    }

    /// These variables only.
    pub fn fixed<K: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Environment(Variables::Fixed(variables.collect()))
    }

    /// The value of `name`; `None` if it is not set.
    ///
    /// # Errors
    /// The value is not UTF-8.
    pub(crate) fn lookup(&self, name: &str) -> Result<Option<String>, String> {
        match &self.0 {
            Variables::Fixed(variables) => Ok(variables.get(name).cloned()),
            Variables::Process => of_process(name),
            Variables::ProcessOr(variables) => {
                Ok(of_process(name)?.or_else(|| variables.get(name).cloned()))
            }
        }
    }
}

fn of_process(name: &str) -> Result<Option<String>, String> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(format!("the value of `{name}` is not valid UTF-8"))
        }
    }
}

/// Omits the values, because some are secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Variables::Process => "Environment(process)",
            Variables::ProcessOr(_) => "Environment(process, .env)",
            Variables::Fixed(_) => "Environment(fixed)",
        })
    }
}
