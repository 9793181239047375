//! A provider behind ttrpc on a unix socket, as the confidential containers' attestation agent is.

use std::time::Duration;

use zeroize::Zeroizing;

use super::command::one_line;
use super::grpc::SERVICE;
use super::message::{self, MAX_ANSWER};
use super::transport::{Operation, TransportError};

/// Asks; what the answer's message holds. The library itself refuses frames above 4 MiB.
pub(super) async fn ask(
    address: &str,
    operation: Operation,
    request: &[u8],
    time_limit: Duration,
) -> Result<Zeroizing<Vec<u8>>, TransportError> {
    let failed = |problem: String| TransportError::Rpc { address: address.to_owned(), problem };
    let client = ttrpc::asynchronous::Client::connect(address)
        .await
        .map_err(|error| failed(format!("no connection: {}", one_line(&error.to_string()))))?;
    let message = message::encode(request)?;
    let request = ttrpc::Request {
        service: SERVICE.to_owned(),
        method: operation.method().to_owned(),
        timeout_nano: i64::try_from(time_limit.as_nanos()).unwrap_or(i64::MAX),
        payload: message.to_vec(),
        ..Default::default()
    };
    let response = client.request(request).await.map_err(|error| failed(one_line(&error.to_string())))?;
    let payload = Zeroizing::new(response.payload);
    if payload.len() > MAX_ANSWER {
        return Err(failed(format!("answered with more than {MAX_ANSWER} bytes")));
    }
    Ok(Zeroizing::new(message::decode(&payload)?.to_vec()))
}
