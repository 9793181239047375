//! The ID block with which a guest's owner says at launch what is launched (SEV-SNP firmware ABI,
//! SNP_LAUNCH_FINISH, tables "ID_BLOCK" and "ID_AUTH"), checked as the firmware does.

use crate::snp::report::Identity;
use p384::ecdsa::signature::Verifier;
use p384::ecdsa::{Signature, VerifyingKey};
use sha2::{Digest, Sha384};

/// Bytes of an ID block: launch digest 48, family 16, image 16, version u32, SVN u32, policy u64.
pub const BLOCK: usize = 96;
/// Bytes of its authentication.
pub const AUTHENTICATION: usize = 4096;
/// Bytes of a public key: curve u32, coordinates of 72 bytes, zeros.
pub const KEY: usize = 1028;
/// Bytes of a signature: r and s of 72 bytes, zeros.
pub const SIGNATURE: usize = 512;

const BLOCK_SIGNATURE_AT: usize = 0x40;
const ID_KEY_AT: usize = 0x240;
const ID_KEY_SIGNATURE_AT: usize = 0x680;
const AUTHOR_KEY_AT: usize = 0x880;
const VERSION: u32 = 1;
const ECDSA_P384_SHA384: u32 = 1;
const P384: u32 = 2;
const COORDINATE: usize = 72;

