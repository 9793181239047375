//! PKCS #11 URIs (RFC 7512): which key, on which token, behind which library, and where its PIN is.

use std::fmt;

use zeroize::Zeroizing;

/// The longest URI that is read, in bytes.
pub const MAX_URI: usize = 8192;

/// Attributes in one URI.
const MAX_ATTRIBUTES: usize = 32;

/// A URI that can't be used to name a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Not `pkcs11:…`.
    #[error("a PKCS #11 URI begins with 'pkcs11:'")]
    Scheme,
    /// Beyond [`MAX_URI`], or too many attributes.
    #[error("the PKCS #11 URI is too long")]
    TooLong,
    /// A part without `=`, or an empty one.
    #[error("the PKCS #11 URI has a part that is no NAME=VALUE after {0}")]
    Part(String),
    /// A character that must be percent-encoded, or an escape that is none.
    #[error("the value of '{0}' in the PKCS #11 URI is not properly percent-encoded")]
    Encoding(String),
    /// Only `id` is bytes; all others are text.
    #[error("the value of '{0}' in the PKCS #11 URI is not UTF-8, or has a NUL")]
    Text(String),
    /// Path attributes narrow what is meant: one that is not understood can't be left out.
    #[error("'{0}' is no path attribute of a PKCS #11 URI (RFC 7512)")]
    UnknownPath(String),
    /// The RFC allows each once.
    #[error("the PKCS #11 URI has '{0}' twice")]
    Twice(String),
    /// `pin-value` and `pin-source` together.
    #[error("the PKCS #11 URI has both pin-value and pin-source")]
    TwoPins,
    /// A value of the wrong form.
    #[error("{0} in the PKCS #11 URI must be {1}")]
    Value(&'static str, &'static str),
}

/// Where the PIN is.
#[derive(Clone, PartialEq, Eq)]
pub enum Pin {
    /// In the URI itself.
    Value(Zeroizing<String>),
    /// In a file, given by its absolute path.
    File(String),
}

/// What a URI says. Attributes that are absent match anything.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Uri {
    /// Label of the token.
    pub token: Option<String>,
    /// Manufacturer of the token.
    pub manufacturer: Option<String>,
    /// Model of the token.
    pub model: Option<String>,
    /// Serial number of the token.
    pub serial: Option<String>,
    /// Number of the slot.
    pub slot_id: Option<u64>,
    /// Description of the slot.
    pub slot_description: Option<String>,
    /// Manufacturer of the slot.
    pub slot_manufacturer: Option<String>,
    /// Manufacturer of the library.
    pub library_manufacturer: Option<String>,
    /// Description of the library.
    pub library_description: Option<String>,
    /// Version of the library, major and minor.
    pub library_version: Option<(u8, u8)>,
    /// Label of the object (CKA_LABEL).
    pub object: Option<String>,
    /// Identifier of the object (CKA_ID).
    pub id: Option<Vec<u8>>,
    /// `public` or `private`; nothing else is a key that wraps.
    pub class: Option<String>,
    /// Absolute path of the library, or of a directory that has it.
    pub module_path: Option<String>,
    /// Name of the library without its suffix.
    pub module_name: Option<String>,
    /// Where the PIN is.
    pub pin: Option<Pin>,
}

