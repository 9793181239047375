//! How faults change what a processor and its host hand out: one function for each thing that is made.

use super::{CrlFault, EndorsementFault, Fault, SignatureFault, TableFault};
use crate::snp::certificates::{Authorities, CertificateError, Endorsement, serial};
use crate::snp::crl::Revocations;
use crate::snp::report::{self, COMPONENT, Fields, KeyKind, SIGNED};
use crate::snp::table::{ARK, CRL, ENTRY, VCEK, VLEK};
use p384::ecdsa::SigningKey;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The order of P-384's group, little-endian.
const ORDER: [u8; 48] = [
    0x73, 0x29, 0xc5, 0xcc, 0x6a, 0x19, 0xec, 0xec, 0x7a, 0xa7, 0xb0, 0x48, 0xb2, 0x0d, 0x1a, 0x58, 0xdf,
    0x2d, 0x37, 0xf4, 0x81, 0x4d, 0x63, 0xc7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
];

/// The report, signed after its fields were changed and before its signature was.
pub(crate) fn report(fields: &Fields, key: &SigningKey, faults: &[Fault]) -> Vec<u8> {
    let mut report = fields.encode();
    let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
    for fault in faults {
        match fault {
            Fault::Report(at, bytes) => put(*at, bytes),
            Fault::Tcb(field, tcb) => put(field.offset(), &tcb.encode(fields.product)),
            // SIGNING_KEY none, MASK_CHIP_KEY.
            Fault::MaskedChipKey => put(0x048, &[7 << 2 | 1 << 1, 0, 0, 0]),
            _ => {}
        }
    }
    if !faults.contains(&Fault::MaskedChipKey) {
        report::sign(&mut report, key);
    }
    let mut report = report.to_vec();
    for fault in faults {
        match fault {
            Fault::Signature(fault) => signature(&mut report[SIGNED..], *fault),
            Fault::Length(by) => {
                report.resize(report.len().saturating_add_signed(isize::from(*by)), 0);
            }
            _ => {}
        }
    }
    report
}

fn signature(signature: &mut [u8], fault: SignatureFault) {
    match fault {
        SignatureFault::Bit => signature[0] ^= 1,
        SignatureFault::Empty => signature.fill(0),
        SignatureFault::HighR => add_order(&mut signature[..COMPONENT]),
        SignatureFault::HighS => add_order(&mut signature[COMPONENT..2 * COMPONENT]),
        SignatureFault::Padding => signature[2 * COMPONENT] = 1,
    }
}

/// 48 bytes and a carry fit into the field's 72.
fn add_order(component: &mut [u8]) {
    let mut carry = 0;
    for (index, byte) in component.iter_mut().enumerate() {
        let sum = u16::from(*byte) + u16::from(ORDER.get(index).copied().unwrap_or(0)) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
}

fn has(faults: &[Fault], fault: &EndorsementFault) -> bool {
    faults.iter().any(|other| matches!(other, Fault::Endorsement(other) if other == fault))
}

/// The kind of the signing key's certificate.
pub(crate) fn kind(kind: KeyKind, faults: &[Fault]) -> KeyKind {
    if has(faults, &EndorsementFault::OtherKind) { other(kind) } else { kind }
}

/// The kind of keys that its authority is for.
pub(crate) fn authority(kind: KeyKind, faults: &[Fault]) -> KeyKind {
    if has(faults, &EndorsementFault::OtherAuthority) { other(kind) } else { kind }
}

fn other(kind: KeyKind) -> KeyKind {
    match kind {
        KeyKind::Vcek => KeyKind::Vlek,
        KeyKind::Vlek => KeyKind::Vcek,
    }
}

/// What the signing key's certificate says.
pub(crate) fn endorsement(endorsement: &mut Endorsement, faults: &[Fault], now: SystemTime) {
    for fault in faults {
        let Fault::Endorsement(fault) = fault else { continue };
        match fault {
            EndorsementFault::Expired => {
                (endorsement.not_before, endorsement.not_after) = (now - DAY * 100, now - DAY);
            }
            EndorsementFault::NotYet => endorsement.not_before = now + DAY,
            EndorsementFault::Without(suffix) => endorsement.without.push(suffix.clone()),
            EndorsementFault::With(suffix, value) => endorsement.with.push((suffix.clone(), value.clone())),
            EndorsementFault::OtherAuthority | EndorsementFault::OtherKind | EndorsementFault::Absent => {}
        }
    }
}

/// The revocation list, DER.
pub(crate) fn crl(
    authorities: &Authorities,
    faults: &[Fault],
    now: SystemTime,
) -> Result<Vec<u8>, CertificateError> {
    let mut list = Revocations::none(now);
    let mut signer = &authorities.ark;
    for fault in faults {
        let Fault::Crl(fault) = fault else { continue };
        match fault {
            CrlFault::Absent => {}
            CrlFault::Stale => (list.this_update, list.next_update) = (now - DAY * 100, now - DAY),
            CrlFault::Future => list.this_update = now + DAY,
            CrlFault::OtherSigner => signer = &authorities.ask,
            CrlFault::RevokesAsk => list.revoked.push(serial::ASK),
            CrlFault::RevokesAsvk => list.revoked.push(serial::ASVK),
        }
    }
    list.sign(signer, &authorities.ark_certificate)
}

/// Takes certificates out of the table.
pub(crate) fn leave_out(entries: &mut Vec<([u8; 16], Vec<u8>)>, faults: &[Fault]) {
    for fault in faults {
        match fault {
            Fault::Crl(CrlFault::Absent) => entries.retain(|(guid, _)| *guid != CRL),
            Fault::Endorsement(EndorsementFault::Absent) => {
                entries.retain(|(guid, _)| ![VCEK, VLEK].contains(guid));
            }
            Fault::Table(TableFault::Empty) => entries.clear(),
            _ => {}
        }
    }
}

/// The table's headers, which stand at its beginning; the first certificate is the ARK.
pub(crate) fn table(table: &mut Vec<u8>, faults: &[Fault]) {
    for fault in faults {
        let Fault::Table(fault) = fault else { continue };
        let (offset, length) = (16, 20);
        let first =
            table.get(offset..offset + 4).map_or(0, |at| u32::from_le_bytes([at[0], at[1], at[2], at[3]]));
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = table.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        match fault {
            TableFault::Overlap => put(ENTRY + offset, &(first + 1).to_le_bytes()),
            TableFault::HugeLength => put(length, &0xffff_fff0_u32.to_le_bytes()),
            TableFault::FarOffset => put(offset, &0x7fff_ffff_u32.to_le_bytes()),
            // Whole pages of entries, each with another GUID.
            TableFault::Unterminated => {
                let length = table.len().next_multiple_of(4096);
                *table = (0..length).map(|at| (at / ENTRY) as u8 | 0x80).collect();
            }
            TableFault::Duplicate => put(ENTRY, &ARK),
            TableFault::Empty => {}
        }
    }
}
