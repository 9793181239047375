//! The PIN: in the URI, or in the file that the URI names (RFC 7512, section 2.4).

use std::io::Read;

use encrypted_image::pkcs11::token::Refusal;
use encrypted_image::pkcs11::uri::{Pin, Uri};
use zeroize::Zeroizing;

/// The longest PIN, in bytes.
const LIMIT: usize = 1024;

/// The PIN, when the URI has one. A file's last line end isn't part of it.
pub(crate) fn of(uri: &Uri) -> Result<Option<Zeroizing<String>>, Refusal> {
    let path = match &uri.pin {
        None => return Ok(None),
        Some(Pin::Value(pin)) => return Ok(Some(pin.clone())),
        Some(Pin::File(path)) => path,
    };
    let failed = |reason: String| Refusal::PinFile(format!("{path}: {reason}"));
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut pin = Zeroizing::new(String::with_capacity(LIMIT + 1));
    file.take(LIMIT as u64 + 1).read_to_string(&mut pin).map_err(|error| failed(error.to_string()))?;
    if pin.len() > LIMIT {
        return Err(failed(format!("longer than {LIMIT} bytes")));
    }
    let length = pin.trim_end_matches(['\n', '\r']).len();
    pin.truncate(length);
    Ok(Some(pin))
}
