//! The first process of a test guest: makes and uses scratch as it is told, a line at a time, on its second serial port.
//! `tests/guest.rs` boots it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test's guest")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use agent_scratch::{Scratch, Tags};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};

type Answer = Result<String, Box<dyn Error>>;

const BLOCK: usize = 4096;
const MIB: usize = 1 << 20;

fn main() {
    if std::process::id() != 1 {
        eprintln!("this is the first process of a test guest");
        return;
    }
    for (kind, directory) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        let done = mount(Some(kind), directory, Some(kind), MsFlags::empty(), None::<&str>);
        if let Err(errno) = done {
            println!("scratch-init: {directory}: {errno}");
        }
    }
    let mut out = File::options().write(true).open("/dev/ttyS1").unwrap();
    let lines = BufReader::new(File::open("/dev/ttyS1").unwrap()).lines();
    writeln!(out, "= ready").unwrap();
    let mut volumes = BTreeMap::new();
    for line in lines.map_while(Result::ok) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words == ["quit"] {
            break;
        }
        let answer = obey(&words, &mut volumes);
        let text = match answer {
            Ok(text) => format!("= ok {text}"),
            Err(error) => format!("= err {}", chain(&*error)),
        };
        writeln!(out, "{}", text.replace('\n', " ")).unwrap();
    }
    drop(volumes);
    let _ = reboot(RebootMode::RB_POWER_OFF);
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

fn obey(words: &[&str], volumes: &mut BTreeMap<String, Scratch>) -> Answer {
    let volume =
        |volumes: &BTreeMap<String, Scratch>, name: &str| -> Result<std::path::PathBuf, Box<dyn Error>> {
            Ok(volumes.get(name).ok_or("no such volume")?.path().to_owned())
        };
    Ok(match words {
        ["make", device, name, tags] => {
            let tags = match *tags {
                "memory" => Tags::Memory,
                "device" => Tags::Device,
                _ => Tags::Auto,
            };
            let scratch = Scratch::make_with(Path::new(device), name, tags)?;
            let answer = format!("{} in-memory={}", scratch.size(), scratch.tags_in_memory());
            volumes.insert((*name).to_owned(), scratch);
            answer
        }
        ["write", name, block, byte] => {
            let file = File::options().write(true).open(volume(volumes, name)?)?;
            let bytes = vec![byte.parse::<u8>()?; BLOCK];
            file.write_all_at(&bytes, block.parse::<u64>()? * BLOCK as u64)?;
            file.sync_all()?;
            String::new()
        }
        ["read", name, block] => {
            let file = File::open(volume(volumes, name)?)?;
            let mut bytes = vec![0; BLOCK];
            file.read_exact_at(&mut bytes, block.parse::<u64>()? * BLOCK as u64)?;
            uniform(&bytes)?
        }
        ["format", name] => {
            volumes.get(*name).ok_or("no such volume")?.format_ext4()?;
            String::new()
        }
        ["mount", name, directory] => {
            fs::create_dir_all(directory)?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            volumes.get(*name).ok_or("no such volume")?.mount(Path::new(directory), flags)?;
            String::new()
        }
        ["umount", directory] => {
            umount2(*directory, MntFlags::empty())?;
            String::new()
        }
        ["close", name] => {
            volumes.remove(*name).ok_or("no such volume")?.close()?;
            String::new()
        }
        ["drop", name] => {
            drop(volumes.remove(*name).ok_or("no such volume")?);
            String::new()
        }
        ["create", path, byte, mib] => {
            let mut file = File::create(path)?;
            let bytes = vec![byte.parse::<u8>()?; MIB];
            for _ in 0..mib.parse::<usize>()? {
                file.write_all(&bytes)?;
            }
            file.sync_all()?;
            String::new()
        }
        ["cat", path] => uniform(&fs::read(path)?)?,
        ["ls", directory] => {
            let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().into_string().unwrap()));
            let mut names: Vec<String> = names.collect::<std::io::Result<_>>()?;
            names.sort();
            names.join(" ")
        }
        // Names spread over directories and the file system's groups.
        ["tree", directory, count] => {
            for number in 0..count.parse::<u32>()? {
                let below = format!("{directory}/{}", number % 50);
                fs::create_dir_all(&below)?;
                fs::write(format!("{below}/{number}"), vec![b'x'; number as usize % 9000])?;
            }
            String::new()
        }
        ["sync"] => {
            nix::unistd::sync();
            String::new()
        }
        ["forget"] => {
            nix::unistd::sync();
            fs::write("/proc/sys/vm/drop_caches", "3")?;
            fs::write("/proc/sys/vm/drop_caches", "3")?;
            String::new()
        }
        // Requests that read the device, since it is there.
        ["reads", device] => {
            let stat = fs::read_to_string(format!("/sys/block/{device}/stat"))?;
            stat.split_whitespace().next().unwrap_or_default().to_owned()
        }
        ["layers"] => {
            let mut count = 0;
            for entry in fs::read_dir("/sys/block")? {
                let path = entry?.path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                count += u32::from(name.starts_with("dm-") || path.join("loop/backing_file").exists());
            }
            count.to_string()
        }
        ["keys"] => {
            let keys = fs::read_to_string("/proc/keys")?;
            keys.lines().filter(|line| line.contains("sealpod") && !line.contains("R")).count().to_string()
        }
        _ => return Err("what?".into()),
    })
}

fn uniform(bytes: &[u8]) -> Answer {
    let first = *bytes.first().ok_or("empty")?;
    if bytes.iter().all(|byte| *byte == first) {
        Ok(format!("{first} {}", bytes.len()))
    } else {
        Err("mixed bytes".into())
    }
}
