//! The request's half: from a head to what goes upstream.
//!
//! | file | what it is for |
//! |---|---|
//! | [`admission`] | from a head to its admission: the route, then each step of [`crate::policy::order`] |
//! | [`authentication`] | who sends a request: by the route's authorities, in their order |
//! | [`inquiry`] | what a service of forward auth is told of a request |
//! | [`destination`] | from a complete head to where the request goes |
//! | [`head`] | from a head to its route: malformed, ambiguous and too large ones end here |
//! | [`length`] | `Content-Length`, made one plain number |
//! | [`nominations`] | what a client's `Connection` header may name |
//! | [`identifiers`] | request id and correlation id: kept if safe, else made |
//! | [`rpc_timeout`] | how long a caller of RPC waits, and how long an upstream may take |
//! | [`share`] | what a request takes of its caller's share, in the bulkhead and in the retry budget |
//! | [`waiting`] | requests that wait for a slot of the bulkhead |
//! | [`key`] | requests with an idempotency key: looked up before they are executed |
//! | [`body`] | bodies on their way: counted, limited, captured, sometimes rewritten |
//! | [`envelopes`] | messages in a stream of RPC: checked, never changed |
//! | [`compression`] | compressed bodies, where the gateway must read them |
//! | [`transcode`] | calls of RPC that become plain HTTP with JSON, and the reverse |
//! | [`fault`] | what a client is told of a message that cannot be transcoded |
//! | [`evidence`] | what in a head made the gateway refuse it, for the operator |
//! | [`headers`] | header fields on their way to the upstream |
//! | [`assertions`] | fields that only the gateway, or a trusted proxy, may assert |
//! | [`via`] | this process among the proxies of a request; one that comes back is refused |
//! | [`untrusted`] | a warning if a proxy seems to be there that is not trusted |

pub mod admission;
pub mod assertions;
pub mod authentication;
pub mod body;
pub mod compression;
pub mod destination;
pub mod envelopes;
pub mod evidence;
pub mod fault;
pub mod head;
pub mod headers;
pub mod identifiers;
pub mod inquiry;
pub mod key;
pub mod length;
pub mod nominations;
pub mod rpc_timeout;
pub mod share;
pub mod transcode;
pub mod untrusted;
pub mod via;
pub mod waiting;
