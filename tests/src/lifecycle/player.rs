//! Plays a recording, step by step.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use launcher::GUEST_MAC;
use protobuf::MessageField;
use protocols::agent as wire;
use protocols::types::{ARPNeighbor, IPAddress, Interface, Route};
use tokio::task::JoinHandle;

use super::requests::{Dialect, SANDBOX, STANDARD};
use super::{Recording, Step};
use crate::kata::{Answer, Kata, READ, answer_of, soon};

const REGULAR: u32 = 0o100_644;
const DIRECTORY: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
/// For what must come soon: ten times what an idle machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

type Key = (String, String);
type Text = Arc<Mutex<Vec<u8>>>;

/// A recording being played.
#[derive(Debug)]
pub struct Player {
    kata: Kata,
    dialect: Dialect,
    reads: HashMap<Key, Vec<JoinHandle<Answer<()>>>>,
    printed: HashMap<Key, Text>,
    waits: HashMap<Key, JoinHandle<Answer<i32>>>,
}

impl Player {
    /// Against `kata`'s agent.
    #[must_use]
    pub fn new(kata: Kata, dialect: Dialect) -> Self {
        Self { kata, dialect, reads: HashMap::new(), printed: HashMap::new(), waits: HashMap::new() }
    }

    /// From the first step to the last.
    ///
    /// # Errors
    /// The first step that comes to something else than was recorded.
    pub async fn play(&mut self, recording: &Recording) -> Result<()> {
        for (index, step) in recording.steps.iter().enumerate() {
            let played = tokio::time::timeout(PATIENCE, self.step(step)).await;
            let at = || format!("step {}: {} {} {}", index + 1, step.rpc, step.container, step.ended);
            played.with_context(|| format!("{}: it hangs", at()))?.with_context(at)?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<()> {
        if !step.ended.is_empty() {
            return self.ended(step).await;
        }
        if !step.printed.is_empty() {
            return self.has_printed(step).await;
        }
        if !step.runs.is_empty() {
            for label in &step.runs {
                let wait = self.waits.get(&(label.clone(), String::new())).context("nobody waits for it")?;
                ensure!(!wait.is_finished(), "{label} has ended");
            }
            return Ok(());
        }
        let outcome = self.request(step).await;
        match (step.answer.as_str(), outcome) {
            ("", outcome) => Ok(outcome?),
            ("any", _) => Ok(()),
            (code, Ok(())) => bail!("it succeeded; recorded is {code}"),
            (code, Err(failure)) => {
                let got = failure.code.map(|code| format!("{code:?}")).unwrap_or_default();
                ensure!(got == code, "recorded is {code}, it came to {failure}");
                Ok(())
            }
        }
    }

    async fn request(&mut self, step: &Step) -> Answer<()> {
        let id = Dialect::id(&step.container);
        let key = (step.container.clone(), step.exec.clone());
        let kata = self.kata.clone();
        match step.rpc.as_str() {
            "CreateSandbox" => kata.sandbox(SANDBOX).await,
            "CreateContainer" => {
                kata.create(&self.dialect.create(&step.container).map_err(|error| wrong(&error))?).await
            }
            "StartContainer" => kata.start(&id).await,
            "RemoveContainer" => kata.remove(&id).await,
            "SignalProcess" => kata.signal(&id, &step.exec, step.signal).await,
            "CloseStdin" => kata.close_stdin(&id, &step.exec).await,
            "CopyFile" => self.copy(step).await,
            "ExecProcess" => {
                let process =
                    self.dialect.probe(&step.container, &step.probe).map_err(|error| wrong(&error))?;
                kata.start_exec(&id, &step.exec, process).await
            }
            "WaitProcess" if step.answer.is_empty() => {
                let exec = step.exec.clone();
                self.waits.insert(key, tokio::spawn(async move { kata.wait(&id, &exec).await }));
                Ok(())
            }
            "WaitProcess" => kata.wait(&id, &step.exec).await.map(drop),
            "ReadStdout" | "ReadStderr" => {
                let error = step.rpc == "ReadStderr";
                let text = self.printed.entry(key.clone()).or_default().clone();
                let reader = read(kata, id, step.exec.clone(), error, text);
                self.reads.entry(key).or_default().push(tokio::spawn(reader));
                Ok(())
            }
            other => sandbox(&kata, other, &id).await,
        }
    }

    /// As the runtime copies where host and guest share no directory.
    async fn copy(&self, step: &Step) -> Answer<()> {
        let place = |file: &str| Dialect::place(&step.container, file);
        let mut files: Vec<(String, u32, Vec<u8>)> = Vec::new();
        match step.files.as_str() {
            "config" | "update" => {
                let root = place("config");
                let generation = format!("..2026_{}", step.files);
                if step.files == "config" {
                    files.push((root.clone(), DIRECTORY, Vec::new()));
                }
                files.push((format!("{root}/{generation}"), DIRECTORY, Vec::new()));
                files.push((format!("{root}/{generation}/key"), REGULAR, format!("{}\n", step.text).into()));
                files.push((format!("{root}/..data"), LINK, generation.into()));
                if step.files == "config" {
                    files.push((format!("{root}/key"), LINK, b"..data/key".to_vec()));
                }
            }
            _ => {
                for (file, _) in STANDARD {
                    files.push((place(file), REGULAR, b"127.0.0.1\tlocalhost\n".to_vec()));
                }
                // A volume of the sealed workload's ConfigMap comes the same way.
                if let Some(document) = self.dialect.document() {
                    files.push((place("sealed-spec/sealed-spec.jwe"), REGULAR, document.to_vec()));
                }
            }
        }
        for (path, mode, data) in files {
            let mut request = wire::CopyFileRequest::new();
            request.path = path;
            request.file_size = data.len() as i64;
            request.file_mode = mode;
            request.dir_mode = 0o750;
            request.data = data;
            answer_of(self.kata.agent().copy_file(soon(), &request).await)?;
        }
        Ok(())
    }

    async fn ended(&mut self, step: &Step) -> Result<()> {
        let key = (step.ended.clone(), step.exec.clone());
        let wait = self.waits.remove(&key).context("nobody waits for it")?;
        let status = wait.await??;
        for reader in self.reads.remove(&key).unwrap_or_default() {
            reader.await??;
        }
        let printed = self.text(&key);
        ensure!(
            status == step.status,
            "status {status}, recorded is {}; it printed {printed:?}",
            step.status
        );
        ensure!(printed.trim_end() == step.prints, "it printed {printed:?}, recorded is {:?}", step.prints);
        Ok(())
    }

    async fn has_printed(&self, step: &Step) -> Result<()> {
        let key = (step.printed.clone(), step.exec.clone());
        while !self.text(&key).contains(&step.text) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn text(&self, key: &Key) -> String {
        let Some(text) = self.printed.get(key) else { return String::new() };
        let bytes = text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn wrong(error: &anyhow::Error) -> crate::kata::Failure {
    crate::kata::Failure { code: None, message: format!("{error:#}") }
}

async fn read(kata: Kata, id: String, exec: String, error: bool, text: Text) -> Answer<()> {
    loop {
        let piece = kata.read(&id, &exec, error, READ).await?;
        if piece.is_empty() {
            return Ok(());
        }
        text.lock().unwrap_or_else(PoisonError::into_inner).extend(piece);
    }
}

/// Requests about the sandbox and its network.
async fn sandbox(kata: &Kata, rpc: &str, id: &str) -> Answer<()> {
    let agent = kata.agent();
    match rpc {
        "Check" => {
            let check = kata.client().check(Duration::from_secs(30)).await;
            check.map_err(|error| wrong(&anyhow::Error::new(error)))
        }
        "UpdateInterface" => {
            let mut request = wire::UpdateInterfaceRequest::new();
            request.interface = MessageField::some(card());
            let mut answer = answer_of(agent.update_interface(soon(), &request).await);
            // The card may come a moment after the agent; runtimes try ten times.
            for _ in 0..10 {
                if answer.is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                answer = answer_of(agent.update_interface(soon(), &request).await);
            }
            answer.map(drop)
        }
        "UpdateRoutes" => {
            let mut request = wire::UpdateRoutesRequest::new();
            request.routes = MessageField::some(wire::Routes { Routes: routes(), ..Default::default() });
            answer_of(agent.update_routes(soon(), &request).await).map(drop)
        }
        "AddARPNeighbors" => {
            let gateway = ARPNeighbor {
                toIPAddress: MessageField::some(address("10.0.2.2", "")),
                device: "eth0".to_owned(),
                lladdr: "52:55:0a:00:02:02".to_owned(),
                state: 0x80,
                ..Default::default()
            };
            let mut request = wire::AddARPNeighborsRequest::new();
            request.neighbors =
                MessageField::some(wire::ARPNeighbors { ARPNeighbors: vec![gateway], ..Default::default() });
            answer_of(agent.add_arp_neighbors(soon(), &request).await).map(drop)
        }
        "GetGuestDetails" => {
            let mut request = wire::GuestDetailsRequest::new();
            (request.mem_block_size, request.mem_hotplug_probe) = (true, true);
            answer_of(agent.get_guest_details(soon(), &request).await).map(drop)
        }
        "GetOOMEvent" => {
            let agent = agent.clone();
            // It is asked again and again for as long as the sandbox lives; nothing here runs out of memory.
            tokio::spawn(async move {
                let context = ttrpc::context::Context::default();
                let _ = agent.get_oom_event(context, &wire::GetOOMEventRequest::new()).await;
            });
            Ok(())
        }
        "StatsContainer" => {
            let mut request = wire::StatsContainerRequest::new();
            request.container_id = id.to_owned();
            answer_of(agent.stats_container(soon(), &request).await).map(drop)
        }
        "DestroySandbox" => {
            let answer = answer_of(agent.destroy_sandbox(soon(), &wire::DestroySandboxRequest::new()).await);
            // The power may be off before the answer is out.
            answer.map(drop).or_else(|failure| if failure.code.is_none() { Ok(()) } else { Err(failure) })
        }
        other => Err(wrong(&anyhow::anyhow!("the player knows no {other}"))),
    }
}

fn address(text: &str, mask: &str) -> IPAddress {
    IPAddress { address: text.to_owned(), mask: mask.to_owned(), ..Default::default() }
}

fn card() -> Interface {
    Interface {
        device: "eth0".to_owned(),
        name: "eth0".to_owned(),
        IPAddresses: vec![address("10.0.2.15", "24")],
        mtu: 1500,
        hwAddr: GUEST_MAC.to_owned(),
        ..Default::default()
    }
}

fn routes() -> Vec<Route> {
    let on_link = Route {
        dest: "10.0.2.0/24".to_owned(),
        device: "eth0".to_owned(),
        source: "10.0.2.15".to_owned(),
        scope: 253,
        ..Default::default()
    };
    let default = Route { gateway: "10.0.2.2".to_owned(), device: "eth0".to_owned(), ..Default::default() };
    vec![on_link, default]
}
