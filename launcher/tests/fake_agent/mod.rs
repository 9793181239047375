//! An agent for tests: answers as scripted, remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use launcher::AgentClient;
use protocols::agent::*;
use protocols::agent_ttrpc::{AgentService, create_agent_service};
use protocols::empty::Empty;
use protocols::health::{CheckRequest, HealthCheckResponse, health_check_response::ServingStatus};
use protocols::health_ttrpc::{Health, create_health};
use protocols::refusal::Refusal;
use protocols::types::Interface;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use ttrpc::r#async::TtrpcContext;
use ttrpc::r#async::transport::Listener;

/// What the agent does other than to succeed.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) refuse_create_sandbox: Option<Refusal>,
    pub(crate) exit_codes: BTreeMap<String, i32>,
    /// So many creates answer that an image is being pulled.
    pub(crate) pulling: usize,
    /// Containers that run until they are signalled.
    pub(crate) sleeps: Vec<String>,
}

#[derive(Default)]
struct Books {
    calls: Vec<String>,
    requests: Vec<CreateContainerRequest>,
    names: BTreeMap<String, String>,
    files: BTreeMap<String, (u32, Vec<u8>)>,
    read: Vec<String>,
    signals: BTreeMap<String, u32>,
    creates: usize,
    memory_reported: bool,
}

struct Service {
    script: Script,
    books: Arc<Mutex<Books>>,
    signalled: Notify,
}

pub(crate) struct FakeAgent {
    books: Arc<Mutex<Books>>,
    directory: tempfile::TempDir,
    _server: ttrpc::r#async::Server,
}

impl FakeAgent {
    pub(crate) async fn start(script: Script) -> FakeAgent {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("vm.sock")).unwrap();
        let (accepted, connections) = tokio::sync::mpsc::channel::<std::io::Result<UnixStream>>(4);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut line = Vec::new();
                while line.last() != Some(&b'\n') {
                    line.push(stream.read_u8().await.unwrap());
                }
                assert_eq!(line, b"CONNECT 1024\n");
                stream.write_all(b"OK 1073741824\n").await.unwrap();
                accepted.send(Ok(stream)).await.unwrap();
            }
        });
        let connections = futures::stream::unfold(connections, |mut connections| async move {
            Some((connections.recv().await?, connections))
        });
        let books = Arc::new(Mutex::new(Books::default()));
        let service = Arc::new(Service { script, books: books.clone(), signalled: Notify::new() });
        let mut server = ttrpc::r#async::Server::new()
            .add_listener(Listener::new(connections))
            .register_service(create_agent_service(service.clone()))
            .register_service(create_health(service));
        server.start().await.unwrap();
        FakeAgent { books, directory, _server: server }
    }

    pub(crate) async fn connect(&self) -> AgentClient {
        AgentClient::connect(&self.directory.path().join("vm.sock"), 1024).await.unwrap()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.books.lock().unwrap().calls.clone()
    }

    pub(crate) fn requests(&self) -> Vec<CreateContainerRequest> {
        self.books.lock().unwrap().requests.clone()
    }

    pub(crate) fn files(&self) -> BTreeMap<String, (u32, Vec<u8>)> {
        self.books.lock().unwrap().files.clone()
    }

    pub(crate) fn name_of(&self, id: &str) -> String {
        self.books.lock().unwrap().names.get(id).cloned().unwrap_or_default()
    }
}

impl Service {
    fn note(&self, call: String) -> Empty {
        self.books.lock().unwrap().calls.push(call);
        Empty::new()
    }

    fn name(&self, id: &str) -> String {
        self.books.lock().unwrap().names.get(id).cloned().unwrap_or_else(|| "?".to_owned())
    }
}

fn status(code: ttrpc::Code, message: String) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(code, message))
}

#[async_trait]
impl Health for Service {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        self.note("check".to_owned());
        Ok(HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() })
    }
}

#[async_trait]
impl AgentService for Service {
    async fn update_interface(
        &self,
        _: &TtrpcContext,
        request: UpdateInterfaceRequest,
    ) -> ttrpc::Result<Interface> {
        let interface = request.interface.unwrap();
        let address = &interface.IPAddresses[0];
        self.note(format!(
            "update_interface {} {} {}/{}",
            interface.name, interface.hwAddr, address.address, address.mask
        ));
        Ok(interface)
    }

    async fn add_arp_neighbors(
        &self,
        _: &TtrpcContext,
        request: AddARPNeighborsRequest,
    ) -> ttrpc::Result<Empty> {
        Ok(self.note(format!("add_arp_neighbors {}", request.neighbors.ARPNeighbors[0].toIPAddress.address)))
    }

    async fn update_routes(&self, _: &TtrpcContext, request: UpdateRoutesRequest) -> ttrpc::Result<Routes> {
        let routes: Vec<String> =
            request.routes.Routes.iter().map(|one| format!("{} via {}", one.dest, one.gateway)).collect();
        self.note(format!("update_routes {}", routes.join("; ")));
        Ok(request.routes.unwrap())
    }

