//! `sealpod-pkcs11`: the program that loads a token's library, since a static program can't. It is given one
//! question over a pipe and ends with its answer.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use encrypted_image::pkcs11::token::{Answer, MESSAGE_LIMIT, Refusal, Request, Secret};
use zeroize::Zeroizing;

/// Its file name.
const NAME: &str = "sealpod-pkcs11";

/// What of its complaints is repeated, in bytes.
const COMPLAINT: u64 = 4096;

/// Variables of the user's own that a module may need to find its token and its configuration; all others are withheld.
const INHERITED: [&str; 16] = [
    "CKNFAST_LOADSHARING",
    "HOME",
    "LANG",
    "NFAST_HOME",
    "OPENSC_CONF",
    "P11_KIT_SERVER_ADDRESS",
    "PATH",
    "SOFTHSM2_CONF",
    "TMPDIR",
    "TPM2_PKCS11_STORE",
    "TZ",
    "USER",
    "ChrystokiConfigurationPath", // Thales Luna
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "YUBIHSM_PKCS11_CONF",
];

/// A token could not be asked, or refused.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// There is no such program.
    #[error(
        "{NAME} is needed for keys on PKCS #11 tokens and is not at {}: put it beside the sealpod program, or name \
         it in $SEALPOD_PKCS11", .0.display()
    )]
    Missing(PathBuf),
    /// It can't be started or talked to.
    #[error("{}: {doing} failed", .program.display())]
    Io {
        /// The program.
        program: PathBuf,
        /// What failed.
        doing: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended without an answer that can be understood.
    #[error("{} gave no answer: {complaint}", .program.display())]
    NoAnswer {
        /// The program.
        program: PathBuf,
        /// The end of its standard error, or its exit status.
        complaint: String,
    },
    /// The token or its library refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Where the program is.
#[derive(Debug, Clone)]
pub struct Helper {
    program: PathBuf,
}

impl Helper {
    /// This program, whether it is there or not: a key on a token may never be needed.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// As named (by an option or `$SEALPOD_PKCS11`), else beside `executable`, the running program.
    pub fn find(named: Option<&Path>, executable: &Path) -> Self {
        Self::at(named.map_or_else(|| executable.with_file_name(NAME), Path::to_owned))
    }

    /// Asks once. `environment` is what the key's file sets for the module.
    pub(super) fn ask(
        &self,
        request: &Request,
        environment: &BTreeMap<String, String>,
    ) -> Result<Secret, HelperError> {
        let failed = |doing| move |source| HelperError::Io { program: self.program.clone(), doing, source };
        let mut command = Command::new(&self.program);
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(environment);
        let mut child = command.spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => HelperError::Missing(self.program.clone()),
            _ => failed("starting it")(source),
        })?;
        // Room enough that the buffer never moves and leaves a copy behind.
        let mut question = Zeroizing::new(Vec::with_capacity(MESSAGE_LIMIT));
        serde_json::to_writer(&mut *question, request).map_err(|error| failed("asking it")(error.into()))?;
        let stdin = child.stdin.take();
        let stderr = child.stderr.take();
        let stdout = child.stdout.take();
        let mut said = Zeroizing::new(Vec::with_capacity(MESSAGE_LIMIT + 1));
        let (asked, read, complaint) = std::thread::scope(|scope| {
            let complaint = scope.spawn(move || last_words(stderr));
            let asked = scope.spawn(move || match stdin {
                // It may have ended before it read everything: then its answer says why.
                Some(mut stdin) => stdin.write_all(&question),
                None => Ok(()),
            });
            let read = match stdout {
                Some(stdout) => stdout.take(MESSAGE_LIMIT as u64 + 1).read_to_end(&mut said),
                None => Ok(0),
            };
            if said.len() > MESSAGE_LIMIT {
                let _ = child.kill();
            }
            (asked.join(), read, complaint.join().unwrap_or_default())
        });
        let status = child.wait().map_err(failed("waiting for it"))?;
        read.map_err(failed("reading its answer"))?;
        match serde_json::from_slice(&said) {
            Ok(Answer::Done(bytes)) if status.success() => Ok(bytes),
            Ok(Answer::Refused(refusal)) => Err(refusal.into()),
            _ => {
                if let Ok(Err(source)) = asked
                    && source.kind() != std::io::ErrorKind::BrokenPipe
                {
                    return Err(failed("asking it")(source));
                }
                let complaint = if complaint.is_empty() { status.to_string() } else { complaint };
                Err(HelperError::NoAnswer { program: self.program.clone(), complaint })
            }
        }
    }
}

fn last_words(stderr: Option<std::process::ChildStderr>) -> String {
    let mut said = Vec::new();
    if let Some(mut stderr) = stderr {
        // Read on when there is more, so that it never waits on a full pipe.
        let _ = stderr.by_ref().take(COMPLAINT).read_to_end(&mut said);
        let _ = std::io::copy(&mut stderr, &mut std::io::sink());
    }
    String::from_utf8_lossy(&said).lines().last().unwrap_or_default().trim().to_owned()
}
