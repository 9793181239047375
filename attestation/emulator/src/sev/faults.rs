//! What goes wrong with a platform, its launch or its monitor: by name, as on the command line.

use super::platform::Platform;
use std::str::FromStr;

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// One bit of MEASURE is wrong.
    Measure,
    /// The monitor answers with this earlier measurement, base64.
    ReplayedMeasurement(String),
    /// The firmware doesn't compare POLICY_MAC and launches under this policy.
    Policy(u32),
    /// The monitor names this policy; the launch was under another.
    QueryPolicy(u32),
    /// The firmware is of this API version, in all that it says.
    Api(u8, u8),
    /// The firmware is of this build, in all that it says.
    Build(u8),
    /// The monitor names this API version; MEASURE is over another.
    QueryApi(u8, u8),
    /// What is wrong with the PDH's certificate; the PEK signed it.
    Pdh(PdhFault),
    /// The certificate of that key lacks its signatures.
    Unsigned(Signed),
    /// The PEK's certificate is signed by the OCA alone: whoever owns the machine says what it is.
    OcaOnly,
    /// The monitor takes no secret.
    InjectRefused,
}

/// Diffie-Hellman keys that give the peer's secret away, or that nobody can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PdhFault {
    /// Not a point of its curve (CVE-2019-9836).
    OffCurve,
    /// A point of P-256.
    P256,
    /// The point at infinity, as zeros.
    Identity,
}

/// Which certificate lacks its signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// PDH.
    Pdh,
    /// PEK.
    Pek,
    /// CEK: as QMP hands it out on real machines; AMD's key distribution service has the signed one.
    Cek,
    /// OCA.
    Oca,
}

/// Name, value and meaning of each fault.
pub const KNOWN: [(&str, &str); 16] = [
    ("measure", "one bit of MEASURE is wrong"),
    ("replayed-measurement=<base64>", "the monitor answers with this earlier measurement"),
    ("policy=<hexadecimal>", "POLICY_MAC is not compared and the launch is under this policy"),
    ("query-policy=<hexadecimal>", "the monitor names this policy, the launch was under another"),
    ("api=<major.minor>", "the firmware is of this API version"),
    ("build=<number>", "the firmware is of this build"),
    ("query-api=<major.minor>", "the monitor names this API version, MEASURE is over another"),
    ("pdh-off-curve", "the PDH is not a point of its curve"),
    ("pdh-p256", "the PDH is a point of P-256"),
    ("pdh-identity", "the PDH is zero"),
    ("unsigned-pdh", "the PDH's certificate is not signed"),
    ("unsigned-pek", "the PEK's certificate is not signed"),
    ("unsigned-cek", "the CEK's certificate is not signed, as on real machines; sev-cek.cert is"),
    ("unsigned-oca", "the OCA's certificate is not signed"),
    ("oca-only", "the OCA alone signs the PEK's certificate"),
    ("inject-refused", "the monitor takes no secret"),
];

/// Not a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault {0:?} is not NAME or NAME=VALUE as `sealpod-emulator faults` lists them under SEV")]
pub struct FaultError(String);

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        read(text).ok_or_else(|| FaultError(text.to_owned()))
    }
}

fn read(text: &str) -> Option<Fault> {
    Some(match text.split_once('=') {
        None => match text {
            "measure" => Fault::Measure,
            "pdh-off-curve" => Fault::Pdh(PdhFault::OffCurve),
            "pdh-p256" => Fault::Pdh(PdhFault::P256),
            "pdh-identity" => Fault::Pdh(PdhFault::Identity),
            "unsigned-pdh" => Fault::Unsigned(Signed::Pdh),
            "unsigned-pek" => Fault::Unsigned(Signed::Pek),
            "unsigned-cek" => Fault::Unsigned(Signed::Cek),
            "unsigned-oca" => Fault::Unsigned(Signed::Oca),
            "oca-only" => Fault::OcaOnly,
            "inject-refused" => Fault::InjectRefused,
            _ => return None,
        },
        Some((name, value)) => match name {
            "replayed-measurement" => Fault::ReplayedMeasurement(value.to_owned()),
            "policy" => Fault::Policy(hexadecimal(value)?),
            "query-policy" => Fault::QueryPolicy(hexadecimal(value)?),
            "api" => version(value).map(|(major, minor)| Fault::Api(major, minor))?,
            "build" => Fault::Build(value.parse().ok()?),
            "query-api" => version(value).map(|(major, minor)| Fault::QueryApi(major, minor))?,
            _ => return None,
        },
    })
}

fn hexadecimal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

fn version(text: &str) -> Option<(u8, u8)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// What faults make of a platform before anything else happens.
pub fn apply(platform: &mut Platform, faults: &[Fault]) {
    for fault in faults {
        match fault {
            Fault::Api(major, minor) => platform.api = (*major, *minor),
            Fault::Build(build) => platform.build = *build,
            _ => {}
        }
    }
    platform.issue(faults);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_read() {
        for (name, _) in KNOWN {
            let text = name
                .replace("<base64>", "AA==")
                .replace("<hexadecimal>", "0x4")
                .replace("<major.minor>", "1.40")
                .replace("<number>", "9");
            assert!(text.parse::<Fault>().is_ok(), "{text}");
        }
        for text in ["", "measure=1", "policy", "policy=x", "api=1", "build=300", "unsigned-ark"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
