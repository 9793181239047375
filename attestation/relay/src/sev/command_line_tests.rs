//! Command lines as Kata's two runtimes and the launcher write them, and what becomes of them.

use super::*;

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn parsed(text: &str) -> CommandLine {
    CommandLine::parse(words(text)).unwrap().unwrap()
}

fn launched(line: &CommandLine) -> Vec<String> {
    let object = Object {
        cbitpos: 51,
        reduced_phys_bits: 1,
        policy: 5,
        godh: Path::new("/run/a,b/godh"),
        session: Path::new("/run/a,b/session"),
        monitor: Path::new("/run/a,b/qmp"),
    };
    line.launch(&object).into_iter().map(|word| word.into_string().unwrap()).collect()
}

/// Kata's Go runtime for a guest that its host's SEV would encrypt.
const KATA_GO: &str = "-name sandbox-1,debug-threads=on -uuid u -machine q35,accel=kvm,confidential-guest-support=sev \
    -cpu host,pmu=off -qmp unix:fd=3,server=on,wait=off -m 2048M,slots=10,maxmem=9G \
    -device pci-bridge,bus=pcie.0,id=pci-bridge-0 -object sev-guest,id=sev,cbitpos=47,reduced-phys-bits=1,policy=0x4 \
    -drive if=pflash,format=raw,readonly=on,file=/usr/share/OVMF.fd \
    -drive if=none,id=image-1,format=raw,readonly=on,file=/run/kata/init,,data.img \
    -rtc base=utc -global kvm-pit.lost_tick_policy=discard -vga none -no-user-config -nodefaults -nographic --no-reboot \
    -object memory-backend-ram,id=dimm1,size=2048M -machine memory-backend=dimm1 -kernel /k -initrd /i \
    -append quiet -pidfile /run/vc/vm/1/pid -smp 1,maxcpus=1";

#[test]
fn katas_words_stay_and_its_object_is_replaced() {
    let line = parsed(KATA_GO);
    assert_eq!(line.policy, Some(4));
    assert_eq!(line.drives, [Path::new("/usr/share/OVMF.fd"), Path::new("/run/kata/init,data.img")]);
    assert!(!line.daemonize && !line.stopped);

    let mut expected: Vec<String> =
        words(KATA_GO).into_iter().map(|word| word.into_string().unwrap()).collect();
    let at = expected.iter().position(|word| word.starts_with("sev-guest")).unwrap();
    expected.drain(at - 1..=at);
    let machine = expected.iter_mut().find(|word| word.starts_with("q35")).unwrap();
    *machine = "q35,accel=kvm".to_owned();
    expected.extend(
        [
            "-S",
            "-object",
            "sev-guest,id=sealpod0,cbitpos=51,reduced-phys-bits=1,policy=0x5,dh-cert-file=/run/a,,b/godh,\
             session-file=/run/a,,b/session,kernel-hashes=on",
            "-machine",
            "confidential-guest-support=sealpod0",
            "-qmp",
            "unix:/run/a,,b/qmp",
        ]
        .map(str::to_owned),
    );
    assert_eq!(launched(&line), expected);
}

#[test]
fn a_guest_without_an_object_gets_one() {
    let line = parsed("-machine q35 -bios f -kernel k -daemonize -S /disk.img");
    assert!(line.daemonize && line.stopped);
    assert_eq!(line.policy, None);
    assert_eq!(line.drives, [Path::new("/disk.img")]);
    let words = launched(&line);
    assert_eq!(words.iter().filter(|word| *word == "-S").count(), 1);
    assert!(words.iter().any(|word| word == "-daemonize"));
}

#[test]
fn objects_and_drives_in_json() {
    let line = parsed(
        r#"-object {"qom-type":"sev-guest","policy":5,"id":"x"} -object {"qom-type":"iothread","id":"i"} -bios f -kernel k
           -blockdev {"driver":"raw","file":{"driver":"file","filename":"/a"}} -blockdev {"driver":"file","filename":"/b"}
           -blockdev driver=raw,node-name=n,file.driver=file,file.filename=/c"#,
    );
    assert_eq!(line.policy, Some(5));
    assert_eq!(line.drives, [Path::new("/a"), Path::new("/b"), Path::new("/c")]);
    assert_eq!(launched(&line).iter().filter(|word| word.contains("sev-guest")).count(), 1);
    assert!(launched(&line).iter().any(|word| word.contains("iothread")));
}

#[test]
fn values_that_look_like_options_are_values() {
    let mut all = words("-bios f -kernel k -append");
    all.push("-object sev-snp-guest -daemonize".into());
    let line = CommandLine::parse(all).unwrap().unwrap();
    assert!(!line.daemonize);
    let line = CommandLine::parse(words("-append -S -kernel k -bios f")).unwrap().unwrap();
    assert!(!line.stopped);
}

#[test]
fn questions_start_no_guest() {
    for text in [
        "--version",
        "-version",
        "-h",
        "-machine help",
        "-cpu ?",
        "-device virtio-blk-pci,help",
        "-M help,a=b",
    ] {
        assert_eq!(CommandLine::parse(words(text)), Ok(None), "{text}");
    }
    assert!(CommandLine::parse(words("-bios f -kernel k -append a=b,help -initrd help")).unwrap().is_some());
}

#[test]
fn what_is_no_sev_guest_is_refused() {
    use CommandLineError::{NoFirmware, NoKernel, NoValue, OtherGuest, Restored};
    for (text, error) in [
        ("-kernel k", NoFirmware),
        ("-kernel k -drive if=none,file=/x", NoFirmware),
        ("-bios f", NoKernel),
        ("-bios f -kernel", NoValue("kernel".to_owned())),
        ("-bios f -kernel k -object sev-snp-guest,id=s", OtherGuest("sev-snp-guest".to_owned())),
        ("-bios f -kernel k -object qom-type=tdx-guest,id=s", OtherGuest("tdx-guest".to_owned())),
        (r#"-bios f -kernel k -object {"qom-type":"tdx-guest"}"#, OtherGuest("tdx-guest".to_owned())),
        ("-bios f -kernel k -incoming defer", Restored("incoming")),
        ("-bios f -kernel k -loadvm x", Restored("loadvm")),
    ] {
        assert_eq!(CommandLine::parse(words(text)), Err(error), "{text}");
    }
    assert_eq!(CommandLine::parse(vec!["-S".into(); MAX_WORDS + 1]), Err(CommandLineError::Long));
    for text in
        ["-pflash f -kernel k", "-machine q35,pflash0=n -kernel k", "-drive if=pflash,file=f -kernel k"]
    {
        assert!(CommandLine::parse(words(text)).unwrap().is_some(), "{text}");
    }
}

#[test]
fn machines_keep_what_is_not_ours() {
    let mut firmware = false;
    let kept = |text: &str, firmware: &mut bool| machine(OsStr::new(text), firmware);
    assert_eq!(kept("confidential-guest-support=x", &mut firmware), None);
    let value = kept("q35,memory-encryption=x,a=b,,c,pflash0=n", &mut firmware).unwrap();
    assert_eq!(value, "q35,a=b,,c,pflash0=n");
    assert!(firmware);
}
