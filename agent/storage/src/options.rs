//! Mount options as fstab has them, parted into flags of mount(2) and what the file system reads.

use nix::mount::MsFlags;

/// One page, less its NUL: what the kernel copies.
const MAX_DATA: usize = 4095;

/// Options that mean something to programs around mount(2), and nothing to it.
const IGNORED: [&str; 10] =
    ["defaults", "rw", "auto", "noauto", "user", "nouser", "users", "owner", "_netdev", "nofail"];

/// Flags and data of one mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountOptions {
    pub(crate) flags: MsFlags,
    pub(crate) data: String,
}

impl MountOptions {
    /// Parts options; each may hold several, with commas between.
    pub(crate) fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut flags = MsFlags::empty();
        let mut data: Vec<&str> = Vec::new();
        for option in options.into_iter().flat_map(split).filter(|option| !option.is_empty()) {
            if option.contains(['\0', '\n']) {
                return Err("a mount option holds a NUL or a line break".into());
            }
            if IGNORED.contains(&option) {
                if option == "rw" {
                    flags.remove(MsFlags::MS_RDONLY);
                }
                continue;
            }
            match flag(option) {
                Some((bits, true)) => flags.insert(bits),
                Some((bits, false)) => flags.remove(bits),
                None => data.push(option),
            }
        }
        let data = data.join(",");
        if data.len() > MAX_DATA {
            return Err(format!("mount options of {} bytes; the kernel takes {MAX_DATA}", data.len()));
        }
        Ok(Self { flags, data })
    }
}

/// At commas, but not inside of double quotes (SELinux contexts hold commas).
fn split(options: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    options
        .split(move |c: char| {
            quoted ^= c == '"';
            c == ',' && !quoted
        })
        .map(str::trim)
}

/// The flag that a word sets (true) or clears.
fn flag(option: &str) -> Option<(MsFlags, bool)> {
    Some(match option {
        "ro" => (MsFlags::MS_RDONLY, true),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "remount" => (MsFlags::MS_REMOUNT, true),
        "mand" => (MsFlags::MS_MANDLOCK, true),
        "nomand" => (MsFlags::MS_MANDLOCK, false),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "atime" => (MsFlags::MS_NOATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "diratime" => (MsFlags::MS_NODIRATIME, false),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "norelatime" => (MsFlags::MS_RELATIME, false),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "nostrictatime" => (MsFlags::MS_STRICTATIME, false),
        "bind" => (MsFlags::MS_BIND, true),
        "rbind" => (MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
        "private" => (MsFlags::MS_PRIVATE, true),
        "rprivate" => (MsFlags::MS_PRIVATE.union(MsFlags::MS_REC), true),
        "shared" => (MsFlags::MS_SHARED, true),
        "rshared" => (MsFlags::MS_SHARED.union(MsFlags::MS_REC), true),
        "slave" => (MsFlags::MS_SLAVE, true),
        "rslave" => (MsFlags::MS_SLAVE.union(MsFlags::MS_REC), true),
        "unbindable" => (MsFlags::MS_UNBINDABLE, true),
        "runbindable" => (MsFlags::MS_UNBINDABLE.union(MsFlags::MS_REC), true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn flags_and_data_are_told_apart() {
        let options =
            MountOptions::parse(["noexec,nosuid", "nodev", "mode=1777", "size=65536k", "defaults"]).unwrap();
        assert_eq!(options.flags, MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
        assert_eq!(options.data, "mode=1777,size=65536k");
    }

    #[test]
    fn a_later_word_takes_back_an_earlier_one() {
        let options = MountOptions::parse(["ro", "noexec", "rw", "exec"]).unwrap();
        assert_eq!(options, MountOptions { flags: MsFlags::empty(), data: String::new() });
    }

    #[test]
    fn commas_in_quotes_do_not_part() {
        let options = MountOptions::parse(["context=\"u:r:t:s0:c1,c2\",ro"]).unwrap();
        assert_eq!(options.data, "context=\"u:r:t:s0:c1,c2\"");
        assert_eq!(options.flags, MsFlags::MS_RDONLY);
    }

    #[test]
    fn more_than_a_page_is_refused() {
        let long = format!("lowerdir={}", "x".repeat(5000));
        assert!(MountOptions::parse([long.as_str()]).unwrap_err().contains("4095"));
        assert!(MountOptions::parse(["a=\nb"]).is_err());
    }

    proptest! {
        #[test]
        fn any_options_part_or_are_refused(options in prop::collection::vec(".{0,40}", 0..20)) {
            if let Ok(parted) = MountOptions::parse(options.iter().map(String::as_str)) {
                prop_assert!(parted.data.len() <= MAX_DATA && !parted.data.contains('\0'));
            }
        }
    }
}
