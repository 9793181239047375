//! Processes and their streams.

use std::sync::Arc;

use protocols::agent as wire;
use protocols::empty::Empty;
use ttrpc::r#async::TtrpcContext;

use crate::agent::Agent;
use crate::container::{Container, Target};
use crate::error::{Error, Result};
use crate::process::Process;

pub(super) async fn exec(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::ExecProcessRequest,
) -> Result<Empty> {
    let agent = agent.clone();
    if agent.mode.sealed().is_none() {
        return super::detached(async move { agent.exec_plain(request).await }).await;
    }
    let argv = request.process.as_ref().map(|process| process.Args.clone()).unwrap_or_default();
    let work = async move { agent.exec(&request.container_id, &request.exec_id, &argv).await };
    super::detached(work).await
}

pub(super) async fn signal(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::SignalProcessRequest,
) -> Result<Empty> {
    agent.signal(&request.container_id, &request.exec_id, request.signal)?;
    Ok(Empty::new())
}

pub(super) async fn wait(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::WaitProcessRequest,
) -> Result<wire::WaitProcessResponse> {
    let mut response = wire::WaitProcessResponse::new();
    response.status = agent.wait(&request.container_id, &request.exec_id).await?;
    Ok(response)
}

/// Empty data closes the stream.
pub(super) async fn write_stdin(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::WriteStreamRequest,
) -> Result<wire::WriteStreamResponse> {
    let mut response = wire::WriteStreamResponse::new();
    if request.data.is_empty() {
        agent.close_stdin(&request.container_id, &request.exec_id).await?;
        return Ok(response);
    }
    agent.write_stdin(&request.container_id, &request.exec_id, &request.data).await?;
    response.len = u32::try_from(request.data.len()).unwrap_or(u32::MAX);
    Ok(response)
}

pub(super) async fn close_stdin(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::CloseStdinRequest,
) -> Result<Empty> {
    agent.close_stdin(&request.container_id, &request.exec_id).await.map(|()| Empty::new())
}

pub(super) async fn read_stdout(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::ReadStreamRequest,
) -> Result<wire::ReadStreamResponse> {
    match process(agent, &request)? {
        None => Ok(wire::ReadStreamResponse::new()),
        Some(process) => answer(process.streams.stdout.read(request.len as usize, &process.watched).await),
    }
}

pub(super) async fn read_stderr(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::ReadStreamRequest,
) -> Result<wire::ReadStreamResponse> {
    match process(agent, &request)? {
        None => Ok(wire::ReadStreamResponse::new()),
        Some(process) => answer(process.streams.stderr.read(request.len as usize, &process.watched).await),
    }
}

pub(super) async fn resize(
    agent: &Arc<Agent>,
    _: &TtrpcContext,
    request: wire::TtyWinResizeRequest,
) -> Result<Empty> {
    agent.resize(&request.container_id, &request.exec_id, request.row, request.column)?;
    Ok(Empty::new())
}

/// `None`: the pause container, whose streams have ended.
fn process(agent: &Agent, request: &wire::ReadStreamRequest) -> Result<Option<Arc<Process>>> {
    match agent.containers.find(&request.container_id)? {
        Container::Pause(_) => Ok(None),
        Container::Instance(instance) => {
            instance.process(Target::parse(&request.container_id, &request.exec_id)).map(Some)
        }
    }
}

fn answer(read: std::io::Result<Vec<u8>>) -> Result<wire::ReadStreamResponse> {
    let mut response = wire::ReadStreamResponse::new();
    response.data = read.map_err(Error::step("reading a stream"))?;
    Ok(response)
}
