//! Bodies of the fuzz targets of `attestation/broker`: what strangers send before anything about them is known.

#![allow(dead_code)] // Each target uses one of them.

use sealpod_broker::appraise::read_evidence;
use sealpod_broker::passport::read_passport;

/// The body of `/attest`: request, initdata, the guest's key, evidence of each kind.
pub(crate) fn broker_attest(data: &[u8]) {
    let _ = read_evidence(data);
}

/// A token as bearer, and a payload as if its signature were right.
pub(crate) fn broker_passport(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = read_passport(text);
    }
}

/// The relay's bodies, for a launch session and for a measurement: read or refused.
pub(crate) fn sev_requests(data: &[u8]) {
    let _ = sealpod_broker::sev::read_session(data);
    let _ = sealpod_broker::sev::read_measurement(data);
}
