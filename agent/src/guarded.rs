//! The policy mode: requests are decided by the policy that the launch bound this VM to, resources come
//! from the broker that the same initdata names.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use agent_rego::{Decision, Policy};
use agent_resources::clock::BUILT;
use async_trait::async_trait;
use protocols::agent::CopyFileRequest;
use protocols::rcar::ResourceUri;
use protocols::refusal::{Code, Refusal};
use serde::Serialize;
use serde_json::json;
use slog::{Logger, info};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::attested::Attested;
use crate::mode::Gatekeeper;

const SET_POLICY: &str = "SetPolicyRequest";

/// Where resources come from.
#[async_trait]
pub trait Resources: Send + Sync {
    /// Asks for one.
    async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal>;
    /// No time before this is believed, in seconds since the epoch.
    fn earliest(&self) -> i64 {
        BUILT
    }
}

#[async_trait]
impl Resources for Attested {
    async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.fetch(uri).await
    }

    fn earliest(&self) -> i64 {
        Self::earliest(self)
    }
}

/// A guest under a policy.
pub struct Guarded {
    /// One decision at a time: it may depend on the state that the one before left.
    policy: Mutex<Result<Arc<Policy>, Refusal>>,
    failure: Option<Refusal>,
    keys: BTreeMap<String, ResourceUri>,
    resources: Box<dyn Resources>,
    log: Logger,
}

impl Guarded {
    /// Under the policy that the launch bound. None if it bound none.
    pub fn by(attested: Attested, log: Logger) -> Result<Self, Box<Attested>> {
        let Some(initdata) = attested.policy() else { return Err(Box::new(attested)) };
        if !initdata.ignored.is_empty() {
            info!(log, # "host", "initdata without effect"; "names" => initdata.ignored.join(", "));
        }
        if initdata.broker.as_ref().is_some_and(|broker| !broker.is_authenticated()) {
            info!(log, # "host", "resources come over http: whoever is on the way can answer in the broker's place");
        }
        let policy = initdata.policy.clone();
        let keys = initdata.credentials.clone();
        Ok(Self::new(&policy, keys, Box::new(attested), log))
    }

    /// Under that policy. An invalid one refuses everything, and is no reason to allow more.
    pub fn new(
        policy: &str,
        keys: BTreeMap<String, String>,
        resources: Box<dyn Resources>,
        log: Logger,
    ) -> Self {
        let policy = compile(policy, &log);
        let keys = keys.into_iter().filter_map(|(name, uri)| Some((name, uri.parse().ok()?))).collect();
        Self { failure: policy.as_ref().err().cloned(), policy: Mutex::new(policy), keys, resources, log }
    }

    async fn decide(
        &self,
        policy: &Arc<Policy>,
        message: &'static str,
        request: String,
    ) -> Result<(), Refusal> {
        let policy = policy.clone();
        let prints_for_host = policy.prints_for_host();
        // An evaluation computes, for seconds if a policy is bad enough.
        let decision = tokio::task::spawn_blocking(move || policy.allow(message, &request)).await;
        let Ok(Decision { allowed, denial, prints }) = decision else {
            return Err(Refusal::new(Code::PolicyDenied, format!("{message}: the decision was interrupted")));
        };
        let Some(denial) = denial else { return Ok(()) };
        if prints_for_host {
            for line in &prints {
                info!(self.log, # "host", "policy prints"; "message" => message, "line" => line);
            }
        }
        if allowed {
            info!(self.log, # "host", "allowed although the policy denies it"; "message" => message,
                "reason" => denial.to_string());
            return Ok(());
        }
        Err(Refusal::new(Code::PolicyDenied, format!("{message}: {denial}")))
    }
}

#[async_trait]
impl Gatekeeper for Guarded {
    fn failure(&self) -> Option<Refusal> {
        self.failure.clone()
    }

    async fn admit(&self, message: &'static str, request: String) -> Result<(), Refusal> {
        let policy = self.policy.lock().await;
        let policy = policy.as_ref().map_err(Clone::clone)?;
        // Decided where it takes effect: between the two, another policy could come into force.
        if message == SET_POLICY {
            return Ok(());
        }
        self.decide(policy, message, request).await
    }

    async fn replace(&self, text: &str) -> Result<(), Refusal> {
        let mut policy = self.policy.lock().await;
        let current = policy.as_ref().map_err(Clone::clone)?;
        self.decide(current, SET_POLICY, json!({ "policy": text }).to_string()).await?;
        let (text, log) = (text.to_owned(), self.log.clone());
        let next = tokio::task::spawn_blocking(move || compile(&text, &log)).await;
        let next =
            next.map_err(|_| Refusal::new(Code::PolicyInvalid, "the policy's compilation was interrupted"))?;
        // The policy in force stays whole until there is another.
        *policy = Ok(next?);
        info!(self.log, # "host", "another policy is in force");
        Ok(())
    }

    async fn resource(&self, uri: &ResourceUri) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        self.resources.resource(uri).await
    }

    fn earliest(&self) -> i64 {
        self.resources.earliest()
    }

    fn named_key(&self, name: &str) -> Option<ResourceUri> {
        self.keys.get(name).cloned()
    }
}

fn compile(text: &str, log: &Logger) -> Result<Arc<Policy>, Refusal> {
    let policy = Policy::parse(text).map_err(|error| Refusal::new(Code::PolicyInvalid, error.to_string()))?;
    if policy.allows_failures() {
        info!(log, # "host", "the policy lets pass what it denies (AllowRequestsFailingPolicy)");
    }
    Ok(Arc::new(policy))
}

/// A request as policies see it. Of a copied file they see what it is, not what is in it.
pub fn as_seen<R: Serialize + Any>(request: &R) -> Result<String, Refusal> {
    let seen = match (request as &dyn Any).downcast_ref::<CopyFileRequest>() {
        Some(copy) => Ok(copied(copy)?.to_string()),
        None => serde_json::to_string(request),
    };
    seen.map_err(|_| Refusal::new(Code::PolicyDenied, "the request has no form that a policy can see"))
}

fn copied(request: &CopyFileRequest) -> Result<serde_json::Value, Refusal> {
    let kind = match request.file_mode & libc::S_IFMT {
        // Without type bits it is written as a file.
        libc::S_IFREG | 0 => "Regular",
        libc::S_IFDIR => "Directory",
        libc::S_IFLNK => "Symlink",
        _ => "Unknown",
    };
    let target = (kind == "Symlink").then(|| std::str::from_utf8(&request.data)).transpose();
    let target = target
        .map_err(|_| Refusal::new(Code::PolicyDenied, "CopyFileRequest: the link's target is not UTF-8"))?;
    Ok(json!({
        "path": request.path,
        "file_type": kind,
        "symlink_target": target,
        "file_size": request.file_size,
        "file_mode": request.file_mode,
        "dir_mode": request.dir_mode,
        "uid": request.uid,
        "gid": request.gid,
        "offset": request.offset,
    }))
}

#[cfg(test)]
#[path = "guarded_tests.rs"]
mod tests;
