//! The emulated secure processor of one guest: what was launched, and its answers to guest requests
//! (SEV-SNP firmware ABI, "Guest Messages"; GHCB specification, "SNP Extended Guest Request").

use crate::snp::certificates::{Authorities, CertificateError, Endorsement};
use crate::snp::chip::Chip;
use crate::snp::faults::{Fault, broken};
use crate::snp::product::Tcb;
use crate::snp::report::{self, Fields, Identity, KeyKind};
use crate::snp::table;
use crate::snp::wire::{Answer, Call, KEY_REQUEST, REPORT_REQUEST};
use p384::ecdsa::SigningKey;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;
use x509_cert::der::Encode;

/// What QEMU asks for by default: SMT allowed, the bit that must be one, no debugging.
pub const DEFAULT_POLICY: u64 = 0x3_0000;

const PAGE: usize = 4096;
/// Host error "the room for certificates is too small", in the upper half of SW_EXITINFO2.
const INVALID_LENGTH: u64 = 1 << 32;
/// Host error "busy, ask the same again".
const BUSY: u64 = 2 << 32;
/// Message status INVALID_PARAM.
const INVALID_PARAMETER: u32 = 0x16;
/// ABI version of the emulated firmware: major, minor.
const ABI: (u64, u64) = (1, 55);

/// What a launch fixes for the guest's lifetime.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Guest policy; bits as in the firmware ABI, table "Guest Policy".
    pub policy: u64,
    /// Launch digest.
    pub measurement: [u8; 48],
    /// HOST_DATA.
    pub host_data: [u8; 32],
    /// Random.
    pub report_id: [u8; 32],
    /// Lowest privilege level that the guest's kernel may name.
    pub vmpl: u32,
    /// What the signing key stands for; the certificate follows it.
    pub reported_tcb: Tcb,
    /// What can't be rolled back any more.
    pub committed_tcb: Tcb,
    /// What ran at launch.
    pub launch_tcb: Tcb,
    /// What the ID block says, if there is one.
    pub identity: Option<Identity>,
    /// Version of the reports that the firmware writes: 2, 3 or 5.
    pub report_version: u32,
    /// Whose key signs them.
    pub signing_key: KeyKind,
    /// State of the platform, by bits.
    pub platform_info: u64,
    /// Mitigations in force at launch and now; version 5.
    pub mitigations: [u64; 2],
}

impl Default for Launch {
    /// An empty measurement, on a platform in order.
    fn default() -> Self {
        let tcb = Tcb::default();
        Self {
            policy: DEFAULT_POLICY,
            measurement: [0; 48],
            host_data: [0; 32],
            report_id: [0; 32],
            vmpl: 0,
            reported_tcb: tcb,
            committed_tcb: tcb,
            launch_tcb: tcb,
            identity: None,
            report_version: 3,
            signing_key: KeyKind::Vcek,
            platform_info: report::PLATFORM_INFO,
            mitigations: [0; 2],
        }
    }
}

