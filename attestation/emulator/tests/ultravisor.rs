//! The ultravisor against blobs that the owner's code writes: what opens, what is refused, how files are read.

#![allow(clippy::unwrap_used, reason = "a test")]

use aes_gcm::aead::Aead;
use aes_gcm::aead::consts::U16;
use aes_gcm::{AesGcm, KeyInit};
use rsa::pkcs8::DecodePublicKey;
use rsa::rand_core::UnwrapErr;
use rsa::traits::PublicKeyParts;
use rsa::{Oaep, RsaPublicKey};
use sealpod_emulator::ultravisor::{
    CHUNK, EXPONENT, Fault, Launched, PARAMETER, Refusal, TpmKey, Ultravisor,
};
use sha2::{Digest, Sha256, Sha512};
use std::sync::OnceLock;
use tee_evidence::pef::{Digests, EsmBlob, EsmFile, Lockbox, Place, Sealed};

const KEY: [u8; 32] = [0x42; 32];
const LAUNCHED: Launched<'_> =
    Launched { kernel: b"kernel and more", initrd: b"initrd", bootargs: b"svm=on console=hvc0" };

fn tpm() -> &'static TpmKey {
    static KEY: OnceLock<TpmKey> = OnceLock::new();
    KEY.get_or_init(|| TpmKey::generate().unwrap())
}

fn seal(key: &[u8; 32], plain: &[u8], iv: u8) -> Sealed {
    let iv = [iv; 16];
    let cipher = AesGcm::<aes::Aes256, U16>::new(&(*key).into());
    let mut ciphertext = cipher.encrypt(&iv.into(), plain).unwrap();
    let mac = ciphertext.split_off(plain.len());
    Sealed { comment: "c".into(), iv, mac: mac.try_into().unwrap(), ciphertext }
}

fn lockbox(tpm: &TpmKey, place: Place) -> Lockbox {
    let public = RsaPublicKey::from_public_key_pem(tpm.public_pem()).unwrap();
    let wrapped = public.encrypt(&mut UnwrapErr(getrandom::SysRng), Oaep::<Sha256>::new(), &KEY).unwrap();
    Lockbox {
        place,
        comment: "machine".into(),
        encrypted_key: wrapped.try_into().unwrap(),
        fingerprint: Sha256::digest(tpm.public_pem()).into(),
    }
}

fn blob() -> EsmBlob {
    let digest = |bytes: &[u8]| Sha512::digest(bytes).into();
    let digests = Digests {
        rtas: [0; 64],
        kernel: digest(b"kernel"),
        kernel_size: 6,
        initrd: digest(LAUNCHED.initrd),
        bootargs: digest(LAUNCHED.bootargs),
    };
    let file = |name: &str, contents: &[u8], iv| EsmFile {
        name: name.parse().unwrap(),
        sealed: seal(&KEY, contents, iv),
    };
    EsmBlob {
        lockboxes: vec![lockbox_of_another(), lockbox(tpm(), Place::Number(1))],
        digests: seal(&KEY, &digests.encode().unwrap(), 1),
        files: vec![file("sealpod", &[7; 100], 2), file("other", b"short", 3)],
    }
}

fn lockbox_of_another() -> Lockbox {
    Lockbox { place: Place::Origin, comment: "owner".into(), encrypted_key: [9; 256], fingerprint: [1; 32] }
}

fn launch(blob: &EsmBlob, launched: &Launched<'_>) -> Result<Ultravisor, Refusal> {
    Ultravisor::launch(&blob.encode().unwrap(), tpm(), launched)
}

fn name(text: &str) -> [u8; 64] {
    let mut name = [0; 64];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

fn read(ultravisor: &mut Ultravisor, file: &str) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let (length, data) = ultravisor.get_file(&name(file), out.len() as u64);
        if length == 0 {
            return out;
        }
        out.extend_from_slice(&data[..usize::try_from(length).unwrap()]);
    }
}

