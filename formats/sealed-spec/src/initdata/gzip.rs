//! gzip (RFC 1952) of one member, bounded: equal input gives equal bytes, and a bomb is cut short.

use std::io::{Read as _, Write as _};

use flate2::{Compression, GzBuilder, bufread::GzDecoder};

use super::InitdataError;

/// Longest initdata document, decompressed.
pub const MAX_INITDATA: usize = 4 * 1024 * 1024;

/// No name, no time, always the same operating system byte.
pub(super) fn compress(bytes: &[u8]) -> Result<Vec<u8>, InitdataError> {
    let mut encoder = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    encoder.write_all(bytes).map_err(|_| InitdataError::Gzip("compression failed"))?;
    encoder.finish().map_err(|_| InitdataError::Gzip("compression failed"))
}

/// Exactly one member with nothing after it.
pub(super) fn decompress(bytes: &[u8]) -> Result<Vec<u8>, InitdataError> {
    let mut decoder = GzDecoder::new(bytes);
    let mut plain = Vec::new();
    let limit = MAX_INITDATA as u64 + 1;
    decoder
        .by_ref()
        .take(limit)
        .read_to_end(&mut plain)
        .map_err(|_| InitdataError::Gzip("not valid gzip"))?;
    if plain.len() > MAX_INITDATA {
        return Err(InitdataError::TooLong);
    }
    if !decoder.into_inner().is_empty() {
        return Err(InitdataError::Gzip("bytes after its end"));
    }
    Ok(plain)
}