/// Why a launch was refused.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The firmware would answer POLICY_FAILURE.
    #[error("guest policy {0:#x}: {1}")]
    Policy(u64, &'static str),
    /// The certificate of the chip's key could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A certificate could not be encoded.
    #[error("encoding the certificates table: {0}")]
    Encode(#[from] x509_cert::der::Error),
    /// No firmware writes such reports.
    #[error("report version {0}; the emulated firmware writes 2, 3 and 5")]
    ReportVersion(u32),
}

/// One guest's processor.
pub struct Processor {
    chip: Chip,
    launch: Launch,
    faults: Vec<Fault>,
    key: SigningKey,
    certificates: Vec<u8>,
    busy: AtomicU32,
    short: AtomicU32,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Processor")
            .field("chip", &self.chip)
            .field("launch", &self.launch)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl Processor {
    /// Launches a guest on `chip`, whose key `authorities` certify.
    pub fn launch(
        chip: Chip,
        launch: Launch,
        faults: Vec<Fault>,
        authorities: &Authorities,
        now: SystemTime,
    ) -> Result<Self, LaunchError> {
        check_policy(launch.policy)?;
        if ![2, 3, 5].contains(&launch.report_version) {
            return Err(LaunchError::ReportVersion(launch.report_version));
        }
        let certificates = certificates(&chip, &launch, &faults, authorities, now)?;
        let key = chip.signing_key(launch.signing_key, launch.reported_tcb);
        let (mut busy, mut short) = (0, 0);
        for fault in &faults {
            match fault {
                Fault::Busy(times) => busy = *times,
                Fault::ShortBuffer(times) => short = *times,
                _ => {}
            }
        }
        let (busy, short) = (AtomicU32::new(busy), AtomicU32::new(short));
        Ok(Self { chip, launch, faults, key, certificates, busy, short })
    }

    /// Answers one guest request.
    pub fn answer(&self, call: &Call) -> Answer {
        if once_less(&self.busy) {
            return Answer { exit_info: BUSY, ..Answer::default() };
        }
        match call {
            Call::Report(request) => Answer { message: self.report(request), ..Answer::default() },
            Call::ExtendedReport(request, room) => {
                let pages = self.pages();
                if *room < pages || once_less(&self.short) {
                    return Answer { exit_info: INVALID_LENGTH, pages, ..Answer::default() };
                }
                let certificates = self.certificates.clone();
                Answer { message: self.report(request), certificates, ..Answer::default() }
            }
            Call::DerivedKey(request) => Answer { message: self.derived_key(request), ..Answer::default() },
        }
    }

    fn pages(&self) -> u32 {
        let claimed = self.faults.iter().find_map(|fault| match fault {
            Fault::Pages(pages) => Some(*pages),
            _ => None,
        });
        claimed.unwrap_or(self.certificates.len().div_ceil(PAGE) as u32)
    }

    /// MSG_REPORT_REQ: data 64, privilege level u32, reserved 28. Answer: status u32, size u32, reserved 24,
    /// report.
    fn report(&self, request: &[u8; REPORT_REQUEST]) -> Vec<u8> {
        let (data, rest) = request.split_at(64);
        let vmpl = word(rest);
        let mut message = vec![0; 32];
        if !self.allows(vmpl) || rest[4..].iter().any(|byte| *byte != 0) {
            message[..4].copy_from_slice(&INVALID_PARAMETER.to_le_bytes());
            return message;
        }
        let mut report_data = [0; 64];
        report_data.copy_from_slice(data);
        let fields = Fields {
            version: self.launch.report_version,
            product: self.chip.product(),
            policy: self.launch.policy,
            vmpl,
            platform_info: self.launch.platform_info,
            signing_key: self.launch.signing_key,
            report_data,
            measurement: self.launch.measurement,
            host_data: self.launch.host_data,
            identity: self.launch.identity.clone(),
            report_id: self.launch.report_id,
            reported_tcb: self.launch.reported_tcb,
            current_tcb: self.launch.reported_tcb,
            committed_tcb: self.launch.committed_tcb,
            launch_tcb: self.launch.launch_tcb,
            chip_id: self.chip.id(),
            mitigations: self.launch.mitigations,
        };
        let report = broken::report(&fields, &self.key, &self.faults);
        message[4..8].copy_from_slice(&(report.len() as u32).to_le_bytes());
        message.extend_from_slice(&report);
        message
    }

    /// MSG_KEY_REQ: root key u32, reserved u32, field selection u64, privilege level u32, guest SVN u32, TCB
    /// u64. Answer: status u32, reserved 28, key 32.
    fn derived_key(&self, request: &[u8; KEY_REQUEST]) -> Vec<u8> {
        let (root, reserved, selection) = (word(request), word(&request[4..]), word(&request[8..]));
        let (vmpl, svn) = (word(&request[16..]), word(&request[20..]));
        let mut message = vec![0; 64];
        // Six fields can be selected; this guest's SVN is zero.
        if root > 1
            || reserved != 0
            || selection > 0x3f
            || word(&request[12..]) != 0
            || !self.allows(vmpl)
            || svn != 0
        {
            message[..4].copy_from_slice(&INVALID_PARAMETER.to_le_bytes());
            return message;
        }
        let mut selected = request[..24].to_vec();
        let zero = [0; 16];
        let policy = self.launch.policy.to_le_bytes();
        let fields: [&[u8]; 6] = [&policy, &zero, &zero, &self.launch.measurement, &zero, &request[24..]];
        for (bit, field) in fields.into_iter().enumerate() {
            if selection & 1 << bit != 0 {
                selected.extend_from_slice(field);
            }
        }
        message[32..].copy_from_slice(&*self.chip.derived_key(&selected));
        message
    }

    fn allows(&self, vmpl: u32) -> bool {
        (self.launch.vmpl..=3).contains(&vmpl)
    }
}

fn check_policy(policy: u64) -> Result<(), LaunchError> {
    let refused = |why| Err(LaunchError::Policy(policy, why));
    if policy & 1 << 17 == 0 {
        return refused("bit 17 must be one");
    }
    if policy >> 26 != 0 {
        return refused("reserved bits are set");
    }
    if (policy >> 8 & 0xff, policy & 0xff) > ABI {
        return refused("asks for a newer firmware ABI than 1.55");
    }
    if policy & 1 << 16 == 0 {
        return refused("forbids SMT, which is on");
    }
    Ok(())
}

/// What the host hands out with reports: root, authority, the signing key's certificate, revocation list.
fn certificates(
    chip: &Chip,
    launch: &Launch,
    faults: &[Fault],
    authorities: &Authorities,
    now: SystemTime,
) -> Result<Vec<u8>, LaunchError> {
    let kind = broken::kind(launch.signing_key, faults);
    let mut endorsement = Endorsement::new(kind, launch.reported_tcb, now);
    broken::endorsement(&mut endorsement, faults, now);
    let (authority, above) = authorities.issuer_of(broken::authority(kind, faults));
    let leaf = match launch.signing_key {
        KeyKind::Vcek => table::VCEK,
        KeyKind::Vlek => table::VLEK,
    };
    let mut entries = vec![
        (table::ARK, authorities.ark_certificate.to_der()?),
        (table::ASK, above.to_der()?),
        (leaf, authority.endorse(chip, &endorsement)?.to_der()?),
        (table::CRL, broken::crl(authorities, faults, now)?),
    ];
    broken::leave_out(&mut entries, faults);
    let mut table = table::encode(&entries);
    broken::table(&mut table, faults);
    Ok(table)
}

/// Counts down; false from zero on.
fn once_less(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests;
