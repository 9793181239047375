//! What a verifier gets: the cache's pieces before the guest's, the newest list, and what neither has.

use std::time::SystemTime;

use collateral::{Completed, Key, Line};
use sealpod_emulator::snp::wire::Call;
use sealpod_emulator::snp::{KeyKind, Launch, Processor};
use tee_evidence::snp::{CertEntry, CertKind, CertificateTable, RawReport, Report};
use verifier::snp::{Anchors, Evidence, Revocation};
use verifier::{Check, Denial};

use crate::platform::{CHAIN, CRL, Cache, DAY, Platform, WAIT, der, now};
use crate::stand_in::{Reply, StandIn};

/// A guest's evidence.
pub(crate) struct Guest {
    pub(crate) raw: RawReport,
    pub(crate) table: Vec<CertEntry>,
}

impl Guest {
    /// Of a Milan chip, with a table of VCEK, ASK, ARK and list.
    pub(crate) fn new(platform: &Platform, chip: u8) -> Self {
        let chip = platform.chip(chip);
        let processor =
            Processor::launch(chip, Launch::default(), Vec::new(), &platform.authorities, now()).unwrap();
        let answer = processor.answer(&Call::ExtendedReport([0; 96], 4));
        let raw = RawReport::from_bytes(&answer.message[32..]).unwrap();
        Self { raw, table: CertificateTable::parse(&answer.certificates).unwrap().into_entries() }
    }

    pub(crate) fn report(&self) -> Report {
        Report::from_raw(&self.raw).unwrap()
    }

    pub(crate) fn key(&self) -> Key {
        let report = self.report();
        Key::vcek(crate::platform::MILAN, &report.chip_id, report.reported_tcb).unwrap()
    }

    pub(crate) fn entry(&self, kind: CertKind) -> Vec<u8> {
        self.table.iter().find(|entry| entry.kind == kind).unwrap().data.clone()
    }

    fn without(&self, kinds: &[CertKind]) -> Vec<CertEntry> {
        self.table.iter().filter(|entry| !kinds.contains(&entry.kind)).cloned().collect()
    }

    pub(crate) fn verify(&self, completed: &Completed, at: SystemTime) -> Result<(), Denial> {
        let ark = der(&Platform::milan().authorities.ark_certificate);
        let anchors = Anchors::amd().with_emulated(&ark).unwrap();
        Evidence::parse(self.raw.as_bytes(), &completed.certificates)?
            .check_signature(&anchors, Revocation::Required, at)
            .map(drop)
    }
}

fn kinds(completed: &Completed) -> Vec<CertKind> {
    completed.certificates.iter().map(|entry| entry.kind).collect()
}

const ALL: [CertKind; 4] = [CertKind::Vcek, CertKind::Ask, CertKind::Ark, CertKind::Crl];

async fn service_for(guest: &Guest) -> StandIn {
    let service = StandIn::start().await;
    service.has(&CHAIN, Platform::milan().chain(KeyKind::Vcek));
    service.has(&guest.key(), guest.entry(CertKind::Vcek));
    service.has(&CRL, Platform::milan().crl(now()));
    service
}

#[tokio::test]
async fn an_empty_table_is_filled_and_verifies() {
    let guest = Guest::new(Platform::milan(), 1);
    let (dir, service) = (tempfile::tempdir().unwrap(), service_for(&guest).await);
    let cache = Cache::open(dir.path(), &[service.url()]);
    for _ in 0..3 {
        let completed = cache.collateral.complete(&guest.raw, Vec::new(), now(), WAIT).await;
        assert_eq!(kinds(&completed), ALL);
        assert_eq!(completed.notes, []);
        guest.verify(&completed, now()).unwrap();
    }
    for key in [CHAIN, CRL, guest.key()] {
        assert_eq!(service.asked(&key), 1, "{key}");
    }
}

