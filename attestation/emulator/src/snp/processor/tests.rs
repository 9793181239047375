//! What guests get, honestly and under each fault.

use super::*;
use crate::snp::certificates::tests::authorities;
use crate::snp::chip::SECRET;
use crate::snp::product::Product;
use x509_cert::certificate::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

fn launch() -> Launch {
    Launch { measurement: [1; 48], host_data: [2; 32], report_id: [3; 32], ..Launch::default() }
}

fn processor(launch: Launch, faults: Vec<Fault>) -> Result<Processor, LaunchError> {
    let chip = Chip::new(Product::Milan, [9; SECRET]);
    Processor::launch(chip, launch, faults, authorities(), SystemTime::now())
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
    let processor = processor(launch(), Vec::new()).unwrap();
    let report = report(&processor);
    assert_eq!(report[0x50..0x90], [0x5a; 64]);
    assert_eq!(report[0x90..0xc0], [1; 48]);
    assert_eq!(report[0xc0..0xe0], [2; 32]);
    assert_eq!(report[0x1a0..0x1e0], Chip::new(Product::Milan, [9; SECRET]).id());
}

#[test]
fn an_extended_report_needs_room_for_the_certificates() {
    let processor = processor(launch(), Vec::new()).unwrap();
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
    for (index, guid) in [table::ARK, table::ASK, table::VCEK].into_iter().enumerate() {
        let (found, der) = entry(index);
        assert_eq!(found, guid);
        Certificate::from_der(&der).unwrap();
    }
    let (guid, list) = entry(3);
    assert_eq!(guid, table::CRL);
    CertificateList::<x509_cert::certificate::Rfc5280>::from_der(&list).unwrap();
    assert_eq!(answer.certificates[96..120], [0; 24]);
}

#[test]
fn requests_outside_the_abi_get_invalid_parameter() {
    let guest = processor(Launch { vmpl: 1, ..launch() }, Vec::new()).unwrap();
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
    let refused =
        |policy| matches!(processor(Launch { policy, ..launch() }, Vec::new()), Err(LaunchError::Policy(..)));
    assert!(refused(0x1_0000), "bit 17");
    assert!(refused(0x2_0000), "SMT");
    assert!(refused(0x3_0000 | 1 << 26));
    assert!(refused(0x3_0200), "ABI 2.0");
    assert!(!refused(0xb_0000), "debugging is the owner's to refuse");
    assert!(!refused(0x3_0137));
}

#[test]
fn a_busy_host_answers_after_that_many_requests() {
    let processor = processor(launch(), vec![Fault::Busy(2)]).unwrap();
    let info = || processor.answer(&Call::Report(request(0))).exit_info;
    assert_eq!([info(), info(), info(), info()], [BUSY, BUSY, 0, 0]);
}

#[test]
fn each_fault_shows_in_the_report_only() {
    let honest = report(&processor(launch(), Vec::new()).unwrap());
    let with = |fault: &str| report(&processor(launch(), vec![fault.parse().unwrap()]).unwrap());
    let differs = |other: &[u8], from: usize, to: usize| {
        (0..0x2a0).filter(|at| other[*at] != honest[*at]).all(|at| (from..to).contains(&at))
            && other[from..to] != honest[from..to]
    };
    assert!(differs(&with("policy=b0000"), 0x08, 0x10));
    assert!(differs(&with("vmpl=2"), 0x30, 0x34));
    assert!(differs(&with(&format!("chip-id={}", "07".repeat(64))), 0x1a0, 0x1e0));
    assert!(differs(&with("reported-tcb=snp=1"), 0x180, 0x188));
    let forged = with("signature");
    assert_eq!(forged[..0x2a0], honest[..0x2a0]);
    assert_ne!(forged[0x2a0..], honest[0x2a0..]);
}

#[test]
fn derived_keys_depend_on_what_is_selected() {
    let guest = processor(launch(), Vec::new()).unwrap();
    let other = processor(Launch { measurement: [4; 48], ..launch() }, Vec::new()).unwrap();
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
