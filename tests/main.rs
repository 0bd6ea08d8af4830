//! The promises of the gateway, held against the real binary: one file per promise.
//!
//! A test is three nouns: an [`support::Upstream`] that does as its script says and keeps
//! what it was sent, a [`support::Gateway`] that is the product's own executable, and a
//! client that says exact bytes. Policies, the router and the loader have their own tests
//! beside their code; nothing here looks inside.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod support;

mod access_log;
mod admin;
mod amplification;
mod auth;
mod breaker;
mod breaker_window;
mod bulkhead;
mod bulkhead_queue;
mod circuits;
mod claims;
mod commands;
mod compression;
mod compression_elsewhere;
mod config_check;
mod connect;
mod connections;
mod cors;
mod deadlines;
mod defaults;
mod descriptors;
mod dialects;
mod dry_run;
mod durable;
mod edge;
mod failures;
mod fallback;
mod fallback_upstream;
mod flood_guard;
mod framing;
mod golden_check;
mod grpc;
mod grpc_keys;
mod h2;
mod headers;
mod http1;
mod idempotency;
mod idempotency_full;
mod idempotency_shared;
mod invocations;
mod many_routes;
mod microservices;
mod old_conf;
mod otlp;
mod outage;
mod paths;
mod permits;
mod problem;
mod process_log;
mod profiles;
mod rate_limit;
mod readme;
mod record;
mod record_burst;
mod record_crash;
mod record_outage;
mod record_reasons;
mod record_start;
mod reload;
mod requests;
mod responses;
mod retry;
mod retry_budget;
mod retry_signals;
mod routing;
mod rpc_end;
mod rpc_input;
mod schema;
mod shared_limits;
mod shutdown;
mod spring_gateway;
mod streaming;
mod structure;
mod threads;
mod timeouts;
mod tls;
mod tls_resumption;
mod tokens;
mod traces;
mod transcode;
mod transcode_dialects;
mod transcode_keys;
mod transcode_reverse;
mod upstreams;
mod watch;
mod websocket;
