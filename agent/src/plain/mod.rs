//! The plain path: where no sealed specification says what runs (modes *policy* and *unsealed*), the
//! host's OCI specification, storages and devices are honoured as the stock agent honours them.
//!
//! | module | job |
//! |---|---|
//! | [`convert`] | the wire's OCI specification to the runtime's |
//! | [`fit`] | what in it is this guest's: namespaces, cgroup, devices, root |
//! | [`request`] | storages and devices of the wire |
//! | `sandbox`, `modules`, `hooks` | CreateSandbox, DestroySandbox |
//! | `create` | CreateContainer, ExecProcess |
//! | `copy` | CopyFile |

pub mod convert;
mod copy;
mod create;
pub mod fit;
mod hooks;
mod image;
mod modules;
pub mod request;
mod sandbox;

pub(crate) use create::termination_log;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_storage::{Machine, Settings, StorageError, Storages};
use protocols::refusal::Code;

use crate::agent::Paths;
use crate::config::Config;
use crate::error::{Error, Result};

/// Where the runtime has containers' bundles, shared files and the sandbox' own.
const CONTAINERS: &str = "/run/kata-containers";

/// What the plain path keeps for the sandbox.
pub(crate) struct Plain {
    pub(crate) storages: Arc<Storages>,
    machine: Machine,
    containers: PathBuf,
    private: Vec<PathBuf>,
    life: Mutex<Life>,
}

/// How far the sandbox is.
enum Life {
    None,
    Creating,
    Created(Arc<sandbox::PlainSandbox>),
    Ended,
}

impl Plain {
    pub(crate) fn new(config: &Config, paths: &Paths) -> Self {
        let machine = Machine::guest(config.hotplug);
        let containers = PathBuf::from(CONTAINERS);
        let private = vec![paths.state.clone()];
        let settings =
            Settings { machine: machine.clone(), containers: containers.clone(), private: private.clone() };
        let storages = Arc::new(Storages::new(settings));
        Self { storages, machine, containers, private, life: Mutex::new(Life::None) }
    }

    fn sandbox(&self) -> Result<Arc<sandbox::PlainSandbox>> {
        match &*self.life() {
            Life::Created(sandbox) => Ok(sandbox.clone()),
            Life::Ended => Err(Error::refused(Code::SandboxState, "the sandbox has ended")),
            _ => Err(Error::refused(Code::SandboxState, "there is no sandbox yet; call CreateSandbox first")),
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<StorageError> for Error {
    fn from(error: StorageError) -> Self {
        let code = match &error {
            StorageError::Missing { .. } => Code::Device,
            StorageError::Image { .. } => Code::ImagePull,
            _ => Code::Storage,
        };
        Self::refused(code, error.to_string())
    }
}

impl From<convert::ConvertError> for Error {
    fn from(error: convert::ConvertError) -> Self {
        Self::refused(Code::Launch, error.to_string())
    }
}

/// Work that blocks, off the threads that answer calls.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::Internal("the work was interrupted".into())))
}
