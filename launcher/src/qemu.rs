//! QEMU's argument list: one function from a manifest and a run directory to words, so that tests can read it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use base64::Engine as _;

use crate::accelerator::Accelerator;
use crate::manifest::{GuestManifest, Platform};

/// The guest's network card: a locally administered address that the pod's network request names again.
pub const GUEST_MAC: &str = "52:54:00:5e:a1:0d";

/// How the guest reaches a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// QEMU's user-mode network: 10.0.2.15/24, the host's loopback at 10.0.2.2.
    #[default]
    User,
    /// No card.
    None,
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk, as Kata's `blk` driver finds it by its place on the PCI bus.
    #[default]
    Blk,
    /// virtio-scsi, as Kata's `scsi` driver finds it by id and LUN.
    Scsi,
}

/// A disk that the host gives the guest: a raw image file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The image.
    pub path: PathBuf,
    /// The guest can't write to it, and it can be given to several guests.
    pub read_only: bool,
    /// How it is attached.
    pub bus: Bus,
    /// Every read ends with an I/O error.
    pub unreadable: bool,
    /// What the guest reads as its serial number, on [`Bus::Blk`]; [`LAYER_DISK`] for image layers.
    pub serial: Option<&'static str>,
}

/// The serial number of the disk on which a guest keeps image layers, encrypted, if its sealed spec says so.
pub const LAYER_DISK: &str = "sealpod-layers";

/// Where disks begin on the PCI bus: behind what QEMU and the launcher place themselves.
const FIRST_SLOT: usize = 0x10;

/// A layer of QEMU's below the image that fails what is asked of it.
const UNREADABLE: &str = "file.driver=blkdebug,file.inject-error.0.event=read_aio,file.inject-error.0.errno=5,\
                          file.image.driver=file,file.image.filename=";

impl Disk {
    /// A disk on virtio-blk that the guest can write to.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, read_only: false, bus: Bus::Blk, unreadable: false, serial: None }
    }

    /// Kata's name for the place of the disk at `index` on the PCI bus.
    #[must_use]
    pub fn pci_path(index: usize) -> String {
        format!("{:02x}", FIRST_SLOT + index)
    }
}

/// The files of one boot that QEMU is given.
pub(crate) struct Boot<'a> {
    pub(crate) accelerator: Accelerator,
    pub(crate) vsock: Option<&'a Path>,
    pub(crate) console: &'a Path,
    pub(crate) initdata: Option<&'a Path>,
    pub(crate) disks: &'a [Disk],
    pub(crate) host_data: &'a [u8; 32],
    pub(crate) network: Network,
}