#[tokio::test]
async fn each_missing_piece_is_supplied() {
    let guest = Guest::new(Platform::milan(), 1);
    for kind in ALL {
        let (dir, service) = (tempfile::tempdir().unwrap(), service_for(&guest).await);
        let cache = Cache::open(dir.path(), &[service.url()]);
        let table = guest.without(&[kind]);
        let completed = cache.collateral.complete(&guest.raw, table.clone(), now(), WAIT).await;
        guest.verify(&completed, now()).unwrap_or_else(|denial| panic!("{kind:?}: {denial:?}"));
        // The same without anybody to ask: refused, with what is missing and the next step.
        let offline = Cache::open(&dir.path().join("offline"), &[]);
        let completed = offline.collateral.complete(&guest.raw, table, now(), WAIT).await;
        assert_eq!(guest.verify(&completed, now()).unwrap_err().check, Check::Collateral, "{kind:?}");
        assert!(completed.explain().unwrap().contains("not in the cache"), "{kind:?}");
    }
}

#[tokio::test]
async fn a_whole_table_needs_no_cache_and_no_service() {
    let guest = Guest::new(Platform::milan(), 1);
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), &[]);
    let completed = cache.collateral.complete(&guest.raw, guest.table.clone(), now(), WAIT).await;
    assert_eq!(kinds(&completed), ALL);
    guest.verify(&completed, now()).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing of a table is kept");
}

#[tokio::test]
async fn the_cache_wins_over_what_the_host_supplies() {
    let guest = Guest::new(Platform::milan(), 1);
    let (dir, service) = (tempfile::tempdir().unwrap(), service_for(&guest).await);
    let cache = Cache::open(dir.path(), &[service.url()]);
    cache.collateral.complete(&guest.raw, Vec::new(), now(), WAIT).await;
    // Certificates of other chips and authorities, damaged ones, two of a kind.
    let foreign = Guest::new(Platform::foreign(), 1);
    let other = Guest::new(Platform::milan(), 2);
    let damaged = |kind| {
        let mut table = guest.table.clone();
        table.iter_mut().find(|entry| entry.kind == kind).unwrap().data.truncate(100);
        table
    };
    let mut tables: Vec<_> = ALL.map(damaged).into();
    tables.push([guest.table.clone(), guest.table.clone()].concat());
    tables.push(foreign.table.clone());
    tables.push(other.table.clone());
    for table in tables {
        let completed = cache.collateral.complete(&guest.raw, table, now(), WAIT).await;
        assert_eq!(kinds(&completed), ALL);
        guest.verify(&completed, now()).unwrap();
    }
}

#[tokio::test]
async fn a_table_of_another_root_stands_or_falls_as_a_whole() {
    let guest = Guest::new(Platform::milan(), 1);
    let genoa = Guest::new(Platform::genoa(), 1);
    let (dir, service) = (tempfile::tempdir().unwrap(), service_for(&guest).await);
    let cache = Cache::open(dir.path(), &[service.url()]);
    cache.collateral.complete(&guest.raw, Vec::new(), now(), WAIT).await;
    // A Milan report with certificates whose issuer the cache doesn't know.
    let completed = cache.collateral.complete(&guest.raw, genoa.table.clone(), now(), WAIT).await;
    assert_eq!(completed.certificates.len(), 4);
    let stranger = Guest::new(Platform::milan(), 3);
    let mut table = genoa.table.clone();
    table.retain(|entry| entry.kind != CertKind::Crl);
    let completed = cache.collateral.complete(&stranger.raw, table.clone(), now(), WAIT).await;
    assert_eq!(completed.certificates.len(), 3);
    assert!(completed.certificates.iter().all(|entry| table.contains(entry)));
    assert!(stranger.verify(&completed, now()).is_err());
}

#[tokio::test]
async fn the_newest_signed_list_counts_wherever_it_comes_from() {
    let guest = Guest::new(Platform::milan(), 1);
    let (dir, service) = (tempfile::tempdir().unwrap(), service_for(&guest).await);
    let cache = Cache::open(dir.path(), &[service.url()]);
    cache.collateral.complete(&guest.raw, Vec::new(), now(), WAIT).await;
    let cached = Platform::milan().crl(now());
    let with = |crl: Vec<u8>| {
        let mut table = guest.without(&[CertKind::Crl]);
        table.push(CertEntry { kind: CertKind::Crl, data: crl });
        table
    };
    let list = async |crl: Vec<u8>| {
        let completed = cache.collateral.complete(&guest.raw, with(crl), now(), WAIT).await;
        let lists: Vec<_> =
            completed.certificates.iter().filter(|entry| entry.kind == CertKind::Crl).collect();
        assert_eq!(lists.len(), 1);
        lists[0].data.clone()
    };
    let kept = list(cached).await;
    assert_eq!(list(Platform::milan().crl(now() - DAY)).await, kept, "the host's is older");
    assert_eq!(list(Platform::foreign().crl(now() + DAY)).await, kept, "the host's is another signer's");
    assert_eq!(list(b"garbage".to_vec()).await, kept);
    let newer = Platform::milan().crl(now() + DAY / 24);
    assert_eq!(list(newer.clone()).await, newer);
    assert_eq!(list(kept).await, newer, "once seen, it is the one");
}

