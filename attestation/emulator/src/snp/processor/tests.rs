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

fn extended(fault: &str) -> Answer {
    let faults = vec![fault.parse().unwrap()];
    processor(launch(), faults).unwrap().answer(&Call::ExtendedReport(request(0), 4))
}

/// Every fault that names a report's field changes that field, all the same signed, and nothing else.
#[test]
fn faults_of_reports_are_signed_unless_they_are_the_signatures() {
    let honest = report(&processor(launch(), Vec::new()).unwrap());
    let key = Chip::new(Product::Milan, [9; SECRET]).signing_key(KeyKind::Vcek, Tcb::default());
    let mut seen = 0;
    for known in crate::snp::faults::KNOWN {
        let fault: Fault = match known.value {
            None => known.name.parse().unwrap(),
            Some(_) => format!("{}={}", known.name, known.example).parse().unwrap(),
        };
        let signed = matches!(fault, Fault::Report(..) | Fault::Tcb(..));
        let unsigned = matches!(fault, Fault::Signature(_) | Fault::Length(_) | Fault::MaskedChipKey);
        if !signed && !unsigned {
            continue;
        }
        seen += 1;
        let answer = processor(launch(), vec![fault]).unwrap().answer(&Call::Report(request(0)));
        let report = &answer.message[32..];
        assert_eq!(word(&answer.message[4..]) as usize, report.len(), "{}", known.name);
        assert_ne!(report, honest, "{}", known.name);
        if signed {
            let mut again: [u8; report::LENGTH] = report.try_into().unwrap();
            again[report::SIGNED..].fill(0);
            report::sign(&mut again, &key);
            assert_eq!(again[..], *report, "{} is signed", known.name);
        }
    }
    assert_eq!(seen, 25, "another fault of reports: does this test look at it?");
}

#[test]
fn signatures_that_are_not_canonical_are_the_same_number() {
    let honest = report(&processor(launch(), Vec::new()).unwrap());
    for (fault, at) in [("high-r", 0x2a0), ("high-s", 0x2e8)] {
        let high = report(&processor(launch(), vec![fault.parse().unwrap()]).unwrap());
        assert_eq!(high[..at], honest[..at], "{fault}");
        // One more than 48 bytes, or the sum would have been below the order.
        assert_ne!(high[at + 47..at + 49], honest[at + 47..at + 49], "{fault}");
        assert_eq!(high[at + 49..at + 72], [0; 23], "{fault}");
    }
}

fn certificates(answer: &Answer) -> Vec<([u8; 16], Vec<u8>)> {
    let table = &answer.certificates;
    let mut out = Vec::new();
    for entry in table.chunks_exact(table::ENTRY) {
        let guid: [u8; 16] = entry[..16].try_into().unwrap();
        if guid == [0; 16] {
            break;
        }
        let (offset, length) = (word(&entry[16..]) as usize, word(&entry[20..]) as usize);
        out.push((guid, table[offset..offset + length].to_vec()));
    }
    out
}

fn leaf(fault: &str) -> Certificate {
    let all = certificates(&extended(fault));
    Certificate::from_der(&all.iter().find(|(guid, _)| *guid == table::VCEK).unwrap().1).unwrap()
}

#[test]
fn faults_of_certificates_show_in_them() {
    let issuer = |fault| leaf(fault).tbs_certificate().issuer().to_string();
    assert!(issuer("signature").contains("CN=SEV-EMULATED Milan"));
    assert!(issuer("other-authority").contains("CN=SEV-VLEK-EMULATED Milan"));
    assert!(leaf("other-kind").tbs_certificate().subject().to_string().contains("SEV-VLEK"));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let validity = |fault| *leaf(fault).tbs_certificate().validity();
    assert!(validity("signature").not_before.to_unix_duration() < now);
    assert!(validity("expired-key").not_after.to_unix_duration() < now);
    assert!(validity("future-key").not_before.to_unix_duration() > now);
    let extensions = |fault| leaf(fault).tbs_certificate().extensions().unwrap().len();
    assert_eq!(extensions("missing-oid=3.2"), extensions("signature") - 1);
    assert_eq!(extensions("extension=5:160178"), extensions("signature") + 1);
    assert!(certificates(&extended("absent-key")).iter().all(|(guid, _)| *guid != table::VCEK));
}

#[test]
fn faults_of_revocation_lists_show_in_them() {
    let list = |fault: &str| {
        let all = certificates(&extended(fault));
        let (_, der) = all.iter().find(|(guid, _)| *guid == table::CRL)?;
        Some(CertificateList::<x509_cert::certificate::Rfc5280>::from_der(der).unwrap().tbs_cert_list)
    };
    assert!(list("absent-crl").is_none());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(list("stale-crl").unwrap().next_update.unwrap().to_unix_duration() < now);
    assert!(list("future-crl").unwrap().this_update.to_unix_duration() > now);
    let revoked = |fault| list(fault).unwrap().revoked_certificates.map(|all| all.len());
    assert_eq!(
        (revoked("signature"), revoked("revoked-ask"), revoked("revoked-asvk")),
        (None, Some(1), Some(1))
    );
    assert!(list("forged-crl").unwrap().issuer.to_string().contains("ARK-EMULATED"));
}

#[test]
fn faults_of_hosts_show_in_their_answers() {
    let guest = processor(launch(), vec![Fault::ShortBuffer(1)]).unwrap();
    let ask = || guest.answer(&Call::ExtendedReport(request(0), 4)).exit_info;
    assert_eq!((ask(), ask()), (INVALID_LENGTH, 0));
    let answer = extended("pages=4294967295");
    assert_eq!((answer.exit_info, answer.pages), (INVALID_LENGTH, u32::MAX));

    let entry = |fault: &str, index: usize| {
        let table = extended(fault).certificates;
        (word(&table[index * 24 + 16..]), word(&table[index * 24 + 20..]))
    };
    let (first, length) = entry("signature", 0);
    assert_eq!(entry("table-overlap", 1).0, first + 1);
    assert_eq!(entry("table-huge", 0), (first, 0xffff_fff0));
    assert_eq!(entry("table-far", 0), (0x7fff_ffff, length));
    assert_eq!(extended("table-duplicate").certificates[24..40], table::ARK);
    let endless = extended("table-unterminated").certificates;
    assert!(endless.len().is_multiple_of(PAGE) && endless.iter().all(|byte| *byte != 0));
    assert_eq!(extended("table-empty").certificates, [0; 24]);
}
