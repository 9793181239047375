//! Watched directories: versions, links, bounds.

use super::*;

struct Volume {
    _dir: tempfile::TempDir,
    source: PathBuf,
    target: PathBuf,
    watcher: Watcher,
}

/// A ConfigMap as kubelet lays it out.
fn volume() -> Volume {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    version(&source, "..1", "one");
    symlink("..data/key", source.join("key")).unwrap();
    let target = dir.path().join("target");
    let watcher = Watcher::default();
    Volume { source, target, watcher, _dir: dir }
}

fn version(source: &Path, name: &str, value: &str) {
    fs::create_dir(source.join(name)).unwrap();
    fs::write(source.join(name).join("key"), value).unwrap();
    symlink(name, source.join("..next")).unwrap();
    fs::rename(source.join("..next"), source.join("..data")).unwrap();
}

#[test]
fn a_new_version_arrives_by_its_link() {
    let Volume { source, target, watcher, .. } = &volume();
    watcher.add(source, target).unwrap();
    assert_eq!(fs::read_to_string(target.join("key")).unwrap(), "one");
    version(source, "..2", "two");
    fs::remove_dir_all(source.join("..1")).unwrap();
    watcher.look();
    assert_eq!(fs::read_to_string(target.join("key")).unwrap(), "two");
    assert_eq!(fs::read_link(target.join("..data")).unwrap(), Path::new("..2"));
    assert!(!target.join("..1").exists());
    watcher.remove(target);
    assert!(!target.exists());
}

#[test]
fn a_single_file_is_copied_with_its_permissions() {
    let Volume { source, target, watcher, .. } = &volume();
    let file = source.join("..1/key");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
    watcher.add(&file, target).unwrap();
    assert_eq!(fs::read_to_string(target).unwrap(), "one");
    assert_eq!(fs::metadata(target).unwrap().mode() & 0o777, 0o440);
}

#[test]
fn links_out_of_the_source_are_links_and_no_more() {
    let Volume { source, target, watcher, .. } = &volume();
    symlink("/etc", source.join("etc")).unwrap();
    symlink("/etc/passwd", source.join("file")).unwrap();
    watcher.add(source, target).unwrap();
    assert!(target.join("etc").symlink_metadata().unwrap().is_symlink());
    assert!(target.join("file").symlink_metadata().unwrap().is_symlink());
    // What was a directory of the copy becomes a link: nothing is written through it afterwards.
    fs::remove_dir_all(source.join("..1")).unwrap();
    symlink("/etc", source.join("..1")).unwrap();
    watcher.look();
    assert!(target.join("..1").symlink_metadata().unwrap().is_symlink());
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn what_is_no_configuration_is_left_out() {
    let Volume { source, target, watcher, .. } = &volume();
    nix::unistd::mkfifo(&source.join("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
    watcher.add(source, target).unwrap();
    assert!(!target.join("pipe").exists());
}

#[test]
fn a_source_that_is_not_there_is_an_error() {
    let Volume { source, target, watcher, .. } = &volume();
    assert!(watcher.add(&source.join("none"), target).is_err());
    assert!(!target.exists());
}

#[test]
fn bounds_are_the_stock_agents() {
    let Volume { source, .. } = &volume();
    let entries = read_tree(source).ok().unwrap().len();
    for n in entries..MAX_ENTRIES {
        fs::write(source.join(n.to_string()), "").unwrap();
    }
    assert_eq!(read_tree(source).ok().unwrap().len(), MAX_ENTRIES);
    fs::write(source.join("more"), "").unwrap();
    assert!(matches!(read_tree(source), Err(TreeError::TooLarge)));
    fs::remove_file(source.join("more")).unwrap();
    let half = vec![0; 512 * 1024];
    fs::write(source.join("10"), &half).unwrap();
    assert!(read_tree(source).is_ok());
    fs::write(source.join("11"), &half).unwrap();
    assert!(matches!(read_tree(source), Err(TreeError::TooLarge)));
}