impl Uri {
    /// Reads a URI. Query attributes that the RFC does not have are ignored, path attributes are not.
    ///
    /// # Errors
    /// [`UriError`], without a value of the URI.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        if text.len() > MAX_URI {
            return Err(UriError::TooLong);
        }
        let rest = text.strip_prefix("pkcs11:").ok_or(UriError::Scheme)?;
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let mut uri = Self::default();
        for (name, value) in attributes(path, ';', PATH_EXTRA)? {
            uri.path_attribute(&name, &value)?;
        }
        for (name, value) in attributes(query.unwrap_or_default(), '&', QUERY_EXTRA)? {
            uri.query_attribute(&name, &value)?;
        }
        Ok(uri)
    }

    fn path_attribute(&mut self, name: &str, value: &[u8]) -> Result<(), UriError> {
        if name == "id" {
            self.id = Some(value.to_vec());
            return Ok(());
        }
        let value = text(name, value)?;
        let field = match name {
            "token" => &mut self.token,
            "manufacturer" => &mut self.manufacturer,
            "model" => &mut self.model,
            "serial" => &mut self.serial,
            "slot-description" => &mut self.slot_description,
            "slot-manufacturer" => &mut self.slot_manufacturer,
            "library-manufacturer" => &mut self.library_manufacturer,
            "library-description" => &mut self.library_description,
            "object" => &mut self.object,
            "type" if matches!(value.as_str(), "public" | "private") => &mut self.class,
            "type" => return Err(UriError::Value("type", "'public' or 'private' for a key that wraps")),
            "slot-id" => {
                self.slot_id = Some(number(&value).ok_or(UriError::Value("slot-id", "a number"))?);
                return Ok(());
            }
            "library-version" => {
                let bad = UriError::Value("library-version", "MAJOR or MAJOR.MINOR, each below 256");
                let (major, minor) = value.split_once('.').unwrap_or((&value, "0"));
                let version = number(major).zip(number(minor)).ok_or(bad)?;
                self.library_version = Some(version);
                return Ok(());
            }
            _ => return Err(UriError::UnknownPath(name.to_owned())),
        };
        *field = Some(value.to_string());
        Ok(())
    }

    fn query_attribute(&mut self, name: &str, value: &[u8]) -> Result<(), UriError> {
        let pin = match name {
            "module-name" => {
                let value = text(name, value)?;
                if value.is_empty() || value.contains('/') {
                    return Err(UriError::Value("module-name", "a file name without its directory"));
                }
                self.module_name = Some(value.to_string());
                return Ok(());
            }
            "module-path" => {
                let value = text(name, value)?;
                if !plain_absolute(&value) {
                    return Err(UriError::Value("module-path", "an absolute path without '.' and '..'"));
                }
                self.module_path = Some(value.to_string());
                return Ok(());
            }
            "pin-value" => Pin::Value(text(name, value)?),
            "pin-source" => {
                let value = text(name, value)?;
                // A file URI may have an empty authority or none.
                let path = value.strip_prefix("file:").unwrap_or(&value);
                let path = path.strip_prefix("//").unwrap_or(path);
                if !path.starts_with('/') {
                    return Err(UriError::Value("pin-source", "the absolute path of a file"));
                }
                Pin::File(path.to_owned())
            }
            _ => return Ok(()),
        };
        if self.pin.is_some() {
            return Err(UriError::TwoPins);
        }
        self.pin = Some(pin);
        Ok(())
    }

    /// The URI without its query: what may stand in messages, since the PIN is in the query.
    pub fn label(text: &str) -> &str {
        text.split('?').next().unwrap_or_default()
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uri")
            .field("token", &self.token)
            .field("object", &self.object)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value(_) => "Value(…)",
            Self::File(_) => "File(…)",
        })
    }
}

/// What may stand in a value as it is, besides letters, digits and `-._~` (section 2.3).
const PATH_EXTRA: &[u8] = b":[]@!$'()*+,=&";
const QUERY_EXTRA: &[u8] = b":[]@!$'()*+,=/?|";

/// Name and decoded value.
type Attribute = (String, Zeroizing<Vec<u8>>);

/// Splits and decodes, refusing what stands there twice.
fn attributes(part: &str, separator: char, extra: &[u8]) -> Result<Vec<Attribute>, UriError> {
    let mut found: Vec<Attribute> = Vec::new();
    if part.is_empty() {
        return Ok(found);
    }
    for item in part.split(separator) {
        let last =
            || found.last().map_or_else(|| "its beginning".to_owned(), |(name, _)| format!("'{name}'"));
        let (name, value) = item.split_once('=').ok_or_else(|| UriError::Part(last()))?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        {
            return Err(UriError::Part(last()));
        }
        if found.len() == MAX_ATTRIBUTES {
            return Err(UriError::TooLong);
        }
        if found.iter().any(|(other, _)| other == name) {
            return Err(UriError::Twice(name.to_owned()));
        }
        let value = decode(value, extra).ok_or_else(|| UriError::Encoding(name.to_owned()))?;
        found.push((name.to_owned(), value));
    }
    Ok(found)
}

fn decode(value: &str, extra: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut out = Zeroizing::new(Vec::with_capacity(value.len()));
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => digit(bytes.next()?)? << 4 | digit(bytes.next()?)?,
            b'-' | b'.' | b'_' | b'~' => byte,
            _ if byte.is_ascii_alphanumeric() || extra.contains(&byte) => byte,
            // ocicrypt's writers leave these as they are in labels.
            b' ' | b'#' | b'/' if extra == PATH_EXTRA => byte,
            _ => return None,
        });
    }
    Some(out)
}

fn text(name: &str, value: &[u8]) -> Result<Zeroizing<String>, UriError> {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains('\0') => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(UriError::Text(name.to_owned())),
    }
}

