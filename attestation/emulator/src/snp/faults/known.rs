//! The faults by name, as the command line takes and lists them.

use super::{CrlFault, EndorsementFault, Fault, SignatureFault, TableFault, TcbField};
use crate::snp::report::SIGNED;

/// A fault's name, value and meaning.
#[derive(Debug)]
pub struct Known {
    /// What stands before the `=`.
    pub name: &'static str,
    /// What must stand behind it; `None` for nothing.
    pub value: Option<&'static str>,
    /// A value that is one.
    pub example: &'static str,
    /// What goes wrong.
    pub meaning: &'static str,
    read: Read,
}

#[derive(Debug)]
enum Read {
    Plain(fn() -> Fault),
    With(fn(&str) -> Option<Fault>),
}

impl Known {
    /// The fault with that value; `None` if it isn't one.
    pub(super) fn read(&self, value: &str) -> Option<Fault> {
        match self.read {
            Read::Plain(fault) => value.is_empty().then(fault),
            Read::With(read) => read(value),
        }
    }
}

const NUMBER: Option<&str> = Some("a number");
const HEXADECIMAL: Option<&str> = Some("a hexadecimal number");
const TCB: Option<&str> = Some("PART=LEVEL,… with a part of bootloader, tee, snp, microcode, fmc");

