//! A guest that comes back with its connection key.

use ring::hmac;

use super::*;
use crate::{Check, Outcome};

const KEY: [u8; 32] = [0xc0; 32];
const SESSION: ConnectionSession =
    ConnectionSession { report_data: [0xda; 64], init_data: INIT_DATA, sealed_spec: SPEC };

fn launched() -> Launched {
    let (launch, ..) = measured(Policy::ES);
    let grant = launch.appraised().grant(&reference(TeeKind::SevEsEmulated)).unwrap();
    launch.seal(&grant, &entries(), &mut random).unwrap().1
}

fn mac(key: &[u8; 32], report_data: &[u8; 64], spec: &[u8; 32]) -> Vec<u8> {
    let message = [b"sealpod-sev-connection-v1".as_slice(), report_data, spec].concat();
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA384, key), &message).as_ref().to_vec()
}

#[test]
fn the_launchs_verdict_is_carried_over() {
    let launched = launched();
    let appraised = launched.clone().connect(&KEY, &SESSION, &mac(&KEY, &[0xda; 64], &SPEC)).unwrap();
    let verdict = appraised.verdict();
    assert_eq!((verdict.report_data, verdict.init_data), (Some([0xda; 64]), INIT_DATA));
    assert_eq!(verdict.tee, TeeKind::SevEsEmulated);
    let passed = |name| verdict.checks.iter().any(|r| r.check == name && r.outcome == Outcome::Passed);
    assert!([CHAIN, MEASURE, CONNECT].into_iter().flatten().all(|name| passed(*name)));
    let grant = appraised.grant(&reference(TeeKind::SevEsEmulated)).unwrap();
    assert_eq!(grant.report_data(), Some(&[0xda; 64]));
}

#[test]
fn each_wrong_part_is_refused() {
    let launched = launched();
    let good = mac(&KEY, &[0xda; 64], &SPEC);
    for (mac, session, check) in [
        (mac(&[0; 32], &[0xda; 64], &SPEC), SESSION, Check::Binding),
        (mac(&KEY, &[0; 64], &SPEC), SESSION, Check::Binding),
        (mac(&KEY, &[0xda; 64], &[0; 32]), SESSION, Check::Binding),
        (good[..32].to_vec(), SESSION, Check::Binding),
        (Vec::new(), SESSION, Check::Binding),
        (good.clone(), ConnectionSession { report_data: [0; 64], ..SESSION }, Check::Binding),
        (good.clone(), ConnectionSession { init_data: [0; 32], ..SESSION }, Check::HostData),
        (good.clone(), ConnectionSession { sealed_spec: [0; 32], ..SESSION }, Check::HostData),
    ] {
        let denial = launched.clone().connect(&KEY, &session, &mac).unwrap_err();
        assert_eq!(denial.check, check, "{denial}");
    }
}
