//! Processes: exec, signals, waiting, streams, terminals.

use anyhow::{Context, Result, ensure};
use protobuf::MessageField;
use protocols::oci::{LinuxCapabilities, Process};
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{Kata, fails, spec, unique};
use ttrpc::Code;

use crate::{Bench, MAIN};

const KILL: u32 = 9;
const TERM: u32 = 15;

pub(crate) async fn check(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    exec(checks, kata).await;
    signals(checks, kata).await;
    waiting(checks, kata).await;
    output(checks, kata).await;
    input(checks, kata).await;
    terminals(checks, kata).await;
}

async fn exec(checks: &mut Checks, kata: &Kata) {
    checks
        .that("ExecProcess accepts a command with its env, cwd and user", async {
            let exec = unique("exec");
            let mut process = spec::process(&["/bin/sh", "-c", "echo $COLOUR; pwd; id -u; hostname"]);
            process.Env.push("COLOUR=red".to_owned());
            process.Cwd = "/tmp".to_owned();
            process.User.mut_or_insert_default().UID = 1000;
            kata.start_exec(MAIN, &exec, process).await?;
            let text = kata.follow(MAIN, &exec).await?.good()?;
            ensure!(text == "red\n/tmp\n1000\npod", "{text}");
            Ok(())
        })
        .await;
    checks
        .that("ExecProcess accepts a process without capabilities", async {
            let exec = unique("exec");
            let mut process = spec::process(&["/bin/true"]);
            process.Capabilities = MessageField::none();
            kata.start_exec(MAIN, &exec, process).await?;
            kata.follow(MAIN, &exec).await?.good()?;
            let exec = unique("exec");
            let process = Process {
                Capabilities: MessageField::some(LinuxCapabilities::new()),
                ..spec::process(&["/bin/true"])
            };
            kata.start_exec(MAIN, &exec, process).await?;
            kata.follow(MAIN, &exec).await?.good()?;
            Ok(())
        })
        .await;
    checks
        .that("ExecProcess accepts exit codes of every kind", async {
            for status in [0, 1, 126, 127, 128, 255] {
                let ended = kata.exec(MAIN, &["/bin/sh", "-c", &format!("exit {status}")]).await?;
                ensure!(ended.status == status, "{ended:?}");
            }
            Ok(())
        })
        .await;
    checks
        .that("ExecProcess refuses a container that isn't there", async {
            let answer = kata.start_exec("nobody", "e", spec::process(&["true"])).await;
            fails(answer, &[Code::INTERNAL, Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
    checks
        .that("ExecProcess refuses a program that isn't there", async {
            fails(
                kata.start_exec(MAIN, "nothing", spec::process(&["/bin/nothing"])).await,
                &[Code::INTERNAL],
            )?;
            Ok(())
        })
        .await;
    checks
        .that("ExecProcess refuses an exec id that is in use", async {
            kata.start_exec(MAIN, "twice", spec::process(&["sleep", "1000"])).await?;
            let answer = kata.start_exec(MAIN, "twice", spec::process(&["true"])).await;
            fails(answer, &[Code::INTERNAL, Code::INVALID_ARGUMENT])?;
            kata.signal(MAIN, "twice", KILL).await?;
            ensure!(kata.wait(MAIN, "twice").await? == 137);
            Ok(())
        })
        .await;
    checks
        .that("ExecProcess refuses a container that has ended", async {
            kata.create(&spec::container("ended", &["true"])).await?;
            kata.start("ended").await?;
            kata.wait("ended", "").await?;
            fails(kata.start_exec("ended", "late", spec::process(&["true"])).await, &[Code::INTERNAL])?;
            Ok(kata.remove("ended").await?)
        })
        .await;
}

async fn signals(checks: &mut Checks, kata: &Kata) {
    checks
        .that("SignalProcess accepts KILL for all of a container", async {
            kata.create(&spec::container("killed", &["/bin/sh", "-c", "sleep 1000 & sleep 1000"])).await?;
            kata.start("killed").await?;
            kata.signal("killed", "", KILL).await?;
            ensure!(kata.wait("killed", "").await? == 137);
            Ok(kata.remove("killed").await?)
        })
        .await;
    checks
        .that("SignalProcess accepts TERM where it is handled", async {
            let script =
                "trap 'echo caught; exit 3' TERM; echo ready; while true; do sleep 1 & wait $!; done";
            kata.create(&spec::container("handler", &["/bin/sh", "-c", script])).await?;
            kata.start("handler").await?;
            ensure!(kata.read("handler", "", false, 8192).await? == b"ready\n");
            kata.signal("handler", "", TERM).await?;
            let ended = kata.follow("handler", "").await?;
            ensure!(ended.status == 3 && ended.text() == "caught", "{ended:?}");
            Ok(kata.remove("handler").await?)
        })
        .await;
    checks
        .that("SignalProcess accepts TERM as KILL where nobody handles it", async {
            kata.create(&spec::container("deaf", &["sleep", "1000"])).await?;
            kata.start("deaf").await?;
            kata.signal("deaf", "", TERM).await?;
            let status = kata.wait("deaf", "").await?;
            ensure!(matches!(status, 137 | 143), "status {status}");
            Ok(kata.remove("deaf").await?)
        })
        .await;
    checks
        .that("SignalProcess accepts a signal for one exec alone", async {
            kata.start_exec(MAIN, "alone", spec::process(&["sleep", "1000"])).await?;
            kata.signal(MAIN, "alone", TERM).await?;
            ensure!(kata.wait(MAIN, "alone").await? == 143);
            kata.exec(MAIN, &["true"]).await?.good()?;
            Ok(())
        })
        .await;
    checks
        .that("SignalProcess refuses a process that is gone: NOT_FOUND", async {
            kata.create(&spec::container("gone", &["true"])).await?;
            kata.start("gone").await?;
            kata.wait("gone", "").await?;
            fails(kata.signal("gone", "", TERM).await, &[Code::NOT_FOUND])?;
            fails(kata.signal("gone", "no-exec", TERM).await, &[Code::NOT_FOUND, Code::INVALID_ARGUMENT])?;
            Ok(kata.remove("gone").await?)
        })
        .await;
    checks
        .that("SignalProcess refuses a container that isn't there: INVALID_ARGUMENT", async {
            fails(kata.signal("nobody", "", TERM).await, &[Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
    checks
        .that("SignalProcess refuses numbers that are no signals", async {
            for number in [65, 1000, u32::MAX] {
                fails(kata.signal(MAIN, "", number).await, &[Code::INVALID_ARGUMENT, Code::INTERNAL])?;
            }
            kata.exec(MAIN, &["true"]).await?.good()?;
            Ok(())
        })
        .await;
}

async fn waiting(checks: &mut Checks, kata: &Kata) {
    checks
        .that("WaitProcess accepts many waiters, and late ones", async {
            kata.create(&spec::container("waited", &["/bin/sh", "-c", "read line; exit 7"])).await?;
            kata.start("waited").await?;
            let waiters: Vec<_> = (0..20)
                .map(|_| {
                    let kata = kata.clone();
                    tokio::spawn(async move { kata.wait("waited", "").await })
                })
                .collect();
            kata.exec(MAIN, &["true"]).await?.good()?;
            kata.close_stdin("waited", "").await?;
            for waiter in waiters {
                ensure!(waiter.await?? == 7);
            }
            ensure!(kata.wait("waited", "").await? == 7, "a late waiter");
            Ok(kata.remove("waited").await?)
        })
        .await;
    checks
        .that("WaitProcess refuses a container that isn't there: INVALID_ARGUMENT", async {
            fails(kata.wait("nobody", "").await, &[Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
    checks
        .that("WaitProcess refuses an exec that isn't there", async {
            fails(kata.wait(MAIN, "no-exec").await, &[Code::NOT_FOUND, Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
}

async fn output(checks: &mut Checks, kata: &Kata) {
    checks
        .that("ReadStdout accepts, and empty is the end", async {
            kata.start_exec(MAIN, "out", spec::process(&["/bin/echo", "-n", "abcdef"])).await?;
            ensure!(kata.read(MAIN, "out", false, 4).await? == b"abcd", "not the first four bytes");
            ensure!(kata.read(MAIN, "out", false, 8192).await? == b"ef", "not the rest");
            ensure!(kata.read(MAIN, "out", false, 8192).await?.is_empty(), "no end");
            ensure!(kata.wait(MAIN, "out").await? == 0);
            Ok(())
        })
        .await;
    checks
        .that("ReadStderr accepts, apart from standard output", async {
            let ended = kata.exec(MAIN, &["/bin/sh", "-c", "echo out; echo err >&2"]).await?;
            ensure!(ended.stdout == b"out\n" && ended.stderr == b"err\n", "{ended:?}");
            Ok(())
        })
        .await;
    checks
        .that("ReadStdout accepts output that a grandchild writes after the process ended", async {
            let script = "(sleep 0.2; echo late) & echo early";
            let ended = kata.exec(MAIN, &["/bin/sh", "-c", script]).await?;
            ensure!(ended.text().starts_with("early"), "{ended:?}");
            Ok(())
        })
        .await;
    checks
        .that("ReadStdout accepts a megabyte, byte for byte", async {
            let ended = kata.exec(MAIN, &["probe", "pattern", "1048576"]).await?;
            ensure!(
                ended.stdout == pattern(1_048_576),
                "{} bytes came, not the right ones",
                ended.stdout.len()
            );
            Ok(())
        })
        .await;
    for (name, error) in [("ReadStdout", false), ("ReadStderr", true)] {
        checks
            .that(&format!("{name} refuses a container that isn't there: INVALID_ARGUMENT"), async {
                fails(kata.read("nobody", "", error, 8192).await, &[Code::INVALID_ARGUMENT])?;
                Ok(())
            })
            .await;
        checks
            .that(&format!("{name} refuses an exec that isn't there"), async {
                let answer = kata.read(MAIN, "no-exec", error, 8192).await;
                fails(answer, &[Code::NOT_FOUND, Code::INVALID_ARGUMENT])?;
                Ok(())
            })
            .await;
    }
}

/// What `probe pattern` writes.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(sealpod_tests::pattern::byte).collect()
}

async fn input(checks: &mut Checks, kata: &Kata) {
    checks
        .that("WriteStdin accepts, says how much, and empty data is the end", async {
            kata.start_exec(MAIN, "cat", spec::process(&["cat"])).await?;
            ensure!(kata.write(MAIN, "cat", b"hello ").await? == 6);
            ensure!(kata.write(MAIN, "cat", b"world").await? == 5);
            ensure!(kata.write(MAIN, "cat", b"").await? == 0);
            let ended = kata.follow(MAIN, "cat").await?;
            ensure!(ended.good()? == "hello world", "{ended:?}");
            Ok(())
        })
        .await;
    checks
        .that("WriteStdin accepts more than a pipe holds while output is read", async {
            kata.start_exec(MAIN, "bulk", spec::process(&["wc", "-c"])).await?;
            let chunk = vec![b'x'; 64 * 1024];
            for _ in 0..8 {
                let mut rest = chunk.as_slice();
                while !rest.is_empty() {
                    let taken = kata.write(MAIN, "bulk", rest).await?;
                    rest = rest.get(taken as usize..).context("it took more than there was")?;
                }
            }
            kata.write(MAIN, "bulk", b"").await?;
            ensure!(kata.follow(MAIN, "bulk").await?.good()? == "524288");
            Ok(())
        })
        .await;
    checks
        .that("WriteStdin refuses a container that isn't there", async {
            fails(kata.write("nobody", "", b"x").await, &[Code::INTERNAL, Code::INVALID_ARGUMENT])?;
            Ok(())
        })
        .await;
    checks
        .that("WriteStdin refuses a process that is gone", async {
            kata.start_exec(MAIN, "short", spec::process(&["true"])).await?;
            kata.follow(MAIN, "short").await?;
            let answer = kata.write(MAIN, "short", b"x").await;
            fails(answer, &[Code::INTERNAL, Code::INVALID_ARGUMENT, Code::NOT_FOUND])?;
            Ok(())
        })
        .await;
    checks
        .that("CloseStdin accepts, and the process sees the end", async {
            kata.start_exec(MAIN, "end", spec::process(&["cat"])).await?;
            kata.close_stdin(MAIN, "end").await?;
            kata.follow(MAIN, "end").await?.good()?;
            Ok(())
        })
        .await;
    checks
        .that("CloseStdin refuses a container that isn't there", async {
            fails(kata.close_stdin("nobody", "").await, &[Code::INVALID_ARGUMENT, Code::INTERNAL])?;
            Ok(())
        })
        .await;
}

async fn terminals(checks: &mut Checks, kata: &Kata) {
    checks.that("TtyWinResize accepts a terminal's new size", async { terminal(kata, "tty").await }).await;
    checks
        .that("ExecProcess accepts a terminal", async {
            let mut process =
                spec::process(&["/bin/sh", "-c", "stty -echo; echo ready; read go; test -t 1 && stty size"]);
            process.Terminal = true;
            kata.start_exec(MAIN, "tty-exec", process).await?;
            ensure!(kata.read(MAIN, "tty-exec", false, 8192).await? == b"ready\r\n");
            kata.resize(MAIN, "tty-exec", 30, 90).await?;
            kata.write(MAIN, "tty-exec", b"go\n").await?;
            let text = kata.follow(MAIN, "tty-exec").await?.good()?;
            ensure!(text == "30 90", "{text}");
            Ok(())
        })
        .await;
    checks
        .that("TtyWinResize refuses a process without a terminal: UNAVAILABLE", async {
            fails(kata.resize(MAIN, "", 40, 100).await, &[Code::UNAVAILABLE])?;
            Ok(())
        })
        .await;
    checks
        .that("TtyWinResize refuses a container that isn't there", async {
            fails(kata.resize("nobody", "", 40, 100).await, &[Code::INVALID_ARGUMENT, Code::UNAVAILABLE])?;
            Ok(())
        })
        .await;
}

async fn terminal(kata: &Kata, id: &str) -> Result<()> {
    let script = "stty -echo; echo ready; read go; stty size; test -t 0 && echo terminal";
    let mut request = spec::container(id, &["/bin/sh", "-c", script]);
    request.OCI.mut_or_insert_default().Process.mut_or_insert_default().Terminal = true;
    kata.create(&request).await?;
    kata.start(id).await?;
    ensure!(kata.read(id, "", false, 8192).await? == b"ready\r\n");
    kata.resize(id, "", 43, 132).await?;
    kata.write(id, "", b"go\n").await?;
    let ended = kata.follow(id, "").await?;
    ensure!(ended.text() == "43 132\r\nterminal", "{ended:?}");
    ensure!(ended.status == 0, "{ended:?}");
    Ok(kata.remove(id).await?)
}
