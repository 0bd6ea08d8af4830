//! A key server on its own port, and how the task handles its responses.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Jwks;
use super::fetch::MAX_DOCUMENT_BYTES;
use crate::policy::auth::testing::{
    OTHER_RSA, RSA, Signer, bearer, claims, document, now, verifier,
};
use crate::policy::auth::{Denial, Now, Verifier, Wanted};
use crate::time::Clock;

/// Long, because only a failing test waits this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// Responds according to its script; the last entry repeats. Each response waits for a permit of
/// `gate`.
struct Server {
    address: SocketAddr,
    hits: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Server {
    async fn script(answers: Vec<Vec<u8>>) -> Self {
        let server = Server::gated(answers).await;
        server.gate.add_permits(1000);
        server
    }

    async fn gated(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (hits, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counter, turn) = (hits.clone(), gate.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst);
                let answer = answers[number.min(answers.len() - 1)].clone();
                tokio::spawn(serve(stream, answer, turn.clone()));
            }
        });
        Server { address, hits, gate }
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// A verifier with this server's keys, and the task that fetches them.
    fn client(&self, more: &str) -> (Verifier, Jwks) {
        let verifier = verifier(&format!(
            "jwt: {{issuer: auth-service, audience: any, algorithms: [RS256], jwks: {{url: 'http://{}/keys', \
             {more}}}}}",
            self.address
        ));
        let (config, keyring) = verifier.remote_keys().expect("a key set");
        let jwks = Jwks::spawn("test", config, keyring.clone()).expect("a client");
        (verifier, jwks)
    }
}

async fn serve(mut stream: TcpStream, answer: Vec<u8>, gate: Arc<Semaphore>) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await;
    let Ok(permit) = gate.acquire().await else { return };
    permit.forget();
    let _ = stream.write_all(&answer).await;
}

