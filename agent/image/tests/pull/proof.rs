//! What was decrypted is nowhere to be seen until all of it was checked; and the one wrapping that can't be.

use agent_image::ErrorKind;
use encrypted_image::annotation::Scheme;
use encrypted_image::coco::{Packet, WrapType};
use encrypted_image::{CipherError, PrivateOptions, Wrap, WrapError};

use crate::encrypted::{assert_cipher, ours, refused, with_keys};
use crate::image::{GZIP, Image, Layer, Store, TAR, gzip, manifest_path, pinned, tar_of};
use crate::registry::{Answer, Registry};
use crate::run;
use crate::sealed::{Broker, KEY, options};

/// All but the last byte has come and is unpacked in the stage; then the last one comes, right or wrong.
#[test]
fn what_was_decrypted_is_not_visible_before_the_last_byte_was_checked() {
    for change in [0, 0x80] {
        run(async {
            let mut layer = Layer::new(TAR, tar_of(&[("a", &[1; 600_000])])).encrypted(&ours());
            *layer.blob.last_mut().unwrap() ^= change;
            let image = Image::new(vec![layer]);
            let registry = Registry::start();
            let reference = with_keys(image.serve(&registry), &[KEY]);
            let layer = &image.layers[0];
            registry.answer(&layer.blob_path(), &[Answer::Withheld(layer.blob.clone())]);
            let store = Store::with_broker(registry.source(), Broker::holding(&[(KEY, &[1; 32])]));
            store.images.start_pull(&reference).unwrap();
            while !store.staged("a").starts_with(&[1]) {
                assert!(store.images.progress(&reference).is_some(), "the pull failed before its last byte");
                assert_eq!(store.layers(), 0);
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            assert_eq!(store.layers(), 0);
            registry.release();
            if change == 0 {
                store.images.pull(&reference).await.unwrap();
                assert_eq!(store.layers(), 1);
            } else {
                assert_cipher(&store.refusal(&reference).await, &CipherError::Hmac);
            }
        });
    }
}

#[test]
fn bytes_after_the_end_of_a_compressed_stream_are_checked_as_well() {
    let mut longer = Layer::new(GZIP, tar_of(&[("a", b"x")]));
    longer.blob.extend_from_slice(&gzip(b""));
    let private = options(&longer);
    let mut longer = longer.encrypted_with(&private, &private, &ours());
    *longer.blob.last_mut().unwrap() ^= 1;
    assert_cipher(&refused(&Image::new(vec![longer]), &[KEY]), &CipherError::Hmac);
}

/// AES-GCM without its tag is AES-CTR.
struct Untagged(Box<dyn Wrap>);

impl Wrap for Untagged {
    fn scheme(&self) -> Scheme {
        self.0.scheme()
    }

    fn wrap(&self, private: &PrivateOptions) -> Result<Vec<u8>, WrapError> {
        let mut packet = Packet::from_json(&self.0.wrap(private)?).unwrap();
        packet.wrapped_data.truncate(packet.wrapped_data.len() - 16);
        packet.iv.extend_from_slice(&[0, 0, 0, 2]);
        packet.wrap_type = WrapType::A256Ctr;
        Ok(packet.to_json())
    }
}

/// The manifest's digest vouches for the annotation, and for nothing but this one.
#[test]
fn a_key_wrapped_without_a_tag_opens_in_the_sealed_manifest_only() {
    run(async {
        let registry = Registry::start();
        let untagged = || -> Vec<Box<dyn Wrap>> { vec![Box::new(Untagged(ours().remove(0)))] };
        let image = Image::new(vec![Layer::file(GZIP, "a", b"x").encrypted(&untagged())]);
        let reference = with_keys(image.serve(&registry), &[KEY]);
        let broker = Broker::holding(&[(KEY, &[1; 32])]);
        let mut asked = Image::new(vec![Layer::file(GZIP, "a", b"x").encrypted(&untagged())]);
        asked.config = image.config.clone();
        asked.describe();
        let manifest = serde_json::to_vec(&asked.manifest).unwrap();
        registry.answer(&manifest_path(&pinned(&reference).parse().unwrap()), &[Answer::Body(manifest)]);
        let store = Store::with_broker(registry.source(), broker.clone());
        let error = store.refusal(&reference).await;
        assert_eq!(error.kind(), ErrorKind::Digest, "{error}");
        image.serve(&registry);
        store.images.pull(&reference).await.unwrap();
    });
}
