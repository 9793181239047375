//! Initdata: the document that the host hands in on a block device. The launch fixed its digest: HOST_DATA
//! of SNP, and in the other TEEs the secret that only this launch could open. Until the two agree, nothing
//! else of the host counts.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use protocols::refusal::{Code, Refusal};
use sealed_spec::initdata::{Algorithm, Bound, Initdata, PolicyInitdata, SealpodConfig, device};

use crate::tee::{Tee, chain};

/// More block devices than any guest has.
const MAX_DEVICES: usize = 64;

/// Initdata that the launch bound. Only [`load`] makes one.
#[derive(Debug)]
pub struct VerifiedInitdata {
    body: String,
    bound: Bound,
}

impl VerifiedInitdata {
    /// What a sealed VM is for, and whom it asks for the key.
    pub fn config(&self) -> Result<&SealpodConfig, Refusal> {
        self.sealed().map(|sealed| &sealed.config).ok_or_else(|| {
            Refusal::new(
                Code::Mode,
                "the guest's initdata names a policy, not a sealed spec; it has no spec key",
            )
        })
    }

    /// The sealed document, when initdata carries it.
    pub fn document(&self) -> Option<&str> {
        self.sealed().and_then(|sealed| sealed.document.as_ref()).map(|document| document.as_str())
    }

    /// The policy and its surroundings, where the VM is in the policy mode.
    pub fn policy(&self) -> Option<&PolicyInitdata> {
        match &self.bound {
            Bound::Policy(policy) => Some(policy),
            Bound::Sealed(_) => None,
        }
    }

    fn sealed(&self) -> Option<&Initdata> {
        match &self.bound {
            Bound::Sealed(sealed) => Some(sealed),
            Bound::Policy(_) => None,
        }
    }

    /// SHA-256 of the sealed document that this VM is for; zeros where its initdata names none.
    pub fn sealed_spec(&self) -> [u8; 32] {
        self.sealed().map_or([0; 32], |sealed| *sealed.config.sealed_spec.as_bytes())
    }

    /// The whole document, byte for byte as measured.
    pub fn body(&self) -> &str {
        &self.body
    }
}

/// Finds the one initdata device of this guest and checks it against the launch.
pub fn load(tee: &dyn Tee) -> Result<VerifiedInitdata, Refusal> {
    load_from(Path::new("/sys/block"), Path::new("/dev"), tee)
}

/// The same, with other places for devices.
pub fn load_from(sys_block: &Path, dev: &Path, tee: &dyn Tee) -> Result<VerifiedInitdata, Refusal> {
    let bytes = find(sys_block, dev)?;
    let launched = tee.init_data_digest().map_err(|error| error.refusal())?;
    let verified = verify(bytes, &launched)?;
    let named = verified.sealed().map(|sealed| sealed.config.sealed_spec.as_bytes());
    if tee.sealed_spec().is_some_and(|launched| named != Some(launched)) {
        return Err(Refusal::new(
            Code::LaunchSecret,
            "the launch's secret is for another sealed spec than the initdata names",
        ));
    }
    Ok(verified)
}

fn verify(bytes: Vec<u8>, launched: &[u8; 32]) -> Result<VerifiedInitdata, Refusal> {
    // Before anything in it is looked at.
    let Some(algorithm) = Algorithm::binding(&bytes, launched) else {
        let detail = if *launched == [0; 32] {
            "the guest was launched without HOST_DATA, but has initdata"
        } else {
            "the digest of the initdata document differs from the one that the launch fixed (HOST_DATA, or the launch secret's)"
        };
        return Err(Refusal::new(Code::HostDataMismatch, detail));
    };
    let bound = Bound::parse(&bytes, algorithm).map_err(|error| invalid(chain(&error)))?;
    let body = String::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8".to_owned()))?;
    Ok(VerifiedInitdata { body, bound })
}

/// The decompressed document of the only device with the magic.
fn find(sys_block: &Path, dev: &Path) -> Result<Vec<u8>, Refusal> {
    let mut found: Option<(String, Vec<u8>)> = None;
    let mut unreadable = Vec::new();
    for name in devices(sys_block)? {
        // A device that can't be read is somebody else's broken disk, unless nothing else is found.
        match read(&dev.join(&name)) {
            Ok(None) => {}
            Ok(Some(framed)) => {
                if let Some((first, _)) = &found {
                    return Err(invalid(format!("two devices carry it: {first} and {name}")));
                }
                found = Some((name, framed?));
            }
            Err(error) => unreadable.push(format!("{name} ({error})")),
        }
    }
    let Some((name, framed)) = found else {
        let mut detail = "no block device carries initdata".to_owned();
        if !unreadable.is_empty() {
            detail.push_str("; can't be read: ");
            detail.push_str(&unreadable.join(", "));
        }
        return Err(Refusal::new(Code::InitdataMissing, detail));
    };
    device::decode(&framed).map_err(|error| invalid(format!("device {name}: {}", chain(&error))))
}

/// Names of virtio and SCSI disks, sorted.
fn devices(sys_block: &Path) -> Result<Vec<String>, Refusal> {
    let unlisted =
        |error| Refusal::new(Code::InitdataMissing, format!("block devices can't be listed: {error}"));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(sys_block).map_err(unlisted)? {
        let Ok(name) = entry.map_err(unlisted)?.file_name().into_string() else { continue };
        let disk = ["vd", "sd", "nvme"].iter().any(|prefix| name.starts_with(prefix));
        if disk && name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            names.push(name);
        }
    }
    if names.len() > MAX_DEVICES {
        return Err(invalid(format!("more than {MAX_DEVICES} block devices")));
    }
    names.sort_unstable();
    Ok(names)
}

/// The framed bytes of a device that starts with the magic, and up to a sector after their end, for the
/// decoder to refuse.
fn read(path: &Path) -> std::io::Result<Option<Result<Vec<u8>, Refusal>>> {
    let mut file = File::open(path)?;
    let mut header = [0; device::HEADER_LEN];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = match device::length(&header) {
        None => return Ok(None),
        Some(Err(error)) => return Ok(Some(Err(invalid(chain(&error))))),
        Some(Ok(length)) => length,
    };
    let mut framed = header.to_vec();
    file.take((length + device::SECTOR - device::HEADER_LEN) as u64).read_to_end(&mut framed)?;
    Ok(Some(Ok(framed)))
}

fn invalid(detail: String) -> Refusal {
    Refusal::new(Code::InitdataInvalid, detail)
}

#[cfg(test)]
pub(crate) fn verified_for_tests(bytes: &[u8], launched: &[u8; 32]) -> VerifiedInitdata {
    verify(bytes.to_vec(), launched).unwrap()
}

#[cfg(test)]
mod tests;
