//! Reads descriptor sets, and compiles the routes' transcoders.

use std::collections::BTreeMap;

use crate::config::code::Code;
use crate::config::load::KeyPath;
use crate::config::{self, Config, Problem};
use crate::transcode::{Descriptors, Transcoder};
use crate::units::reason;

/// All sets that can be read; for each of the others, a problem.
pub(super) fn descriptors(
    config: &Config,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, Descriptors> {
    let mut sets = BTreeMap::new();
    for (name, descriptors) in &config.descriptors {
        let file = &descriptors.file;
        let path = KeyPath::root().key("descriptors").key(name.as_str()).key("file");
        let problem = |message: String| {
            let message = format!("the file `{}` {message}", file.display());
            Problem::new(Code::DescriptorsUnusable, path, message)
        };
        match std::fs::read(file).map(|bytes| Descriptors::parse(&bytes)) {
            Ok(Ok(set)) => drop(sets.insert(name.clone(), set)),
            Ok(Err(error)) => problems.push(problem(error)),
            Err(error) => {
                let problem = problem(format!("cannot be read: {}", reason(&error)));
                problems.push(problem.remedied(
                    "check the path, which is relative to the configuration file, and that the \
                     gateway's user may read the file",
                ));
            }
        }
    }
    sets
}

/// A route's transcoder; `None` if it does not transcode, or its set could not be read.
pub(super) fn of_route(
    name: &str,
    config: &config::Route,
    sets: &BTreeMap<String, Descriptors>,
) -> Result<Option<Transcoder>, Problem> {
    let Some(config) = &config.transcode else { return Ok(None) };
    let Some(descriptors) = sets.get(&config.descriptors) else { return Ok(None) };
    Transcoder::compile(config, descriptors).map(Some).map_err(|mistake| {
        let path = KeyPath::root().key("routes").key(name).key("transcode");
        let path = mistake.key.iter().fold(path, |path, step| path.key(step.as_str()));
        Problem::new(Code::TranscodeUnusable, path, mistake.message)
    })
}
