//! Bodies of the fuzz targets of SEV's and SEV-ES' formats in `formats/tee-evidence`: any bytes are read or refused, and
//! what is read writes back to the same bytes.

#![allow(dead_code)] // Each target uses one of them.

use tee_evidence::sev::{
    Authority, CertChain, Certificate, Measurement, SecretEntry, SecretHeader, SecretTable, SessionBlob,
    Unsigned, Usage,
};

/// Certificates of a platform, its chain, and AMD's own.
pub(crate) fn sev_certificates(data: &[u8]) {
    if let Ok(certificate) = Certificate::parse(data) {
        assert_eq!(certificate.bytes().as_slice(), data);
        let unsigned = Unsigned {
            api: certificate.api(),
            usage: certificate.usage(),
            algorithm: certificate.algorithm(),
            key: *certificate.key(),
        };
        assert_eq!(unsigned.body().as_slice(), certificate.body());
        for by in [Usage::Ark, Usage::Ask, Usage::Oca, Usage::Pek, Usage::Pdh, Usage::Cek] {
            let Some(signature) = certificate.signature(by) else { continue };
            let _ = (signature.ecdsa(), signature.rsa(256), signature.rsa(512));
        }
    }
    if let Ok(chain) = CertChain::parse(data) {
        assert_eq!(chain.to_bytes().len(), data.len());
        assert_eq!(CertChain::parse(&chain.to_bytes()).as_ref(), Ok(&chain));
    }
    if let Ok(authorities) = Authority::parse_bundle(data) {
        assert!(authorities.len() <= Authority::MAX_BUNDLE);
        let back: Vec<u8> = authorities
            .iter()
            .flat_map(|authority| {
                let (id, by) = (authority.key_id(), authority.certifying_id());
                Authority::assemble(authority.usage(), id, by, authority.modulus(), authority.signature())
            })
            .collect();
        assert_eq!(back, data);
    }
}

/// Session blobs, measurements, secret packets' headers and the table in them.
pub(crate) fn sev_launch(data: &[u8]) {
    if let Ok(blob) = SessionBlob::parse(data) {
        assert_eq!(blob.to_bytes().as_slice(), data);
    }
    if let Ok(measurement) = Measurement::parse(data) {
        assert_eq!(measurement.to_bytes().as_slice(), data);
    }
    if let Ok(header) = SecretHeader::parse(data) {
        assert_eq!(header.to_bytes().as_slice(), data);
    }
    if let Ok(entries) = SecretTable::parse(data) {
        let total: usize = entries.iter().map(|entry| entry.data.len()).sum();
        assert!(entries.len() <= SecretTable::MAX_ENTRIES && total <= data.len());
        let Ok(len) = SecretTable::len(&entries) else { return };
        let mut out = vec![0; len];
        assert!(SecretTable::write(&entries, &mut out).is_ok());
        let back: Vec<SecretEntry<'_>> = SecretTable::parse(&out).unwrap_or_default();
        assert_eq!(back, entries);
    }
}
