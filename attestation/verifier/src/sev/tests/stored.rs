//! What is stored between the requests of a launch reads back the same, and nothing else reads.

use super::*;

#[test]
fn a_session_goes_on_after_it_was_stored() {
    let Started { session, guest } = start(0);
    let session = Session::from_bytes(&session.to_bytes().unwrap()).unwrap();
    let launch = launch(&guest, &guest.measure(&DIGEST));
    let measured = session.measure(&launch, [DIGEST.as_slice()]).unwrap();
    assert!(measured.appraised().grant(&reference(TeeKind::SevEmulated)).is_ok());
}

#[test]
fn a_launch_reads_back_the_same() {
    let (launch, ..) = measured(Policy::ES);
    let bytes = launch.launched.to_bytes().unwrap();
    assert_eq!(Launched::from_bytes(&bytes).unwrap(), launch.launched);
}

#[test]
fn other_bytes_are_no_session() {
    let Started { session, .. } = start(0);
    let text = String::from_utf8(session.to_bytes().unwrap().to_vec()).unwrap();
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("\"emulated\":[", "\"emulated\":null,\"x\":["),
        ("\"product\":\"emulated\"", "\"product\":\"milan\""),
        ("certificate_chain", "certificate_brain"),
    ] {
        assert!(text.contains(from), "{text}");
        assert!(Session::from_bytes(text.replace(from, to).as_bytes()).is_err(), "{to}");
    }
    assert!(Session::from_bytes(&text.as_bytes()[..text.len() - 1]).is_err());
    assert!(Launched::from_bytes(text.as_bytes()).is_err());
}

/// Whoever could change the row could not turn an emulated platform into AMD's.
#[test]
fn an_emulated_platform_never_reads_as_amds() {
    let Started { session, .. } = start(0);
    let text = String::from_utf8(session.to_bytes().unwrap().to_vec()).unwrap();
    let start = text.find("\"emulated\":[").unwrap();
    let end = start + text[start..].find("]]").unwrap() + 2;
    let cut = format!("{}\"emulated\":null{}", &text[..start], &text[end..]);
    assert!(Session::from_bytes(cut.as_bytes()).is_err());
}
