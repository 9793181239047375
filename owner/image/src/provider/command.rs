//! A provider that is a program: one JSON on its standard input, one on its standard output.

use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::config::Command;
use super::message::MAX_ANSWER;
use super::transport::TransportError;

/// What every provider gets of this program's environment. Others have to be listed in its configuration:
/// there may be passwords in them.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"];
/// How much of its standard error is shown, in bytes.
const SHOWN: usize = 2048;

/// Runs the program with `request`; its standard output.
pub(super) async fn ask(command: &Command, request: &[u8]) -> Result<Zeroizing<Vec<u8>>, TransportError> {
    let failed = |problem| TransportError::Command { path: command.path.clone(), problem };
    let passed = ENVIRONMENT.into_iter().chain(command.env.iter().map(String::as_str));
    let environment = passed.filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut child = tokio::process::Command::new(&command.path)
        .args(&command.args)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("can't be started: {error}")))?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(failed("has no pipes".into()));
    };
    let write = async move {
        // One that answers without reading to the end is judged by its answer.
        let _ = stdin.write_all(request).await;
        drop(stdin);
    };
    let ((), output, complaint) = tokio::join!(write, bounded(stdout, MAX_ANSWER), start(stderr));
    let Some(output) = output.map_err(|error| failed(format!("can't be read from: {error}")))? else {
        return Err(failed(format!("answered with more than {MAX_ANSWER} bytes")));
    };
    let status = child.wait().await.map_err(|error| failed(format!("can't be waited for: {error}")))?;
    if !status.success() {
        return Err(failed(ending(status, &complaint)));
    }
    Ok(output)
}

fn ending(status: ExitStatus, complaint: &str) -> String {
    match complaint {
        "" => format!("ended with {status} and said nothing on standard error"),
        complaint => format!("ended with {status}: {complaint}"),
    }
}

/// Everything up to the end, or `None` if that is more than `limit` bytes.
async fn bounded(
    mut stream: impl AsyncRead + Unpin,
    limit: usize,
) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
    // Room for all of it at once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    (&mut stream).take(limit as u64 + 1).read_to_end(&mut bytes).await?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

/// The first bytes as one line of text; the rest is read and dropped, so that the program can end.
async fn start(mut stream: impl AsyncRead + Unpin) -> String {
    let mut bytes = Vec::new();
    let _ = (&mut stream).take(SHOWN as u64).read_to_end(&mut bytes).await;
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    one_line(&String::from_utf8_lossy(&bytes))
}

/// Text of somebody else's, for an error message: no control characters, lines joined.
pub(super) fn one_line(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().take(SHOWN).map(printable).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        Command { path: "/bin/sh".into(), args: vec!["-c".into(), script.into()], env: Vec::new() }
    }

    async fn refusal(script: &str) -> String {
        ask(&shell(script), b"{}").await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn the_answer_is_what_it_prints() {
        assert_eq!(**ask(&shell("cat"), b"{\"a\":1}").await.unwrap(), *b"{\"a\":1}");
        assert_eq!(**ask(&shell("exec 0<&-; echo done"), &vec![0; MAX_ANSWER]).await.unwrap(), *b"done\n");
    }

    #[tokio::test]
    async fn a_failure_shows_what_it_said() {
        let error = refusal("echo 'no such key' >&2; printf 'in \\033[31mred\\n' >&2; exit 3").await;
        assert!(error.contains("exit status: 3: no such key in [31mred"), "{error}");
        assert!(refusal("exit 1").await.contains("said nothing"));
        let long = refusal("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1").await;
        assert!(long.len() < SHOWN + 200, "{}", long.len());
        assert!(refusal("kill -9 $$").await.contains("signal: 9"));
        let missing = Command { path: "/nonexistent".into(), args: Vec::new(), env: Vec::new() };
        assert!(ask(&missing, b"{}").await.unwrap_err().to_string().contains("can't be started"));
    }

    #[tokio::test]
    async fn a_huge_answer_is_refused() {
        assert!(refusal("cat /dev/zero").await.contains("more than"));
    }

    #[tokio::test]
    async fn the_environment_is_listed() {
        let mut command = shell("env | cut -d= -f1 | sort | tr '\\n' ' '");
        let names = |output: Zeroizing<Vec<u8>>| String::from_utf8(output.to_vec()).unwrap();
        let all = names(ask(&command, b"").await.unwrap());
        // The shell's own apart.
        let own = ["PWD", "SHLVL", "OLDPWD", "_"];
        let passed: Vec<_> = all.split_whitespace().filter(|name| !own.contains(name)).collect();
        assert!(passed.contains(&"PATH"), "{all}");
        assert!(passed.iter().all(|name| ENVIRONMENT.contains(name)), "{all}");
        // Cargo sets this one for tests.
        command.env.push("CARGO_PKG_NAME".into());
        let more = names(ask(&command, b"").await.unwrap());
        assert!(more.contains("CARGO_PKG_NAME"), "{more}");
    }
}
