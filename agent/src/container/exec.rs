//! ExecProcess: placeholder probes and granted commands, as the sealed specification has them. Of the
//! host's process only the argument vector is looked at.

use std::sync::Arc;

use protocols::refusal::Code;
use sealed_spec::SealedSpec;
use sealed_spec::fields::placeholder_command;

use super::create::{explain, output_policy};
use super::{Instance, Stage};
use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::process::{OutputPolicy, Process, Streams};

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
        if instance.stage() != Stage::Started {
            return Err(Error::Internal("the container does not run".into()));
        }
        let permitted = permit(&spec, &instance.name, argv)?;
        if instance.init.watched.code().is_some() {
            return Err(Error::NotFound("the container has ended".into()));
        }
        instance.reserve_exec(exec)?;
        let started = self.exec_now(&instance, &spec, permitted).await;
        match started {
            Ok(process) => {
                instance.settle_exec(exec, Some(Arc::new(process)));
                Ok(())
            }
            Err(error) => {
                instance.settle_exec(exec, None);
                Err(error)
            }
        }
    }

    async fn exec_now(
        &self,
        instance: &Instance,
        spec: &SealedSpec,
        permitted: Permitted,
    ) -> Result<Process> {
        let process = crate::oci::exec_process(&instance.directory.join("bundle"), &permitted.command)?;
        let (streams, stdio) = Streams::pipes(permitted.output).map_err(Error::step("making streams"))?;
        let bundle = instance.directory.join("bundle");
        let watched = self.launcher.exec(&instance.id, &bundle, &process, stdio).await;
        let watched = watched.map_err(|error| explain(error, spec))?;
        Ok(Process { watched, streams })
    }
}

fn permit(spec: &SealedSpec, container: &str, argv: &[String]) -> Result<Permitted> {
    if let Some((owner, command)) = placeholder_command(&spec.pod, argv)
        && owner == container
    {
        return Ok(Permitted { command, output: output_policy(spec) });
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
