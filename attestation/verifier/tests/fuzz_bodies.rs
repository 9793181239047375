//! Runs the bodies of the fuzz targets on the stable compiler: on random bytes, and on emulated evidence with
//! a few bytes changed.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../../fuzz/bodies/snp.rs"]
mod bodies;

use std::sync::OnceLock;
use std::time::SystemTime;

use proptest::prelude::*;
use sealpod_emulator::snp::chip::SECRET;
use sealpod_emulator::snp::wire::Call;
use sealpod_emulator::snp::{Authorities, Chip, Launch, Processor, Product};
use tee_evidence::snp::{CertificateTable, RawReport, json};

struct Good {
    report: Vec<u8>,
    table: Vec<u8>,
    json: Vec<u8>,
}

fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let now = SystemTime::now();
        let authorities = Authorities::generate(Product::Turin, 2048, now).unwrap();
        let chip = Chip::new(Product::Turin, [9; SECRET]);
        let processor = Processor::launch(chip, Launch::default(), Vec::new(), &authorities, now).unwrap();
        let mut request = [0; 96];
        request[..64].fill(7);
        let answer = processor.answer(&Call::ExtendedReport(request, 4));
        let report = answer.message[32..][..RawReport::LEN].to_vec();
        let table = CertificateTable::parse(&answer.certificates).unwrap();
        let evidence = json::to_kbs(&RawReport::from_bytes(&report).unwrap(), table.entries()).unwrap();
        Good { report, table: answer.certificates, json: evidence.to_string().into_bytes() }
    })
}

/// `good` with some bytes replaced, or cut off.
fn damaged(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4);
    (changes, any::<proptest::sample::Index>(), any::<bool>()).prop_map(move |(changes, end, cut)| {
        let mut bytes = good.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut {
            bytes.truncate(end.index(bytes.len()));
        }
        bytes
    })
}

fn run_all(bytes: &[u8]) {
    bodies::snp_report(bytes);
    bodies::snp_table(bytes);
    bodies::snp_certificates(bytes);
    bodies::snp_evidence(bytes);
}

#[test]
fn unchanged_evidence_is_read() {
    assert!(tee_evidence::snp::Report::parse(&good().report).is_ok());
    run_all(&good().report);
    run_all(&good().table);
    run_all(&good().json);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..1600)) {
        run_all(&bytes);
    }

    #[test]
    fn damaged_reports(bytes in damaged(good().report.clone())) {
        bodies::snp_report(&bytes);
    }

    #[test]
    fn damaged_tables(bytes in damaged(good().table.clone())) {
        bodies::snp_table(&bytes);
    }

    #[test]
    fn damaged_chains(bytes in damaged([good().report.clone(), good().table.clone()].concat())) {
        bodies::snp_certificates(&bytes);
    }

    #[test]
    fn damaged_json(bytes in damaged(good().json.clone())) {
        bodies::snp_evidence(&bytes);
    }
}
