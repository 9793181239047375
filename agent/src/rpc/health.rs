//! Check and Version.

use async_trait::async_trait;
use protocols::health::health_check_response::ServingStatus;
use protocols::health::{CheckRequest, HealthCheckResponse, VersionCheckResponse};
use ttrpc::r#async::TtrpcContext;

/// Answers as long as the agent lives, whatever became of the sandbox.
pub(super) struct Health;

#[async_trait]
impl protocols::health_ttrpc::Health for Health {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        let mut response = HealthCheckResponse::new();
        response.status = ServingStatus::SERVING.into();
        Ok(response)
    }

    async fn version(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<VersionCheckResponse> {
        let mut response = VersionCheckResponse::new();
        response.grpc_version = "0.0.1".to_owned();
        response.agent_version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(response)
    }
}
