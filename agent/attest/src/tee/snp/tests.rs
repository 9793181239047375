//! Which interface is used, and what the kernel says about the guest's level.

use std::fs;

use super::*;

struct Guest {
    place: tempfile::TempDir,
    places: Places,
}

/// A kernel without SEV-SNP.
fn guest() -> Guest {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let places =
        Places { device: at("sev-guest"), tsm: at("report"), vmpl: at("vmpl"), signs: vec![at("sign")] };
    Guest { place, places }
}

fn error(guest: &Guest) -> TeeError {
    find(&guest.places).err().unwrap()
}

#[test]
fn a_guest_without_any_of_it_is_none() {
    assert!(find(&guest().places).unwrap().is_none());
}

#[test]
fn an_snp_guest_whose_reports_cannot_be_had_is_an_error() {
    let guest = guest();
    fs::write(guest.place.path().join("sign"), b"").unwrap();
    assert!(matches!(error(&guest), TeeError::NoSource { .. }));
}

#[test]
fn a_device_that_does_not_open_is_not_passed_over_for_configfs() {
    let guest = guest();
    fs::create_dir(&guest.places.device).unwrap();
    assert!(matches!(error(&guest), TeeError::Open { .. }));
}

#[test]
fn report_directories_that_cannot_be_used_are_an_error() {
    let guest = guest();
    // A directory can be made, but no kernel puts files into it.
    fs::create_dir(&guest.places.tsm).unwrap();
    assert!(matches!(error(&guest), TeeError::Tsm(TsmError::Attribute { attribute: "provider", .. })));
    assert_eq!(fs::read_dir(&guest.places.tsm).unwrap().count(), 0);
}

#[test]
fn the_guests_level_is_what_the_kernel_says() {
    let guest = guest();
    assert_eq!(vmpl(&guest.places.vmpl).unwrap(), None);
    for (text, level) in [("0\n", 0), ("2\n", 2), ("3", 3)] {
        fs::write(&guest.places.vmpl, text).unwrap();
        assert_eq!(vmpl(&guest.places.vmpl).unwrap(), Some(level));
    }
    for text in ["", "4\n", "-1\n", "two", "0 1"] {
        fs::write(&guest.places.vmpl, text).unwrap();
        assert!(matches!(vmpl(&guest.places.vmpl), Err(TeeError::Vmpl { .. })), "{text}");
        fs::write(&guest.places.device, b"").unwrap();
        assert!(matches!(error(&guest), TeeError::Vmpl { .. }), "{text}");
        fs::remove_file(&guest.places.device).unwrap();
    }
}