/// Why the firmware doesn't launch the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ID block: {0}")]
pub struct IdBlockError(&'static str);

/// Checks a block and its authentication for a launch with this digest and policy. Author keys are optional: one
/// of zeros is none.
pub fn check(
    block: &[u8],
    authentication: &[u8],
    measurement: &[u8; 48],
    policy: u64,
) -> Result<Identity, IdBlockError> {
    let block: &[u8; BLOCK] = block.try_into().map_err(|_| IdBlockError("it doesn't have 96 bytes"))?;
    let authentication: &[u8; AUTHENTICATION] =
        authentication.try_into().map_err(|_| IdBlockError("its authentication doesn't have 4096 bytes"))?;
    if block[80..84] != VERSION.to_le_bytes() {
        return Err(IdBlockError("it is of another version than 1"));
    }
    if block[..48] != measurement[..] {
        return Err(IdBlockError("it is for another launch digest"));
    }
    if block[88..] != policy.to_le_bytes() {
        return Err(IdBlockError("it is for another guest policy"));
    }
    let author = &authentication[AUTHOR_KEY_AT..][..KEY];
    let authored = author.iter().any(|byte| *byte != 0);
    let algorithm = |at: usize| authentication[at..at + 4] == ECDSA_P384_SHA384.to_le_bytes();
    if !algorithm(0) || (authored && !algorithm(4)) {
        return Err(IdBlockError("it is signed by another algorithm than ECDSA P-384"));
    }
    let id_key = &authentication[ID_KEY_AT..][..KEY];
    verify(id_key, block, &authentication[BLOCK_SIGNATURE_AT..][..SIGNATURE])
        .ok_or(IdBlockError("the ID key didn't sign it"))?;
    if authored {
        verify(author, id_key, &authentication[ID_KEY_SIGNATURE_AT..][..SIGNATURE])
            .ok_or(IdBlockError("the author key didn't sign the ID key"))?;
    }
    let array = |at: usize| {
        let mut out = [0; 16];
        out.copy_from_slice(&block[at..at + 16]);
        out
    };
    Ok(Identity {
        family_id: array(48),
        image_id: array(64),
        guest_svn: u32::from_le_bytes([block[84], block[85], block[86], block[87]]),
        id_key_digest: Sha384::digest(id_key).into(),
        author_key_digest: authored.then(|| Sha384::digest(author).into()),
    })
}

fn verify(key: &[u8], message: &[u8], signature: &[u8]) -> Option<()> {
    if key[..4] != P384.to_le_bytes() {
        return None;
    }
    let mut point = [4; 97];
    point[1..49].copy_from_slice(&big_endian(&key[4..])?);
    point[49..].copy_from_slice(&big_endian(&key[4 + COORDINATE..])?);
    let key = VerifyingKey::from_sec1_bytes(&point).ok()?;
    let signature =
        Signature::from_scalars(big_endian(signature)?, big_endian(&signature[COORDINATE..])?).ok()?;
    key.verify(message, &signature).ok()
}

/// A number of 48 bytes from a field of 72.
fn big_endian(field: &[u8]) -> Option<[u8; 48]> {
    let (low, high) = field.get(..COORDINATE)?.split_at(48);
    let mut out: [u8; 48] = low.try_into().ok()?;
    out.reverse();
    high.iter().all(|byte| *byte == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p384::ecdsa::SigningKey;
    use p384::ecdsa::signature::Signer;
    use p384::elliptic_curve::sec1::ToSec1Point;

    const POLICY: u64 = 0x3_0000;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_slice(&[seed; 48]).unwrap()
    }

    fn little_endian(out: &mut [u8], number: &[u8]) {
        for (place, byte) in out.iter_mut().zip(number.iter().rev()) {
            *place = *byte;
        }
    }

    fn public(key: &SigningKey) -> [u8; KEY] {
        let point = key.verifying_key().as_affine().to_sec1_point(false);
        let mut out = [0; KEY];
        out[0] = 2;
        little_endian(&mut out[4..], point.x().unwrap());
        little_endian(&mut out[76..], point.y().unwrap());
        out
    }

    fn signature(key: &SigningKey, message: &[u8]) -> [u8; SIGNATURE] {
        let signature: Signature = key.sign(message);
        let (r, s) = signature.split_bytes();
        let mut out = [0; SIGNATURE];
        little_endian(&mut out, &r);
        little_endian(&mut out[72..], &s);
        out
    }

    fn block() -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..48].fill(7);
        block[48..64].fill(1);
        block[64..80].fill(2);
        block[80] = 1;
        block[84] = 9;
        block[88..].copy_from_slice(&POLICY.to_le_bytes());
        block
    }

    fn authentication(author: bool) -> [u8; AUTHENTICATION] {
        let mut out = [0; AUTHENTICATION];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[1, 0, 0, 0, 1]);
        put(0x40, &signature(&key(3), &block()));
        put(0x240, &public(&key(3)));
        if author {
            put(0x680, &signature(&key(4), &public(&key(3))));
            put(0x880, &public(&key(4)));
        }
        out
    }

    #[test]
    fn a_block_leaves_what_it_says_and_who_signed_it() {
        let identity = check(&block(), &authentication(false), &[7; 48], POLICY).unwrap();
        assert_eq!((identity.family_id, identity.image_id, identity.guest_svn), ([1; 16], [2; 16], 9));
        assert_eq!(identity.id_key_digest[..], Sha384::digest(public(&key(3)))[..]);
        assert_eq!(identity.author_key_digest, None);
        let identity = check(&block(), &authentication(true), &[7; 48], POLICY).unwrap();
        assert_eq!(identity.author_key_digest.unwrap()[..], Sha384::digest(public(&key(4)))[..]);
    }

    #[test]
    fn blocks_for_other_launches_and_by_other_keys_are_refused() {
        let refused = |block: &[u8], authentication: &[u8]| {
            check(block, authentication, &[7; 48], POLICY).unwrap_err().to_string()
        };
        let changed = |at: usize| {
            let mut block = block();
            block[at] ^= 1;
            refused(&block, &authentication(true))
        };
        assert!(changed(0).contains("launch digest"));
        assert!(changed(80).contains("version"));
        assert!(changed(88).contains("policy"));
        for at in [48, 64, 84] {
            assert!(changed(at).contains("ID key didn't sign it"));
        }
        let authenticated = |at: usize| {
            let mut authentication = authentication(true);
            authentication[at] ^= 1;
            refused(&block(), &authentication)
        };
        assert!(authenticated(0).contains("algorithm") && authenticated(4).contains("algorithm"));
        for at in [0x40, 0x40 + 71, 0x240, 0x244] {
            assert!(authenticated(at).contains("ID key didn't sign it"), "{at:#x}");
        }
        for at in [0x680, 0x880, 0x884] {
            assert!(authenticated(at).contains("author key"), "{at:#x}");
        }
        assert!(refused(&block()[..95], &authentication(true)).contains("96"));
        assert!(refused(&block(), &[]).contains("4096"));
    }
}
