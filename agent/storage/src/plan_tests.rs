//! Plans of storages, and requests that are refused before the first effect.

use proptest::prelude::*;

use super::*;

const POINT: &str = "/run/kata-containers/shared/containers/x";

fn request(driver: &str, source: &str, fstype: &str, options: &[&str]) -> StorageRequest {
    StorageRequest {
        driver: driver.into(),
        source: source.into(),
        fstype: fstype.into(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        mount_point: POINT.into(),
        ..StorageRequest::default()
    }
}

fn plans(requests: &[StorageRequest]) -> Result<Vec<Planned>, StorageError> {
    let private = [PathBuf::from("/run/sealpod")];
    let containers = Path::new("/run/kata-containers");
    plan_all(requests, &Context { containers, private: &private, owner: Some("c1") })
}

fn plan(request: StorageRequest) -> Planned {
    plans(&[request]).unwrap().remove(0)
}

fn refused(request: StorageRequest) -> String {
    let error = plans(&[request]).unwrap_err();
    assert!(error.is_invalid());
    error.to_string()
}

#[test]
fn ephemeral_storages_keep_every_option() {
    let options = ["noexec", "nosuid", "nodev", "mode=1777", "size=67108864", "fsgid=1000"];
    let planned = plan(request("ephemeral", "shm", "tmpfs", &options));
    let Plan::Ephemeral { options, gid, huge, .. } = planned.plan else { panic!() };
    assert_eq!(options.data, "mode=1777,size=67108864");
    assert_eq!(options.flags.bits().count_ones(), 3);
    assert_eq!((gid, huge), (Some(1000), None));
    assert!(planned.lasting);
}

#[test]
fn huge_pages_are_counted() {
    let huge = |options: &[&str]| match plans(&[request("ephemeral", "nodev", "hugetlbfs", options)]) {
        Ok(plans) => match &plans[0].plan {
            Plan::Ephemeral { huge, .. } => Ok(*huge),
            _ => panic!(),
        },
        Err(error) => Err(error.to_string()),
    };
    let two_mib = Some(HugePages { page: 2 << 20, count: 250 });
    assert_eq!(huge(&["pagesize=2097152,size=524288000"]).unwrap(), two_mib);
    assert_eq!(huge(&["pagesize=2M", "size=500M"]).unwrap(), two_mib);
    for wrong in [
        &["size=500M"][..],
        &["pagesize=2M"],
        &["pagesize=2M,size=1M"],
        &["pagesize=3M,size=6M"],
        &["pagesize=0,size=1"],
        &["pagesize=2M,size=99999999999999999999"],
        &["pagesize=2M,size=-1"],
        &["pagesize=M,size=1G"],
    ] {
        assert!(huge(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn block_storages_say_what_is_done_to_the_device() {
    let with = |driver_options: &[&str]| {
        let mut request = request("blk", "02/03", "ext4", &["rw"]);
        request.driver_options = driver_options.iter().map(|o| (*o).to_owned()).collect();
        request
    };
    let fresh = |request| match plan(request).plan {
        Plan::Block(block) => block.fresh,
        _ => panic!(),
    };
    assert_eq!(fresh(with(&[])), Fresh::No);
    assert_eq!(fresh(with(&["create_filesystem"])), Fresh::Plain);
    assert_eq!(fresh(with(&["encryption_key=ephemeral", "create_filesystem"])), Fresh::Encrypted);
    // What would quietly leave the volume in clear, or destroy one that exists, is refused.
    assert!(refused(with(&["encryption_key=ephemeral"])).contains("requires create_filesystem"));
    assert!(refused(with(&["encryption_key=kbs:///a/b/c", "create_filesystem"])).contains("only"));
    let xfs = StorageRequest { fstype: "xfs".into(), ..with(&["create_filesystem"]) };
    assert!(refused(xfs).contains("ext4"));
    let pmem = StorageRequest {
        driver: "nvdimm".into(),
        source: "/dev/pmem0".into(),
        ..with(&["create_filesystem"])
    };
    assert!(refused(pmem).contains("nvdimm"));
}

#[test]
fn each_wrong_field_is_refused_by_name() {
    let on =
        |point: &str| StorageRequest { mount_point: point.into(), ..request("ephemeral", "x", "tmpfs", &[]) };
    for (storage, word) in [
        (on(""), "empty"),
        (on("run/x"), "not an absolute path"),
        (on("/run/kata-containers/../../etc"), "'..'"),
        (on("/etc/ssl"), "/etc"),
        (on("/run/sealpod/containers"), "/run/sealpod"),
        (on("/"), "nothing is mounted on /"),
        (request("nfs", "x", "nfs", &[]), "no driver 'nfs'; there are blk, mmioblk"),
        (request("blk", "zz", "ext4", &[]), "not a PCI path"),
        (request("blk", "02", "ext4/../x", &[]), "not a file system type"),
        (request("blk", "02", "", &[]), "not a file system type"),
        (request("blk", "02", "ext4", &["X-kata.future=1"]), "X-kata.future"),
        (request("scsi", "0", "ext4", &[]), "not a SCSI address"),
        (request("virtio-fs", "kataShared", "9p", &[]), "virtiofs"),
        (request("virtio-fs", "", "virtiofs", &[]), "tag"),
        (request("bind", "relative", "bind", &[]), "not an absolute path"),
        (request("bind", "/run/sealpod/containers", "bind", &[]), "/run/sealpod"),
        (request("bind", "/etc/shadow", "bind", &[]), "/etc"),
        (request("bind", "/srv/x", "bind", &["size=1"]), "no option 'size=1'"),
        (request("overlayfs", "", "overlay", &["upperdir=/a,workdir=/b"]), "no lowerdir"),
        (request("overlayfs", "", "ext4", &["lowerdir=/a"]), "overlay"),
        (request("overlayfs", "", "overlay", &["lowerdir=/a:/proc/1/root"]), "/proc"),
        (request("overlayfs", "", "overlay", &["lowerdir=/a,upperdir=/run/sealpod/x"]), "/run/sealpod"),
        (
            request("overlayfs", "", "overlay", &["lowerdir=/a", "io.katacontainers.fs-opt.layer=x"]),
            "no option",
        ),
        (request("ephemeral", "x", "ext4", &[]), "tmpfs or hugetlbfs"),
        (request("ephemeral", "x", "tmpfs", &["fsgid=wheel"]), "no group"),
        (request("local", "local", "local", &["mode=0999"]), "not octal"),
        (request("local", "local", "local", &["mode=77777"]), "not octal"),
        (request("local", "local", "local", &["size=1"]), "no option"),
        (request("watchable-bind", "x", "bind", &[]), "not an absolute path"),
        (request("watchable-bind", POINT, "bind", &[]), "lie in each other"),
        (request("watchable-bind", "/run/sealpod", "bind", &[]), "/run/sealpod"),
        (request("image_guest_pull", "x", "overlay", &[]), "image_guest_pull="),
    ] {
        let text = refused(storage.clone());
        assert!(text.contains(word), "{storage:?}: {text}");
    }
    let nul = StorageRequest { source: "a\0b".into(), ..request("ephemeral", "", "tmpfs", &[]) };
    assert!(refused(nul).contains("NUL"));
    let many = request("ephemeral", "x", "tmpfs", &["nodev"; 513]);
    assert!(refused(many).contains("512 options"));
    assert!(plans(&vec![request("local", "", "", &[]); 1025]).is_err());
}

#[test]
fn a_writable_overlay_gets_directories_of_the_containers_own() {
    let planned = plan(request(
        "overlayfs",
        "none",
        "overlay",
        &["io.katacontainers.fs-opt.overlay-rw", "lowerdir=/a:/b"],
    ));
    let Plan::Mount { options, make, .. } = planned.plan else { panic!() };
    assert_eq!(
        options.data,
        "lowerdir=/a:/b,upperdir=/run/kata-containers/c1/upper,workdir=/run/kata-containers/c1/work"
    );
    assert_eq!(make, [Path::new("/run/kata-containers/c1/upper"), Path::new("/run/kata-containers/c1/work")]);
}

#[test]
fn images_are_named_by_source_or_metadata() {
    let pull = |source: &str, option: &str| {
        let mut request = request("image_guest_pull", source, "overlay", &[]);
        request.driver_options = vec![option.to_owned()];
        request
    };
    let image = |request| match plan(request).plan {
        Plan::Image { reference, metadata } => (reference, metadata.len()),
        _ => panic!(),
    };
    let metadata = r#"image_guest_pull={"metadata":{"io.kubernetes.cri.image-name":"b:1"}}"#;
    assert_eq!(image(pull("docker.io/library/a:1", metadata)), ("docker.io/library/a:1".into(), 1));
    assert_eq!(image(pull("", metadata)), ("b:1".into(), 1));
    assert_eq!(image(pull("a:1", "image_guest_pull={}")).1, 0);
    for wrong in ["image_guest_pull=", "image_guest_pull=[]", r#"image_guest_pull={"metadata":{"a":1}}"#] {
        assert!(refused(pull("a:1", wrong)).contains("JSON"), "{wrong}");
    }
    assert!(refused(pull("", "image_guest_pull={}")).contains("names no image"));
}

fn layer(source: &str, fstype: &str, options: &[&str]) -> StorageRequest {
    let options: Vec<&str> = [&["X-kata.multi-layer=true"], options].concat();
    StorageRequest {
        mount_point: "/run/kata-containers/c1/rootfs".into(),
        ..request("mmioblk", source, fstype, &options)
    }
}

#[test]
fn layers_make_one_storage() {
    let storages = [
        layer("/dev/vda", "ext4", &["X-kata.overlay-upper", "X-kata.mkdir.path={{ mount 0 }}/upper:0700"]),
        layer(
            "/dev/vdb",
            "erofs",
            &["X-kata.overlay-lower", "X-kata.gpt-partitioned=true", "X-kata.partition-number=2"],
        ),
        layer("/dev/vdc", "erofs", &["X-kata.overlay-lower"]),
        request("ephemeral", "x", "tmpfs", &[]),
    ];
    let planned = plans(&storages).unwrap();
    assert_eq!(planned.len(), 2);
    assert_eq!(planned[0].point, Path::new("/run/kata-containers/c1/rootfs"));
    let Plan::Layers(layers) = &planned[0].plan else { panic!() };
    assert_eq!(layers.lower.len(), 2);
    assert_eq!(layers.lower[0].partition, Some(2));
    assert_eq!(layers.directories[0].mode, 0o700);
    assert_eq!(layers.below, Path::new("/run/kata-containers/c1/multi-layer"));
    // Layers that come last are not forgotten.
    let planned = plans(&[storages[3].clone(), storages[0].clone(), storages[1].clone()]).unwrap();
    assert!(matches!(planned[1].plan, Plan::Layers(_)));
    assert_eq!(planned.len(), 2);
}

#[test]
fn layers_that_do_not_fit_together_are_refused() {
    let upper = layer("/dev/vda", "ext4", &["X-kata.overlay-upper"]);
    let lower = layer("/dev/vdb", "erofs", &["X-kata.overlay-lower"]);
    plans(&[upper.clone(), lower.clone()]).unwrap();
    for (storages, word) in [
        (vec![upper.clone()], "no lower layer"),
        (vec![lower.clone()], "no writable layer"),
        (vec![upper.clone(), upper.clone(), lower.clone()], "a second writable layer"),
        (vec![upper.clone(), layer("/dev/vdb", "xfs", &["X-kata.overlay-lower"])], "erofs"),
        (vec![upper.clone(), layer("/dev/vdb", "xfs", &[])], "either"),
        (vec![upper.clone(), layer("/dev/vdb", "erofs", &["X-kata.partition-number=1"])], "go together"),
        (
            vec![upper.clone(), layer("/dev/vdb", "erofs", &["X-kata.partition-number=0"])],
            "partition-number=0",
        ),
        (vec![upper.clone(), layer("/dev/vdb", "erofs", &["X-kata.dmverity-enabled=true"])], "dm-verity"),
        (vec![upper.clone(), layer("/dev/vdb", "erofs", &["X-kata.unknown=1"])], "X-kata.unknown"),
    ] {
        let text = plans(&storages).unwrap_err().to_string();
        assert!(text.contains(word), "{word}: {text}");
    }
}

fn any_request() -> impl Strategy<Value = StorageRequest> {
    let driver = prop_oneof![prop::sample::select(STORAGE_HANDLERS.map(str::to_owned).to_vec()), ".{0,10}",];
    let option = prop_oneof![
        ".{0,30}",
        "(size|mode|fsgid|pagesize|lowerdir|upperdir|image_guest_pull)=.{0,20}",
        "X-kata\\.[a-z.=0-9{} -]{0,30}",
        Just("X-kata.multi-layer=true".to_owned()),
        Just("create_filesystem".to_owned()),
    ];
    let options = prop::collection::vec(option, 0..6);
    let word = prop_oneof![".{0,20}", "/dev/[a-z]{0,4}", "[0-9a-f/:]{0,8}", "tmpfs|ext4|erofs|overlay"];
    (driver, options.clone(), options, word.clone(), word.clone(), word).prop_map(
        |(driver, options, driver_options, source, fstype, point)| StorageRequest {
            driver,
            driver_options,
            source,
            fstype,
            options,
            mount_point: format!("/run/kata-containers/{point}"),
            fs_group: None,
            shared: false,
        },
    )
}

proptest! {
    #[test]
    fn any_storages_are_planned_or_refused(requests in prop::collection::vec(any_request(), 0..6)) {
        if let Ok(planned) = plans(&requests) {
            for planned in planned {
                prop_assert!(planned.point.starts_with("/run/kata-containers"));
            }
        }
    }
}
