//! A policy's section for SEV-SNP.

use protocols::owner::{MinimumTcb, SnpPolicy, SnpProduct};
use tee_evidence::snp::{Line, Product, Tcb};
use verifier::SnpReference;

use crate::MappingError;

pub(crate) fn reference(policy: &SnpPolicy) -> Result<SnpReference, MappingError> {
    // Every field is named, so that a new one can't be forgotten here.
    let SnpPolicy {
        minimum_tcb,
        products,
        allow_debug,
        allow_migrate_ma,
        allow_smt,
        vmpl,
        denied_products,
        denied_chips,
        vlek_csp_ids,
        id_key_digests,
        author_key_digests,
        minimum_guest_svn,
        require_alias_check,
        required_mitigations,
        require_single_socket,
        require_ciphertext_hiding,
        require_rapl_disabled,
    } = policy;
    let mut denied = SnpReference::default();
    for &product in denied_products {
        match whole_product(product) {
            Some(product) => denied.denied_products.push(product),
            None => denied.denied_lines.push(line(product)),
        }
    }
    Ok(SnpReference {
        minimum_tcb: tcb(*minimum_tcb),
        line_minima: products.iter().map(|(product, minimum)| (line(*product), tcb(*minimum))).collect(),
        allow_debug: *allow_debug,
        allow_migrate_ma: *allow_migrate_ma,
        allow_smt: *allow_smt,
        vmpl: u32::from(*vmpl),
        vlek_csp_ids: vlek_csp_ids.clone(),
        denied_chips: bytes("snp.denied_chips", denied_chips)?,
        id_key_digests: bytes("snp.id_key_digests", id_key_digests)?,
        author_key_digests: bytes("snp.author_key_digests", author_key_digests)?,
        minimum_guest_svn: *minimum_guest_svn,
        require_alias_check: *require_alias_check,
        required_mitigations: *required_mitigations,
        require_single_socket: *require_single_socket,
        require_ciphertext_hiding: *require_ciphertext_hiding,
        require_rapl_disabled: *require_rapl_disabled,
        ..denied
    })
}

fn tcb(minimum: MinimumTcb) -> Tcb {
    let MinimumTcb { bootloader, tee, snp, microcode, fmc } = minimum;
    Tcb { fmc, bootloader, tee, snp, microcode }
}

const fn line(product: SnpProduct) -> Line {
    match product {
        SnpProduct::Milan => Line::Milan,
        SnpProduct::MilanX => Line::MilanX,
        SnpProduct::Genoa => Line::Genoa,
        SnpProduct::GenoaX => Line::GenoaX,
        SnpProduct::Bergamo => Line::Bergamo,
        SnpProduct::Turin => Line::Turin,
        SnpProduct::TurinDense => Line::TurinDense,
    }
}

/// What policies call a line of processors.
pub const fn product(line: Line) -> SnpProduct {
    match line {
        Line::Milan => SnpProduct::Milan,
        Line::MilanX => SnpProduct::MilanX,
        Line::Genoa => SnpProduct::Genoa,
        Line::GenoaX => SnpProduct::GenoaX,
        Line::Bergamo => SnpProduct::Bergamo,
        Line::Turin => SnpProduct::Turin,
        Line::TurinDense => SnpProduct::TurinDense,
    }
}

/// Who denies a product by its own name means all of its lines: they share root and firmware.
const fn whole_product(product: SnpProduct) -> Option<Product> {
    match product {
        SnpProduct::Milan => Some(Product::Milan),
        SnpProduct::Genoa => Some(Product::Genoa),
        SnpProduct::Turin => Some(Product::Turin),
        SnpProduct::MilanX | SnpProduct::GenoaX | SnpProduct::Bergamo | SnpProduct::TurinDense => None,
    }
}

fn bytes<const N: usize>(field: &'static str, texts: &[String]) -> Result<Vec<[u8; N]>, MappingError> {
    let one = |text: &String| {
        let mut out = [0; N];
        hex::decode_to_slice(text, &mut out).map(|()| out).map_err(|_| MappingError { field })
    };
    texts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMUM: MinimumTcb = MinimumTcb { bootloader: 1, tee: 2, snp: 3, microcode: 4, fmc: None };
    const TURIN: MinimumTcb = MinimumTcb { bootloader: 5, tee: 6, snp: 7, microcode: 8, fmc: Some(9) };

    #[test]
    fn the_strictest_policy_stays_so() {
        let expected = SnpReference {
            minimum_tcb: Tcb { fmc: None, bootloader: 1, tee: 2, snp: 3, microcode: 4 },
            allow_smt: true,
            ..SnpReference::default()
        };
        assert_eq!(reference(&SnpPolicy::new(MINIMUM)).unwrap(), expected);
    }

    #[test]
    fn every_field_arrives() {
        let policy = SnpPolicy {
            products: [(SnpProduct::Turin, TURIN), (SnpProduct::MilanX, MINIMUM)].into(),
            allow_debug: true,
            allow_migrate_ma: true,
            allow_smt: false,
            vmpl: 2,
            denied_products: vec![SnpProduct::Genoa, SnpProduct::TurinDense],
            denied_chips: vec!["ab".repeat(64)],
            vlek_csp_ids: vec!["cloud.example".into()],
            id_key_digests: vec!["01".repeat(48)],
            author_key_digests: vec!["02".repeat(48)],
            minimum_guest_svn: 3,
            require_alias_check: true,
            required_mitigations: 5,
            require_single_socket: true,
            require_ciphertext_hiding: true,
            require_rapl_disabled: true,
            ..SnpPolicy::new(MINIMUM)
        };
        let expected = SnpReference {
            minimum_tcb: Tcb { fmc: None, bootloader: 1, tee: 2, snp: 3, microcode: 4 },
            line_minima: [
                (Line::Turin, Tcb { fmc: Some(9), bootloader: 5, tee: 6, snp: 7, microcode: 8 }),
                (Line::MilanX, Tcb { fmc: None, bootloader: 1, tee: 2, snp: 3, microcode: 4 }),
            ]
            .into(),
            allow_debug: true,
            allow_migrate_ma: true,
            allow_smt: false,
            vmpl: 2,
            vlek_csp_ids: vec!["cloud.example".into()],
            denied_chips: vec![[0xab; 64]],
            denied_products: vec![Product::Genoa],
            denied_lines: vec![Line::TurinDense],
            id_key_digests: vec![[1; 48]],
            author_key_digests: vec![[2; 48]],
            minimum_guest_svn: 3,
            require_alias_check: true,
            required_mitigations: 5,
            require_single_socket: true,
            require_ciphertext_hiding: true,
            require_rapl_disabled: true,
        };
        assert_eq!(reference(&policy).unwrap(), expected);
    }

    #[test]
    fn lines_have_one_name() {
        for name in Line::ALL {
            assert_eq!(line(product(name)), name);
        }
    }

    #[test]
    fn digests_of_another_length_are_refused() {
        let policy = SnpPolicy { id_key_digests: vec!["01".repeat(47)], ..SnpPolicy::new(MINIMUM) };
        assert_eq!(reference(&policy), Err(MappingError { field: "snp.id_key_digests" }));
    }
}