#[test]
fn files_are_handed_out_in_chunks_and_once() {
    let mut ultravisor = launch(&blob(), &LAUNCHED).unwrap();
    assert_eq!(ultravisor.files().collect::<Vec<_>>(), [("other", 5), ("sealpod", 100)]);
    let (length, data) = ultravisor.get_file(&name("sealpod"), 0);
    assert_eq!((length, data), (CHUNK as i64, [7; CHUNK]));
    assert_eq!(ultravisor.get_file(&name("sealpod"), 0).0, PARAMETER, "what was read is gone");
    assert_eq!(ultravisor.get_file_for(2, &name("sealpod"), 64).0, PARAMETER, "another process");
    assert_eq!(ultravisor.get_file(&name("sealpod"), 64).0, 36);
    assert_eq!(ultravisor.get_file(&name("sealpod"), 100).0, 0);
    assert_eq!(ultravisor.get_file(&name("sealpod"), u64::MAX).0, 0);
    assert_eq!(read(&mut ultravisor, "other"), b"short");
    for absent in ["", "seal", "sealpod/", "../sealpod"] {
        assert_eq!(ultravisor.get_file(&name(absent), 0).0, PARAMETER, "{absent:?}");
    }
    assert_eq!(ultravisor.get_file(&[b'x'; 64], 0).0, PARAMETER, "no NUL");
}

#[test]
fn other_launches_than_the_blobs_are_refused() {
    let refused = |launched: Launched<'_>| launch(&blob(), &launched).unwrap_err();
    assert_eq!(refused(Launched { kernel: b"kernem and more", ..LAUNCHED }), Refusal::Digest("the kernel"));
    assert_eq!(refused(Launched { kernel: b"kern", ..LAUNCHED }), Refusal::Digest("the kernel"));
    assert_eq!(refused(Launched { initrd: b"initre", ..LAUNCHED }), Refusal::Digest("the initrd"));
    let bootargs = b"svm=on console=hvc0\0";
    assert_eq!(refused(Launched { bootargs, ..LAUNCHED }), Refusal::Digest("the kernel command line"));
}

#[test]
fn blobs_for_others_and_changed_ones_are_refused() {
    let with = |change: &dyn Fn(&mut EsmBlob)| {
        let mut blob = blob();
        change(&mut blob);
        launch(&blob, &LAUNCHED).unwrap_err()
    };
    assert_eq!(with(&|blob| blob.lockboxes.truncate(1)), Refusal::NoLockbox);
    assert_eq!(with(&|blob| blob.lockboxes[1].encrypted_key = [9; 256]), Refusal::Lockbox);
    let decrypt = |what: &str| Refusal::Decrypt(what.to_owned());
    assert_eq!(with(&|blob| blob.digests.mac[0] ^= 1), decrypt("digests-fdt"));
    assert_eq!(with(&|blob| blob.files[0].sealed.ciphertext[0] ^= 1), decrypt("sealpod"));
    assert_eq!(with(&|blob| blob.files[1].sealed.iv[0] ^= 1), decrypt("other"));
    assert_eq!(with(&|blob| blob.digests = seal(&[0; 32], b"", 1)), decrypt("digests-fdt"));
    assert!(matches!(Ultravisor::launch(b"", tpm(), &LAUNCHED), Err(Refusal::Fdt(_))));
}

#[test]
fn an_old_blob_of_the_same_launch_still_opens() {
    // Nothing in PEF says which blob is the newest: brokers deny old ones.
    assert!(launch(&blob(), &LAUNCHED).is_ok());
    assert!(launch(&blob(), &LAUNCHED).is_ok());
}

#[test]
fn each_fault_shows_in_what_is_handed_out() {
    let with = |fault: &str| {
        let faults = vec![fault.parse::<Fault>().unwrap()];
        Ultravisor::launch_with(&blob().encode().unwrap(), tpm(), &LAUNCHED, faults).unwrap()
    };
    let mut short = with("short-reads=1");
    assert_eq!(short.get_file(&name("sealpod"), 0).0, 1);
    let mut swapped = with("swapped-files=sealpod:other");
    assert_eq!(read(&mut swapped, "sealpod"), b"short", "nothing ties a ciphertext to its name");
    assert_eq!(with("length=65").get_file(&name("sealpod"), 0).0, 65);
    assert_eq!(with("error=-55").get_file(&name("sealpod"), 0).0, -55);
    assert_eq!(with("endless").get_file(&name("sealpod"), 1 << 40).0, 64);
}

#[test]
fn the_software_tpms_exponent_is_none_that_a_tpm_has() {
    let public = RsaPublicKey::from_public_key_pem(tpm().public_pem()).unwrap();
    assert_eq!(public.e_bytes()[..], EXPONENT.to_be_bytes()[6..]);
    assert!(tpm().public_pem().ends_with("-----END PUBLIC KEY-----\n"));
    let again = TpmKey::from_pem(&tpm().to_pem().unwrap()).unwrap();
    assert_eq!(again.fingerprint(), tpm().fingerprint());
    assert!(!format!("{:?}", tpm()).contains("PRIVATE"));
}
