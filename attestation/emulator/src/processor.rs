//! The emulated secure processor of one guest: what was launched, and its answers to guest requests
//! (SEV-SNP firmware ABI, "Guest Messages"; GHCB specification, "SNP Extended Guest Request").

use crate::certificates::{Authority, CertificateError};
use crate::chip::Chip;
use crate::guid::as_written;
use crate::product::Tcb;
use crate::report::{self, Fields};
use crate::wire::{Answer, Call, KEY_REQUEST, REPORT_REQUEST};
use p384::ecdsa::SigningKey;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;
use x509_cert::certificate::Certificate;
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

const ARK: [u8; 16] = as_written("c0b406a4-a803-4952-9743-3fb6014cd0ae");
const ASK: [u8; 16] = as_written("4ab7b379-bbac-4fe4-a02f-05aef327c782");
const VCEK: [u8; 16] = as_written("63da758d-e664-4564-adc5-f4b93be8accd");

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
}

/// Lies and failures that real hardware does not show at will.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The host answers this many requests with "busy" before it works.
    pub busy: u32,
    /// Reports name this policy, whatever was launched.
    pub policy: Option<u64>,
    /// Reports name this privilege level, whatever was asked.
    pub vmpl: Option<u32>,
    /// Reports name this chip, whose certificate it isn't.
    pub chip_id: Option<[u8; 64]>,
    /// Reports name this TCB, whose certificate it isn't.
    pub reported_tcb: Option<Tcb>,
    /// One bit of the signature is wrong.
    pub signature: bool,
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
}

/// One guest's processor.
pub struct Processor {
    chip: Chip,
    launch: Launch,
    faults: Faults,
    key: SigningKey,
    certificates: Vec<u8>,
    busy: AtomicU32,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Processor")
            .field("chip", &self.chip)
            .field("launch", &self.launch)
            .finish_non_exhaustive()
    }
}

impl Processor {
    /// Launches a guest on `chip`, whose key `ask` certifies; `above` are the ARK's and ASK's certificates.
    pub fn launch(
        chip: Chip,
        launch: Launch,
        faults: Faults,
        ask: &Authority,
        above: [&Certificate; 2],
        now: SystemTime,
    ) -> Result<Self, LaunchError> {
        check_policy(launch.policy)?;
        let vcek = ask.issue_vcek(&chip, launch.reported_tcb, now)?;
        let certificates =
            table(&[(ARK, above[0].to_der()?), (ASK, above[1].to_der()?), (VCEK, vcek.to_der()?)]);
        let key = chip.vcek(launch.reported_tcb);
        let busy = AtomicU32::new(faults.busy);
        Ok(Self { chip, launch, faults, key, certificates, busy })
    }

    /// Answers one guest request.
    pub fn answer(&self, call: &Call) -> Answer {
        if self.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Answer { exit_info: BUSY, ..Answer::default() };
        }
        match call {
            Call::Report(request) => Answer { message: self.report(request), ..Answer::default() },
            Call::ExtendedReport(request, room) => {
                let pages = self.certificates.len().div_ceil(PAGE) as u32;
                if *room < pages {
                    return Answer { exit_info: INVALID_LENGTH, pages, ..Answer::default() };
                }
                let certificates = self.certificates.clone();
                Answer { message: self.report(request), certificates, ..Answer::default() }
            }
            Call::DerivedKey(request) => Answer { message: self.derived_key(request), ..Answer::default() },
        }
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
            product: self.chip.product(),
            policy: self.faults.policy.unwrap_or(self.launch.policy),
            vmpl: self.faults.vmpl.unwrap_or(vmpl),
            report_data,
            measurement: self.launch.measurement,
            host_data: self.launch.host_data,
            report_id: self.launch.report_id,
            reported_tcb: self.faults.reported_tcb.unwrap_or(self.launch.reported_tcb),
            current_tcb: self.launch.reported_tcb,
            committed_tcb: self.launch.committed_tcb,
            launch_tcb: self.launch.launch_tcb,
            chip_id: self.faults.chip_id.unwrap_or_else(|| self.chip.id()),
        };
        let mut report = fields.sign(&self.key);
        if self.faults.signature {
            report[0x2a0] ^= 1;
        }
        message[4..8].copy_from_slice(&(report::LENGTH as u32).to_le_bytes());
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

