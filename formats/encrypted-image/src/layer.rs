//! Whether a descriptor's layer is encrypted. Media type and annotations must say the same: a layer of an encrypted type
//! whose annotations were taken off, or one of a plain type that still has them, is refused rather than guessed at.

use std::collections::BTreeMap;

use crate::annotation::{EncryptedLayer, FormatError};
use crate::encoding::shown;
use crate::media_type::LayerMediaType;

/// A layer, by its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Not encrypted.
    Plain(LayerMediaType),
    /// Encrypted.
    Encrypted(LayerMediaType, EncryptedLayer),
}

/// Why a descriptor is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayerError {
    /// Not a media type of layers.
    #[error("media type {0:?} is not a layer's")]
    MediaType(String),
    /// An encrypted media type with annotations that don't fit.
    #[error("encrypted layer: {0}")]
    Annotations(#[from] FormatError),
    /// A plain media type with annotations of an encrypted layer.
    #[error(
        "layer of the plain media type {0} carries annotations of an encrypted one: one of the two was changed"
    )]
    PlainType(LayerMediaType),
}

impl Layer {
    /// What a descriptor with this media type and these annotations describes.
    ///
    /// # Errors
    /// Media type and annotations don't agree, or are no layer's.
    pub fn of_descriptor(
        media_type: &str,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Self, LayerError> {
        let parsed =
            LayerMediaType::parse(media_type).ok_or_else(|| LayerError::MediaType(shown(media_type)))?;
        if parsed.encrypted {
            return Ok(Self::Encrypted(parsed, EncryptedLayer::parse(annotations)?));
        }
        if EncryptedLayer::any(annotations) {
            return Err(LayerError::PlainType(parsed));
        }
        Ok(Self::Plain(parsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotation::{Scheme, WrappedKey};
    use crate::options::PublicOptions;

    const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    const ENCRYPTED: &str = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";

    fn encrypted() -> EncryptedLayer {
        let wrapped = vec![WrappedKey { scheme: Scheme::Jwe, blob: vec![1] }];
        EncryptedLayer { public: PublicOptions::new([1; 32]), wrapped }
    }

    #[test]
    fn both_kinds() {
        let media_type = LayerMediaType::parse(PLAIN).unwrap();
        assert_eq!(Layer::of_descriptor(PLAIN, &BTreeMap::new()), Ok(Layer::Plain(media_type)));
        assert_eq!(
            Layer::of_descriptor(ENCRYPTED, &encrypted().to_annotations()),
            Ok(Layer::Encrypted(media_type.encrypted(), encrypted())),
        );
    }

    #[test]
    fn an_encrypted_type_without_annotations_is_refused() {
        let error = Layer::of_descriptor(ENCRYPTED, &BTreeMap::new()).unwrap_err();
        assert_eq!(error, LayerError::Annotations(FormatError::NoPublicOptions));
    }

    #[test]
    fn a_plain_type_with_annotations_is_refused() {
        let error = Layer::of_descriptor(PLAIN, &encrypted().to_annotations()).unwrap_err();
        assert_eq!(error, LayerError::PlainType(LayerMediaType::parse(PLAIN).unwrap()));
        let one = BTreeMap::from([(Scheme::Jwe.annotation(), String::new())]);
        assert!(matches!(Layer::of_descriptor(PLAIN, &one), Err(LayerError::PlainType(_))));
    }

    #[test]
    fn other_media_types_are_refused_by_name() {
        let error =
            Layer::of_descriptor("application/x+encrypted", &encrypted().to_annotations()).unwrap_err();
        assert_eq!(error, LayerError::MediaType("application/x+encrypted".to_owned()));
    }
}
