//! The keyring of a policy: `gpg --export`, armoured or not.

use super::armor;
use super::certificate::Certificate;
use super::key::{Key, Material};
use super::packet::{
    MARKER, PADDING, PUBLIC_KEY, PUBLIC_SUBKEY, Packet, Packets, SECRET_KEY, SECRET_SUBKEY, SIGNATURE, TRUST,
    USER_ATTRIBUTE, USER_ID,
};
use super::signature::{CERTIFICATION_REVOCATION, KEY_REVOCATION, SUBKEY_REVOCATION, Signature};

/// Packets of a keyring, third parties' certifications included.
const MAX_PACKETS: usize = 4096;

/// Keys that signatures of images are verified with.
#[derive(Clone, Debug)]
pub(crate) struct Keyring {
    certificates: Vec<Certificate>,
}

impl Keyring {
    /// From a keyring file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bytes = armor::unarmored(bytes)?;
        let wrong = |reason: String| format!("the keyring can't be used: {reason}");
        let mut certificates: Vec<Certificate> = Vec::new();
        let mut over = Over::Key;
        for packet in Packets::new(&bytes).all(MAX_PACKETS).map_err(|reason| wrong(reason.into()))? {
            add(&mut certificates, &mut over, packet).map_err(wrong)?;
        }
        if certificates.is_empty() {
            return Err("the keyring is empty; write it with 'gpg --export KEY'".into());
        }
        for certificate in &certificates {
            if let Material::Other(reason) = certificate.primary.material {
                return Err(wrong(format!("key {} {reason}", certificate.primary.name())));
            }
        }
        Ok(Self { certificates })
    }

    /// All keys, each with the certificate that it is of.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&Certificate, &Key)> {
        self.certificates.iter().flat_map(|certificate| certificate.keys().map(move |key| (certificate, key)))
    }
}

/// What the signatures that follow are over.
enum Over {
    Key,
    Name,
    Subkey,
}

fn add(certificates: &mut Vec<Certificate>, over: &mut Over, packet: Packet<'_>) -> Result<(), String> {
    let body = packet.body;
    match packet.tag {
        PUBLIC_KEY => {
            let primary = Key::parse(&body)?;
            certificates.push(Certificate { primary, direct: vec![], names: vec![], subkeys: vec![] });
            *over = Over::Key;
            return Ok(());
        }
        SECRET_KEY | SECRET_SUBKEY => {
            return Err(
                "it has a secret key, which has no place in a policy; write it with 'gpg --export KEY'"
                    .into(),
            );
        }
        MARKER | TRUST | PADDING => return Ok(()),
        _ => {}
    }
    let certificate = certificates.last_mut().ok_or("it doesn't begin with a public key")?;
    match packet.tag {
        USER_ID => {
            certificate.names.push((name(0xb4, &body)?, Vec::new()));
            *over = Over::Name;
        }
        USER_ATTRIBUTE => {
            certificate.names.push((name(0xd1, &body)?, Vec::new()));
            *over = Over::Name;
        }
        PUBLIC_SUBKEY => {
            certificate.subkeys.push((Key::parse(&body)?, Vec::new()));
            *over = Over::Subkey;
        }
        SIGNATURE => {
            let signatures = match over {
                Over::Key => Some(&mut certificate.direct),
                Over::Name => certificate.names.last_mut().map(|(_, signatures)| signatures),
                Over::Subkey => certificate.subkeys.last_mut().map(|(_, signatures)| signatures),
            };
            match (Signature::parse(&body), signatures) {
                (Ok(signature), Some(signatures)) => signatures.push(signature),
                // What can't be read vouches for nothing, unless it would take something back.
                (Err(reason), _) if may_revoke(&body) => return Err(format!("a revocation: {reason}")),
                _ => {}
            }
        }
        tag => return Err(format!("it has a packet of type {tag}, which has no place in a keyring")),
    }
    Ok(())
}

/// What signatures over a name hash of it: RFC 9580 5.2.4.
fn name(kind: u8, body: &[u8]) -> Result<Vec<u8>, String> {
    let length = u32::try_from(body.len()).map_err(|_| "it has a name that is too long")?;
    let mut bytes = vec![kind];
    bytes.extend(length.to_be_bytes());
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// Versions 2 and 3 have the type behind a length, later ones directly behind the version.
fn may_revoke(body: &[u8]) -> bool {
    let revokes = |kind| matches!(kind, KEY_REVOCATION | SUBKEY_REVOCATION | CERTIFICATION_REVOCATION);
    match body {
        [2 | 3, _, kind, ..] => revokes(*kind),
        [_, kind, ..] => revokes(*kind),
        _ => true,
    }
}
