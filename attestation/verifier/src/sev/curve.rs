//! Points on P-384 and the Diffie-Hellman agreement with a platform. A point that is not on the curve would let a
//! host learn keys bit by bit (CVE-2019-9836); ours is never sent to one.

use p384::elliptic_curve::sec1::ToSec1Point;
use p384::{NonZeroScalar, PublicKey, SecretKey};
use tee_evidence::sev::Point;
use zeroize::Zeroizing;

use super::crypto::{NoRandomness, Randomness};

/// A point that is on P-384 and not its identity.
#[derive(Debug, Clone)]
pub(crate) struct CurvePoint(PublicKey);

impl CurvePoint {
    pub(crate) fn check(point: &Point) -> Option<Self> {
        PublicKey::from_sec1_bytes(&point.to_sec1()).ok().map(Self)
    }
}

/// Draws a key, agrees with the peer's and forgets the key: our public point, and the shared x-coordinate.
pub(crate) fn agree(
    peer: &CurvePoint,
    random: &mut dyn Randomness,
) -> Result<(Point, Zeroizing<[u8; 48]>), NoRandomness> {
    let secret = draw(random)?;
    let public: [u8; 97] =
        secret.public_key().to_sec1_point(false).as_bytes().try_into().map_err(|_| NoRandomness)?;
    let shared = p384::ecdh::diffie_hellman(NonZeroScalar::from(&secret), peer.0.as_affine());
    let mut x = Zeroizing::new([0; 48]);
    x.copy_from_slice(shared.raw_secret_bytes());
    Ok((Point::from_sec1(&public).ok_or(NoRandomness)?, x))
}

/// A scalar in its range. All but one of 2^190 draws is.
fn draw(random: &mut dyn Randomness) -> Result<SecretKey, NoRandomness> {
    for _ in 0..8 {
        let mut bytes = Zeroizing::new([0; 48]);
        random.fill(bytes.as_mut_slice())?;
        if let Ok(secret) = SecretKey::from_slice(bytes.as_slice()) {
            return Ok(secret);
        }
    }
    Err(NoRandomness)
}
