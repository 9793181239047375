//! Certificates as a key ring holds them (RFC 4880, section 11.1): a primary key, its user ids and subkeys, each
//! with the signatures that follow it. Nothing is verified here.

use pgp::packet::{PacketHeader, PublicKey, PublicSubkey, SecretKey, SecretSubkey, Signature, UserId};
use pgp::types::Tag;

use super::packets::{Packet, tag};

/// Signatures that are kept for one component; a flooded key has tens of thousands.
const MAX_SIGNATURES: usize = 1024;

/// A component that the signatures after it speak about.
pub(super) struct Signed<T> {
    pub(super) it: T,
    pub(super) signatures: Vec<Signature>,
}

/// One primary key with all that belongs to it.
pub(super) struct Certificate {
    pub(super) primary: Signed<PublicKey>,
    pub(super) users: Vec<Signed<UserId>>,
    pub(super) subkeys: Vec<Signed<PublicSubkey>>,
    /// Subkeys of kinds that can't be read.
    pub(super) unreadable_subkeys: usize,
}

/// A primary key that can't be read, known by its user ids alone.
pub(super) struct Unreadable {
    pub(super) users: Vec<String>,
}

/// What a ring holds.
#[derive(Default)]
pub(super) struct Certificates {
    pub(super) readable: Vec<Certificate>,
    pub(super) unreadable: Vec<Unreadable>,
}

/// Where the next signature belongs.
enum Place {
    Nowhere,
    Primary,
    User,
    Subkey,
}

impl Certificates {
    /// Sorts packets into certificates. What a certificate may hold besides (photos, trust, experiments) is
    /// passed over.
    pub(super) fn add(&mut self, packets: &[Packet]) {
        let mut place = Place::Nowhere;
        let mut lost = false;
        for packet in packets {
            match packet.tag {
                tag::PUBLIC_KEY | tag::SECRET_KEY => {
                    lost = match primary(packet) {
                        Some(key) => {
                            self.readable.push(Certificate::new(key));
                            false
                        }
                        None => {
                            self.unreadable.push(Unreadable { users: Vec::new() });
                            true
                        }
                    };
                    place = Place::Primary;
                }
                tag::USER_ID if lost => {
                    let name = String::from_utf8_lossy(&packet.body).into_owned();
                    self.unreadable.last_mut().into_iter().for_each(|key| key.users.push(name.clone()));
                }
                _ if lost => {}
                _ => {
                    if let Some(certificate) = self.readable.last_mut() {
                        place = certificate.add(packet, place);
                    }
                }
            }
        }
    }
}

impl Certificate {
    fn new(key: PublicKey) -> Self {
        let primary = Signed { it: key, signatures: Vec::new() };
        Self { primary, users: Vec::new(), subkeys: Vec::new(), unreadable_subkeys: 0 }
    }

    fn add(&mut self, packet: &Packet, place: Place) -> Place {
        match packet.tag {
            tag::USER_ID => {
                let header = PacketHeader::new_fixed(Tag::UserId, packet.body.len() as u32);
                match UserId::try_from_reader(header, packet.body.as_slice()) {
                    Ok(it) => {
                        self.users.push(Signed { it, signatures: Vec::new() });
                        Place::User
                    }
                    Err(_) => Place::Nowhere,
                }
            }
            tag::PUBLIC_SUBKEY | tag::SECRET_SUBKEY => match subkey(packet) {
                Some(it) => {
                    self.subkeys.push(Signed { it, signatures: Vec::new() });
                    Place::Subkey
                }
                None => {
                    self.unreadable_subkeys += 1;
                    Place::Nowhere
                }
            },
            tag::SIGNATURE => {
                self.sign(packet, &place);
                place
            }
            // Trust packets stand between a signature and the next one and change nothing.
            12 => place,
            _ => Place::Nowhere,
        }
    }

    fn sign(&mut self, packet: &Packet, place: &Place) {
        let signatures = match place {
            Place::Nowhere => return,
            Place::Primary => &mut self.primary.signatures,
            Place::User => match self.users.last_mut() {
                Some(user) => &mut user.signatures,
                None => return,
            },
            Place::Subkey => match self.subkeys.last_mut() {
                Some(subkey) => &mut subkey.signatures,
                None => return,
            },
        };
        let header = PacketHeader::new_fixed(Tag::Signature, packet.body.len() as u32);
        if let Ok(signature) = Signature::try_from_reader(header, packet.body.as_slice())
            && signatures.len() < MAX_SIGNATURES
        {
            signatures.push(signature);
        }
    }
}

/// The public half, also of a private key: `gpg --export-secret-keys` names recipients too.
fn primary(packet: &Packet) -> Option<PublicKey> {
    let length = packet.body.len() as u32;
    let body = packet.body.as_slice();
    if packet.tag == tag::PUBLIC_KEY {
        PublicKey::try_from_reader(PacketHeader::new_fixed(Tag::PublicKey, length), body).ok()
    } else {
        let secret =
            SecretKey::try_from_reader(PacketHeader::new_fixed(Tag::SecretKey, length), body).ok()?;
        Some(secret.public_key().clone())
    }
}

fn subkey(packet: &Packet) -> Option<PublicSubkey> {
    let length = packet.body.len() as u32;
    let body = packet.body.as_slice();
    if packet.tag == tag::PUBLIC_SUBKEY {
        PublicSubkey::try_from_reader(PacketHeader::new_fixed(Tag::PublicSubkey, length), body).ok()
    } else {
        let secret =
            SecretSubkey::try_from_reader(PacketHeader::new_fixed(Tag::SecretSubkey, length), body).ok()?;
        Some(secret.public_key().clone())
    }
}