fn number<N: std::str::FromStr>(digits: &str) -> Option<N> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Absolute, and the same path however it is resolved (symbolic links aside).
pub fn plain_absolute(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    rest.strip_suffix('/').unwrap_or(rest).split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_attribute() {
        let uri = Uri::parse(
            "pkcs11:token=my%20token;manufacturer=Snake%20Oil;model=1.0;serial=DECC0401;slot-id=7;\
             slot-description=d;slot-manufacturer=m;library-manufacturer=l;library-description=e;\
             library-version=3.2;object=key+1;id=%00%ffab;type=private\
             ?module-path=/usr/lib/softhsm/libsofthsm2.so&module-name=softhsm2&pin-value=1%2634&x-vendor=1",
        )
        .unwrap();
        assert_eq!(uri.token.as_deref(), Some("my token"));
        assert_eq!(uri.manufacturer.as_deref(), Some("Snake Oil"));
        assert_eq!(uri.model.as_deref(), Some("1.0"));
        assert_eq!(uri.serial.as_deref(), Some("DECC0401"));
        assert_eq!(uri.slot_id, Some(7));
        assert_eq!(uri.slot_description.as_deref(), Some("d"));
        assert_eq!(uri.slot_manufacturer.as_deref(), Some("m"));
        assert_eq!(uri.library_manufacturer.as_deref(), Some("l"));
        assert_eq!(uri.library_description.as_deref(), Some("e"));
        assert_eq!(uri.library_version, Some((3, 2)));
        assert_eq!(uri.object.as_deref(), Some("key+1"), "a plus is a plus, not a space");
        assert_eq!(uri.id.as_deref(), Some(&[0, 0xff, b'a', b'b'][..]));
        assert_eq!(uri.class.as_deref(), Some("private"));
        assert_eq!(uri.module_path.as_deref(), Some("/usr/lib/softhsm/libsofthsm2.so"));
        assert_eq!(uri.module_name.as_deref(), Some("softhsm2"));
        assert_eq!(uri.pin, Some(Pin::Value(Zeroizing::new("1&34".into()))));
    }

    #[test]
    fn the_pin_may_be_in_a_file() {
        for source in ["/run/pin", "file:/run/pin", "file:///run/pin"] {
            let uri = Uri::parse(&format!("pkcs11:object=k?pin-source={source}")).unwrap();
            assert_eq!(uri.pin, Some(Pin::File("/run/pin".into())), "{source}");
        }
    }

    #[test]
    fn refuses_what_the_rfc_does_not_have() {
        use UriError::*;
        let whole = |uri: &str| Uri::parse(uri).unwrap_err();
        assert_eq!(whole("PKCS11:object=k"), Scheme);
        assert_eq!(whole("object=k"), Scheme);
        assert_eq!(whole("pkcs11:object"), Part("its beginning".into()));
        assert_eq!(whole("pkcs11:object=k;"), Part("'object'".into()));
        assert_eq!(whole("pkcs11:=k"), Part("its beginning".into()));
        assert_eq!(whole("pkcs11:object=%4"), Encoding("object".into()));
        assert_eq!(whole("pkcs11:object=%zz"), Encoding("object".into()));
        assert_eq!(whole("pkcs11:object=\u{e9}"), Encoding("object".into()));
        assert_eq!(whole("pkcs11:object=%ff"), Text("object".into()));
        assert_eq!(whole("pkcs11:object=a%00b"), Text("object".into()));
        assert_eq!(whole("pkcs11:x-shelf=1"), UnknownPath("x-shelf".into()));
        assert_eq!(whole("pkcs11:object=a;object=b"), Twice("object".into()));
        assert_eq!(whole("pkcs11:?pin-value=1&pin-value=2"), Twice("pin-value".into()));
        assert_eq!(whole("pkcs11:?pin-value=1&pin-source=/p"), TwoPins);
        assert_eq!(whole("pkcs11:slot-id=-1").to_string(), "slot-id in the PKCS #11 URI must be a number");
        for bad in ["slot-id=99999999999999999999", "library-version=1.256", "library-version=a", "type=cert"]
        {
            assert!(matches!(whole(&format!("pkcs11:{bad}")), Value(..)), "{bad}");
        }
        for bad in ["usr/lib/x.so", "/usr/../tmp/x.so", "/usr//x.so", "/./x.so", "/usr/lib/.."] {
            assert!(matches!(whole(&format!("pkcs11:?module-path={bad}")), Value("module-path", _)), "{bad}");
        }
        for bad in ["../x", "a/b", ""] {
            assert!(matches!(whole(&format!("pkcs11:?module-name={bad}")), Value("module-name", _)), "{bad}");
        }
        for bad in ["pin", "http://h/pin", "file://h/pin", "|command"] {
            assert!(matches!(whole(&format!("pkcs11:?pin-source={bad}")), Value("pin-source", _)), "{bad}");
        }
        assert_eq!(whole(&format!("pkcs11:object={}", "a".repeat(MAX_URI))), TooLong);
        let many: Vec<String> = (0..40).map(|i| format!("a{i}=1")).collect();
        assert_eq!(whole(&format!("pkcs11:?{}", many.join("&"))), TooLong);
    }

    #[test]
    fn no_pin_is_ever_printed() {
        let text = "pkcs11:object=k?pin-value=31337";
        let uri = Uri::parse(text).unwrap();
        assert!(!format!("{uri:?} {:?} {}", uri.pin, Uri::label(text)).contains("31337"));
        assert_eq!(Uri::label(text), "pkcs11:object=k");
    }
}