/// All of them.
pub const KNOWN: &[Known] = &[
    with("busy", NUMBER, "1", "the host answers this many requests with \"busy\" first", |value| {
        Some(Fault::Busy(value.parse().ok()?))
    }),
    with(
        "short-buffer",
        NUMBER,
        "1",
        "the host finds the certificate buffer too small this many times",
        |value| Some(Fault::ShortBuffer(value.parse().ok()?)),
    ),
    with("pages", NUMBER, "4294967295", "the host asks for this many pages for certificates", |value| {
        Some(Fault::Pages(value.parse().ok()?))
    }),
    with("version", NUMBER, "6", "reports say that they are of this version", |value| {
        Some(Fault::version(value.parse().ok()?))
    }),
    with("policy", HEXADECIMAL, "b0000", "reports name this guest policy", |value| {
        Some(Fault::policy(hexadecimal(value)?))
    }),
    with("vmpl", NUMBER, "2", "reports name this privilege level", |value| {
        Some(Fault::vmpl(value.parse().ok()?))
    }),
    with("algorithm", NUMBER, "2", "reports name this signature algorithm", |value| {
        Some(Fault::Report(0x034, value.parse::<u32>().ok()?.to_le_bytes().to_vec()))
    }),
    with("guest-svn", NUMBER, "7", "reports name this security version of the guest", |value| {
        Some(Fault::Report(0x004, value.parse::<u32>().ok()?.to_le_bytes().to_vec()))
    }),
    with("platform-info", HEXADECIMAL, "27", "reports say this of the platform", |value| {
        Some(Fault::Report(0x040, hexadecimal(value)?.to_le_bytes().to_vec()))
    }),
    plain("alias-check-off", "reports say that memory was not checked for aliases (BadRAM)", || {
        Fault::Report(0x040, 0x05_u64.to_le_bytes().to_vec())
    }),
    with(
        "mitigations",
        HEXADECIMAL,
        "10",
        "reports name these mitigations as in force (version 5)",
        |value| Some(Fault::Report(0x200, hexadecimal(value)?.to_le_bytes().to_vec())),
    ),
    with("launch-mitigations", HEXADECIMAL, "11", "the same, as at launch", |value| {
        Some(Fault::Report(0x1f8, hexadecimal(value)?.to_le_bytes().to_vec()))
    }),
    with(
        "signing-key",
        NUMBER,
        "7",
        "reports say that this kind of key signed them: 0 VCEK, 1 VLEK, 7 none",
        |value| Some(Fault::signing_key(value.parse().ok().filter(|kind| *kind < 8)?)),
    ),
    with("chip-id", Some("128 hexadecimal digits"), EXAMPLE_ID, "reports name this chip", |value| {
        Some(Fault::chip_id(hex::decode(value).ok()?.try_into().ok()?))
    }),
    plain("masked-chip-id", "reports don't name a chip", || Fault::chip_id([0; 64])),
    plain("masked-chip-key", "the platform hides the chip's key: nobody signs reports", || {
        Fault::MaskedChipKey
    }),
    with("current-tcb", TCB, "snp=1", "reports name this TCB as running", |value| {
        tcb(TcbField::Current, value)
    }),
    with("reported-tcb", TCB, "snp=1", "reports name this TCB, for which the certificate isn't", |value| {
        tcb(TcbField::Reported, value)
    }),
    with(
        "committed-tcb",
        TCB,
        "snp=1",
        "reports name this TCB as committed: roll-back below it is possible",
        |value| tcb(TcbField::Committed, value),
    ),
    with("launch-tcb", TCB, "snp=1", "reports name this TCB as the one at launch", |value| {
        tcb(TcbField::Launch, value)
    }),
    with(
        "report-bytes",
        Some("OFFSET:BYTES, both hexadecimal, inside the signed part"),
        "18b:01",
        "reports have these bytes there, signed",
        |value| {
            let (offset, bytes) = value.split_once(':')?;
            let (offset, bytes) = (usize::try_from(hexadecimal(offset)?).ok()?, hex::decode(bytes).ok()?);
            let end = offset.checked_add(bytes.len())?;
            (end <= SIGNED && !bytes.is_empty()).then_some(Fault::Report(offset, bytes))
        },
    ),
    plain("signature", "one bit of every signature is wrong", Fault::signature),
    plain("empty-signature", "signatures are zero", || Fault::Signature(SignatureFault::Empty)),
    plain("high-r", "signatures' r has the group's order added", || Fault::Signature(SignatureFault::HighR)),
    plain("high-s", "signatures' s has the group's order added", || Fault::Signature(SignatureFault::HighS)),
    plain("signature-padding", "a byte behind the signature is not zero", || {
        Fault::Signature(SignatureFault::Padding)
    }),
    plain("truncated", "reports lack their last byte", || Fault::Length(-1)),
    plain("trailing", "reports have a byte too many", || Fault::Length(1)),
    plain("other-authority", "the VLEK is under the ASK, or the VCEK under the ASVK", || {
        Fault::Endorsement(EndorsementFault::OtherAuthority)
    }),
    plain("other-kind", "the certificate is of the other kind than the report says", || {
        Fault::Endorsement(EndorsementFault::OtherKind)
    }),
    plain("expired-key", "the signing key's certificate has expired", || {
        Fault::Endorsement(EndorsementFault::Expired)
    }),
    plain("future-key", "the signing key's certificate is not valid yet", || {
        Fault::Endorsement(EndorsementFault::NotYet)
    }),
    with(
        "missing-oid",
        Some("the rest of an extension's id below 1.3.6.1.4.1.3704.1"),
        "3.3",
        "the certificate lacks this extension",
        |value| oid(value).then(|| Fault::Endorsement(EndorsementFault::Without(value.to_owned()))),
    ),
    with(
        "extension",
        Some("ID:DER, the id below 1.3.6.1.4.1.3704.1, the value hexadecimal"),
        "4:0001",
        "the certificate has this extension",
        |value| {
            let (id, value) = value.split_once(':')?;
            let value = hex::decode(value).ok()?;
            oid(id).then(|| Fault::Endorsement(EndorsementFault::With(id.to_owned(), value)))
        },
    ),
    plain("absent-key", "the table lacks the signing key's certificate", || {
        Fault::Endorsement(EndorsementFault::Absent)
    }),
    plain("absent-crl", "the table lacks the revocation list", || Fault::Crl(CrlFault::Absent)),
    plain("stale-crl", "the next revocation list was due yesterday", || Fault::Crl(CrlFault::Stale)),
    plain("future-crl", "the revocation list is from tomorrow", || Fault::Crl(CrlFault::Future)),
    plain("forged-crl", "the ASK signed the revocation list in the ARK's name", || {
        Fault::Crl(CrlFault::OtherSigner)
    }),
    plain("revoked-ask", "the revocation list has the ASK", || Fault::Crl(CrlFault::RevokesAsk)),
    plain("revoked-asvk", "the revocation list has the ASVK", || Fault::Crl(CrlFault::RevokesAsvk)),
    plain("table-overlap", "two certificates of the table share bytes", || Fault::Table(TableFault::Overlap)),
    plain("table-huge", "a certificate of the table has almost 4 GiB", || {
        Fault::Table(TableFault::HugeLength)
    }),
    plain("table-far", "a certificate starts beyond the table's end", || Fault::Table(TableFault::FarOffset)),
    plain("table-unterminated", "nothing ends the table", || Fault::Table(TableFault::Unterminated)),
    plain("table-duplicate", "an entry stands in the table twice", || Fault::Table(TableFault::Duplicate)),
    plain("table-empty", "there are no certificates", || Fault::Table(TableFault::Empty)),
];

const EXAMPLE_ID: &str = "01010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101010101";

const fn with(
    name: &'static str,
    value: Option<&'static str>,
    example: &'static str,
    meaning: &'static str,
    read: fn(&str) -> Option<Fault>,
) -> Known {
    Known { name, value, example, meaning, read: Read::With(read) }
}

const fn plain(name: &'static str, meaning: &'static str, fault: fn() -> Fault) -> Known {
    Known { name, value: None, example: "", meaning, read: Read::Plain(fault) }
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
}

fn tcb(field: TcbField, text: &str) -> Option<Fault> {
    Some(Fault::Tcb(field, text.parse().ok()?))
}

/// Arcs below AMD's: digits and single dots.
fn oid(text: &str) -> bool {
    text.split('.').all(|arc| arc.parse::<u8>().is_ok_and(|value| value.to_string() == arc))
}
