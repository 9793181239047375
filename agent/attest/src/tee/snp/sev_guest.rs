//! Reports by `/dev/sev-guest`: extended guest requests (GHCB 56421 section 4.1.8), Linux'
//! `SNP_GET_EXT_REPORT`.

mod ioctl;

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use tee_evidence::snp::{CertificateTable, RawReport, TableError};
use thiserror::Error;

use super::Reports;
use crate::tee::TeeError;

/// The kernel's device node.
pub(in crate::tee) const DEVICE: &str = "/dev/sev-guest";

/// VMM error codes in the upper half of exitinfo2.
const VMM_CERTIFICATES_TOO_LONG: u32 = 1;
const VMM_BUSY: u32 = 2;

/// Linux refuses more than four pages; others may have a larger table, which is still bounded.
const FIRST_CERTIFICATES: u32 = 16 * 1024;
/// A busy firmware is asked again this often.
const BUSY_ATTEMPTS: u32 = 20;

/// Why the firmware gave no report.
#[derive(Debug, Error)]
pub enum FirmwareError {
    /// The ioctl failed without an answer from firmware or VMM.
    #[error("the request to {DEVICE} failed")]
    Ioctl(#[source] std::io::Error),
    /// The VMM refused.
    #[error("the host's VMM refused the request (error {0})")]
    Vmm(u32),
    /// The VMM said 'busy' each time.
    #[error("the host's VMM stayed busy")]
    Busy,
    /// The firmware refused.
    #[error("the firmware refused the request (error {0:#x})")]
    Firmware(u32),
    /// The response has a status.
    #[error("the firmware's response has status {0:#x}")]
    Status(u32),
    /// The response names a size that no report has.
    #[error("the firmware's response has {0} bytes of report")]
    Size(u32),
    /// The host's certificates need more room than is ever given.
    #[error("the host's certificate table wants {0} bytes")]
    CertificatesSize(u32),
    /// The host's certificates are malformed.
    #[error("the host's certificate table is malformed")]
    Certificates(#[source] TableError),
}

/// One extended report request; tests stand in for the device here.
pub trait Exchange: Send + Sync {
    /// Asks for a report over `data` at `vmpl`, with room for `certificates` bytes of table.
    fn extended_report(&self, data: &[u8; 64], vmpl: u32, certificates: u32) -> std::io::Result<Answer>;
}

/// What came back.
#[derive(Clone)]
pub struct Answer {
    /// Firmware error, lower half of exitinfo2; 0 is success.
    pub firmware_error: u32,
    /// VMM error, upper half.
    pub vmm_error: u32,
    /// How long the host says its certificate table is.
    pub certificates_length: u32,
    /// The buffer for the table.
    pub certificates: Vec<u8>,
    /// Status, size, reserved, report.
    pub response: Box<[u8; ioctl::RESPONSE_LENGTH]>,
}

/// The device.
pub struct SevGuest {
    device: Box<dyn Exchange>,
    vmpl: u32,
    pause: Duration,
}

impl SevGuest {
    /// Opens the device, for reports at that privilege level.
    pub fn open(path: &Path, vmpl: u32) -> Result<Self, TeeError> {
        let device = ioctl::Device::open(path)
            .map_err(|source| TeeError::Open { path: path.display().to_string(), source })?;
        Ok(Self { device: Box::new(device), vmpl, pause: Duration::from_millis(100) })
    }

    fn ask(&self, report_data: &[u8; 64]) -> Result<Answer, FirmwareError> {
        let mut room = FIRST_CERTIFICATES;
        for _ in 0..BUSY_ATTEMPTS {
            let answer = match self.device.extended_report(report_data, self.vmpl, room) {
                // The kernel's own patience with a busy VMM ended, or a signal came.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EINTR)) =>
                {
                    sleep(self.pause);
                    continue;
                }
                other => other.map_err(FirmwareError::Ioctl)?,
            };
            match (answer.vmm_error, answer.firmware_error) {
                (0, 0) => return Ok(answer),
                (VMM_BUSY, _) => sleep(self.pause),
                (VMM_CERTIFICATES_TOO_LONG, _) => {
                    let wanted = answer.certificates_length;
                    if wanted <= room || wanted as usize > CertificateTable::MAX_BYTES {
                        return Err(FirmwareError::CertificatesSize(wanted));
                    }
                    room = wanted;
                }
                (0, firmware) => return Err(FirmwareError::Firmware(firmware)),
                (vmm, _) => return Err(FirmwareError::Vmm(vmm)),
            }
        }
        Err(FirmwareError::Busy)
    }
}

impl Reports for SevGuest {
    fn report(&self, report_data: &[u8; 64]) -> Result<(RawReport, CertificateTable), TeeError> {
        let answer = self.ask(report_data)?;
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| answer.response[at + i]));
        if word(0) != 0 {
            return Err(FirmwareError::Status(word(0)).into());
        }
        if word(4) as usize != RawReport::LEN {
            return Err(FirmwareError::Size(word(4)).into());
        }
        let report = RawReport::from_bytes(&answer.response[ioctl::REPORT_OFFSET..][..RawReport::LEN])
            .map_err(TeeError::Report)?;
        let certificates =
            CertificateTable::parse(&answer.certificates).map_err(FirmwareError::Certificates)?;
        Ok((report, certificates))
    }
}

#[cfg(test)]
mod tests;
