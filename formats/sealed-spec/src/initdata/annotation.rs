//! The pod annotation that carries initdata to the Kata runtime: base64(gzip).

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::gzip;
use super::{InitdataError, MAX_INITDATA};

/// Name of the annotation.
pub const ANNOTATION: &str = "io.katacontainers.config.hypervisor.cc_init_data";
/// Kubernetes allows 256 KiB for all annotations of an object; the rest is for the others.
pub const MAX_ANNOTATION: usize = (256 - 16) * 1024;

/// The annotation's value. Equal documents give equal text.
pub fn encode(toml_bytes: &[u8]) -> Result<String, InitdataError> {
    if toml_bytes.len() > MAX_INITDATA {
        return Err(InitdataError::TooLong);
    }
    let text = STANDARD.encode(gzip::compress(toml_bytes)?);
    if text.len() > MAX_ANNOTATION {
        return Err(InitdataError::Annotation(
            "longer than the 240 KiB that an annotation can carry; put the sealed document into the ConfigMap",
        ));
    }
    Ok(text)
}

/// The document of an annotation.
pub fn decode(text: &str) -> Result<Vec<u8>, InitdataError> {
    if text.len() > MAX_ANNOTATION {
        return Err(InitdataError::Annotation("longer than an annotation can be"));
    }
    let packed = STANDARD.decode(text).map_err(|_| InitdataError::Annotation("not base64"))?;
    gzip::decompress(&packed)
}
