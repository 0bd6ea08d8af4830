//! The end of a connection whose request was refused before it was complete.

use pingora_proxy::Session;

use crate::proxy::reply::wire::DRAIN_TIME;

/// What is read and thrown away of a client that is still sending when the connection closes.
const LINGER_LIMIT: usize = 1024 * 1024;

/// Say at once that nothing more comes, but close only once the client has sent what it is sending,
/// within bounds. A connection closed with bytes unread is reset, and a client that writes into that
/// may never read why it was refused (RFC 9112, section 9.6). A stream of HTTP/2 is reset as well,
/// which should be no reason to forget its answer (RFC 9113, section 8.1), but is one to clients in use.
pub async fn linger(session: &mut Session) {
    let downstream = session.as_downstream_mut();
    let http1 = downstream.as_http1();
    let is_http1 = http1.is_some();
    let closes = http1.is_none_or(|http1| !http1.will_keepalive());
    if !closes || downstream.is_body_done() {
        return;
    }
    let mut left = LINGER_LIMIT;
    let sent = tokio::time::timeout(DRAIN_TIME, async {
        // A client that reads to the end sees it now, though it has not sent everything.
        if is_http1 {
            downstream.shutdown().await;
        }
        while let Ok(Some(chunk)) = downstream.read_request_body().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    });
    // Too late or not, it closes now.
    let _ = sent.await;
}
