//! A whole file out of the blob, 64 bytes at a time. The ultravisor is trusted, the way to it is not more than
//! any other: every length is held against its bound.

use protocols::pef::MAX_ESM_FILE;
use zeroize::{Zeroize, Zeroizing};

use super::{Chunk, EsmError, Ultravisor};

/// Reads the file `name`, front to back: no ultravisor goes back. `None` if nobody answers the first call.
pub fn read_file(
    ultravisor: &mut dyn Ultravisor,
    name: &str,
) -> Result<Option<Zeroizing<Vec<u8>>>, EsmError> {
    let mut padded = [0; 64];
    // The last byte stays zero.
    let Some(start) = padded[..63].get_mut(..name.len()) else { return Err(EsmError::Field("file name")) };
    start.copy_from_slice(name.as_bytes());
    // Room enough from the start: a buffer that grows leaves its contents behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_ESM_FILE));
    loop {
        let Some(mut chunk) = ultravisor.get_file(&padded, bytes.len() as u64) else {
            return if bytes.is_empty() { Ok(None) } else { Err(EsmError::NoAnswer) };
        };
        let more = append(&mut bytes, &chunk);
        chunk.data.zeroize();
        if !more? {
            return if bytes.is_empty() { Err(EsmError::Empty) } else { Ok(Some(bytes)) };
        }
    }
}

/// False at the end of the file.
fn append(bytes: &mut Vec<u8>, chunk: &Chunk) -> Result<bool, EsmError> {
    let length = match chunk.length {
        error if error < 0 => return Err(EsmError::Refused(error)),
        0 => return Ok(false),
        length => usize::try_from(length).ok().filter(|length| *length <= chunk.data.len()),
    };
    let data = &chunk.data[..length.ok_or(EsmError::Chunk(chunk.length))?];
    if bytes.len() + data.len() > MAX_ESM_FILE {
        return Err(EsmError::Long);
    }
    bytes.extend_from_slice(data);
    Ok(true)
}
