//! The compiled form of a route's `transcode`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost_reflect::prost::Message as _;
use prost_reflect::{DeserializeOptions, MethodDescriptor};

use super::config::{Config, UnknownFields, Upstream};
use super::descriptors::Descriptors;
use super::message::Codec;
use super::method::Method;
use super::wire::Framing;
use super::{Fault, Mistake, annotation, config, descriptors, message, wire};
use crate::condition::Spell;
use crate::transcode::request::HttpRequest;

/// The methods of a route, each with its RPC and its HTTP side.
pub struct Transcoder {
    upstream: Upstream,
    /// By the path of their RPC calls.
    methods: BTreeMap<String, Arc<Method>>,
    /// Every binding, as its index in its method, in the order in which they are tried.
    bindings: Vec<(Arc<Method>, usize)>,
    reading: DeserializeOptions,
    refuse_unknown: bool,
    max_message: usize,
    compress_from: usize,
    unreadable: Spell,
}

/// An HTTP request as a gRPC call.
#[derive(Debug, Clone)]
pub struct RpcRequest {
    /// `/package.Service/Method`.
    pub path: String,
    /// The message in its gRPC frame.
    pub body: Bytes,
    /// The index of the binding that writes its response.
    pub binding: usize,
}

impl Transcoder {
    /// Compiles a route's configuration.
    ///
    /// # Errors
    /// The first thing that does not fit the descriptors.
    pub fn compile(config: &Config, descriptors: &Descriptors) -> Result<Self, Mistake> {
        let max_message = config.max_message.as_usize();
        if max_message == 0 {
            return Err(Mistake::at(&["max_message"], "a message that is held must have a bound"));
        }
        let mut methods = BTreeMap::new();
        for (descriptor, bindings) in chosen(config, descriptors)? {
            let method = Arc::new(Method::compile(config, &descriptor, &bindings)?);
            methods.insert(method.path.clone(), method);
        }
        let mut bindings = Vec::new();
        for method in methods.values() {
            bindings.extend((0..method.bindings.len()).map(|at| (method.clone(), at)));
        }
        bindings.sort_by(|(a, at), (b, bt)| {
            a.bindings[*at].path.rank().cmp(&b.bindings[*bt].path.rank())
        });
        let refuse_unknown = config.unknown_fields == UnknownFields::Refuse;
        let reading = DeserializeOptions::new().deny_unknown_fields(refuse_unknown);
        let upstream = config.upstream;
        Ok(Transcoder {
            upstream,
            methods,
            bindings,
            reading,
            refuse_unknown,
            max_message,
            compress_from: config.compress_from.as_usize(),
            unreadable: Spell::default(),
        })
    }

    /// That the upstream's responses are invalid, so that it is logged once.
    pub fn unreadable(&self) -> &Spell {
        &self.unreadable
    }

    /// What the upstream speaks.
    pub fn upstream(&self) -> Upstream {
        self.upstream
    }

    /// The largest message, in bytes, in any encoding.
    pub fn max_message(&self) -> usize {
        self.max_message
    }

    /// The smallest response that is compressed, in bytes.
    pub fn compress_from(&self) -> usize {
        self.compress_from
    }

    /// The largest body, in bytes, that can still hold a message within the limit.
    pub fn max_body(&self) -> usize {
        // Allows for the frame and for Base64.
        self.max_message.saturating_add(16).div_ceil(3).saturating_mul(4)
    }

    /// The method of calls to `path`.
    ///
    /// # Errors
    /// [`Fault::NoMethod`].
    pub fn method(&self, path: &str) -> Result<&Arc<Method>, Fault> {
        self.methods.get(path).ok_or(Fault::NoMethod)
    }

    /// The HTTP request to the upstream for a call of `method`.
    ///
    /// # Errors
    /// The message is malformed, too large, or does not fit the HTTP side.
    pub fn to_http(
        &self,
        method: &Method,
        codec: Codec,
        message: &[u8],
    ) -> Result<HttpRequest, Fault> {
        message::bound(message.len(), self.max_message)?;
        let mut message = message::read(&method.input, codec, message, &self.reading)?;
        method.fill_in(&mut message);
        let request = method.bindings[0].to_http(&message)?;
        message::bound(request.body.as_ref().map_or(0, Bytes::len), self.max_message)?;
        Ok(request)
    }

    /// The RPC call for an HTTP request; `path` is still percent-encoded.
    ///
    /// # Errors
    /// No binding matches, or the request is too large or does not fit the method's message.
    pub fn to_rpc(
        &self,
        http_method: &http::Method,
        path: &str,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<(Arc<Method>, RpcRequest), Fault> {
        message::bound(body.len(), self.max_message)?;
        let mut others = Vec::new();
        for (method, at) in &self.bindings {
            let binding = &method.bindings[*at];
            let Some(captured) = binding.path.capture(path) else { continue };
            if binding.method != *http_method {
                others.push(binding.method.as_str());
                continue;
            }
            let (input, reading) = (&method.input, &self.reading);
            let refuse = self.refuse_unknown;
            let mut message = binding.to_message(captured, query, body, input, reading, refuse)?;
            method.fill_in(&mut message);
            let message = message.encode_to_vec();
            message::bound(message.len(), self.max_message)?;
            let body = wire::wrap(Framing::Grpc, message).into();
            let request = RpcRequest { path: method.path.clone(), body, binding: *at };
            return Ok((method.clone(), request));
        }
        if others.is_empty() {
            return Err(Fault::NoMethod);
        }
        others.sort_unstable();
        others.dedup();
        Err(Fault::WrongMethod(others.join(", ")))
    }
}

/// The configured methods, each with its bindings.
fn chosen(
    config: &Config,
    descriptors: &Descriptors,
) -> Result<Vec<(MethodDescriptor, Vec<config::Binding>)>, Mistake> {
    let http = || Mistake::at(&["http"], "belongs to one `method`, not to a `service`");
    match (&config.method, &config.service) {
        (Some(name), None) => {
            let method = descriptors.method(name).map_err(|e| Mistake::at(&["method"], e))?;
            let bindings = match &config.http {
                Some(binding) => vec![binding.clone()],
                None => annotation::bindings(descriptors, &method),
            };
            if bindings.is_empty() {
                let message = format!("`{name}` is not annotated with google.api.http: say `http`");
                return Err(Mistake::at(&["method"], message));
            }
            Ok(vec![(method, bindings)])
        }
        (None, Some(_)) if config.http.is_some() => Err(http()),
        (None, Some(name)) => {
            let service = descriptors.service(name).map_err(|e| Mistake::at(&["service"], e))?;
            let annotated = service.methods().filter(descriptors::is_unary).filter_map(|method| {
                let bindings = annotation::bindings(descriptors, &method);
                (!bindings.is_empty()).then_some((method, bindings))
            });
            let annotated: Vec<_> = annotated.collect();
            if annotated.is_empty() {
                let message = format!("no unary method of `{name}` has google.api.http");
                return Err(Mistake::at(&["service"], message));
            }
            Ok(annotated)
        }
        _ => Err(Mistake::at(&[], "needs a `method` or a `service`, one of them")),
    }
}
