//! Where keys lie in memory: on pages that are not swapped out, as far as the kernel allows it.

use std::sync::Arc;

use tracing::debug;

use crate::sys::memory;

/// `secret` on pages of the kind. Where the limit does not allow it, it lies on others.
pub(super) fn locked<T>(secret: T) -> Arc<T> {
    let secret = Arc::new(secret);
    if let Err(error) = memory::lock(&*secret) {
        debug!(%error, "keys may be swapped out: raise the limit (LimitMEMLOCK=, or ulimit -l)");
    }
    secret
}
