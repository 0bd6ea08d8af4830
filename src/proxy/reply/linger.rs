//! The end of a connection whose request was answered here before it was complete.

use pingora_proxy::Session;

use crate::proxy::reply::wire::DRAIN_TIME;

/// Bytes read and discarded from a client that is still sending when the connection closes.
const LINGER_LIMIT: usize = 1024 * 1024;

/// Closes the sending side at once, but the connection only after the client has sent its request,
/// within bounds. A connection closed with unread bytes is reset, and a client that writes into it
/// may never read its response (RFC 9112, section 9.6). An HTTP/2 stream is reset as well. By
/// RFC 9113, section 8.1, a client must not discard the response for that, but clients in use do.
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
        // A client that reads to the end gets the response now, though it has not sent everything.
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
    // The connection closes now, whether or not the client has finished.
    let _ = sent.await;
}
