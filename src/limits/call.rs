//! One call of the script on a Redis server.

use std::sync::Arc;

use redis::{RedisError, Script};

/// One call of the script, ready to be sent.
pub(crate) struct Call {
    pub(crate) keys: Vec<String>,
    pub(crate) arguments: Arc<[String]>,
}

impl Call {
    pub(crate) async fn run(
        &self,
        script: &Script,
        connection: &mut impl redis::aio::ConnectionLike,
    ) -> Result<Vec<u64>, RedisError> {
        let mut invocation = script.prepare_invoke();
        invocation.key(&self.keys).arg(&*self.arguments);
        invocation.invoke_async(connection).await
    }
}
