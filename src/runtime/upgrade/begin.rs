//! The moment from which this process serves: when it can, and the one before it has given way.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use super::takeover::Takeover;
use crate::runtime::shared::Shared;

/// Limit on writing the last lines of the log.
const LOG_LIMIT: Duration = Duration::from_secs(1);

/// Does what is needed before the first request. Ends the process if the one to take over from gives
/// up meanwhile.
pub(in crate::runtime) async fn prepare(
    shared: &Shared,
    takeover: Option<&Takeover>,
    preparations: impl Future<Output = ()>,
) {
    let Some(takeover) = takeover else { return preparations.await };
    tokio::select! {
        () = preparations => {}
        why = takeover.given_up() => give_up(shared, takeover, &why),
    }
}

/// Accepts connections and says so: at once, or after the other process has said that it may. Ends the
/// process if that does not happen. `files` are those of this process's Unix sockets.
pub(in crate::runtime) async fn begin(
    shared: &Shared,
    takeover: Option<Takeover>,
    files: Vec<PathBuf>,
) {
    if let Some(takeover) = &takeover
        && let Err(why) = takeover.ready(files).await
    {
        give_up(shared, takeover, &why);
    }
    shared.lifecycle.accept();
    shared.lifecycle.set_ready();
    log::info!("ready");
    let generation = shared.snapshot.load().generation;
    match takeover {
        None => shared.manager.ready(generation),
        Some(takeover) => {
            // Before the other process ends, which the manager would take for the end of the service.
            shared.manager.took_over(generation);
            takeover.serving().await;
        }
    }
}

/// It has accepted nothing, so nothing is lost.
fn give_up(shared: &Shared, takeover: &Takeover, why: &str) {
    log::error!(
        "upgrade: cannot take over from process {}: {why}; this process ends",
        takeover.process()
    );
    if let Some(logs) = &shared.logs {
        logs.flush(LOG_LIMIT);
    }
    std::process::exit(1);
}
