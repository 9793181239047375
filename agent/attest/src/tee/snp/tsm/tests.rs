//! configfs-tsm against a kernel in this process that goes by the kernel's documentation, with one thing
//! wrong at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use protocols::refusal::Code;
use tee_evidence::snp::{CertEntry, CertKind, offset};

use super::*;
use crate::tee::snp::Snp;
use crate::tee::{Binding, Tee};

const BINDING: Binding<'static> = Binding { report_data: &[7; 64], sealed_spec: &[0; 32] };

/// What is wrong with the kernel, or the guest around us.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    /// No TEE has registered.
    NoProvider,
    /// The directory can't be made.
    Denied,
    Provider(&'static str),
    /// Somebody else writes into our directory, in the first so many requests.
    Races(u32),
    /// The firmware is busy so many times.
    Busy(u32),
    /// The read of the report fails.
    Fails(i32),
    /// A report over other data.
    OtherData,
    Report(usize),
    Certificates(usize),
    BrokenCertificates,
    Floor(&'static str),
    /// A provider without levels and certificates.
    Plain,
    Generation(&'static str),
}

#[derive(Default)]
struct Kernel {
    directories: BTreeMap<String, Request>,
    made: u32,
    busy: u32,
    /// What was asked for, as (data, level).
    asked: Vec<(Vec<u8>, Option<String>)>,
}

#[derive(Default)]
struct Request {
    number: u32,
    generation: u64,
    data: Option<Vec<u8>>,
    level: Option<String>,
}

#[derive(Clone)]
struct Fake(Arc<Mutex<Kernel>>, Fault);

fn error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl Directories for Fake {
    fn available(&self) -> bool {
        true
    }

    fn make(&self, name: &str) -> io::Result<()> {
        match self.1 {
            Fault::NoProvider => return Err(error(libc::ENXIO)),
            Fault::Denied => return Err(error(libc::EACCES)),
            _ => {}
        }
        let mut kernel = self.0.lock().unwrap();
        kernel.made += 1;
        let request = Request { number: kernel.made, ..Request::default() };
        assert!(kernel.directories.insert(name.to_owned(), request).is_none(), "a name used twice");
        Ok(())
    }

    fn read(&self, name: &str, attribute: &str, limit: usize) -> io::Result<Vec<u8>> {
        let mut kernel = self.0.lock().unwrap();
        let busy = kernel.busy;
        let request = kernel.directories.get_mut(name).unwrap();
        let asked = (request.data.clone(), request.level.clone());
        let mut bytes = match (attribute, self.1) {
            ("provider", Fault::Provider(provider)) => provider.into(),
            ("provider", _) => b"sev_guest\n".to_vec(),
            ("generation", Fault::Generation(text)) => text.into(),
            ("generation", _) => format!("{}\n", request.generation).into(),
            ("privlevel_floor" | "auxblob", Fault::Plain) => return Err(error(libc::ENOENT)),
            ("privlevel_floor", Fault::Floor(floor)) => floor.into(),
            ("privlevel_floor", _) => b"1\n".to_vec(),
            ("outblob", Fault::Fails(errno)) => return Err(error(errno)),
            ("outblob", fault) => {
                // The device opens for the directory's first request after `open`'s own directory.
                if matches!(fault, Fault::Races(times) if request.number <= times + 1) {
                    request.generation += 1;
                }
                let data = asked.0.clone().ok_or_else(|| error(libc::EINVAL))?;
                kernel.asked.push((data.clone(), asked.1));
                if matches!(fault, Fault::Busy(times) if busy < times) {
                    kernel.busy += 1;
                    return Err(error([libc::EAGAIN, libc::EBUSY, libc::EINTR][busy as usize % 3]));
                }
                let mut report = vec![0; if let Fault::Report(length) = fault { length } else { 1184 }];
                report[offset::VERSION] = 2;
                report[offset::REPORT_DATA..][..64].copy_from_slice(&data);
                report[offset::HOST_DATA..][..32].fill(0xab);
                report[offset::REPORT_DATA] ^= u8::from(fault == Fault::OtherData);
                report
            }
            ("auxblob", fault) => {
                let entries = [CertEntry { kind: CertKind::Vcek, data: vec![1, 2, 3] }];
                let mut table = CertificateTable::encode(&entries).unwrap();
                match fault {
                    Fault::Certificates(length) => table.resize(length, 0),
                    Fault::BrokenCertificates => table[20..24].fill(0xff),
                    _ => {}
                }
                table
            }
            _ => return Err(error(libc::ENOENT)),
        };
        bytes.truncate(limit);
        Ok(bytes)
    }

    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        let mut kernel = self.0.lock().unwrap();
        let request = kernel.directories.get_mut(name).unwrap();
        request.generation += 1;
        match attribute {
            "inblob" => request.data = Some(bytes.to_vec()),
            "privlevel" => request.level = Some(String::from_utf8(bytes.to_vec()).unwrap()),
            _ => panic!("{attribute} is written"),
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().unwrap().directories.remove(name).map(|_| ()).ok_or_else(|| error(libc::ENOENT))
    }
}

fn kernel(fault: Fault) -> Fake {
    Fake(Arc::default(), fault)
}

fn open(fake: &Fake, vmpl: Option<u32>) -> Result<Option<Snp>, TeeError> {
    let tsm = Tsm::open(Box::new(fake.clone()), vmpl)?;
    Ok(tsm.map(|tsm| Snp::new(Box::new(Tsm { pause: Duration::ZERO, ..tsm }))))
}

/// What a request ends with; its directory is gone in each case.
fn result(fault: Fault) -> Result<serde_json::Value, TeeError> {
    let fake = kernel(fault);
    let result = open(&fake, None).and_then(|snp| snp.unwrap().evidence(&BINDING));
    assert!(fake.0.lock().unwrap().directories.is_empty(), "{fault:?} leaves a directory");
    result
}

fn refused(fault: Fault) -> TsmError {
    match result(fault) {
        Err(TeeError::Tsm(error)) => error,
        other => panic!("{fault:?}: {:?}", other.map(|_| ())),
    }
}

#[test]
fn a_report_with_the_hosts_certificates() {
    let fake = kernel(Fault::None);
    let snp = open(&fake, None).unwrap().unwrap();
    assert_eq!(snp.init_data_digest().unwrap(), [0xab; 32]);
    let evidence = snp.evidence(&BINDING).unwrap();
    assert_eq!(evidence["attestation_report"]["report_data"].as_array().unwrap().len(), 64);
    assert_eq!(evidence["cert_chain"][0]["data"], serde_json::json!([1, 2, 3]));
    let kernel = fake.0.lock().unwrap();
    assert_eq!(kernel.asked[1], (vec![7; 64], Some("1".to_owned())));
    assert_ne!(kernel.asked[0].0, kernel.asked[1].0);
    assert!(kernel.directories.is_empty());
}

#[test]
fn a_provider_without_levels_or_certificates() {
    assert!(result(Fault::Plain).unwrap()["cert_chain"].is_null());
}

#[test]
fn at_the_level_that_the_guest_runs_at() {
    let fake = kernel(Fault::None);
    open(&fake, Some(2)).unwrap().unwrap().evidence(&BINDING).unwrap();
    assert_eq!(fake.0.lock().unwrap().asked[0].1.as_deref(), Some("2"));
    // The provider refuses to speak for one that is more privileged than its own.
    let refused = open(&fake, Some(0)).unwrap().unwrap().evidence(&BINDING);
    assert!(matches!(refused, Err(TeeError::Tsm(TsmError::Level { level: 0, floor: 1 }))));
    for floor in ["4\n", "-1\n", "", "1 2", "0x1", "99999999999999999999"] {
        assert!(matches!(refused_floor(floor), TsmError::Number("privlevel_floor")), "{floor}");
    }
}

fn refused_floor(floor: &'static str) -> TsmError {
    refused(Fault::Floor(floor))
}

#[test]
fn without_a_provider_there_is_no_tee_here() {
    assert!(open(&kernel(Fault::NoProvider), None).unwrap().is_none());
    // Any other failure is one.
    assert!(matches!(
        open(&kernel(Fault::Denied), None),
        Err(TeeError::Tsm(TsmError::Make(error))) if error.raw_os_error() == Some(libc::EACCES)
    ));
}

#[test]
fn another_tees_provider_is_refused() {
    for provider in ["tdx_guest\n", "sev_guest2", "", "sev_guest\n\n", "SEV_GUEST"] {
        assert!(matches!(refused(Fault::Provider(provider)), TsmError::Provider(_)), "{provider}");
    }
    assert!(matches!(
        refused(Fault::Provider("0123456789012345678901234567890123456789012345678901234567890123456789")),
        TsmError::Long { attribute: "provider", .. }
    ));
}

#[test]
fn a_race_is_run_again_and_not_for_ever() {
    let fake = kernel(Fault::Races(3));
    open(&fake, None).unwrap().unwrap().evidence(&BINDING).unwrap();
    {
        let kernel = fake.0.lock().unwrap();
        // In another directory each time, for the same report.
        assert_eq!((kernel.made, kernel.asked.len()), (5, 4));
        assert!(kernel.asked.iter().all(|asked| asked.0 == [7; 64]));
    }
    assert!(matches!(refused(Fault::Races(100)), TsmError::Race));
}

#[test]
fn generations_that_are_no_numbers() {
    for text in ["", "x", "-1", "1\n2\n", "18446744073709551616"] {
        assert!(matches!(refused(Fault::Generation(text)), TsmError::Number("generation")), "{text}");
    }
    // One that doesn't count our writes, or can't.
    assert!(matches!(refused(Fault::Generation("5")), TsmError::Race));
    assert!(matches!(refused(Fault::Generation("18446744073709551615")), TsmError::Race));
}

#[test]
fn a_busy_firmware_is_asked_again_for_the_same_report() {
    let fake = kernel(Fault::Busy(3));
    open(&fake, None).unwrap().unwrap().evidence(&BINDING).unwrap();
    {
        let kernel = fake.0.lock().unwrap();
        assert_eq!((kernel.made, kernel.asked.len()), (2, 4));
        assert!(kernel.asked.iter().all(|asked| asked.0 == [7; 64]));
    }
    assert!(matches!(refused(Fault::Busy(u32::MAX)), TsmError::Busy));
    let failed = refused(Fault::Fails(libc::EIO));
    assert!(matches!(failed, TsmError::Attribute { attribute: "outblob", .. }), "{failed}");
}

#[test]
fn reports_of_another_size_or_for_other_data() {
    assert!(matches!(refused(Fault::Report(1185)), TsmError::Long { attribute: "outblob", .. }));
    assert!(matches!(result(Fault::Report(1183)), Err(TeeError::Report(_))));
    let error = result(Fault::OtherData).unwrap_err();
    assert!(matches!(error, TeeError::OtherData));
    assert_eq!(error.refusal().code, Code::Evidence);
}

#[test]
fn certificate_tables_that_lie() {
    result(Fault::Certificates(CertificateTable::MAX_BYTES)).unwrap();
    assert!(matches!(
        refused(Fault::Certificates(CertificateTable::MAX_BYTES + 1)),
        TsmError::Long { attribute: "auxblob", .. }
    ));
    assert!(matches!(refused(Fault::BrokenCertificates), TsmError::Certificates(_)));
}

#[test]
fn files_are_read_as_far_as_allowed_and_written_at_once() {
    let place = tempfile::tempdir().unwrap();
    let configfs = Configfs::new(place.path());
    assert!(configfs.available());
    assert!(!Configfs::new(&place.path().join("none")).available());
    configfs.make("a").unwrap();
    assert_eq!(configfs.make("a").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    // A file that the kernel didn't make is none of the interface's.
    assert_eq!(configfs.write("a", "inblob", b"x").unwrap_err().kind(), io::ErrorKind::NotFound);
    let file = place.path().join("a/inblob");
    std::fs::write(&file, b"").unwrap();
    configfs.write("a", "inblob", &[7; 64]).unwrap();
    assert_eq!(configfs.read("a", "inblob", 1000).unwrap(), [7; 64]);
    assert_eq!(configfs.read("a", "inblob", 3).unwrap(), [7; 3]);
    std::fs::remove_file(&file).unwrap();
    configfs.remove("a").unwrap();
}
