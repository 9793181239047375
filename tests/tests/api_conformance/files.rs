//! `CopyFile`: below the shared directory and nowhere else.

use anyhow::{Result, ensure};
use protocols::agent as wire;
use sealpod_tests::checks::Checks;
use sealpod_tests::kata::{Answer, Kata, answer_of, fails, soon, spec, unique};
use ttrpc::Code;

use crate::Bench;
use crate::containers::printed;

const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const LINK: u32 = 0o120_000;

/// A request that the runtime would make.
pub(crate) fn file(path: &str, mode: u32, data: &[u8]) -> wire::CopyFileRequest {
    wire::CopyFileRequest {
        path: path.to_owned(),
        file_size: data.len() as i64,
        file_mode: mode,
        dir_mode: 0o750,
        data: data.to_vec(),
        ..Default::default()
    }
}

async fn copy(kata: &Kata, request: &wire::CopyFileRequest) -> Answer<()> {
    answer_of(kata.agent().copy_file(soon(), request).await).map(drop)
}

/// What `script` prints in a container that has the shared directory's `path` at /shared.
async fn seen(kata: &Kata, path: &str, script: &str) -> Result<String> {
    printed(kata, script, |request| {
        let oci = request.OCI.mut_or_insert_default();
        oci.Mounts.push(spec::mount("/mnt", path, "bind", &["rbind", "ro"]));
    })
    .await
}

pub(crate) async fn check(checks: &mut Checks, bench: &Bench) {
    let kata = bench.kata();
    accepted(checks, kata).await;
    refused(checks, kata).await;
}

async fn accepted(checks: &mut Checks, kata: &Kata) {
    let root = format!("{}/{}", spec::SHARED, unique("files"));
    checks
        .that("CopyFile accepts a file with its mode and owner, and makes its directories", async {
            let mut request = file(&format!("{root}/a/b/file"), REGULAR | 0o640, b"content");
            (request.uid, request.gid) = (1000, 2000);
            copy(kata, &request).await?;
            let text = seen(kata, &root, "cat /mnt/a/b/file; echo; stat -c '%a %u %g' /mnt/a/b/file").await?;
            ensure!(text == "content\n640 1000 2000", "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CopyFile accepts chunks, and the file appears when it is whole", async {
            let path = format!("{root}/chunks/file");
            let data = vec![0x61; 3_000_000];
            let size = data.len() as i64;
            for (index, chunk) in data.chunks(1_000_000).enumerate() {
                let mut request = file(&path, REGULAR | 0o644, chunk);
                (request.file_size, request.offset) = (size, index as i64 * 1_000_000);
                copy(kata, &request).await?;
                let whole = seen(kata, &root, "ls /mnt/chunks | grep -cx file; true").await?;
                ensure!(whole == if index == 2 { "1" } else { "0" }, "after chunk {index}: {whole}");
            }
            let text = seen(kata, &root, "wc -c < /mnt/chunks/file; ls -a /mnt/chunks | wc -l").await?;
            ensure!(text == "3000000\n3", "{text}");
            Ok(())
        })
        .await;
    checks
        .that("CopyFile accepts directories and symlinks, as volumes of ConfigMaps have them", async {
            copy(kata, &file(&format!("{root}/map"), DIRECTORY | 0o755, b"")).await?;
            copy(kata, &file(&format!("{root}/map/..1/key"), REGULAR | 0o644, b"one")).await?;
            copy(kata, &file(&format!("{root}/map/..data"), LINK | 0o777, b"..1")).await?;
            copy(kata, &file(&format!("{root}/map/key"), LINK | 0o777, b"..data/key")).await?;
            ensure!(seen(kata, &root, "cat /mnt/map/key").await? == "one");
            copy(kata, &file(&format!("{root}/map/..2/key"), REGULAR | 0o644, b"two")).await?;
            copy(kata, &file(&format!("{root}/map/..data"), LINK | 0o777, b"..2")).await?;
            ensure!(seen(kata, &root, "cat /mnt/map/key").await? == "two", "the link was not replaced");
            Ok(())
        })
        .await;
    checks
        .that("CopyFile accepts an empty file, and one in place of another", async {
            copy(kata, &file(&format!("{root}/empty"), REGULAR | 0o644, b"")).await?;
            copy(kata, &file(&format!("{root}/a/b/file"), REGULAR | 0o600, b"other")).await?;
            let text = seen(kata, &root, "wc -c < /mnt/empty; cat /mnt/a/b/file").await?;
            ensure!(text == "0\nother", "{text}");
            Ok(())
        })
        .await;
}

async fn refused(checks: &mut Checks, kata: &Kata) {
    let shared = spec::SHARED;
    let no = [Code::INTERNAL, Code::INVALID_ARGUMENT, Code::PERMISSION_DENIED];
    checks
        .that("CopyFile refuses paths outside the shared directory", async {
            for path in [
                "/etc/passwd",
                "/run/kata-containers/shared/other",
                "/run/kata-containers/shared/containersx/file",
                &format!("{shared}/../escape"),
                &format!("{shared}/a/../../../escape"),
                shared,
                "relative",
                "",
            ] {
                fails(copy(kata, &file(path, REGULAR | 0o644, b"x")).await, &no)
                    .map_err(|error| error.context(format!("path {path:?}")))?;
            }
            Ok(())
        })
        .await;
    checks
        .that("CopyFile refuses to follow symlinks out of the shared directory", async {
            let link = format!("{shared}/{}", unique("link"));
            if copy(kata, &file(&link, LINK | 0o777, b"/tmp")).await.is_ok() {
                // Whatever becomes of it, nothing may come to be behind the link.
                let _ = copy(kata, &file(&format!("{link}/escaped"), REGULAR | 0o644, b"x")).await;
            }
            let found = printed(kata, "ls /host", |request| {
                request.OCI.mut_or_insert_default().Mounts.push(spec::mount(
                    "/mnt",
                    "/tmp",
                    "bind",
                    &["rbind", "ro"],
                ));
                let process = request.OCI.mut_or_insert_default().Process.mut_or_insert_default();
                process.Args = spec::strings(&["ls", "/mnt"]);
            })
            .await?;
            ensure!(!found.contains("escaped"), "it was written behind the link: {found}");
            Ok(())
        })
        .await;
    checks
        .that("CopyFile refuses device nodes, sockets and fifos", async {
            for kind in [0o020_000, 0o060_000, 0o010_000, 0o140_000] {
                let path = format!("{shared}/{}", unique("node"));
                fails(copy(kata, &file(&path, kind | 0o666, b"")).await, &no)?;
            }
            Ok(())
        })
        .await;
    checks
        .that("CopyFile refuses offsets and sizes that can't be", async {
            for (size, offset) in [(-1, 0), (10, -1), (i64::MAX, i64::MAX - 1), (2, 10)] {
                let path = format!("{shared}/{}", unique("sizes"));
                let mut request = file(&path, REGULAR | 0o644, b"xyz");
                (request.file_size, request.offset) = (size, offset);
                fails(copy(kata, &request).await, &no)
                    .map_err(|error| error.context(format!("size {size}, offset {offset}")))?;
            }
            Ok(())
        })
        .await;
}
