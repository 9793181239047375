//! What a layer unpacks to, hashed and thrown away: the diff id that the image's config names.

use std::io::{self, Write};

use encrypted_image::Compression;
use flate2::write::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use super::{Pass, PassError};
use crate::document::Digest;

/// No layer is larger; what would be is a bomb.
const UNPACKED_LIMIT: u64 = 1 << 40;
/// Zstandard's window, at most 128 MiB as the format's own tools have it.
const WINDOW_LOG: u32 = 27;

/// Decompresses what passes, and hashes that. What can't be decompressed is said at the end: bytes that were
/// tampered with are refused for that, not for what they look like.
pub(crate) struct Inflate {
    decoder: Decoder,
    failed: Option<io::Error>,
}

enum Decoder {
    Plain(Sink),
    Gzip(Box<MultiGzDecoder<Sink>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Sink>>),
}

/// Hashes what is written to it.
pub(crate) struct Sink {
    hash: Sha256,
    size: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size += bytes.len() as u64;
        if self.size > UNPACKED_LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Inflate {
    /// By what the media type says.
    pub(crate) fn new(compression: Compression) -> Result<Self, PassError> {
        let sink = Sink { hash: Sha256::new(), size: 0 };
        let decoder = match compression {
            Compression::None => Decoder::Plain(sink),
            Compression::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(sink))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(sink).map_err(PassError::Compression)?;
                decoder.window_log_max(WINDOW_LOG).map_err(PassError::Compression)?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Self { decoder, failed: None })
    }

    /// Of what was unpacked.
    pub(crate) fn diff_id(self) -> Result<Digest, PassError> {
        let sink = match &self.decoder {
            Decoder::Plain(sink) => sink,
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Zstd(decoder) => decoder.get_ref(),
        };
        match self.failed {
            Some(_) if sink.size > UNPACKED_LIMIT => Err(PassError::TooLong(UNPACKED_LIMIT)),
            Some(error) => Err(PassError::Compression(error)),
            None => Ok(Digest::from(<[u8; 32]>::from(sink.hash.clone().finalize()))),
        }
    }
}

impl Pass for Inflate {
    fn bytes(&mut self, bytes: &mut [u8]) -> Result<(), PassError> {
        if self.failed.is_none() {
            self.failed = match &mut self.decoder {
                Decoder::Plain(sink) => sink.write_all(bytes),
                Decoder::Gzip(decoder) => decoder.write_all(bytes),
                Decoder::Zstd(decoder) => decoder.write_all(bytes),
            }
            .err();
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), PassError> {
        if self.failed.is_none() {
            self.failed = match &mut self.decoder {
                Decoder::Plain(_) => Ok(()),
                Decoder::Gzip(decoder) => decoder.try_finish(),
                Decoder::Zstd(decoder) => decoder.flush(),
            }
            .err();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observer::Silent;
    use crate::pipeline::run;

    fn unpacked(bytes: &[u8], compression: Compression) -> Result<Digest, PassError> {
        let mut inflate = Inflate::new(compression)?;
        run(bytes, bytes.len() as u64, &mut [&mut [], &mut [&mut inflate]], &Silent)?;
        inflate.diff_id()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_compression() {
        let tar: Vec<u8> = (0..700_000_u32).map(|at| (at / 100) as u8).collect();
        let wanted = Digest::of(&tar);
        assert_eq!(unpacked(&tar, Compression::None).unwrap(), wanted);
        assert_eq!(unpacked(&gzip(&tar), Compression::Gzip).unwrap(), wanted);
        let two_members = [gzip(&tar[..99]), gzip(&tar[99..])].concat();
        assert_eq!(unpacked(&two_members, Compression::Gzip).unwrap(), wanted);
        let zstd = zstd::encode_all(&tar[..], 1).unwrap();
        assert_eq!(unpacked(&zstd, Compression::Zstd).unwrap(), wanted);
    }

    #[test]
    fn damaged_or_another_compression() {
        let tar = vec![7; 300_000];
        let packed = gzip(&tar);
        assert!(unpacked(&tar, Compression::Gzip).is_err());
        assert!(unpacked(&packed, Compression::Zstd).is_err());
        for cut in [1, packed.len() / 2, packed.len() - 9] {
            let read = unpacked(&packed[..cut], Compression::Gzip);
            assert!(read.is_err() || read.unwrap() != Digest::of(&tar), "cut at {cut}");
        }
        let zstd = zstd::encode_all(&tar[..], 1).unwrap();
        let read = unpacked(&zstd[..zstd.len() - 1], Compression::Zstd);
        assert!(read.is_err() || read.unwrap() != Digest::of(&tar));
    }
}
