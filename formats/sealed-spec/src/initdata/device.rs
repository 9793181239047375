//! The block device that carries initdata into a guest: `"initdata"` ‖ u64 LE length ‖ gzip, then
//! zeros up to the next 512-byte sector (Kata's format).

use super::gzip;
use super::{InitdataError, MAX_INITDATA};

/// First bytes of the device.
pub const MAGIC: &[u8; 8] = b"initdata";
/// Size of magic and length.
pub const HEADER_LEN: usize = 16;
/// Devices are whole sectors.
pub const SECTOR: usize = 512;
/// Longest device worth reading: compression can't make the longest document much longer.
pub const MAX_DEVICE: usize = MAX_INITDATA + 64 * 1024;

/// The device's bytes for a document. Equal documents give equal bytes.
pub fn encode(toml_bytes: &[u8]) -> Result<Vec<u8>, InitdataError> {
    if toml_bytes.len() > MAX_INITDATA {
        return Err(InitdataError::TooLong);
    }
    let packed = gzip::compress(toml_bytes)?;
    let mut device = Vec::with_capacity((HEADER_LEN + packed.len()).next_multiple_of(SECTOR));
    device.extend_from_slice(MAGIC);
    device.extend_from_slice(&(packed.len() as u64).to_le_bytes());
    device.extend_from_slice(&packed);
    device.resize(device.len().next_multiple_of(SECTOR), 0);
    Ok(device)
}

/// How many bytes of a device to read, from its first [`HEADER_LEN`]; `None` if it isn't one.
pub fn length(header: &[u8; HEADER_LEN]) -> Option<Result<usize, InitdataError>> {
    let (magic, length) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return None;
    }
    let length = length.try_into().map_or(u64::MAX, u64::from_le_bytes);
    Some(match usize::try_from(length) {
        Ok(length) if length <= MAX_DEVICE - HEADER_LEN => Ok(HEADER_LEN + length),
        _ => Err(InitdataError::Device("its length field is larger than any initdata")),
    })
}

/// The document of a device. After the gzip data only zeros may follow, less than a sector.
pub fn decode(device: &[u8]) -> Result<Vec<u8>, InitdataError> {
    let header = device.first_chunk().ok_or(InitdataError::Device("shorter than its header"))?;
    let end = length(header).ok_or(InitdataError::Device("it doesn't start with the initdata magic"))??;
    let packed =
        device.get(HEADER_LEN..end).ok_or(InitdataError::Device("shorter than its length field says"))?;
    let rest = &device[end..];
    if rest.len() >= SECTOR || rest.iter().any(|byte| *byte != 0) {
        return Err(InitdataError::Device("bytes after its end"));
    }
    gzip::decompress(packed)
}