/// All words after the program's name.
pub(crate) fn arguments(guest: &GuestManifest, boot: &Boot<'_>) -> Vec<OsString> {
    let mut words = Words(Vec::new());
    for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        words.0.push(flag.into());
    }
    words.pair("-display", "none");
    words.pair("-serial", joined("file:", boot.console));
    words.pair("-m", guest.memory_mib.to_string());
    words.pair("-smp", guest.vcpus.to_string());
    // vhost-user backends map the guest's memory, so it must be shareable.
    words.pair("-object", format!("memory-backend-memfd,id=memory,size={}M,share=on", guest.memory_mib));
    // Encrypted guests reach devices through bounce buffers: modern virtio with the platform's access rules.
    let virtio = match &guest.platform {
        Platform::Snp { policy, cbitpos, reduced_phys_bits } => {
            let host_data = base64::engine::general_purpose::STANDARD.encode(boot.host_data);
            words.pair(
                "-object",
                format!(
                    "sev-snp-guest,id=snp,cbitpos={cbitpos},reduced-phys-bits={reduced_phys_bits},\
                     policy={policy:#x},host-data={host_data},kernel-hashes=on"
                ),
            );
            words.pair("-machine", "q35,accel=kvm,memory-backend=memory,confidential-guest-support=snp");
            words.pair("-cpu", guest.cpu_model.as_str());
            words.pair("-bios", &guest.firmware);
            ",disable-legacy=on,iommu_platform=on"
        }
        // The relay adds the SEV object: its policy and session are the broker's.
        Platform::Sev { .. } => {
            words.pair("-machine", "q35,accel=kvm,memory-backend=memory");
            words.pair("-cpu", guest.cpu_model.as_str());
            words.pair("-bios", &guest.firmware);
            ",disable-legacy=on,iommu_platform=on"
        }
        Platform::SevEmulated { .. } | Platform::SnpEmulated { .. } | Platform::None => {
            let (name, cpu) = match boot.accelerator {
                Accelerator::Kvm => ("kvm", "host"),
                Accelerator::Tcg => ("tcg", "max"),
            };
            words.pair("-machine", format!("q35,accel={name},memory-backend=memory"));
            words.pair("-cpu", cpu);
            if matches!(guest.platform, Platform::SevEmulated { .. }) {
                // For the emulator to measure; it boots the kernel directly.
                words.pair("-bios", &guest.firmware);
            }
            ""
        }
    };
    if let Some(path) = boot.vsock {
        words.pair("-chardev", joined("socket,id=vsock,path=", path));
        words.pair("-device", format!("vhost-user-vsock-pci,chardev=vsock{virtio}"));
    }
    if let Some(path) = boot.initdata {
        words.pair("-drive", joined("if=none,id=initdata,format=raw,readonly=on,file=", path));
        words.pair("-device", format!("virtio-blk-pci,drive=initdata{virtio}"));
    }
    for (index, disk) in boot.disks.iter().enumerate() {
        let read_only = if disk.read_only { "readonly=on," } else { "" };
        let file = if disk.unreadable { UNREADABLE } else { "file=" };
        let drive = format!("if=none,id=disk{index},format=raw,{read_only}{file}");
        words.pair("-drive", joined(&drive, &disk.path));
        let slot = format!("addr={:#x}", FIRST_SLOT + index);
        match disk.bus {
            Bus::Blk => {
                let serial = disk.serial.map_or_else(String::new, |serial| format!(",serial={serial}"));
                words.pair("-device", format!("virtio-blk-pci,drive=disk{index},{slot}{serial}{virtio}"));
            }
            Bus::Scsi => {
                words.pair("-device", format!("virtio-scsi-pci,id=scsi{index},{slot}{virtio}"));
                words.pair(
                    "-device",
                    format!("scsi-hd,drive=disk{index},bus=scsi{index}.0,scsi-id=0,lun={index}"),
                );
            }
        }
    }
    if boot.network == Network::User {
        words.pair("-netdev", "user,id=net");
        // No option ROM: it would only be there for network boot, and may not be installed.
        words.pair("-device", format!("virtio-net-pci,netdev=net,mac={GUEST_MAC},romfile={virtio}"));
    }
    words.pair("-kernel", &guest.kernel);
    words.pair("-initrd", &guest.initrd);
    words.pair("-append", guest.append.as_str());
    words.0
}

struct Words(Vec<OsString>);

impl Words {
    fn pair(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }
}

