//! Message types and methods from a descriptor set.

use prost_reflect::prost_types::method_options::IdempotencyLevel;
use prost_reflect::{DescriptorPool, MethodDescriptor, ServiceDescriptor};

/// A descriptor set.
#[derive(Debug, Clone)]
pub struct Descriptors(DescriptorPool);

impl Descriptors {
    /// Reads a serialized `google.protobuf.FileDescriptorSet`.
    ///
    /// # Errors
    /// Why it is invalid, in words for the operator.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let pool = DescriptorPool::decode(bytes)
            .map_err(|error| format!("is not a complete descriptor set: {error}"))?;
        if pool.services().len() == 0 {
            return Err("describes no service".to_owned());
        }
        Ok(Descriptors(pool))
    }

    pub(super) fn pool(&self) -> &DescriptorPool {
        &self.0
    }

    pub(super) fn service(&self, name: &str) -> Result<ServiceDescriptor, String> {
        self.0.get_service_by_name(name).ok_or_else(|| {
            let known: Vec<_> = self.0.services().map(|s| format!("`{}`", s.full_name())).collect();
            format!("no service is named `{name}`, there is {}", known.join(", "))
        })
    }

    /// The method `package.Service/Method`; it must be unary.
    pub(super) fn method(&self, name: &str) -> Result<MethodDescriptor, String> {
        let (service, method) = name.split_once('/').ok_or("is written package.Service/Method")?;
        let service = self.service(service)?;
        let found = service.methods().find(|m| m.name() == method).ok_or_else(|| {
            let known: Vec<_> = service.methods().map(|m| format!("`{}`", m.name())).collect();
            let known = known.join(", ");
            format!("`{}` has no method `{method}`, but {known}", service.full_name())
        })?;
        match is_unary(&found) {
            true => Ok(found),
            false => Err(format!("`{name}` is a stream: only unary methods can be transcoded")),
        }
    }
}

pub(super) fn is_unary(method: &MethodDescriptor) -> bool {
    !method.is_client_streaming() && !method.is_server_streaming()
}

/// The path of calls to a method.
pub(super) fn path_of(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

pub(super) fn has_no_side_effects(method: &MethodDescriptor) -> bool {
    let options = method.method_descriptor_proto().options.as_ref();
    options.is_some_and(|options| options.idempotency_level() == IdempotencyLevel::NoSideEffects)
}