#[tokio::test]
async fn a_stale_list_is_refused_when_the_service_is_down() {
    let guest = Guest::new(Platform::milan(), 1);
    let (dir, service) = (tempfile::tempdir().unwrap(), service_for(&guest).await);
    let cache = Cache::open(dir.path(), &[service.url()]);
    let at = async |now| {
        let completed = cache.collateral.complete(&guest.raw, Vec::new(), now, WAIT).await;
        (guest.verify(&completed, now), completed)
    };
    at(now()).await.0.unwrap();
    service.answers(&CRL, [Reply::Status(503, "")]);
    at(now() + DAY * 9).await.0.unwrap();
    let (verdict, completed) = at(now() + DAY * 11).await;
    assert_eq!(verdict.unwrap_err().check, Check::Collateral);
    let explained = completed.explain().unwrap();
    assert!(explained.contains("revocation list of Milan"), "{explained}");
    assert!(explained.contains("sealpod collateral fetch"), "{explained}");
    assert!(completed.detail().unwrap().contains("503"));
}

#[tokio::test]
async fn an_imported_vlek_is_found_for_a_report_that_names_no_provider() {
    let platform = Platform::milan();
    let launch = Launch { signing_key: KeyKind::Vlek, ..Launch::default() };
    let chip = platform.chip(1);
    let processor = Processor::launch(chip, launch, Vec::new(), &platform.authorities, now()).unwrap();
    let answer = processor.answer(&Call::ExtendedReport([0; 96], 4));
    let raw = RawReport::from_bytes(&answer.message[32..]).unwrap();
    let guest = Guest { raw, table: CertificateTable::parse(&answer.certificates).unwrap().into_entries() };
    let vlek = guest.entry(CertKind::Vlek);
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), &[]);
    let pieces = [
        (collateral::identify(&vlek).unwrap(), vlek.clone()),
        (Key::Chain(crate::platform::MILAN, Line::Vlek), platform.chain(KeyKind::Vlek)),
        (Key::Crl(crate::platform::MILAN, Line::Vlek), platform.crl(now())),
    ];
    let imported = cache.collateral.import(&pieces, now()).await;
    assert_eq!((imported.new, imported.refused), (3, Vec::new()));
    let completed = cache.collateral.complete(&guest.raw, Vec::new(), now(), WAIT).await;
    assert_eq!(kinds(&completed), [CertKind::Vlek, CertKind::Ask, CertKind::Ark, CertKind::Crl]);
    guest.verify(&completed, now()).unwrap();
    // At another TCB version it isn't.
    let mut report = guest.report();
    report.reported_tcb =
        tee_evidence::snp::Tcb { fmc: None, bootloader: 1, tee: 1, snp: 1, microcode: 1 }.encode();
    let completed = cache.collateral.complete(&report.encode(), Vec::new(), now(), WAIT).await;
    assert!(!kinds(&completed).contains(&CertKind::Vlek));
}

#[tokio::test]
async fn a_certificate_for_another_tcb_version_gives_way_to_the_services() {
    let guest = Guest::new(Platform::milan(), 1);
    let (dir, service) = (tempfile::tempdir().unwrap(), service_for(&guest).await);
    let cache = Cache::open(dir.path(), &[service.url()]);
    let mut table = guest.without(&[CertKind::Vcek]);
    // The host's table is older than its firmware.
    table.push(CertEntry { kind: CertKind::Vcek, data: Platform::milan().vcek(1) });
    let completed = cache.collateral.complete(&guest.raw, table.clone(), now(), WAIT).await;
    guest.verify(&completed, now()).unwrap();
    let offline = Cache::open(&dir.path().join("offline"), &[]);
    let completed = offline.collateral.complete(&guest.raw, table, now(), WAIT).await;
    assert!(guest.verify(&completed, now()).is_err());
}
