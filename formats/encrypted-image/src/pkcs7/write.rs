//! EnvelopedData to the byte as ocicrypt writes it: version 0, recipients by issuer and serial number, and
//! AES-GCM parameters that are not DER.

use super::message::{AES_128_GCM, DATA, ENVELOPED_DATA, PRIMITIVE_SEQUENCE, RSA_ENCRYPTION};
use crate::keys::Certificate;
use crate::keys::der::{INTEGER, OCTET_STRING, OID, SEQUENCE, SET, context, context_primitive, value};

/// `content` is ciphertext ‖ tag.
pub(super) fn enveloped_data(
    recipients: &[(&Certificate, Vec<u8>)],
    nonce: &[u8; 12],
    content: &[u8],
) -> Vec<u8> {
    let version = value(INTEGER, &[&[0]]);
    let mut infos: Vec<_> = recipients
        .iter()
        .map(|(certificate, encrypted_key)| {
            let serial = value(INTEGER, &[certificate.serial()]);
            let id = value(SEQUENCE, &[certificate.issuer(), &serial]);
            let algorithm = value(SEQUENCE, &[&value(OID, &[RSA_ENCRYPTION])]);
            value(SEQUENCE, &[&version, &id, &algorithm, &value(OCTET_STRING, &[encrypted_key])])
        })
        .collect();
    infos.sort(); // X.690 section 11.6
    let infos: Vec<&[u8]> = infos.iter().map(Vec::as_slice).collect();

    let aes_128_gcm = value(OID, &[&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, AES_128_GCM]]);
    let parameters = value(SEQUENCE, &[&value(context_primitive(4), &[nonce]), &value(INTEGER, &[&[16]])]);
    let algorithm = value(SEQUENCE, &[&aes_128_gcm, &value(PRIMITIVE_SEQUENCE, &[&parameters])]);
    let encrypted = value(context(0), &[&value(OCTET_STRING, &[content])]);
    let content = value(SEQUENCE, &[&value(OID, &[DATA]), &algorithm, &encrypted]);

    let data = value(SEQUENCE, &[&version, &value(SET, &infos), &content]);
    value(SEQUENCE, &[&value(OID, &[ENVELOPED_DATA]), &value(context(0), &[&data])])
}
