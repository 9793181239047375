//! Messages as peers write them, both spellings of bytes, and what a provider is not sent.

use serde_json::{Value, json};

use super::*;

fn bytes(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}

fn request(value: &Value) -> Result<Request, MessageError> {
    Request::from_json(value.to_string().as_bytes())
}

fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

#[test]
fn a_request_to_wrap_holds_the_providers_own_parameters_only() {
    let json = Request::wrap("one", vec![bytes("kbs:///a/b/c")], bytes("options")).to_json();
    let expected = json!({
        "op": "keywrap",
        "keywrapparams": {
            "ec": { "Parameters": { "one": ["a2JzOi8vL2EvYi9j"] }, "DecryptConfig": { "Parameters": {} } },
            "optsdata": "b3B0aW9ucw==",
        },
        "keyunwrapparams": {},
    });
    assert_eq!(value(&json), expected);
    let Ok(Request::Wrap { parameters, options }) = Request::from_json(&json) else { panic!("not read") };
    assert_eq!(
        (options, parameters),
        (bytes("options"), BTreeMap::from([("one".to_owned(), vec![bytes("kbs:///a/b/c")])]))
    );
}

#[test]
fn a_request_to_unwrap_holds_the_providers_own_parameters_only() {
    let json = Request::unwrap("one", vec![], b"wrapped".to_vec()).to_json();
    let expected = json!({
        "op": "keyunwrap",
        "keywrapparams": {},
        "keyunwrapparams": { "dc": { "Parameters": { "one": [] } }, "annotation": "d3JhcHBlZA==" },
    });
    assert_eq!(value(&json), expected);
    let Ok(Request::Unwrap { wrapped, .. }) = Request::from_json(&json) else { panic!("not read") };
    assert_eq!(wrapped, b"wrapped");
}

#[test]
fn requests_as_go_writes_them() {
    // Structures without a value are written with nulls, and keys of others may be among the parameters.
    let wrap = json!({
        "op": "keywrap",
        "keywrapparams": {
            "ec": { "Parameters": { "one": ["AQ=="], "two": null }, "DecryptConfig": { "Parameters": null } },
            "optsdata": "AAE=",
        },
        "keyunwrapparams": { "dc": null, "annotation": null },
    });
    let Ok(Request::Wrap { parameters, options }) = request(&wrap) else { panic!("not read") };
    assert_eq!((options.as_slice(), parameters["one"].len(), parameters["two"].len()), (&[0, 1][..], 1, 0));
    let unwrap = json!({
        "op": "keyunwrap",
        "keywrapparams": { "ec": null, "optsdata": null },
        "keyunwrapparams": { "dc": { "Parameters": null }, "annotation": "AAE=" },
    });
    assert!(matches!(request(&unwrap), Ok(Request::Unwrap { wrapped, .. }) if wrapped == [0, 1]));
}

#[test]
fn bytes_in_either_spelling() {
    for spelling in [json!("AAE="), json!([0, 1])] {
        let wrap = json!({ "op": "keywrap", "keywrapparams": { "optsdata": spelling } });
        assert!(matches!(request(&wrap), Ok(Request::Wrap { options, .. }) if options.as_slice() == [0, 1]));
        let reply = json!({ "keywrapresults": { "annotation": spelling } }).to_string();
        assert_eq!(Reply::wrapped(reply.as_bytes()), Ok(vec![0, 1]));
        let reply = json!({ "keyunwrapresults": { "optsdata": spelling } }).to_string();
        assert_eq!(Reply::unwrapped(reply.as_bytes()).unwrap().as_slice(), [0, 1]);
    }
}

#[test]
fn replies_are_written_with_numbers() {
    let wrapped = Reply::Wrapped(vec![0, 255]).to_json();
    assert_eq!(wrapped.as_slice(), br#"{"keywrapresults":{"annotation":[0,255]}}"#);
    let unwrapped = Reply::Unwrapped(Zeroizing::new(vec![0, 255])).to_json();
    assert_eq!(unwrapped.as_slice(), br#"{"keyunwrapresults":{"optsdata":[0,255]}}"#);
}

#[test]
fn replies_of_go_providers_hold_both_results() {
    let reply = br#"{"keywrapresults":{"annotation":null},"keyunwrapresults":{"optsdata":"AAE="}}"#;
    assert_eq!(Reply::unwrapped(reply).unwrap().as_slice(), [0, 1]);
    assert_eq!(Reply::wrapped(reply), Err(MessageError::Missing("annotation")));
}

#[test]
fn refusals() {
    assert_eq!(request(&json!({ "op": "rot13" })).unwrap_err(), MessageError::Operation("rot13".to_owned()));
    assert_eq!(request(&json!({ "op": "keywrap" })).unwrap_err(), MessageError::Missing("keywrapparams"));
    assert_eq!(request(&json!({ "op": "keyunwrap" })).unwrap_err(), MessageError::Missing("keyunwrapparams"));
    let empty = json!({ "op": "keywrap", "keywrapparams": {} });
    assert_eq!(request(&empty).unwrap_err(), MessageError::Missing("optsdata"));
    let empty = json!({ "op": "keyunwrap", "keyunwrapparams": {} });
    assert_eq!(request(&empty).unwrap_err(), MessageError::Missing("annotation"));
    for reply in ["{}", r#"{"keyunwrapresults":{}}"#, r#"{"keyunwrapresults":{"optsdata":""}}"#] {
        assert!(matches!(Reply::unwrapped(reply.as_bytes()), Err(MessageError::Missing(_))), "{reply}");
    }
    for json in ["", "null", "[]", "{\"op\":1}", "{} {}"] {
        assert!(matches!(Request::from_json(json.as_bytes()), Err(MessageError::Json(..))), "{json}");
    }
    let long = vec![b' '; MAX_MESSAGE + 1];
    assert_eq!(Request::from_json(&long).unwrap_err(), MessageError::TooLong(long.len()));
    assert!(Reply::wrapped(&vec![b'['; MAX_MESSAGE]).is_err());
}

#[test]
fn no_text_shows_what_is_inside() {
    let secret = Request::wrap("one", vec![bytes("hunter2")], bytes("hunter2"));
    assert_eq!(format!("{secret:?}"), "Wrap(…)");
    let reply = Reply::Unwrapped(bytes("hunter2"));
    assert_eq!(format!("{reply:?}"), "Unwrapped(…)");
    let error = Reply::unwrapped(br#"{"keyunwrapresults":{"optsdata":"hunter2"}}"#).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}
