//! Who a container runs as: runAsUser and runAsGroup, else the image's `USER`, looked up in the image's own
//! passwd and group files. The files are opened inside the root file system, whatever links lead there.
//!
//! Two differences from kubelet, both towards what the image says: a group in the image's `USER` counts
//! (kubelet drops it), and runAsNonRoot accepts a user name, because here it is looked up before the
//! decision.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sealed_spec::podspec::SupplementalGroupsPolicy;

use crate::{ContainerInput, OciError};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
const MAX_FILE: u64 = 4 << 20;

/// A resolved user.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups, sorted; the primary group is among them, so that leaving it takes more than
    /// setgid (CVE-2022-2995).
    pub(crate) groups: Vec<u32>,
    /// Home directory; never empty.
    pub(crate) home: String,
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

pub(crate) fn identity(input: &ContainerInput<'_>) -> Result<Identity, OciError> {
    let pod = input.pod.security_context.as_ref();
    let own = input.container.security_context.as_ref();
    let run_as_user = own.and_then(|s| s.run_as_user).or_else(|| pod.and_then(|s| s.run_as_user));
    let run_as_group = own.and_then(|s| s.run_as_group).or_else(|| pod.and_then(|s| s.run_as_group));
    let non_root = own.and_then(|s| s.run_as_non_root).or_else(|| pod.and_then(|s| s.run_as_non_root));

    let accounts = accounts(&read(input.rootfs, PASSWD)?);
    let groups = read(input.rootfs, GROUP)?;
    let image_user = input.image.config().as_ref().and_then(|c| c.user().as_deref()).unwrap_or_default();
    let (image_user, image_group) = match image_user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (image_user, None),
    };

    let (uid, account) = match run_as_user {
        Some(uid) => (uid, accounts.iter().find(|a| a.uid == uid)),
        None if image_user.is_empty() => (0, accounts.iter().find(|a| a.uid == 0)),
        None => match number(image_user) {
            Some(uid) => (uid, accounts.iter().find(|a| a.uid == uid)),
            None => {
                let unknown =
                    || OciError::Unknown { what: "user", name: image_user.to_owned(), file: PASSWD };
                let account = accounts.iter().find(|a| a.name == image_user).ok_or_else(unknown)?;
                (account.uid, Some(account))
            }
        },
    };
    let image_group = image_group.filter(|_| run_as_user.is_none());
    let gid = match (run_as_group, image_group) {
        (Some(gid), _) => gid,
        (None, Some(name)) => match number(name) {
            Some(gid) => gid,
            None => group_by_name(&groups, name).ok_or_else(|| OciError::Unknown {
                what: "group",
                name: name.to_owned(),
                file: GROUP,
            })?,
        },
        (None, None) => account.map_or(0, |a| a.gid),
    };
    if uid == u32::MAX || gid == u32::MAX {
        return Err(OciError::refused("runAsUser", "4294967295 is not a user or group id"));
    }
    if non_root == Some(true) && uid == 0 {
        return Err(OciError::Root(input.container.name.clone()));
    }

    let mut all = BTreeSet::from([gid]);
    if let Some(pod) = pod {
        all.extend(&pod.supplemental_groups);
        all.extend(pod.fs_group);
    }
    let policy = pod.and_then(|s| s.supplemental_groups_policy).unwrap_or_default();
    if let (SupplementalGroupsPolicy::Merge, Some(account)) = (policy, account) {
        all.extend(groups_of(&groups, &account.name));
    }
    let home = account.map(|a| a.home.clone()).filter(|home| home.starts_with('/'));
    Ok(Identity { uid, gid, groups: all.into_iter().collect(), home: home.unwrap_or_else(|| "/".to_owned()) })
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn accounts(passwd: &str) -> Vec<Account> {
    passwd
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
            Some(Account { name: (*name).into(), uid: number(uid)?, gid: number(gid)?, home: (*home).into() })
        })
        .collect()
}

/// Name, id and members of each group.
fn group_lines(groups: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    groups.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, number(fields.next()?)?);
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn group_by_name(groups: &str, wanted: &str) -> Option<u32> {
    group_lines(groups).find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid)
}

fn groups_of<'a>(groups: &'a str, user: &'a str) -> impl Iterator<Item = u32> + 'a {
    group_lines(groups)
        .filter(move |(.., members)| members.split(',').any(|member| member == user))
        .map(|(_, gid, _)| gid)
}

/// A text file of the root file system; a missing one is empty. Links are followed as a process inside
/// would, never out of it.
fn read(rootfs: &Path, file: &str) -> Result<String, OciError> {
    let fail = |e: std::io::Error| OciError::io(format!("{file} of the image"), e);
    let root =
        rustix::fs::openat(CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| OciError::io("root file system", e))?;
    // Not blocking: a FIFO in its place must not stop the agent.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let opened = loop {
        match rustix::fs::openat2(&root, file, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => break other,
        }
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(e) => return Err(fail(e.into())),
    };
    let stat = rustix::fs::fstat(&opened).map_err(|e| fail(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(OciError::refused(format!("{file} of the image"), "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::from(opened).take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(OciError::refused(
            format!("{file} of the image"),
            format!("larger than {MAX_FILE} bytes"),
        ));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
