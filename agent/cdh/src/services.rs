//! The services of package `api`, for one container.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use protocols::cdh::{
    GetResourceRequest, GetResourceResponse, ImagePullRequest, ImagePullResponse, SecureMountRequest,
    SecureMountResponse, UnsealSecretInput, UnsealSecretOutput,
};
use protocols::cdh_ttrpc::{
    GetResourceService, ImagePullService, SealedSecretService, SecureMountService,
    create_get_resource_service, create_image_pull_service, create_sealed_secret_service,
    create_secure_mount_service,
};
use protocols::rcar::ResourceUri;
use protocols::refusal::{Code as Refused, Refusal};
use tokio::sync::{Semaphore, SemaphorePermit};
use ttrpc::Code;
use ttrpc::r#async::TtrpcContext;

use crate::identity::{Identity, Mount};
use crate::sealed;

/// Calls of one container in flight.
const MAX_CALLS: usize = 8;

pub(crate) fn tables(identity: Arc<dyn Identity>) -> HashMap<String, ttrpc::r#async::Service> {
    let hub = Arc::new(Hub { identity, calls: Semaphore::new(MAX_CALLS) });
    let mut tables = create_get_resource_service(hub.clone());
    tables.extend(create_sealed_secret_service(hub.clone()));
    tables.extend(create_image_pull_service(hub.clone()));
    tables.extend(create_secure_mount_service(hub));
    tables
}

struct Hub {
    identity: Arc<dyn Identity>,
    calls: Semaphore,
}

impl Hub {
    fn enter(&self) -> ttrpc::Result<SemaphorePermit<'_>> {
        self.calls.try_acquire().map_err(|_| {
            status(
                Code::RESOURCE_EXHAUSTED,
                &format!("more than {MAX_CALLS} calls of this container are in flight"),
            )
        })
    }
}

#[async_trait]
impl GetResourceService for Hub {
    async fn get_resource(
        &self,
        _: &TtrpcContext,
        request: GetResourceRequest,
    ) -> ttrpc::Result<GetResourceResponse> {
        let _place = self.enter()?;
        let uri: ResourceUri = request
            .ResourcePath
            .parse()
            .map_err(|error: protocols::rcar::UriError| status(Code::INVALID_ARGUMENT, &error.to_string()))?;
        let resource = self.identity.resource(&uri).await.map_err(|refusal| refused(&refusal))?;
        Ok(GetResourceResponse { Resource: resource.to_vec(), ..Default::default() })
    }
}

#[async_trait]
impl SealedSecretService for Hub {
    async fn unseal_secret(
        &self,
        _: &TtrpcContext,
        request: UnsealSecretInput,
    ) -> ttrpc::Result<UnsealSecretOutput> {
        let _place = self.enter()?;
        let text = std::str::from_utf8(&request.secret)
            .map_err(|_| status(Code::INVALID_ARGUMENT, "a sealed secret is text"))?;
        let secret =
            sealed::unseal(text, self.identity.as_ref()).await.map_err(|refusal| refused(&refusal))?;
        Ok(UnsealSecretOutput { plaintext: secret.to_vec(), ..Default::default() })
    }
}

#[async_trait]
impl ImagePullService for Hub {
    async fn pull_image(
        &self,
        _: &TtrpcContext,
        request: ImagePullRequest,
    ) -> ttrpc::Result<ImagePullResponse> {
        let _place = self.enter()?;
        self.identity
            .pull_image(&request.image_url, &request.bundle_path)
            .await
            .map_err(|refusal| refused(&refusal))?;
        Ok(ImagePullResponse::default())
    }
}

#[async_trait]
impl SecureMountService for Hub {
    async fn secure_mount(
        &self,
        _: &TtrpcContext,
        request: SecureMountRequest,
    ) -> ttrpc::Result<SecureMountResponse> {
        let _place = self.enter()?;
        let mount = Mount {
            kind: request.volume_type,
            options: request.options,
            flags: request.flags,
            point: request.mount_point,
        };
        self.identity.mount(mount).await.map_err(|refusal| refused(&refusal))?;
        Ok(SecureMountResponse::default())
    }
}

fn refused(refusal: &Refusal) -> ttrpc::Error {
    let code = match refusal.code {
        Refused::BrokerUnreachable => Code::UNAVAILABLE,
        Refused::Internal | Refused::BrokerProtocol => Code::INTERNAL,
        _ => Code::PERMISSION_DENIED,
    };
    status(code, &refusal.to_string())
}

fn status(code: Code, message: &str) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, message))
}
