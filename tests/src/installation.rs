//! Finds what `make guest` built; a missing piece is a message with the command that makes it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The built programs and guest files.
#[derive(Clone, Debug)]
pub struct Installation {
    binaries: PathBuf,
    guest: PathBuf,
}

impl Installation {
    /// Looks under `$CARGO_TARGET_DIR`, else under the checkout's `target`.
    ///
    /// # Errors
    /// Names the first missing file and the command that makes it.
    pub fn find() -> Result<Self> {
        let target = Self::target_directory();
        let found =
            Self { binaries: target.join("x86_64-unknown-linux-gnu/release"), guest: target.join("guest") };
        let binaries = ["sealpod", "sealpod-agent", "sealpod-broker", "sealpod-relay", "sealpod-emulator"];
        let guest = ["bzImage", "initrd-test.img", "initrd-production.img", "firmware.fd"];
        let expected = binaries
            .map(|name| found.binary(name))
            .into_iter()
            .chain(guest.map(|name| found.guest_file(name)));
        for path in expected {
            if !path.is_file() {
                bail!("{} is missing: run 'make guest' first", path.display());
            }
        }
        Ok(found)
    }

    /// Where cargo builds.
    #[must_use]
    pub fn target_directory() -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Self::repository().join("target"), PathBuf::from)
    }

    /// A built program.
    #[must_use]
    pub fn binary(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// A file that a guest boots from.
    #[must_use]
    pub fn guest_file(&self, name: &str) -> PathBuf {
        self.guest.join(name)
    }

    /// The checkout.
    #[must_use]
    pub fn repository() -> PathBuf {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.parent().unwrap_or(here).to_owned()
    }
}
