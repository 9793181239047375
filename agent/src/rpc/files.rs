//! CopyFile.

use std::sync::Arc;

use protocols::agent as wire;
use protocols::empty::Empty;
use ttrpc::r#async::TtrpcContext;

use crate::agent::Agent;
use crate::error::Result;
use crate::quarantine::Copy;

pub(super) async fn copy(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::CopyFileRequest,
) -> Result<Empty> {
    if agent.mode.sealed().is_none() {
        agent.copy_plain(request).await?;
        return Ok(Empty::new());
    }
    let path = request.path.clone();
    agent.quarantine.copy(&Copy {
        path: &request.path,
        mode: request.file_mode,
        size: request.file_size,
        offset: request.offset,
        data: &request.data,
    })?;
    // An update of a volume that a container has.
    agent.volumes.arrived(&path, &agent.quarantine)?;
    Ok(Empty::new())
}
