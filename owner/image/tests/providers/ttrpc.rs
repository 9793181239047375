//! ttrpc on a unix socket, as the confidential containers' attestation agent serves it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use owner_image::provider::Operation;
use owner_image::provider::server::Handler as _;
use serde_json::json;
use ttrpc::asynchronous::{MethodHandler, Server, Service, TtrpcContext};
use ttrpc::{Request, Response};

use crate::peer::{Scripted, both_directions, configured, file, refusal, runtime};

/// One method of the service; the message's field is written by hand.
struct Method(Operation, Arc<Scripted>);

#[async_trait]
impl MethodHandler for Method {
    async fn handler(&self, _: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let payload = request.payload;
        assert_eq!(payload[0], 0x0a);
        let length = 1 + payload[1..].iter().position(|byte| byte & 0x80 == 0).unwrap();
        let mut response = Response::new();
        match self.1.answer(self.0, &payload[length + 1..]) {
            Ok(reply) => {
                let mut left = reply.len();
                response.payload.push(0x0a);
                while left >= 0x80 {
                    response.payload.push((left & 0x7f) as u8 | 0x80);
                    left >>= 7;
                }
                response.payload.push(left as u8);
                response.payload.extend_from_slice(&reply);
            }
            Err(line) => {
                let status = ttrpc::get_status(ttrpc::Code::NOT_FOUND, line);
                return Err(ttrpc::Error::RpcStatus(status));
            }
        }
        Ok(response)
    }
}

fn serve(runtime: &tokio::runtime::Runtime, path: &Path, scripted: &Arc<Scripted>) -> Server {
    let method = |name: &str, operation| {
        let handler: Box<dyn MethodHandler + Send + Sync> = Box::new(Method(operation, scripted.clone()));
        (name.to_owned(), handler)
    };
    let methods = HashMap::from([method("WrapKey", Operation::Wrap), method("UnWrapKey", Operation::Unwrap)]);
    let service = Service { methods, streams: HashMap::new() };
    let name = "keyprovider.KeyProviderService".to_owned();
    // The library binds on whichever runtime it finds around it.
    let _runtime = runtime.enter();
    let mut server = Server::new()
        .bind(&format!("unix://{}", path.display()))
        .unwrap()
        .register_service(HashMap::from([(name, service)]));
    runtime.block_on(server.start()).unwrap();
    server
}

#[test]
fn both_directions_over_ttrpc() {
    let (runtime, directory) = (runtime(), tempfile::tempdir().unwrap());
    let (path, scripted) = (file(&directory, "keyprovider.sock"), Arc::new(Scripted::default()));
    let mut server = serve(&runtime, &path, &scripted);
    let entry = json!({ "ttrpc": format!("unix://{}", path.display()) });
    let providers = configured(directory.path(), &entry);
    let asked = || scripted.asked().into_iter().map(|(_, request)| request).collect();
    both_directions(&providers, |reply| scripted.says(Ok(reply)), asked);
    scripted.says(Err("no such key".into()));
    assert!(refusal(&providers, Operation::Wrap).contains("no such key"));
    runtime.block_on(server.shutdown()).unwrap();
}

#[test]
fn nobody_there() {
    let directory = tempfile::tempdir().unwrap();
    let entry = json!({ "ttrpc": format!("unix://{}", file(&directory, "none").display()) });
    let error = refusal(&configured(directory.path(), &entry), Operation::Wrap);
    assert!(error.contains("no connection"), "{error}");
}
