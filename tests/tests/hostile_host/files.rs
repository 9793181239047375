//! CopyFile: nothing leaves the shared directory, nothing is followed or executed there, and it is bounded.

use anyhow::{Context, Result, ensure};
use protocols::agent::CopyFileRequest;
use protocols::refusal::Code;
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{Answer, Kata, answer_of, fails, refused, soon, spec, unique};
use ttrpc::Code::{INTERNAL, INVALID_ARGUMENT, PERMISSION_DENIED};

use crate::Target;

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

fn file(path: &str, mode: u32, data: &[u8]) -> CopyFileRequest {
    CopyFileRequest {
        path: path.to_owned(),
        file_size: data.len() as i64,
        file_mode: mode,
        dir_mode: 0o750,
        data: data.to_vec(),
        ..Default::default()
    }
}

async fn copy(kata: &Kata, request: &CopyFileRequest) -> Answer<()> {
    answer_of(kata.agent().copy_file(soon(), request).await).map(drop)
}

/// Refused with COPY_DENIED, or as an argument that can't be.
fn denied(answer: Answer<()>) -> Result<()> {
    let failure = fails(answer, &[PERMISSION_DENIED, INVALID_ARGUMENT, INTERNAL])?;
    if failure.code == Some(PERMISSION_DENIED) {
        ensure!(matches!(failure.refusal(), Some(Code::CopyDenied | Code::CopyLimit)), "{failure}");
    }
    Ok(())
}

pub(crate) async fn check(checks: &mut Checks, target: &Target) {
    let kata = &target.kata;
    let shared = spec::SHARED;
    target
        .attempt(checks, "5: paths that leave the shared directory", async {
            for path in [
                "/etc/passwd",
                "/run/sealpod/x",
                "/sealpod-agent",
                "relative",
                shared,
                &format!("{shared}/../x"),
                &format!("{shared}/a/../../x"),
                &format!("{shared}x/file"),
                &format!("{shared}/{}", "d/".repeat(3000)),
                &format!("{shared}/{}", "x".repeat(300)),
            ] {
                denied(copy(kata, &file(path, REGULAR | 0o644, b"x")).await)
                    .with_context(|| path.chars().take(60).collect::<String>())?;
            }
            Ok(())
        })
        .await;
    target
        .attempt(checks, "5: files behind links of the host's", async {
            for to in ["/", "/run/sealpod", "..", "../../..", "/proc/self/root"] {
                let link = format!("{shared}/{}", unique("link"));
                if copy(kata, &file(&link, LINK | 0o777, to.as_bytes())).await.is_ok() {
                    denied(copy(kata, &file(&format!("{link}/x"), REGULAR | 0o644, b"x")).await)
                        .with_context(|| to.to_owned())?;
                    denied(copy(kata, &file(&format!("{link}/x"), DIRECTORY | 0o755, b"")).await)
                        .with_context(|| to.to_owned())?;
                }
            }
            Ok(())
        })
        .await;
    target
        .attempt(checks, "5: device nodes, fifos, sockets, set-id and sticky modes", async {
            for kind in [0o020_000, 0o060_000, 0o010_000, 0o140_000, 0o170_000] {
                let path = format!("{shared}/{}", unique("node"));
                refused(copy(kata, &file(&path, kind | 0o666, b"")).await, &[Code::CopyDenied])?;
            }
            for bits in [0o4755, 0o2755, 0o6777] {
                let path = format!("{shared}/{}", unique("mode"));
                // Refused, or copied without the bits: nothing in the quarantine is ever executed.
                if let Err(failure) = copy(kata, &file(&path, REGULAR | bits, b"x")).await {
                    ensure!(failure.refusal() == Some(Code::CopyDenied), "{failure}");
                }
            }
            Ok(())
        })
        .await;
    target
        .attempt(checks, "5: giant and negative offsets and sizes", async {
            for (size, offset) in [(-1, 0), (3, -1), (i64::MAX, i64::MAX - 3), (1 << 50, 1 << 49), (1, 3)] {
                let mut request = file(&format!("{shared}/{}", unique("size")), REGULAR | 0o644, b"xyz");
                (request.file_size, request.offset) = (size, offset);
                denied(copy(kata, &request).await)
                    .with_context(|| format!("size {size}, offset {offset}"))?;
            }
            Ok(())
        })
        .await;
    target
        .attempt(checks, "47: more than may be copied in", async {
            let data = vec![0x41; 1 << 20];
            let mut outcome = Ok(());
            for index in 0..2048 {
                outcome = copy(kata, &file(&format!("{shared}/flood/{index}"), REGULAR | 0o644, &data)).await;
                if outcome.is_err() {
                    break;
                }
            }
            refused(outcome, &[Code::CopyLimit])
        })
        .await;
}