/// QEMU's option syntax: a comma in a value is written twice.
fn joined(prefix: &str, path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let mut bytes = prefix.as_bytes().to_vec();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(platform: &str) -> GuestManifest {
        let text = format!(
            "firmware = 'OVMF.fd'\nkernel = 'bzImage'\ninitrd = 'initrd'\ncpu_model = 'EPYC-v4'\nvcpus = 2\n\
             [platform]\n{platform}"
        );
        GuestManifest::parse(&text, Path::new("/g")).unwrap()
    }

    fn words(guest: &GuestManifest, accelerator: Accelerator, network: Network) -> Vec<String> {
        let boot = Boot {
            accelerator,
            vsock: Some(Path::new("/run/a,b/vhost.sock")),
            console: Path::new("/run/console.log"),
            initdata: Some(Path::new("/run/initdata.img")),
            disks: &[
                Disk { read_only: true, ..Disk::new("/d/root".into()) },
                Disk { bus: Bus::Scsi, ..Disk::new("/d/scratch".into()) },
                Disk { serial: Some(LAYER_DISK), ..Disk::new("/d/layers".into()) },
            ],
            host_data: &[0x11; 32],
            network,
        };
        arguments(guest, &boot).into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    fn value<'a>(words: &'a [String], option: &str) -> Vec<&'a str> {
        words.windows(2).filter(|pair| pair[0] == option).map(|pair| pair[1].as_str()).collect()
    }

    const EMULATED: &str = "kind = 'snp-emulated'\nemulator = 'e'\nstate = 's'";

    #[test]
    fn emulated_guests_boot_the_kernel_directly() {
        let words = words(&guest(EMULATED), Accelerator::Tcg, Network::User);
        assert_eq!(value(&words, "-machine"), ["q35,accel=tcg,memory-backend=memory"]);
        assert_eq!(value(&words, "-cpu"), ["max"]);
        assert!(value(&words, "-bios").is_empty());
        assert_eq!(value(&words, "-kernel"), ["/g/bzImage"]);
        assert_eq!(value(&words, "-append"), [crate::manifest::DEFAULT_APPEND]);
        assert_eq!(value(&words, "-chardev"), ["socket,id=vsock,path=/run/a,,b/vhost.sock"]);
        let devices = value(&words, "-device");
        assert!(devices.contains(&"vhost-user-vsock-pci,chardev=vsock"));
        assert!(devices.contains(&"virtio-net-pci,netdev=net,mac=52:54:00:5e:a1:0d,romfile="));
    }

    #[test]
    fn disks_stand_where_the_agent_is_told_to_look() {
        let words = words(&guest("kind = 'none'"), Accelerator::Tcg, Network::None);
        let drives = value(&words, "-drive");
        assert!(drives.contains(&"if=none,id=disk0,format=raw,readonly=on,file=/d/root"));
        assert!(drives.contains(&"if=none,id=disk1,format=raw,file=/d/scratch"));
        let devices = value(&words, "-device");
        assert!(devices.contains(&"virtio-blk-pci,drive=disk0,addr=0x10"));
        assert!(devices.contains(&"virtio-blk-pci,drive=disk2,addr=0x12,serial=sealpod-layers"));
        assert_eq!(Disk::pci_path(0), "10");
        assert!(devices.contains(&"virtio-scsi-pci,id=scsi1,addr=0x11"));
        assert!(devices.contains(&"scsi-hd,drive=disk1,bus=scsi1.0,scsi-id=0,lun=1"));
    }

    #[test]
    fn no_network_means_no_card() {
        let words = words(&guest(EMULATED), Accelerator::Kvm, Network::None);
        assert!(value(&words, "-netdev").is_empty());
        assert!(!value(&words, "-device").iter().any(|device| device.contains("virtio-net")));
        assert_eq!(value(&words, "-cpu"), ["host"]);
    }

    #[test]
    fn sev_guests_leave_their_object_to_the_relay() {
        let real = words(&guest("kind = 'sev-es'"), Accelerator::Tcg, Network::User);
        assert!(!value(&real, "-object").iter().any(|object| object.contains("sev")));
        assert_eq!(value(&real, "-machine"), ["q35,accel=kvm,memory-backend=memory"]);
        assert_eq!(value(&real, "-cpu"), ["EPYC-v4"]);
        assert_eq!(value(&real, "-bios"), ["/g/OVMF.fd"]);
        let emulated = guest("kind = 'sev-es-emulated'\nemulator = 'e'\nstate = 's'");
        let words = words(&emulated, Accelerator::Tcg, Network::User);
        assert_eq!(value(&words, "-machine"), ["q35,accel=tcg,memory-backend=memory"]);
        assert_eq!(value(&words, "-bios"), ["/g/OVMF.fd"]);
        assert!(value(&words, "-device").contains(&"vhost-user-vsock-pci,chardev=vsock"));
    }

    #[test]
    fn snp_guests_carry_host_data_and_kernel_hashes() {
        let words = words(&guest("kind = 'snp'\npolicy = 0x30000"), Accelerator::Tcg, Network::User);
        let objects = value(&words, "-object");
        assert!(objects.contains(
            &"sev-snp-guest,id=snp,cbitpos=51,reduced-phys-bits=1,policy=0x30000,\
              host-data=ERERERERERERERERERERERERERERERERERERERERERE=,kernel-hashes=on"
        ));
        assert!(objects.contains(&"memory-backend-memfd,id=memory,size=512M,share=on"));
        // Encryption needs the hardware: the accelerator that was probed for plain guests doesn't matter.
        assert_eq!(
            value(&words, "-machine"),
            ["q35,accel=kvm,memory-backend=memory,confidential-guest-support=snp"]
        );
        assert_eq!(value(&words, "-cpu"), ["EPYC-v4"]);
        assert_eq!(value(&words, "-bios"), ["/g/OVMF.fd"]);
        for device in value(&words, "-device") {
            if device.starts_with("scsi-hd") {
                continue;
            }
            assert!(device.ends_with(",disable-legacy=on,iommu_platform=on"), "{device}");
        }
    }
}
