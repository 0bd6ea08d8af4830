//! The upstream of `make demo`: the custom language service's contract, and a token issuer.
//!
//! `POST /invoke` answers by the name it is given; `/.well-known/jwks.json` and `/token` stand in
//! for the service that issues tokens; `/seen` counts the calls, so that the demo can show what
//! the gateway did not pass on. Not part of the product.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Parser;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// Longer than the attempt timeout of any profile.
const SLOW: Duration = Duration::from_secs(3);
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// The demo upstream: answers by name, issues tokens, counts calls.
#[derive(Parser)]
struct Arguments {
    /// The port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// End when standard input closes, which it does when the process that holds it ends.
    #[arg(long)]
    with_parent: bool,
}

struct Upstream {
    issuer: Issuer,
    seen: Mutex<BTreeMap<String, u64>>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if arguments.with_parent {
        end_with_parent();
    }
    let upstream = Arc::new(Upstream { issuer: Issuer::generate()?, seen: Mutex::default() });
    let app = Router::new()
        .route("/invoke", post(invoke))
        .route("/seen", get(seen))
        .route("/token", get(token))
        .route("/.well-known/jwks.json", get(jwks))
        .with_state(upstream);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", arguments.port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

async fn invoke(
    State(upstream): State<Arc<Upstream>>,
    Json(request): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let name = match request["name"].as_str() {
        Some(name) if !name.is_empty() => name.to_owned(),
        Some(_) | None => "World".to_owned(),
    };
    let call = upstream.count(&name);
    if name == "slow" {
        tokio::time::sleep(SLOW).await;
    }
    let status = status_for(&name, call);
    let body = if status.is_success() {
        json!({"message": format!("Hello {name} from custom-lang-service!")})
    } else {
        json!({"error": format!("{name}: {}", status.canonical_reason().unwrap_or("error"))})
    };
    (status, Json(body))
}

/// The status for the `call`th call, from 1, with this name.
fn status_for(name: &str, call: u64) -> StatusCode {
    match name {
        "unauthorized" => StatusCode::UNAUTHORIZED,
        "forbidden" => StatusCode::FORBIDDEN,
        "notfound" => StatusCode::NOT_FOUND,
        "conflict" => StatusCode::CONFLICT,
        "ratelimit" => StatusCode::TOO_MANY_REQUESTS,
        "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        // Every other call, from the first: a single retry always gets through.
        "flaky" if call % 2 == 1 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::OK,
    }
}

async fn seen(State(upstream): State<Arc<Upstream>>) -> Json<Value> {
    let seen = upstream.seen.lock().unwrap_or_else(PoisonError::into_inner);
    Json(json!({"calls": seen.values().sum::<u64>(), "by_name": *seen}))
}

async fn token(State(upstream): State<Arc<Upstream>>) -> Result<String, StatusCode> {
    upstream.issuer.token().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn jwks(State(upstream): State<Arc<Upstream>>) -> Json<JwkSet> {
    Json(upstream.issuer.keys.clone())
}

impl Upstream {
    /// Counts a call; how many there were with this name, this one included.
    fn count(&self, name: &str) -> u64 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = seen.entry(name.to_owned()).or_default();
        *calls += 1;
        *calls
    }
}

/// Signs tokens with a key that lives as long as the process, like the service it stands in for.
struct Issuer {
    key: EncodingKey,
    key_id: String,
    keys: JwkSet,
}

impl Issuer {
    fn generate() -> Result<Self, Box<dyn Error>> {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        let der: Pkcs8V1Der<'_> = pair.as_der()?;
        let key = EncodingKey::from_rsa_pem(pem(der.as_ref()).as_bytes())?;
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::RS256)?;
        let key_id = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(key_id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_operations = Some(vec![KeyOperations::Verify]);
        Ok(Issuer { key, key_id, keys: JwkSet { keys: vec![jwk] } })
    }

    fn token(&self) -> Result<String, Box<dyn Error>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::RS256) };
        let claims = json!({
            "iss": "auth-service",
            "sub": "demo",
            "iat": now.as_secs(),
            "exp": (now + TOKEN_LIFE).as_secs(),
        });
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der))
}

/// A thread of its own: a read of standard input cannot be cancelled.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}