fn answer(status: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn keys(signers: &[&Signer]) -> Vec<u8> {
    answer("200 OK", &document(&signers.iter().map(|s| s.jwk()).collect::<Vec<_>>()))
}

fn verify(verifier: &Verifier, signer: &Signer) -> Result<(), Denial> {
    let now = Now { moment: Clock::now(), ..now(0) };
    verifier.verify(&bearer(&signer.sign(&claims())), now).map(|_| ())
}

/// Waits until fetch number `number` has ended.
async fn finished(jwks: &Jwks, number: u64) {
    let mut finished = jwks.fetcher.finished.subscribe();
    let wait = finished.wait_for(|n| *n >= number);
    tokio::time::timeout(DEADLINE, wait).await.expect("in time").expect("still running");
}

#[tokio::test]
async fn keys_are_fetched_without_being_asked_for() {
    let server = Server::script(vec![keys(&[&RSA])]).await;
    let (verifier, jwks) = server.client("");
    finished(&jwks, 1).await;
    assert_eq!(verify(&verifier, &RSA), Ok(()));
    let status = jwks.status();
    assert_eq!((status.keys, status.succeeded, status.failed), (1, 1, 0));
    assert!(status.last_success.is_some() && status.last_error.is_none());
}

#[tokio::test]
async fn a_request_before_the_first_keys_waits_for_them() {
    let server = Server::script(vec![keys(&[&RSA])]).await;
    let (verifier, jwks) = server.client("");
    assert!(jwks.refresh_for(Wanted::Any).await);
    assert_eq!(verify(&verifier, &RSA), Ok(()));
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn the_first_token_of_a_new_key_succeeds_at_once() {
    let server = Server::script(vec![keys(&[&RSA]), keys(&[&OTHER_RSA])]).await;
    let (verifier, jwks) = server.client("");
    finished(&jwks, 1).await;
    let denial = verify(&verifier, &OTHER_RSA).expect_err("not known yet");
    let (_, wanted) = denial.wanted_keys().expect("worth a fetch");
    assert!(jwks.refresh_for(wanted).await);
    assert_eq!(verify(&verifier, &OTHER_RSA), Ok(()));
    assert!(verify(&verifier, &RSA).is_err());
}

#[tokio::test]
async fn a_hundred_requests_with_an_unknown_key_share_one_fetch() {
    let server = Server::gated(vec![keys(&[&RSA]), keys(&[&OTHER_RSA])]).await;
    let (_verifier, jwks) = server.client("");
    server.gate.add_permits(1);
    finished(&jwks, 1).await;
    let jwks = Arc::new(jwks);
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let jwks = jwks.clone();
            tokio::spawn(async move { jwks.refresh_for(Wanted::Named("rsa-2")).await })
        })
        .collect();
    server.gate.add_permits(1000);
    for request in asking {
        assert!(request.await.expect("no panic"));
    }
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn a_key_made_during_a_fetch_gets_a_fetch_of_its_own() {
    let server = Server::gated(vec![keys(&[&RSA]), keys(&[&OTHER_RSA])]).await;
    let (_verifier, jwks) = server.client("");
    while server.hits() == 0 {
        tokio::task::yield_now().await;
    }
    let ask = jwks.refresh_for(Wanted::Named("rsa-2"));
    tokio::pin!(ask);
    tokio::select! {
        biased;
        _ = &mut ask => panic!("answered before the server did"),
        () = std::future::ready(()) => {}
    }
    server.gate.add_permits(1000);
    assert!(ask.await);
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn a_key_nobody_has_is_fetched_for_once() {
    let server = Server::script(vec![keys(&[&RSA])]).await;
    let (_verifier, jwks) = server.client("min_refetch: 1h");
    finished(&jwks, 1).await;
    for _ in 0..10 {
        assert!(!jwks.refresh_for(Wanted::Named("nobody")).await);
    }
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn a_set_that_does_not_change_is_fetched_once_for_bad_signatures() {
    let server = Server::script(vec![keys(&[&RSA])]).await;
    let (verifier, jwks) = server.client("min_refetch: 1h");
    finished(&jwks, 1).await;
    let (_, keyring) = verifier.remote_keys().expect("a key set");
    let generation = keyring.generation();
    for _ in 0..10 {
        let wanted = Wanted::Other { generation, kid: Some("rsa-1") };
        assert!(!jwks.refresh_for(wanted).await);
    }
    assert_eq!((server.hits(), keyring.generation()), (2, generation));
}

#[tokio::test]
async fn a_key_that_is_there_is_not_fetched_again() {
    let server = Server::script(vec![keys(&[&RSA])]).await;
    let (_verifier, jwks) = server.client("");
    finished(&jwks, 1).await;
    assert!(jwks.refresh_for(Wanted::Named("rsa-1")).await);
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn waiting_for_a_silent_server_is_bounded() {
    let server = Server::gated(vec![keys(&[&RSA])]).await;
    let (_verifier, jwks) = server.client("timeout: 50ms");
    assert!(!tokio::time::timeout(DEADLINE, jwks.refresh_for(Wanted::Any)).await.expect("bounded"));
}

#[tokio::test]
async fn keys_are_refreshed_by_themselves() {
    let server = Server::script(vec![keys(&[&RSA]), keys(&[&OTHER_RSA])]).await;
    let (verifier, jwks) = server.client("refresh: 10ms");
    finished(&jwks, 2).await;
    assert_eq!(verify(&verifier, &OTHER_RSA), Ok(()));
}

#[tokio::test]
async fn a_failed_refresh_keeps_the_keys_and_says_why() {
    let server = Server::script(vec![keys(&[&RSA]), answer("500 Oops", b"")]).await;
    let (verifier, jwks) = server.client("refresh: 10ms");
    finished(&jwks, 2).await;
    assert_eq!(verify(&verifier, &RSA), Ok(()));
    let status = jwks.status();
    assert_eq!((status.keys, status.succeeded, status.failed), (1, 1, 1));
    assert!(status.last_error.expect("an error").contains("status 500"));
}

#[tokio::test]
async fn keys_that_cannot_be_refreshed_are_refused_after_a_while() {
    let server = Server::script(vec![keys(&[&RSA]), answer("500 Oops", b"")]).await;
    let (verifier, jwks) = server.client("refresh: 10ms, max_stale: 30ms");
    finished(&jwks, 1).await;
    let (_, keyring) = verifier.remote_keys().expect("a key set");
    let confirmed = jwks.status().last_success.expect("a success");
    assert!(!keyring.is_usable(confirmed + Duration::from_millis(30)));
}

#[tokio::test]
async fn an_issuer_that_comes_back_is_found_again() {
    let server = Server::script(vec![answer("503 Not yet", b""), keys(&[&RSA])]).await;
    let (verifier, jwks) = server.client("");
    finished(&jwks, 1).await;
    assert!(matches!(verify(&verifier, &RSA), Err(Denial::KeysUnavailable { .. })));
    assert!(jwks.refresh_for(Wanted::Any).await);
    assert_eq!(verify(&verifier, &RSA), Ok(()));
    assert_eq!(jwks.status().last_error, None);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::script(vec![keys(&[&RSA])]).await;
    let head = format!(
        "HTTP/1.1 302 Found\r\nlocation: http://{}/keys\r\ncontent-length: 0\r\n\r\n",
        elsewhere.address
    );
    let server = Server::script(vec![head.into_bytes()]).await;
    let (_verifier, jwks) = server.client("");
    finished(&jwks, 1).await;
    assert!(jwks.status().last_error.expect("an error").contains("status 302"));
    assert_eq!(elsewhere.hits(), 0);
}

#[tokio::test]
async fn an_oversized_document_is_refused() {
    let mut body = document(&[RSA.jwk()]);
    body.resize(MAX_DOCUMENT_BYTES + 1, b' ');
    let server = Server::script(vec![answer("200 OK", &body)]).await;
    let (_verifier, jwks) = server.client("");
    finished(&jwks, 1).await;
    assert!(jwks.status().last_error.expect("an error").contains("larger than"));
    assert_eq!(jwks.status().keys, 0);
}

#[tokio::test]
async fn an_error_does_not_repeat_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let gone = Server { address, hits: Arc::default(), gate: Arc::new(Semaphore::new(0)) };
    let (_verifier, jwks) = gone.client("");
    finished(&jwks, 1).await;
    let error = jwks.status().last_error.expect("an error");
    assert!(error.contains("refused") && !error.contains("/keys"), "{error}");
}

#[tokio::test]
async fn dropping_it_ends_the_fetching() {
    let server = Server::script(vec![keys(&[&RSA])]).await;
    let (_verifier, jwks) = server.client("refresh: 10ms");
    finished(&jwks, 1).await;
    let mut ended = jwks.fetcher.finished.subscribe();
    drop(jwks);
    // The channel closes when the task has dropped its end.
    let closed = async { while ended.changed().await.is_ok() {} };
    tokio::time::timeout(DEADLINE, closed).await.expect("the task ended");
}
