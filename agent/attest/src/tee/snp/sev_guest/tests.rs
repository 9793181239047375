//! Answers of `/dev/sev-guest`, good and broken.

use std::sync::Mutex;

use tee_evidence::snp::{CertEntry, CertKind, offset};

use super::*;
use crate::tee::snp::Snp;
use crate::tee::{Binding, Tee};

const BINDING: Binding<'static> = Binding { report_data: &[7; 64], sealed_spec: &[0; 32] };

/// Gives its answers one after the other and notes how much room each request had.
struct Script {
    answers: Mutex<Vec<Result<Answer, i32>>>,
    asked: Mutex<Vec<(u32, u32)>>,
    data: Mutex<Vec<[u8; 64]>>,
    fresh: bool,
}

impl Exchange for std::sync::Arc<Script> {
    fn extended_report(&self, data: &[u8; 64], vmpl: u32, certificates: u32) -> std::io::Result<Answer> {
        self.asked.lock().unwrap().push((vmpl, certificates));
        self.data.lock().unwrap().push(*data);
        let mut answers = self.answers.lock().unwrap();
        let next = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        let mut answer = next.map_err(std::io::Error::from_raw_os_error)?;
        if self.fresh {
            answer.response[ioctl::REPORT_OFFSET + offset::REPORT_DATA..][..64].copy_from_slice(data);
        }
        Ok(answer)
    }
}

fn good() -> Answer {
    let mut response = Box::new([0; ioctl::RESPONSE_LENGTH]);
    response[4..8].copy_from_slice(&1184u32.to_le_bytes());
    let report = &mut response[ioctl::REPORT_OFFSET..];
    report[offset::VERSION] = 2;
    report[offset::HOST_DATA..][..32].fill(0xab);
    let entries = [CertEntry { kind: CertKind::Vcek, data: vec![1, 2, 3] }];
    let mut certificates = CertificateTable::encode(&entries).unwrap();
    certificates.resize(16 * 1024, 0);
    Answer { firmware_error: 0, vmm_error: 0, certificates_length: 16 * 1024, certificates, response }
}

fn vmm(error: u32, length: u32) -> Answer {
    Answer { vmm_error: error, certificates_length: length, ..good() }
}

fn device(answers: Vec<Result<Answer, i32>>, fresh: bool) -> (Snp, std::sync::Arc<Script>) {
    let script = std::sync::Arc::new(Script {
        answers: answers.into(),
        asked: Mutex::default(),
        data: Mutex::default(),
        fresh,
    });
    let device = SevGuest { device: Box::new(script.clone()), vmpl: 2, pause: Duration::ZERO };
    (Snp::new(Box::new(device)), script)
}

fn refused(answers: Vec<Result<Answer, i32>>) -> FirmwareError {
    match device(answers, true).0.report(&[7; 64]) {
        Err(TeeError::Firmware(error)) => error,
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn a_report_with_the_hosts_certificates() {
    let (tee, script) = device(vec![Ok(good())], true);
    assert_eq!(tee.init_data_digest().unwrap(), [0xab; 32]);
    let evidence = tee.evidence(&BINDING).unwrap();
    assert_eq!(evidence["attestation_report"]["report_data"].as_array().unwrap().len(), 64);
    assert_eq!(evidence["cert_chain"][0]["data"], serde_json::json!([1, 2, 3]));
    assert_eq!(*script.asked.lock().unwrap(), [(2, 16 * 1024), (2, 16 * 1024)]);
}

#[test]
fn a_host_without_certificates() {
    let bare = Answer { certificates: vec![0; 16 * 1024], ..good() };
    let evidence = device(vec![Ok(bare)], true).0.evidence(&BINDING).unwrap();
    assert!(evidence["cert_chain"].is_null());
}

#[test]
fn an_old_report_is_not_this_one() {
    let (tee, _) = device(vec![Ok(good())], false);
    assert!(matches!(tee.report(&[7; 64]), Err(TeeError::OtherData)));
    let refusal = tee.init_data_digest().unwrap_err().refusal();
    assert_eq!(refusal.code, protocols::refusal::Code::Evidence);
}

#[test]
fn more_room_for_certificates_once_and_bounded() {
    let (tee, script) = device(vec![Ok(vmm(1, 32 * 1024)), Ok(good())], true);
    tee.report(&[7; 64]).unwrap();
    assert_eq!(*script.asked.lock().unwrap(), [(2, 16 * 1024), (2, 32 * 1024)]);
    // A host that wants ever more, absurdly much, or no more than there was.
    for wanted in [16 * 1024, 0, 65 * 1024, u32::MAX] {
        assert!(
            matches!(refused(vec![Ok(vmm(1, wanted))]), FirmwareError::CertificatesSize(w) if w == wanted)
        );
    }
}

#[test]
fn a_busy_host_is_asked_again_and_not_for_ever() {
    let (tee, script) = device(vec![Err(libc::EAGAIN), Ok(vmm(2, 0)), Err(libc::EINTR), Ok(good())], true);
    tee.report(&[7; 64]).unwrap();
    // For the same report each time: another nonce would be another session's.
    assert_eq!(*script.data.lock().unwrap(), [[7; 64]; 4]);
    assert!(matches!(refused(vec![Ok(vmm(2, 0))]), FirmwareError::Busy));
    assert!(matches!(refused(vec![Err(libc::EBUSY)]), FirmwareError::Busy));
}

#[test]
fn errors_are_told_apart() {
    assert!(matches!(refused(vec![Ok(vmm(7, 0))]), FirmwareError::Vmm(7)));
    assert!(matches!(
        refused(vec![Ok(Answer { firmware_error: 0x16, ..good() })]),
        FirmwareError::Firmware(0x16)
    ));
    assert!(matches!(refused(vec![Err(libc::ENOTTY)]), FirmwareError::Ioctl(_)));
    let mut status = good();
    status.response[0] = 0x16;
    assert!(matches!(refused(vec![Ok(status)]), FirmwareError::Status(0x16)));
}

#[test]
fn lying_sizes_and_tables_are_refused() {
    for size in [0u32, 1183, 1185, u32::MAX] {
        let mut lying = good();
        lying.response[4..8].copy_from_slice(&size.to_le_bytes());
        assert!(matches!(refused(vec![Ok(lying)]), FirmwareError::Size(s) if s == size));
    }
    let mut table = good();
    // The length of the first entry.
    table.certificates[20..24].fill(0xff);
    assert!(matches!(refused(vec![Ok(table)]), FirmwareError::Certificates(_)));
    let mut version = good();
    version.response[ioctl::REPORT_OFFSET] = 6;
    assert!(matches!(device(vec![Ok(version)], true).0.report(&[7; 64]), Err(TeeError::Report(_))));
}
