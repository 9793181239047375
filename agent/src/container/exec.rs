//! ExecProcess. In a sealed VM placeholder probes and granted commands, as the sealed specification has
//! them: of the host's process only the argument vector is looked at. On the plain path, what the host says.

use std::sync::Arc;

use libcontainer::oci_spec::runtime::Process as OciProcess;
use protocols::refusal::Code;
use sealed_spec::SealedSpec;
use sealed_spec::fields::placeholder_command;

use super::create::{explain, probe_policy};
use super::{Instance, Stage};
use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::launch::LaunchError;
use crate::process::{OutputPolicy, StreamsWanted};

/// What a request's argument vector stands for.
#[derive(Debug, PartialEq, Eq)]
struct Permitted {
    command: Vec<String>,
    output: OutputPolicy,
}

impl Agent {
    /// Starts one more process in a running container.
    pub async fn exec(&self, id: &str, exec: &str, argv: &[String]) -> Result<()> {
        let instance = self.containers.instance(id)?;
        let spec = self.opening()?.require()?;
        runs(&instance, self.frozen(&instance))?;
        let permitted = permit(&spec, &instance.name, argv)?;
        let process = crate::oci::exec_process(&instance.directory.join("bundle"), &permitted.command)?;
        let streams =
            StreamsWanted { output: permitted.output, input: false, pipe_size: self.config.pipe_size };
        self.join(&instance, exec, &process, streams, |error| explain(error, &spec)).await
    }

    /// Starts the process that the host describes in a running container: as it says, with the
    /// container's capabilities where it names none.
    pub async fn exec_as_told(&self, id: &str, exec: &str, mut process: OciProcess) -> Result<()> {
        let instance = self.containers.instance(id)?;
        runs(&instance, self.frozen(&instance))?;
        if process.capabilities().is_none() {
            process.set_capabilities(crate::oci::capabilities(&instance.directory.join("bundle"))?);
        }
        let streams =
            StreamsWanted { output: OutputPolicy::Clear, input: true, pipe_size: self.config.pipe_size };
        self.join(&instance, exec, &process, streams, told).await
    }

    /// One more process would be stopped half-way into the container, and its launch with it.
    fn frozen(&self, instance: &Instance) -> bool {
        self.cgroup_of(instance).and_then(|cgroup| Ok(cgroup.frozen()?)).unwrap_or(false)
    }

    async fn join(
        &self,
        instance: &Instance,
        exec: &str,
        process: &OciProcess,
        streams: StreamsWanted,
        explain: impl FnOnce(LaunchError) -> Error,
    ) -> Result<()> {
        instance.reserve_exec(exec)?;
        let init = &instance.init.watched;
        let bundle = instance.directory.join("bundle");
        let started = self.launcher.exec(&instance.id, init, &bundle, process, streams).await;
        let (process, result) = match started {
            Ok(process) => (Some(Arc::new(process)), Ok(())),
            Err(_) if init.code().is_some() => (None, Err(ended())),
            Err(error) => (None, Err(explain(error))),
        };
        instance.settle_exec(exec, process);
        result
    }
}

fn runs(instance: &Instance, frozen: bool) -> Result<()> {
    match instance.stage() {
        Stage::Started if instance.init.watched.code().is_some() => Err(ended()),
        Stage::Started if frozen => Err(Error::Internal("the container is paused".into())),
        Stage::Started => Ok(()),
        _ => Err(Error::Internal("the container does not run".into())),
    }
}

fn ended() -> Error {
    Error::NotFound("the container has ended".into())
}

/// Where the host says what runs, it may read why it doesn't.
pub(crate) fn told(error: LaunchError) -> Error {
    match error {
        LaunchError::Failed(failure) => {
            Error::refused(Code::Launch, format!("{} ({})", failure.summary, failure.detail))
        }
        error => error.into(),
    }
}

fn permit(spec: &SealedSpec, container: &str, argv: &[String]) -> Result<Permitted> {
    if let Some((owner, command)) = placeholder_command(&spec.pod, argv)
        && owner == container
    {
        return Ok(Permitted { command, output: probe_policy(spec) });
    }
    let granted = spec.grants.exec.get(container);
    if granted.is_some_and(|commands| commands.iter().any(|command| command == argv)) {
        // Who grants a command grants its output.
        return Ok(Permitted { command: argv.to_vec(), output: OutputPolicy::Clear });
    }
    // The command stays out of it: people type passwords into them, and this text goes to a log.
    Err(Error::refused(
        Code::ExecDenied,
        format!("the sealed spec does not grant this command in container '{container}'"),
    ))
}

#[cfg(test)]
mod tests {
    use sealed_spec::podspec::{Container, ExecAction, PodSpec, Probe};

    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn spec() -> SealedSpec {
        let probe =
            Probe { exec: Some(ExecAction { command: words("cat /tmp/healthy") }), ..Probe::default() };
        let web = Container { name: "web".into(), liveness_probe: Some(probe), ..Container::default() };
        let db = Container { name: "db".into(), ..Container::default() };
        let mut spec = SealedSpec::new(PodSpec { containers: vec![web, db], ..PodSpec::default() });
        spec.grants.exec.insert("db".into(), vec![words("pg_dump -a")]);
        spec
    }

    fn code(result: Result<Permitted>) -> Code {
        match result {
            Err(Error::Refused(refusal)) => refusal.code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_placeholder_stands_for_the_sealed_command() {
        let permitted = permit(&spec(), "web", &words("/sealpod probe web/liveness")).unwrap();
        assert_eq!(
            permitted,
            Permitted { command: words("cat /tmp/healthy"), output: OutputPolicy::Discard }
        );
    }

    #[test]
    fn a_granted_command_runs_exactly_as_granted() {
        let permitted = permit(&spec(), "db", &words("pg_dump -a")).unwrap();
        assert_eq!(permitted.output, OutputPolicy::Clear);
        for argv in ["pg_dump", "pg_dump -a -b", "pg_dump  -a", "/bin/pg_dump -a"] {
            assert_eq!(code(permit(&spec(), "db", &words(argv))), Code::ExecDenied, "{argv}");
        }
    }

    #[test]
    fn nothing_else_runs() {
        for (container, argv) in [
            ("web", "sh"),
            // The sealed command itself is not what was agreed on.
            ("web", "cat /tmp/healthy"),
            // Another container's placeholder, another hook, another container's grant.
            ("db", "/sealpod probe web/liveness"),
            ("web", "/sealpod probe web/readiness"),
            ("web", "pg_dump -a"),
            ("web", "/sealpod probe web/liveness extra"),
        ] {
            assert_eq!(code(permit(&spec(), container, &words(argv))), Code::ExecDenied, "{argv}");
        }
        assert_eq!(code(permit(&spec(), "web", &[])), Code::ExecDenied);
    }

    #[test]
    fn a_refusal_does_not_repeat_the_command() {
        let refused = permit(&spec(), "db", &words("mysql --password=hunter2")).unwrap_err().to_string();
        assert!(refused.contains("'db'") && !refused.contains("hunter2"), "{refused}");
    }
}