    async fn create_sandbox(&self, _: &TtrpcContext, request: CreateSandboxRequest) -> ttrpc::Result<Empty> {
        if let Some(refusal) = &self.script.refuse_create_sandbox {
            return Err(status(ttrpc::Code::PERMISSION_DENIED, refusal.to_string()));
        }
        Ok(self.note(format!("create_sandbox {}", request.hostname)))
    }

    async fn get_guest_details(
        &self,
        _: &TtrpcContext,
        _: GuestDetailsRequest,
    ) -> ttrpc::Result<GuestDetailsResponse> {
        self.note("get_guest_details".to_owned());
        Ok(GuestDetailsResponse::new())
    }

    async fn get_oom_event(&self, _: &TtrpcContext, _: GetOOMEventRequest) -> ttrpc::Result<OOMEvent> {
        let reported = std::mem::replace(&mut self.books.lock().unwrap().memory_reported, true);
        if reported {
            std::future::pending::<()>().await;
        }
        Ok(OOMEvent { container_id: "greedy".to_owned(), ..Default::default() })
    }

    async fn copy_file(&self, _: &TtrpcContext, request: CopyFileRequest) -> ttrpc::Result<Empty> {
        let mut books = self.books.lock().unwrap();
        books.calls.push(format!("copy {}", request.path));
        let file = books.files.entry(request.path).or_default();
        assert_eq!(file.1.len() as i64, request.offset);
        file.0 = request.file_mode;
        file.1.extend(&request.data);
        Ok(Empty::new())
    }

    async fn create_container(
        &self,
        _: &TtrpcContext,
        request: CreateContainerRequest,
    ) -> ttrpc::Result<Empty> {
        let annotations = &request.OCI.Annotations;
        let kind = annotations["io.kubernetes.cri.container-type"].clone();
        let name = annotations.get("io.kubernetes.cri.container-name").unwrap_or(&kind).clone();
        let mut books = self.books.lock().unwrap();
        books.requests.push(request.clone());
        if kind == "container" {
            books.creates += 1;
            if books.creates <= self.script.pulling {
                return Err(status(ttrpc::Code::UNAVAILABLE, "pulling 43 %".to_owned()));
            }
        }
        books.names.insert(request.container_id, name.clone());
        books.calls.push(if kind == "sandbox" {
            "create sandbox".to_owned()
        } else {
            format!("create {kind} {name}")
        });
        Ok(Empty::new())
    }

    async fn start_container(
        &self,
        _: &TtrpcContext,
        request: StartContainerRequest,
    ) -> ttrpc::Result<Empty> {
        Ok(self.note(format!("start {}", self.name(&request.container_id))))
    }

    async fn exec_process(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let command = request.process.Args.join(" ");
        Ok(self.note(format!("exec {} {command}", self.name(&request.container_id))))
    }

    async fn read_stdout(
        &self,
        _: &TtrpcContext,
        request: ReadStreamRequest,
    ) -> ttrpc::Result<ReadStreamResponse> {
        let mut books = self.books.lock().unwrap();
        let mut answer = ReadStreamResponse::new();
        if !books.read.contains(&request.exec_id) {
            books.read.push(request.exec_id);
            answer.data = b"hello from the container\n".to_vec();
        }
        Ok(answer)
    }

    async fn read_stderr(&self, _: &TtrpcContext, _: ReadStreamRequest) -> ttrpc::Result<ReadStreamResponse> {
        Ok(ReadStreamResponse::new())
    }

    async fn wait_process(
        &self,
        _: &TtrpcContext,
        request: WaitProcessRequest,
    ) -> ttrpc::Result<WaitProcessResponse> {
        let name = self.name(&request.container_id);
        let waits = name == "sandbox" || self.script.sleeps.contains(&name);
        let mut exit = self.script.exit_codes.get(&name).copied().unwrap_or(0);
        if waits && request.exec_id == request.container_id {
            loop {
                let signalled = self.books.lock().unwrap().signals.get(&request.container_id).copied();
                if let Some(signal) = signalled {
                    exit = 128 + signal as i32;
                    break;
                }
                let _ = tokio::time::timeout(Duration::from_millis(5), self.signalled.notified()).await;
            }
        }
        self.note(format!("wait {name}"));
        Ok(WaitProcessResponse { status: exit, ..Default::default() })
    }

    async fn signal_process(&self, _: &TtrpcContext, request: SignalProcessRequest) -> ttrpc::Result<Empty> {
        let call = format!("signal {} {}", self.name(&request.container_id), request.signal);
        self.books.lock().unwrap().signals.insert(request.container_id, request.signal);
        self.signalled.notify_waiters();
        Ok(self.note(call))
    }

    async fn remove_container(
        &self,
        _: &TtrpcContext,
        request: RemoveContainerRequest,
    ) -> ttrpc::Result<Empty> {
        Ok(self.note(format!("remove {}", self.name(&request.container_id))))
    }

    async fn destroy_sandbox(&self, _: &TtrpcContext, _: DestroySandboxRequest) -> ttrpc::Result<Empty> {
        Ok(self.note("destroy_sandbox".to_owned()))
    }
}