/// GHCB specification, "SNP certificate table": GUID, offset u32, length u32 each; a zero entry ends it.
fn table(entries: &[([u8; 16], Vec<u8>)]) -> Vec<u8> {
    let mut offset = (entries.len() + 1) * 24;
    let mut table = Vec::new();
    for (guid, data) in entries {
        table.extend_from_slice(guid);
        table.extend_from_slice(&(offset as u32).to_le_bytes());
        table.extend_from_slice(&(data.len() as u32).to_le_bytes());
        offset += data.len();
    }
    table.extend_from_slice(&[0; 24]);
    for (_, data) in entries {
        table.extend_from_slice(data);
    }
    table
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::tests::authorities;
    use crate::chip::SECRET;
    use crate::product::Product;
    use x509_cert::der::Decode;

    fn launch() -> Launch {
        Launch {
            policy: DEFAULT_POLICY,
            measurement: [1; 48],
            host_data: [2; 32],
            report_id: [3; 32],
            vmpl: 0,
            reported_tcb: Tcb::default(),
            committed_tcb: Tcb::default(),
            launch_tcb: Tcb::default(),
        }
    }

    fn processor(launch: Launch, faults: Faults) -> Result<Processor, LaunchError> {
        let all = authorities();
        let above = [&all.ark_certificate, &all.ask_certificate];
        Processor::launch(
            Chip::new(Product::Milan, [9; SECRET]),
            launch,
            faults,
            &all.ask,
            above,
            SystemTime::now(),
        )
    }

    fn request(vmpl: u32) -> [u8; REPORT_REQUEST] {
        let mut request = [0; REPORT_REQUEST];
        request[..64].fill(0x5a);
        request[64..68].copy_from_slice(&vmpl.to_le_bytes());
        request
    }

    fn report(processor: &Processor) -> Vec<u8> {
        let answer = processor.answer(&Call::Report(request(0)));
        assert_eq!(answer.exit_info, 0);
        assert_eq!(answer.message[..8], [0, 0, 0, 0, 0xa0, 4, 0, 0]);
        answer.message[32..].to_vec()
    }

    #[test]
    fn a_report_binds_the_launch_and_the_guests_data() {
        let processor = processor(launch(), Faults::default()).unwrap();
        let report = report(&processor);
        assert_eq!(report[0x50..0x90], [0x5a; 64]);
        assert_eq!(report[0x90..0xc0], [1; 48]);
        assert_eq!(report[0xc0..0xe0], [2; 32]);
        assert_eq!(report[0x1a0..0x1e0], Chip::new(Product::Milan, [9; SECRET]).id());
    }

    #[test]
    fn an_extended_report_needs_room_for_the_certificates() {
        let processor = processor(launch(), Faults::default()).unwrap();
        let pages = processor.certificates.len().div_ceil(PAGE) as u32;
        for room in 0..pages {
            let answer = processor.answer(&Call::ExtendedReport(request(0), room));
            assert_eq!((answer.exit_info, answer.pages), (INVALID_LENGTH, pages), "room {room}");
            assert!(answer.message.is_empty() && answer.certificates.is_empty());
        }
        let answer = processor.answer(&Call::ExtendedReport(request(0), pages));
        assert_eq!(answer.exit_info, 0);
        let entry = |index: usize| {
            let entry = &answer.certificates[index * 24..][..24];
            let (offset, length) = (word(&entry[16..]) as usize, word(&entry[20..]) as usize);
            (entry[..16].to_vec(), answer.certificates[offset..offset + length].to_vec())
        };
        for (index, guid) in [ARK, ASK, VCEK].into_iter().enumerate() {
            let (found, der) = entry(index);
            assert_eq!(found, guid);
            Certificate::from_der(&der).unwrap();
        }
        assert_eq!(answer.certificates[72..96], [0; 24]);
    }

    #[test]
    fn requests_outside_the_abi_get_invalid_parameter() {
        let guest = processor(Launch { vmpl: 1, ..launch() }, Faults::default()).unwrap();
        let status = |request| word(&guest.answer(&Call::Report(request)).message);
        assert_eq!(status(request(1)), 0);
        assert_eq!(status(request(0)), INVALID_PARAMETER, "below the guest's own level");
        assert_eq!(status(request(4)), INVALID_PARAMETER);
        let mut reserved = request(1);
        reserved[95] = 1;
        assert_eq!(status(reserved), INVALID_PARAMETER);
    }

    #[test]
    fn policies_that_the_firmware_refuses_are_refused() {
        let refused = |policy| {
            matches!(
                processor(Launch { policy, ..launch() }, Faults::default()),
                Err(LaunchError::Policy(..))
            )
        };
        assert!(refused(0x1_0000), "bit 17");
        assert!(refused(0x2_0000), "SMT");
        assert!(refused(0x3_0000 | 1 << 26));
        assert!(refused(0x3_0200), "ABI 2.0");
        assert!(!refused(0xb_0000), "debugging is the owner's to refuse");
        assert!(!refused(0x3_0137));
    }

    #[test]
    fn a_busy_host_answers_after_that_many_requests() {
        let processor = processor(launch(), Faults { busy: 2, ..Faults::default() }).unwrap();
        let info = || processor.answer(&Call::Report(request(0))).exit_info;
        assert_eq!([info(), info(), info(), info()], [BUSY, BUSY, 0, 0]);
    }

    #[test]
    fn each_fault_shows_in_the_report_only() {
        let honest = report(&processor(launch(), Faults::default()).unwrap());
        let with = |faults| report(&processor(launch(), faults).unwrap());
        let differs = |other: &[u8], from: usize, to: usize| {
            (0..0x2a0).filter(|at| other[*at] != honest[*at]).all(|at| (from..to).contains(&at))
                && other[from..to] != honest[from..to]
        };
        assert!(differs(&with(Faults { policy: Some(0xb_0000), ..Faults::default() }), 0x08, 0x10));
        assert!(differs(&with(Faults { vmpl: Some(2), ..Faults::default() }), 0x30, 0x34));
        assert!(differs(&with(Faults { chip_id: Some([7; 64]), ..Faults::default() }), 0x1a0, 0x1e0));
        let tcb = Tcb { snp: 1, ..Tcb::default() };
        assert!(differs(&with(Faults { reported_tcb: Some(tcb), ..Faults::default() }), 0x180, 0x188));
        let forged = with(Faults { signature: true, ..Faults::default() });
        assert_eq!(forged[..0x2a0], honest[..0x2a0]);
        assert_ne!(forged[0x2a0..], honest[0x2a0..]);
    }

    #[test]
    fn derived_keys_depend_on_what_is_selected() {
        let guest = processor(launch(), Faults::default()).unwrap();
        let other = processor(Launch { measurement: [4; 48], ..launch() }, Faults::default()).unwrap();
        let key = |processor: &Processor, selection: u8| {
            let mut request = [0; KEY_REQUEST];
            request[8] = selection;
            let message = processor.answer(&Call::DerivedKey(request)).message;
            (word(&message), message[32..].to_vec())
        };
        assert_eq!(key(&guest, 0), key(&guest, 0));
        assert_eq!(key(&guest, 0), key(&other, 0));
        assert_ne!(key(&guest, 8), key(&other, 8));
        assert_eq!(key(&guest, 0x40), (INVALID_PARAMETER, vec![0; 32]));
    }
}
