//! SEV and SEV-ES guests start under the relay's wrapper, which gets the launch session from the broker, starts QEMU
//! paused, and lets it run once the secret is in. The guest's process is the wrapper's: it becomes QEMU.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;

use super::{BootError, write};
use crate::manifest::{GuestManifest, Platform};
use crate::rundir::RunDir;

/// Where the wrapper looks for its settings.
const CONFIG_VARIABLE: &str = "SEALPOD_RELAY_CONFIG";

/// Who launches a guest, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SevOptions {
    /// The `sealpod-relay` program.
    pub relay: PathBuf,
    /// The broker: `https://host[:port]`.
    pub broker: String,
    /// The only certificates to trust, PEM: what initdata pins.
    pub broker_ca: String,
}

/// `relay.toml`, as `sealpod-relay` reads it.
#[derive(Serialize)]
struct Settings {
    qemu: Vec<String>,
    broker: String,
    broker_ca: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<String>,
    runtime_dir: PathBuf,
    es: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cbitpos: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reduced_phys_bits: Option<u32>,
}

/// The wrapper, with settings of its own in the run directory; QEMU's words are added by the caller. It reaches the
/// broker through the relay's socket, where there is one, as the guest does.
pub(super) fn command(
    manifest: &GuestManifest,
    run: &RunDir,
    options: &SevOptions,
    socket: Option<&Path>,
    es: bool,
) -> Result<Command, BootError> {
    let broker_ca = write(run.join("broker-ca.pem"), options.broker_ca.as_bytes())?;
    let (cbitpos, reduced_phys_bits) = match &manifest.platform {
        Platform::Sev { cbitpos, reduced_phys_bits, .. } => (*cbitpos, *reduced_phys_bits),
        _ => (None, None),
    };
    let settings = Settings {
        qemu: hypervisor(manifest),
        broker: options.broker.clone(),
        broker_ca,
        connect: socket.map(|path| format!("unix:{}", path.display())),
        runtime_dir: run.join("sev"),
        es,
        cbitpos,
        reduced_phys_bits,
    };
    let path = run.join("relay.toml");
    let text = toml::to_string(&settings)
        .map_err(|error| BootError::Write { path: path.clone(), source: std::io::Error::other(error) })?;
    let path = write(path, text.as_bytes())?;
    let mut command = Command::new(&options.relay);
    command.env(CONFIG_VARIABLE, path).arg("qemu");
    Ok(command)
}

/// QEMU, or the emulator's front that takes QEMU's words.
fn hypervisor(manifest: &GuestManifest) -> Vec<String> {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    match &manifest.platform {
        Platform::SevEmulated { emulator, state, .. } => vec![
            text(emulator),
            "sev-qemu".to_owned(),
            "--state".to_owned(),
            text(state),
            "--qemu".to_owned(),
            text(&manifest.qemu),
            "--cpu-model".to_owned(),
            manifest.cpu_model.clone(),
            "--".to_owned(),
        ],
        _ => vec![text(&manifest.qemu)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wrapper_gets_settings_of_its_own() {
        let base = tempfile::tempdir().unwrap();
        let run = RunDir::create(base.path()).unwrap();
        let text = "firmware='f'\nkernel='k'\ninitrd='i'\ncpu_model='EPYC-Milan'\n[platform]\n\
                    kind='sev-es-emulated'\nemulator='e/emulator'\nstate='s'";
        let manifest = GuestManifest::parse(text, base.path()).unwrap();
        let options = SevOptions {
            relay: "/usr/bin/sealpod-relay".into(),
            broker: "https://broker.example:8443".into(),
            broker_ca: "-----BEGIN CERTIFICATE-----".into(),
        };
        let command = command(&manifest, &run, &options, Some(Path::new("/run/relay.sock")), true).unwrap();
        assert_eq!(command.get_program(), "/usr/bin/sealpod-relay");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["qemu"]);
        let (name, path) = command.get_envs().next().unwrap();
        assert_eq!(name, "SEALPOD_RELAY_CONFIG");
        let text = std::fs::read_to_string(path.unwrap()).unwrap();
        let settings: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(settings["broker"].as_str(), Some("https://broker.example:8443"));
        assert_eq!(settings["es"].as_bool(), Some(true));
        assert_eq!(settings["connect"].as_str(), Some("unix:/run/relay.sock"));
        assert!(!settings.contains_key("cbitpos"));
        let qemu: Vec<&str> = settings["qemu"].as_array().unwrap().iter().flat_map(|w| w.as_str()).collect();
        assert!(qemu[0].ends_with("e/emulator"));
        assert_eq!(qemu[1..3], ["sev-qemu", "--state"]);
        assert_eq!(qemu[4..], ["--qemu", "qemu-system-x86_64", "--cpu-model", "EPYC-Milan", "--"]);
        let ca = std::fs::read_to_string(settings["broker_ca"].as_str().unwrap()).unwrap();
        assert_eq!(ca, options.broker_ca);
    }
}
