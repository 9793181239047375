//! Bodies of the fuzz targets of `attestation/collateral`: bundles that somebody carried in, and answers of
//! whoever stands in a key distribution service's place.

#![allow(dead_code)] // Each target uses one of them.

use collateral::{Item, Key, Line, Roots, SevProduct};
use tee_evidence::snp::{Product, RawTcb};

/// A bundle, or a certificate file: any bytes. What is read is bounded, and written back the same.
pub(crate) fn bundle(data: &[u8]) {
    if let Ok(pieces) = collateral::read(data) {
        assert!(!pieces.is_empty() && pieces.len() <= collateral::MAX_ENTRIES);
        for (key, bytes) in &pieces {
            assert!(bytes.len() <= key.limit());
            assert_eq!(Key::from_file_name(&key.file_name()).as_ref(), Some(key));
        }
        let written = collateral::write(pieces.iter().map(|(key, bytes)| (key, bytes.as_slice())));
        let mut again = collateral::read(&written.expect("within the bounds")).expect("as it was written");
        let mut pieces = pieces;
        for list in [&mut pieces, &mut again] {
            list.sort_by_key(|(key, _)| key.file_name());
        }
        assert_eq!(pieces, again);
    }
    if let Some(key) = collateral::identify(data) {
        assert_eq!(Key::from_file_name(&key.file_name()), Some(key));
    }
}

/// An answer to a question of each kind; and a question, to the mirror. Without a chain to check them
/// against, nothing but chains and SEV's certificates is taken, however well it is made.
pub(crate) fn answers(data: &[u8]) {
    let tcb = RawTcb([1, 0, 0, 0, 0, 0, 1, 1]);
    let vcek = Key::vcek(Product::Milan, &[1; 64], tcb).expect("a key");
    for key in [
        vcek,
        Key::Chain(Product::Milan, Line::Vcek),
        Key::Crl(Product::Milan, Line::Vcek),
        Key::Cek([1; 64]),
        Key::SevChain(SevProduct::Milan),
    ] {
        let Ok(item) = Item::check(&key, data, None, &Roots::Any) else { continue };
        assert!(key.chain().is_none() && item.bytes().len() <= key.limit());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
    if let Some(key) = Key::from_kds_path(path, query) {
        let again = key.kds_path().expect("it came as a path");
        let (path, query) =
            again.split_once('?').map_or((&*again, None), |(path, query)| (path, Some(query)));
        assert_eq!(Key::from_kds_path(path, query), Some(key));
    }
    if let Some(key) = Key::from_file_name(text) {
        assert_eq!(key.file_name(), text);
    }
}
