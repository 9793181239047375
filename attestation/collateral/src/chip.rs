//! A chip as people name it: product, chip id and TCB version, as a report or AMD's service write them.

use tee_evidence::snp::{Product, RawTcb, Report, Tcb};

use crate::key::{Key, products};

/// Why words name no chip.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChipError {
    /// Not a product of these.
    #[error("'{0}' is no product; give Milan, Genoa (Bergamo and Siena too) or Turin")]
    Product(String),
    /// Not a chip id.
    #[error("'{0}' is no chip id; give the 128 hexadecimal digits of CHIP_ID, or 16 for Turin")]
    Id(String),
    /// Not a TCB version.
    #[error("'{0}' is no TCB version; give bootloader=N,tee=N,snp=N,microcode=N, for Turin fmc=N too")]
    Tcb(String),
    /// They don't go together.
    #[error("chip id and TCB version don't have the form of this product's, or the chip hides its id")]
    Layout,
    /// A report that names no processor.
    #[error("the report is of version 2, which names no processor; give --product, --chip and --tcb")]
    Version2,
}

/// The certificate of a chip named by product, chip id and TCB version.
///
/// # Errors
/// [`ChipError`].
pub fn vcek_of(product: &str, chip: &str, tcb: &str) -> Result<Key, ChipError> {
    let known = |known: &Product| known.name().eq_ignore_ascii_case(product);
    let product =
        Product::ALL.into_iter().find(known).ok_or_else(|| ChipError::Product(product.to_owned()))?;
    let wrong_id = || ChipError::Id(chip.to_owned());
    let bytes = hex::decode(chip).map_err(|_| wrong_id())?;
    let full = product.chip_id_len();
    // Tools print Turin's id with or without the zeros that follow it.
    if bytes.len() != full && bytes.len() != 64 {
        return Err(wrong_id());
    }
    let mut id = [0; 64];
    id[..bytes.len()].copy_from_slice(&bytes);
    let tcb = tcb_of(tcb).ok_or_else(|| ChipError::Tcb(tcb.to_owned()))?;
    if tcb.fmc.is_some() != (product == Product::Turin) {
        return Err(ChipError::Layout);
    }
    Key::vcek(product, &id, tcb.encode()).ok_or(ChipError::Layout)
}

/// The certificate of the chip that made a report.
///
/// # Errors
/// [`ChipError`].
pub fn vcek_of_report(report: &Report) -> Result<Key, ChipError> {
    let [product] = products(report) else { return Err(ChipError::Version2) };
    Key::vcek(*product, &report.chip_id, RawTcb(report.reported_tcb.0)).ok_or(ChipError::Layout)
}

fn tcb_of(text: &str) -> Option<Tcb> {
    let mut parts = [None::<u8>; 5];
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=')?;
        let at = ["bootloader", "tee", "snp", "microcode", "fmc"].iter().position(|known| *known == name)?;
        if parts[at].replace(value.parse().ok()?).is_some() {
            return None;
        }
    }
    let [bootloader, tee, snp, microcode, fmc] = parts;
    Some(Tcb { fmc, bootloader: bootloader?, tee: tee?, snp: snp?, microcode: microcode? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_is_named_by_three_words() {
        let id = "ab".repeat(64);
        let key = vcek_of("milan", &id, "bootloader=3,tee=0,snp=8,microcode=115").unwrap();
        assert!(key.kds_path().unwrap().ends_with("blSPL=3&teeSPL=0&snpSPL=8&ucodeSPL=115"));
        let turin = "fmc=1,bootloader=3,tee=0,snp=8,microcode=80";
        let short = vcek_of("Turin", "0102030405060708", turin).unwrap();
        assert_eq!(vcek_of("Turin", &format!("0102030405060708{}", "00".repeat(56)), turin), Ok(short));
        for (product, chip, tcb) in [
            ("Rome", &*id, "bootloader=3,tee=0,snp=8,microcode=115"),
            ("Milan", &id[..16], "bootloader=3,tee=0,snp=8,microcode=115"),
            ("Milan", &id, "bootloader=3,tee=0,snp=8"),
            ("Milan", &id, "bootloader=3,tee=0,snp=8,microcode=256"),
            ("Milan", &id, "bootloader=3,tee=0,snp=8,microcode=1,snp=8"),
            ("Milan", &id, turin),
            ("Turin", &id, turin),
        ] {
            assert!(vcek_of(product, chip, tcb).is_err(), "{product} {tcb}");
        }
    }
}
