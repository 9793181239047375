//! The plain path: where no sealed specification says what runs (modes *policy* and *unsealed*), the
//! host's OCI specification, storages and devices are honoured as the stock agent honours them.

use std::sync::Arc;
use std::time::Duration;

use protocols::agent as wire;

use crate::agent::Agent;
use crate::error::{Error, Result};

impl Agent {
    /// Makes the sandbox that the host asks for.
    pub async fn create_plain_sandbox(self: &Arc<Self>, _: wire::CreateSandboxRequest) -> Result<()> {
        Err(Error::Unimplemented)
    }

    /// Makes the container that the host describes.
    pub async fn create_plain(self: &Arc<Self>, _: wire::CreateContainerRequest, _: Duration) -> Result<()> {
        Err(Error::Unimplemented)
    }

    /// Starts the process that the host describes in a running container.
    pub async fn exec_plain(self: &Arc<Self>, _: wire::ExecProcessRequest) -> Result<()> {
        Err(Error::Unimplemented)
    }

    /// Puts a file where the host says, below its shared directory.
    pub async fn copy_plain(self: &Arc<Self>, _: wire::CopyFileRequest) -> Result<()> {
        Err(Error::Unimplemented)
    }
}
