//! Requests as JSON, as policies written for the stock agent read them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use protobuf::{EnumOrUnknown, MessageField};
use protocols::agent::{
    CreateContainerRequest, ExecProcessRequest, FSGroup, Storage, UpdateInterfaceRequest,
};
use protocols::oci::{Linux, LinuxNamespace, Mount, Process, Root, Spec, User};
use protocols::types::{FSGroupChangePolicy, Interface};
use serde_json::json;

#[test]
fn names_are_those_of_the_stock_agent() {
    let mut request = CreateContainerRequest { container_id: "c1".into(), ..Default::default() };
    request.OCI = MessageField::some(Spec {
        Version: "1.1.0".into(),
        Process: MessageField::some(Process {
            Args: vec!["sh".into()],
            User: MessageField::some(User { UID: 5, AdditionalGids: vec![7], ..Default::default() }),
            ..Default::default()
        }),
        Root: MessageField::some(Root { Path: "/r".into(), Readonly: true, ..Default::default() }),
        Mounts: vec![Mount { destination: "/proc".into(), type_: "proc".into(), ..Default::default() }],
        Annotations: [("a.b/c".to_owned(), "d".to_owned())].into(),
        Linux: MessageField::some(Linux {
            Namespaces: vec![LinuxNamespace { Type: "ipc".into(), ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    });
    request.storages = vec![Storage {
        driver: "blk".into(),
        fs_group: MessageField::some(FSGroup {
            group_id: 3,
            group_change_policy: EnumOrUnknown::new(FSGroupChangePolicy::OnRootMismatch),
            ..Default::default()
        }),
        ..Default::default()
    }];
    let json = serde_json::to_value(&request).unwrap();
    assert_eq!(json["OCI"]["Process"]["Args"], json!(["sh"]));
    assert_eq!(json["OCI"]["Process"]["User"]["UID"], json!(5));
    assert_eq!(json["OCI"]["Process"]["User"]["AdditionalGids"], json!([7]));
    assert_eq!(json["OCI"]["Root"], json!({"Path": "/r", "Readonly": true}));
    assert_eq!(
        json["OCI"]["Mounts"],
        json!([{"destination": "/proc", "source": "", "type_": "proc", "options": []}])
    );
    assert_eq!(json["OCI"]["Annotations"], json!({"a.b/c": "d"}));
    assert_eq!(json["OCI"]["Linux"]["Namespaces"], json!([{"Type": "ipc", "Path": ""}]));
    assert_eq!(json["storages"][0]["fs_group"], json!({"group_id": 3, "group_change_policy": 1}));
    // What isn't there is null, or empty; never missing.
    for absent in ["Hooks", "Solaris", "Windows"] {
        assert!(json["OCI"].as_object().unwrap()[absent].is_null(), "{absent}");
    }
    assert!(json.as_object().unwrap()["string_user"].is_null());
    assert_eq!(json["shared_mounts"], json!([]));
    assert_eq!(json["sandbox_pidns"], json!(false));
    assert!(json.as_object().unwrap().keys().all(|key| !key.contains("special")));
}

#[test]
fn other_requests_too() {
    let exec = ExecProcessRequest {
        process: MessageField::some(Process { Cwd: "/".into(), ..Default::default() }),
        ..Default::default()
    };
    let json = serde_json::to_value(&exec).unwrap();
    assert_eq!((&json["process"]["Cwd"], &json["exec_id"]), (&json!("/"), &json!("")));
    let interface = UpdateInterfaceRequest {
        interface: MessageField::some(Interface {
            hwAddr: "02:00".into(),
            raw_flags: 128,
            ..Default::default()
        }),
        ..Default::default()
    };
    let json = serde_json::to_value(&interface).unwrap();
    assert_eq!(
        (&json["interface"]["hwAddr"], &json["interface"]["raw_flags"]),
        (&json!("02:00"), &json!(128))
    );
    let unknown = FSGroup { group_change_policy: EnumOrUnknown::from_i32(9), ..Default::default() };
    assert_eq!(serde_json::to_value(&unknown).unwrap()["group_change_policy"], json!(9));
}
