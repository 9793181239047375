//! SEV-SNP: reports of the firmware, by whichever interface the guest's kernel has for them. What comes
//! back is bounded and checked to be for what was asked; what it means is the broker's business.

mod sev_guest;
mod tsm;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocols::rcar::TeeKind;
use serde_json::Value;
use tee_evidence::snp::{CertificateTable, RawReport, Report, json};

use super::{Binding, Tee, TeeError};
pub use sev_guest::{Exchange, FirmwareError, SevGuest};
pub use tsm::{Configfs, Directories, Tsm, TsmError};

/// The highest privilege level, and number, that there is.
const LEAST_PRIVILEGED: u32 = 3;

/// Where reports come from. A busy firmware is asked again for the same report, never for another.
pub trait Reports: Send + Sync {
    /// A report that should be over `report_data`, and the certificates that the host supplied.
    fn report(&self, report_data: &[u8; 64]) -> Result<(RawReport, CertificateTable), TeeError>;
}

/// SEV-SNP.
pub struct Snp {
    reports: Box<dyn Reports>,
}

/// Where the kernel shows what there is of SEV-SNP.
pub(super) struct Places {
    /// The driver's device.
    pub(super) device: PathBuf,
    /// Report directories of configfs.
    pub(super) tsm: PathBuf,
    /// At which privilege level this guest runs (below an SVSM it isn't 0).
    pub(super) vmpl: PathBuf,
    /// What only an SEV-SNP guest's kernel makes, whether reports can be had or not.
    pub(super) signs: Vec<PathBuf>,
}

impl Places {
    pub(super) fn guest() -> Self {
        Self {
            device: sev_guest::DEVICE.into(),
            tsm: tsm::DIRECTORY.into(),
            vmpl: "/sys/devices/system/cpu/sev/vmpl".into(),
            signs: vec!["/sys/devices/platform/sev-guest".into(), "/sys/devices/system/cpu/sev".into()],
        }
    }
}

/// SEV-SNP, if this guest has it: by the device, else by configfs-tsm. One that is there and fails is not
/// passed over for the other.
pub(super) fn find(places: &Places) -> Result<Option<Arc<dyn Tee>>, TeeError> {
    if places.device.exists() {
        let reports = SevGuest::open(&places.device, vmpl(&places.vmpl)?.unwrap_or(0))?;
        return Ok(Some(Arc::new(Snp::new(Box::new(reports)))));
    }
    if let Some(tsm) = Tsm::open(Box::new(Configfs::new(&places.tsm)), vmpl(&places.vmpl)?)? {
        return Ok(Some(Arc::new(Snp::new(Box::new(tsm)))));
    }
    if places.signs.iter().any(|sign| sign.exists()) {
        return Err(TeeError::NoSource { device: sev_guest::DEVICE });
    }
    Ok(None)
}

/// What the kernel says; kernels before 6.12 don't, and can't run below an SVSM.
fn vmpl(path: &Path) -> Result<Option<u32>, TeeError> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| TeeError::Open { path: path.display().to_string(), source })?,
    };
    match text.trim().parse() {
        Ok(level) if level <= LEAST_PRIVILEGED => Ok(Some(level)),
        _ => Err(TeeError::Vmpl {
            path: path.display().to_string(),
            value: text.trim().chars().take(16).collect(),
        }),
    }
}

impl Snp {
    /// With this source of reports.
    pub fn new(reports: Box<dyn Reports>) -> Self {
        Self { reports }
    }

    /// A report over `report_data`, and the certificates that the host supplied.
    pub fn report(&self, report_data: &[u8; 64]) -> Result<(RawReport, Report, CertificateTable), TeeError> {
        let (raw, certificates) = self.reports.report(report_data)?;
        let report = Report::from_raw(&raw).map_err(TeeError::Report)?;
        // An old report can't be passed off as this one, nor one that somebody else asked for.
        if report.report_data != *report_data {
            return Err(TeeError::OtherData);
        }
        Ok((raw, report, certificates))
    }
}

impl Tee for Snp {
    fn kind(&self) -> TeeKind {
        TeeKind::Snp
    }

    fn init_data_digest(&self) -> Result<[u8; 32], TeeError> {
        // A fresh value each time.
        let mut report_data = [0; 64];
        getrandom::fill(&mut report_data[..48]).map_err(TeeError::Random)?;
        Ok(self.report(&report_data)?.1.host_data)
    }

    fn evidence(&self, binding: &Binding<'_>) -> Result<Value, TeeError> {
        // The sealed spec is in HOST_DATA, which the report carries.
        let (report, _, certificates) = self.report(binding.report_data)?;
        json::to_kbs(&report, certificates.entries()).map_err(TeeError::Json)
    }
}

#[cfg(test)]
mod tests;
