//! The token: slot, session, key, and RSA-OAEP (PKCS #11 v2.40, sections 5 and 6; RSA PKCS #1 OAEP, 2.1.8).

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use encrypted_image::pkcs11::OaepHash;
use encrypted_image::pkcs11::token::{Ciphertext, Refusal};
use encrypted_image::pkcs11::uri::Uri;
use zeroize::Zeroizing;

/// Which half of a key pair is used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Public,
    Private,
}

/// A library that is loaded and initialised.
pub(crate) struct Context(Pkcs11);

/// A key, and the session that it can be used in.
pub(crate) struct Key {
    session: Session,
    handle: ObjectHandle,
    /// Bytes of the modulus.
    size: usize,
}

impl Context {
    pub(crate) fn load(module: &str, uri: &Uri) -> Result<Self, Refusal> {
        let failed = |reason: String| Refusal::Module { module: module.to_owned(), reason };
        let context = Pkcs11::new(module).map_err(|error| failed(error.to_string()))?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) => {}
            Err(error) => return Err(failed(error.to_string())),
        }
        let info = context.get_library_info().map_err(|error| failed(error.to_string()))?;
        let version = info.library_version();
        if differs(&uri.library_manufacturer, info.manufacturer_id())
            || differs(&uri.library_description, info.library_description())
            || uri.library_version.is_some_and(|wanted| wanted != (version.major(), version.minor()))
        {
            return Err(failed("it is not the library that the PKCS #11 URI describes".into()));
        }
        Ok(Self(context))
    }

    /// Finds the one token and the one key that the URI names.
    pub(crate) fn open(&self, uri: &Uri, pin: Option<Zeroizing<String>>, half: Half) -> Result<Key, Refusal> {
        if uri.object.is_none() && uri.id.is_none() {
            return Err(Refusal::NoObject);
        }
        let (slot, info) = self.token(uri)?;
        let session = self.0.open_ro_session(slot).map_err(refused)?;
        log_in(&session, &info, pin, half)?;
        let (class, name) = match half {
            Half::Public => (ObjectClass::PUBLIC_KEY, "public"),
            Half::Private => (ObjectClass::PRIVATE_KEY, "private"),
        };
        let mut template = vec![Attribute::Class(class), Attribute::KeyType(KeyType::RSA)];
        template.extend(uri.object.as_ref().map(|label| Attribute::Label(label.as_bytes().to_vec())));
        template.extend(uri.id.as_ref().map(|id| Attribute::Id(id.clone())));
        let handle = match *session.find_objects(&template).map_err(refused)?.as_slice() {
            [handle] => handle,
            [] => return Err(Refusal::MissingKey(name.into())),
            ref many => return Err(Refusal::ManyKeys(many.len())),
        };
        let attributes = session.get_attributes(handle, &[AttributeType::Modulus]).map_err(refused)?;
        let Some(Attribute::Modulus(modulus)) = attributes.first() else {
            return Err(Refusal::Token("it does not tell the key's modulus".into()));
        };
        let size = modulus.iter().skip_while(|byte| **byte == 0).count();
        Ok(Key { session, handle, size })
    }

    fn token(&self, uri: &Uri) -> Result<(Slot, TokenInfo), Refusal> {
        let mut found = Vec::new();
        for slot in self.0.get_slots_with_token().map_err(refused)? {
            // A slot may lose its token at any time: then it isn't the one.
            let (Ok(info), Ok(place)) = (self.0.get_token_info(slot), self.0.get_slot_info(slot)) else {
                continue;
            };
            let other = uri.slot_id.is_some_and(|id| id != slot.id())
                || differs(&uri.token, info.label())
                || differs(&uri.manufacturer, info.manufacturer_id())
                || differs(&uri.model, info.model())
                || differs(&uri.serial, info.serial_number())
                || differs(&uri.slot_description, place.slot_description())
                || differs(&uri.slot_manufacturer, place.manufacturer_id());
            if !other && info.token_initialized() {
                found.push((slot, info));
            }
        }
        match found.len() {
            0 => Err(Refusal::NoToken),
            1 => found.pop().ok_or(Refusal::NoToken),
            many => Err(Refusal::ManyTokens(many)),
        }
    }
}

fn differs(wanted: &Option<String>, actual: &str) -> bool {
    wanted.as_ref().is_some_and(|wanted| wanted != actual)
}

/// The PIN is tried once. Without one, a token with its own key pad asks for it; a public key may need none.
fn log_in(
    session: &Session,
    info: &TokenInfo,
    pin: Option<Zeroizing<String>>,
    half: Half,
) -> Result<(), Refusal> {
    let pin = match pin {
        Some(pin) => Some(AuthPin::from(pin.to_string())),
        None if half == Half::Public || !info.login_required() => return Ok(()),
        None if info.protected_authentication_path() => None,
        None => return Err(Refusal::NoPin),
    };
    match session.login(UserType::User, pin.as_ref()) {
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _)) => {
            Err(Refusal::WrongPin)
        }
        Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(Refusal::PinLocked),
        Err(error) => Err(refused(error)),
    }
}

impl Key {
    pub(crate) fn encrypt(&self, hash: OaepHash, plain: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        if plain.len() > hash.capacity(self.size) {
            return Err(Refusal::TooLong { length: plain.len(), bits: self.size * 8, hash });
        }
        self.session.encrypt(&mechanism(hash), self.handle, plain).map(Zeroizing::new).map_err(refused)
    }

    /// The first recipient's share that opens. A share of another length is another key's.
    pub(crate) fn decrypt(&self, recipients: &[Ciphertext]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let mut failure = Refusal::NotRecipient;
        for share in recipients.iter().filter(|share| share.bytes.0.len() == self.size) {
            match self.session.decrypt(&mechanism(share.hash), self.handle, &share.bytes.0) {
                Ok(plain) => return Ok(Zeroizing::new(plain)),
                // What tokens answer when the padding is wrong: another key's share, or a changed one.
                Err(Error::Pkcs11(
                    RvError::EncryptedDataInvalid
                    | RvError::EncryptedDataLenRange
                    | RvError::DataInvalid
                    | RvError::DataLenRange
                    | RvError::FunctionFailed
                    | RvError::GeneralError,
                    _,
                )) => {}
                Err(error) => failure = refused(error),
            }
        }
        Err(failure)
    }
}

fn mechanism(hash: OaepHash) -> Mechanism<'static> {
    let (digest, mask) = match hash {
        OaepHash::Sha1 => (MechanismType::SHA1, PkcsMgfType::MGF1_SHA1),
        OaepHash::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256),
    };
    Mechanism::RsaPkcsOaep(PkcsOaepParams::new(digest, mask, PkcsOaepSource::empty()))
}

fn refused(error: Error) -> Refusal {
    Refusal::Token(match error {
        Error::Pkcs11(value, function) => format!("{function:?}: {value}"),
        other => other.to_string(),
    })
}
