//! `CopyFile` as the runtime uses it where host and guest share no file system: parent directories made by the
//! agent, regular files in chunks by offset, ConfigMap volumes with the kubelet's `..data` links.

use std::collections::BTreeMap;
use std::time::Duration;

use protocols::agent::CopyFileRequest;

use crate::client::{AgentClient, AgentError, rpc};

/// Where the runtime may put files in the guest.
pub(super) const SHARED: &str = "/run/kata-containers/shared/containers";
/// A chunk that fits a ttrpc message with room to spare.
const CHUNK: usize = 1024 * 1024;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const DIRECTORY_MODE: u32 = 0o750;
/// The kubelet names a volume's generation after the time it was written.
const GENERATION: &str = "..2026_01_01_00_00_00.0000000001";

pub(super) struct Copier<'a> {
    pub(super) client: &'a AgentClient,
    pub(super) timeout: Duration,
}

impl Copier<'_> {
    /// One regular file.
    pub(super) async fn file(&self, path: &str, data: &[u8]) -> Result<(), AgentError> {
        let mut offset = 0;
        loop {
            let chunk = &data[offset..data.len().min(offset + CHUNK)];
            let mut request = request(path, REGULAR | 0o644, chunk);
            request.file_size = i64::try_from(data.len()).unwrap_or(i64::MAX);
            request.offset = i64::try_from(offset).unwrap_or(i64::MAX);
            self.send(&request).await?;
            offset += chunk.len();
            if offset >= data.len() {
                return Ok(());
            }
        }
    }

    /// A ConfigMap volume: `..<generation>/name`, `..data` → generation, `name` → `..data/name`.
    pub(super) async fn volume(
        &self,
        path: &str,
        files: &BTreeMap<String, Vec<u8>>,
    ) -> Result<(), AgentError> {
        self.send(&request(path, DIRECTORY | 0o777, b"")).await?;
        self.send(&request(&format!("{path}/{GENERATION}"), DIRECTORY | 0o755, b"")).await?;
        for (name, data) in files {
            self.file(&format!("{path}/{GENERATION}/{name}"), data).await?;
        }
        self.send(&request(&format!("{path}/..data"), LINK | 0o777, GENERATION.as_bytes())).await?;
        for name in files.keys() {
            let target = format!("..data/{name}");
            self.send(&request(&format!("{path}/{name}"), LINK | 0o777, target.as_bytes())).await?;
        }
        Ok(())
    }

    async fn send(&self, request: &CopyFileRequest) -> Result<(), AgentError> {
        rpc!(self.client, copy_file, request, self.timeout)?;
        Ok(())
    }
}

fn request(path: &str, mode: u32, data: &[u8]) -> CopyFileRequest {
    CopyFileRequest {
        path: path.to_owned(),
        file_mode: mode,
        dir_mode: DIRECTORY_MODE,
        data: data.to_vec(),
        ..Default::default()
    }
}
