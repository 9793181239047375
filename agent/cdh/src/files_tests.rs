//! Sealed secrets where containers meet them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;
use crate::sealed::tests::{Signer, Vault, pointer};

const PASSWORD: &str = "kbs:///team/db/password";

fn vault() -> (Signer, Vault) {
    let signer = Signer::new();
    let vault = signer.vault().with(PASSWORD, b"hunter2").with("kbs:///team/db/binary", &[0xff, 0]);
    (signer, vault)
}

#[tokio::test]
async fn variables_are_opened_and_others_left_alone() {
    let (signer, vault) = vault();
    let sealed = signer.seal(&pointer(PASSWORD));
    let mut environment = vec![
        "A=b".to_owned(),
        format!("PASSWORD={sealed}"),
        format!("NOTE=not {sealed}"),
        "EMPTY".to_owned(),
        "X=sealed".to_owned(),
    ];
    let before = environment.clone();
    unseal_environment(&mut environment, &vault).await.unwrap();
    assert_eq!(environment[1], "PASSWORD=hunter2");
    for untouched in [0, 2, 3, 4] {
        assert_eq!(environment[untouched], before[untouched]);
    }
}

#[tokio::test]
async fn a_variable_that_does_not_open_is_named() {
    let (signer, vault) = vault();
    for (value, code) in [
        ("sealed.x.y.z".to_owned(), Code::SecretUnseal),
        (signer.seal(&pointer("kbs:///team/db/binary")), Code::SecretUnseal),
        (signer.seal(&pointer("kbs:///team/db/other")), Code::ResourceDenied),
    ] {
        let mut environment = vec![format!("PASSWORD={value}")];
        let refusal = unseal_environment(&mut environment, &vault).await.unwrap_err();
        assert_eq!(refusal.code, code);
        assert!(refusal.detail.contains("PASSWORD") && !refusal.detail.contains("hunter2"), "{refusal}");
        assert_eq!(environment[0], format!("PASSWORD={value}"), "nothing in between");
    }
}

#[tokio::test]
async fn the_files_of_a_volume_are_opened_in_place() {
    let (signer, vault) = vault();
    let volume = tempfile::tempdir().unwrap();
    let data = volume.path().join("..2026_01_01");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("password"), signer.seal(&pointer(PASSWORD))).unwrap();
    fs::set_permissions(data.join("password"), fs::Permissions::from_mode(0o440)).unwrap();
    fs::write(data.join("plain"), "sealed? no").unwrap();
    symlink("..2026_01_01", volume.path().join("..data")).unwrap();
    symlink("..data/password", volume.path().join("password")).unwrap();
    unseal_directory(volume.path(), &vault).await.unwrap();
    assert_eq!(fs::read(volume.path().join("password")).unwrap(), b"hunter2");
    assert_eq!(fs::metadata(data.join("password")).unwrap().mode() & 0o7777, 0o440);
    assert_eq!(fs::read(data.join("plain")).unwrap(), b"sealed? no");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 2, "nothing is left behind");
}

#[tokio::test]
async fn a_file_that_does_not_open_is_named() {
    let (_, vault) = vault();
    let volume = tempfile::tempdir().unwrap();
    fs::create_dir(volume.path().join("sub")).unwrap();
    for content in [b"sealed.x.y.z".to_vec(), b"sealed.\xff\xfe".to_vec(), vec![b's'; 0]] {
        fs::write(volume.path().join("sub/token"), &content).unwrap();
        let result = unseal_directory(volume.path(), &vault).await;
        if content.is_empty() {
            result.unwrap();
            continue;
        }
        let refusal = result.unwrap_err();
        assert_eq!(refusal.code, Code::SecretUnseal);
        assert!(refusal.detail.contains("sub/token"), "{refusal}");
        assert_eq!(fs::read(volume.path().join("sub/token")).unwrap(), content);
    }
    let gone = unseal_directory(&volume.path().join("nowhere"), &vault).await.unwrap_err();
    assert_eq!(gone.code, Code::SecretUnseal);
}

#[tokio::test]
async fn links_lead_nowhere() {
    let (signer, vault) = vault();
    let outside = tempfile::tempdir().unwrap();
    let text = signer.seal(&pointer(PASSWORD));
    fs::write(outside.path().join("file"), &text).unwrap();
    let volume = tempfile::tempdir().unwrap();
    symlink(outside.path(), volume.path().join("directory")).unwrap();
    symlink(outside.path().join("file"), volume.path().join("file")).unwrap();
    unseal_directory(volume.path(), &vault).await.unwrap();
    assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), text);
    // A link in the temporary file's place is not written through either.
    fs::write(volume.path().join("sealed"), &text).unwrap();
    symlink(outside.path().join("target"), volume.path().join(TEMPORARY)).unwrap();
    unseal_directory(volume.path(), &vault).await.unwrap_err();
    assert!(!outside.path().join("target").exists());
}
