//! Signed messages: RFC 9580 10.3, in the one form that `skopeo standalone-sign` and GnuPG write: optionally
//! compressed, a one-pass signature, literal data, a signature. One signer, binary.

use std::io::Read as _;

use flate2::read::{DeflateDecoder, ZlibDecoder};

use super::cursor::Cursor;
use super::keyring::Keyring;
use super::packet::{COMPRESSED, LITERAL, ONE_PASS, Packet, Packets, SIGNATURE};
use super::signature::{BINARY, Life, Signature, Unsupported};
use crate::MAX_SIGNATURE;
use crate::error::SignatureError;

const MAX_PACKETS: usize = 3;

/// What a message says, if a key of the ring that may sign at `now` signed it.
pub(crate) fn open(message: &[u8], keyring: &Keyring, now: u64) -> Result<Vec<u8>, SignatureError> {
    let packets = Packets::new(message).all(MAX_PACKETS).map_err(malformed)?;
    if let [Packet { tag: COMPRESSED, body }] = packets.as_slice() {
        let inflated = inflate(body)?;
        return signed(&Packets::new(&inflated).all(MAX_PACKETS).map_err(malformed)?, keyring, now);
    }
    signed(&packets, keyring, now)
}

fn signed(packets: &[Packet<'_>], keyring: &Keyring, now: u64) -> Result<Vec<u8>, SignatureError> {
    let [
        Packet { tag: ONE_PASS, body: one_pass },
        Packet { tag: LITERAL, body: literal },
        Packet { tag: SIGNATURE, body: signature },
    ] = packets
    else {
        return Err(malformed("it is not a signed OpenPGP message with one signature"));
    };
    let signature = Signature::parse(signature).map_err(SignatureError::Malformed)?;
    let issuer = announced(one_pass, &signature)?;
    if signature.kind != BINARY {
        return Err(SignatureError::Unsupported {
            what: format!("an OpenPGP signature of type {:#04x}", signature.kind),
            next: "sign the image with 'skopeo standalone-sign' or 'skopeo copy --sign-by'",
        });
    }
    let data = data(literal).map_err(malformed)?;
    verify(&signature, data, issuer, keyring, now)?;
    Ok(data.to_vec())
}

fn verify(
    signature: &Signature,
    data: &[u8],
    issuer: Option<[u8; 8]>,
    keyring: &Keyring,
    now: u64,
) -> Result<(), SignatureError> {
    let mut named = false;
    for (certificate, key) in keyring.keys().filter(|(_, key)| issuer.is_none_or(|issuer| issuer == key.id)) {
        named = named || issuer.is_some();
        let verified = signature.verifies(key, data.to_vec());
        if !verified.map_err(|Unsupported { what, next }| SignatureError::Unsupported { what, next })? {
            continue;
        }
        let unusable = |reason: String| SignatureError::KeyUnusable { key: key.name(), reason };
        certificate.may_sign(key, now).map_err(unusable)?;
        if signature.created < key.created {
            return Err(unusable("is younger than the signature".into()));
        }
        return match signature.life(now) {
            Life::Current => Ok(()),
            Life::Over => Err(SignatureError::Expired),
            Life::Future => Err(SignatureError::Future),
        };
    }
    if named {
        return Err(SignatureError::Tampered);
    }
    Err(SignatureError::OtherKey { issuer: issuer.map(hex::encode_upper) })
}

/// Checks the one-pass packet (RFC 9580 5.4) against the signature; the key id that either of them names.
fn announced(body: &[u8], signature: &Signature) -> Result<Option<[u8; 8]>, SignatureError> {
    let mut cursor = Cursor::new(body);
    let mut fields = || {
        let (version, kind, hash, algorithm) = (cursor.u8()?, cursor.u8()?, cursor.u8()?, cursor.u8()?);
        let issuer: [u8; 8] = cursor.array()?;
        let last = cursor.u8()?;
        cursor.finish()?;
        Ok((version, kind, hash, algorithm, issuer, last))
    };
    let (version, kind, hash, algorithm, issuer, last) = fields().map_err(malformed)?;
    if (version, last) != (3, 1)
        || (kind, hash, algorithm) != (signature.kind, signature.hash, signature.algorithm)
    {
        return Err(malformed(
            "its one-pass signature announces another signature than the one that follows",
        ));
    }
    let issuer = Some(issuer).filter(|issuer| *issuer != [0; 8]);
    match (issuer, signature.subpackets.issuer) {
        (Some(one), Some(other)) if one != other => Err(malformed("it names two different keys")),
        (one, other) => Ok(one.or(other)),
    }
}

/// The data of a literal packet: RFC 9580 5.9.
fn data(body: &[u8]) -> Result<&[u8], &'static str> {
    let mut cursor = Cursor::new(body);
    if cursor.u8()? != b'b' {
        return Err("its data is not binary");
    }
    let name = cursor.u8()?;
    cursor.take(name.into())?;
    cursor.u32()?;
    Ok(cursor.rest())
}

/// A compressed packet's contents, which may not be compressed again: RFC 9580 5.6.
fn inflate(body: &[u8]) -> Result<Vec<u8>, SignatureError> {
    let (algorithm, data) = body.split_first().ok_or_else(|| malformed("its compressed data is empty"))?;
    let mut inflated = Vec::new();
    let limit = MAX_SIGNATURE as u64 + 1;
    let read = match algorithm {
        0 => data.take(limit).read_to_end(&mut inflated),
        1 => DeflateDecoder::new(data).take(limit).read_to_end(&mut inflated),
        2 => ZlibDecoder::new(data).take(limit).read_to_end(&mut inflated),
        _ => {
            return Err(SignatureError::Unsupported {
                what: format!("compression {algorithm} of a signature"),
                next: "sign with gpg's --compress-algo zlib or none",
            });
        }
    };
    read.map_err(|_| malformed("its compressed data is damaged"))?;
    if inflated.len() > MAX_SIGNATURE {
        return Err(SignatureError::Malformed(format!("it is larger than {} KiB", MAX_SIGNATURE / 1024)));
    }
    Ok(inflated)
}

fn malformed(reason: &'static str) -> SignatureError {
    SignatureError::Malformed(reason.into())
}
