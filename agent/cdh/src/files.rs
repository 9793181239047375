//! Sealed secrets in a container's environment and in the files of a volume. A failure names the variable
//! or file, and nothing starts with a secret still sealed.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use protocols::refusal::{Code, Refusal};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, openat, renameat, unlinkat,
};

use crate::identity::Identity;
use crate::sealed::{self, MAX_SEALED, PREFIX};

/// Most entries of a volume that are looked at.
const MAX_ENTRIES: usize = 16 * 1024;
const MAX_DEPTH: usize = 16;
/// Name of the file that takes a sealed file's place, until it does.
const TEMPORARY: &str = ".unsealed.tmp";

/// Replaces each value of `NAME=value` that is a sealed secret by its secret.
pub async fn unseal_environment(environment: &mut [String], identity: &dyn Identity) -> Result<(), Refusal> {
    for variable in environment {
        let Some((name, value)) = variable.split_once('=') else { continue };
        if !value.starts_with(PREFIX) {
            continue;
        }
        let named = |refusal: Refusal| at(&format!("variable {name}"), &refusal);
        let secret = sealed::unseal(value, identity).await.map_err(named)?;
        let text = std::str::from_utf8(&secret).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| named(wrong("its secret is no text that a variable can hold")))?;
        *variable = format!("{name}={text}");
    }
    Ok(())
}

/// Replaces the content of each file below `directory` that is a sealed secret by its secret. Links are
/// not followed: what they lead to inside the volume is met as a file.
pub async fn unseal_directory(directory: &Path, identity: &dyn Identity) -> Result<(), Refusal> {
    let root = directory.to_path_buf();
    let found = blocking(move || find(&root)).await?;
    for file in found {
        let named = |refusal: Refusal| at(&format!("file {}", file.path.display()), &refusal);
        let text = std::str::from_utf8(&file.content).map_err(|_| named(wrong("it is no text")))?;
        let secret = sealed::unseal(text, identity).await.map_err(named)?;
        let path = file.path.clone();
        blocking(move || file.replace(&secret).map_err(|error| failed(&path, &error))).await?;
    }
    Ok(())
}

/// A file that holds a sealed secret.
struct Sealed {
    path: PathBuf,
    parent: OwnedFd,
    name: std::ffi::CString,
    file: File,
    content: Vec<u8>,
}

impl Sealed {
    fn replace(self, secret: &[u8]) -> io::Result<()> {
        let status = fstat(&self.file)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.parent, TEMPORARY, flags, Mode::RUSR | Mode::WUSR)?);
        let written = (|| {
            file.write_all(secret)?;
            fchown(&file, Some(Uid::from_raw(status.st_uid)), Some(Gid::from_raw(status.st_gid)))?;
            fchmod(&file, Mode::from_raw_mode(status.st_mode))?;
            renameat(&self.parent, TEMPORARY, &self.parent, &self.name)?;
            Ok(())
        })();
        if written.is_err() {
            let _ = unlinkat(&self.parent, TEMPORARY, AtFlags::empty());
        }
        written
    }
}

fn find(root: &Path) -> Result<Vec<Sealed>, Refusal> {
    let open = openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let open = open.map_err(|error| failed(root, &error.into()))?;
    let mut next = vec![(PathBuf::new(), open, 0)];
    let (mut found, mut seen) = (Vec::new(), 0);
    while let Some((path, directory, depth)) = next.pop() {
        let entries = Dir::read_from(&directory).map_err(|error| failed(&path, &error.into()))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed(&path, &error.into()))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            seen += 1;
            if seen > MAX_ENTRIES || depth > MAX_DEPTH {
                return Err(wrong("the volume has too many files to look for sealed secrets in"));
            }
            let path = path.join(name.to_string_lossy().as_ref());
            let opened = match entry.file_type() {
                FileType::Directory => {
                    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    openat(&directory, name, flags, Mode::empty())
                        .map(|open| next.push((path.clone(), open, depth + 1)))
                }
                FileType::RegularFile => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                    openat(&directory, name, flags, Mode::empty()).and_then(|file| {
                        let parent = rustix::io::fcntl_dupfd_cloexec(&directory, 0)?;
                        let file = File::from(file);
                        if let Some(content) = content(&file).map_err(|e| errno(&e))? {
                            let (path, name) = (path.clone(), name.to_owned());
                            found.push(Sealed { path, parent, name, file, content });
                        }
                        Ok(())
                    })
                }
                _ => Ok(()),
            };
            opened.map_err(|error| failed(&path, &error.into()))?;
        }
    }
    Ok(found)
}

/// The whole file, if it begins as a sealed secret.
fn content(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    file.take(PREFIX.len() as u64).read_to_end(&mut content)?;
    if content != PREFIX.as_bytes() {
        return Ok(None);
    }
    file.take(MAX_SEALED as u64 + 1).read_to_end(&mut content)?;
    Ok(Some(content))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| wrong("the work was interrupted"))?
}

fn errno(error: &io::Error) -> rustix::io::Errno {
    rustix::io::Errno::from_io_error(error).unwrap_or(rustix::io::Errno::IO)
}

/// Which one, before what: the code stays.
fn at(place: &str, refusal: &Refusal) -> Refusal {
    Refusal::new(refusal.code, format!("sealed secret in {place}: {}", refusal.detail))
}

fn failed(path: &Path, error: &io::Error) -> Refusal {
    wrong(&format!("file {} of the volume: {}", path.display(), error.kind()))
}

fn wrong(detail: &str) -> Refusal {
    Refusal::new(Code::SecretUnseal, detail)
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
