//! Which library is loaded: the one that the URI names, only from a place that the configuration allows.

use std::path::Path;

use encrypted_image::pkcs11::token::{Modules, Refusal};
use encrypted_image::pkcs11::uri::{Uri, plain_absolute};

/// Entries of a directory that are looked at.
const MAX_ENTRIES: usize = 1 << 16;

/// The path of the library. Symbolic links are followed: whoever owns an allowed directory decides what is in it.
pub(crate) fn find(uri: &Uri, modules: &Modules) -> Result<String, Refusal> {
    let missing = |name: &str| Refusal::ModuleMissing(name.to_owned());
    let (directories, name) = match (&uri.module_path, &uri.module_name) {
        (None, None) => return Err(Refusal::NoModule),
        (None, Some(name)) => (modules.directories.as_slice(), name),
        (Some(path), name) => {
            // Before the file is looked at: what is elsewhere is nobody's business.
            let directory = Path::new(path).is_dir();
            match name {
                Some(name) if directory => (std::slice::from_ref(path), name),
                None if directory => return Err(Refusal::NoModule),
                _ => {
                    permitted(path, modules)?;
                    return if Path::new(path).is_file() { Ok(path.clone()) } else { Err(missing(path)) };
                }
            }
        }
    };
    let mut refused = None;
    for directory in directories {
        if let Some(path) = named(directory, name) {
            match permitted(&path, modules) {
                Ok(()) => return Ok(path),
                Err(error) => refused = Some(error),
            }
        }
    }
    Err(refused.unwrap_or_else(|| missing(name)))
}

/// An entry of the list is a file, or a directory (with a slash at its end) whose own files are meant.
fn permitted(path: &str, modules: &Modules) -> Result<(), Refusal> {
    let listed = |entry: &String| match path.strip_prefix(entry.as_str()) {
        Some("") => true,
        Some(file) => entry.ends_with('/') && !file.contains('/'),
        None => false,
    };
    if plain_absolute(path) && !path.ends_with('/') && modules.allowed.iter().any(listed) {
        return Ok(());
    }
    Err(Refusal::ModuleNotAllowed(path.to_owned()))
}

/// `libNAME.so`, then `NAME.so`, then what else ends in the name before its first dot, in any case of letters.
fn named(directory: &str, name: &str) -> Option<String> {
    let name = name.to_lowercase();
    let ranked = std::fs::read_dir(directory).ok()?.take(MAX_ENTRIES).filter_map(|entry| {
        let file = entry.ok()?.file_name().into_string().ok()?;
        let lower = file.to_lowercase();
        let rank = match lower.split('.').next()? {
            _ if lower == format!("lib{name}.so") => 0,
            _ if lower == format!("{name}.so") => 1,
            stem if stem.ends_with(&name) && lower.split('.').nth(1) == Some("so") => 2,
            _ => return None,
        };
        Some((rank, file))
    });
    let (_, file) = ranked.min()?;
    let path = format!("{}/{file}", directory.trim_end_matches('/'));
    Path::new(&path).is_file().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(directory: &Path) -> Modules {
        let directory = format!("{}/", directory.display());
        Modules { directories: vec![directory.clone()], allowed: vec![directory] }
    }

    fn uri(query: &str) -> Uri {
        Uri::parse(&format!("pkcs11:object=k?{query}")).unwrap()
    }

    fn scene() -> (tempfile::TempDir, tempfile::TempDir) {
        let (allowed, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for directory in [&allowed, &elsewhere] {
            for file in ["libtoken.so", "xtoken.so", "token.so.1", "token.conf", "libother.SO"] {
                std::fs::write(directory.path().join(file), "").unwrap();
            }
        }
        std::fs::create_dir(allowed.path().join("below")).unwrap();
        std::fs::write(allowed.path().join("below/libtoken.so"), "").unwrap();
        (allowed, elsewhere)
    }

    #[test]
    fn by_name_and_by_path() {
        let (allowed, _elsewhere) = scene();
        let here = allowed.path().display();
        let list = modules(allowed.path());
        let found = |query: &str| find(&uri(query), &list);
        assert_eq!(found("module-name=token"), Ok(format!("{here}/libtoken.so")));
        assert_eq!(found("module-name=TOKEN"), Ok(format!("{here}/libtoken.so")));
        assert_eq!(found("module-name=xtoken"), Ok(format!("{here}/xtoken.so")));
        assert_eq!(found("module-name=libother"), Ok(format!("{here}/libother.SO")));
        assert_eq!(found(&format!("module-path={here}/token.so.1")), Ok(format!("{here}/token.so.1")));
        assert_eq!(
            found(&format!("module-path={here}&module-name=token")),
            Ok(format!("{here}/libtoken.so"))
        );
    }

    #[test]
    fn nothing_from_elsewhere() {
        let (allowed, elsewhere) = scene();
        let (here, there) = (allowed.path().display().to_string(), elsewhere.path().display().to_string());
        let list = modules(allowed.path());
        let refused = |query: &str| find(&uri(query), &list).unwrap_err();
        for path in [
            format!("{there}/libtoken.so"),
            format!("{here}/below/libtoken.so"),
            format!("{here}x/libtoken.so"),
            format!("{there}/absent.so"),
        ] {
            assert_eq!(refused(&format!("module-path={path}")), Refusal::ModuleNotAllowed(path));
        }
        let other = format!("module-path={there}&module-name=token");
        assert_eq!(refused(&other), Refusal::ModuleNotAllowed(format!("{there}/libtoken.so")));
        let searched = Modules { directories: vec![format!("{there}/")], ..list.clone() };
        assert_eq!(
            find(&uri("module-name=token"), &searched),
            Err(Refusal::ModuleNotAllowed(format!("{there}/libtoken.so")))
        );
        assert_eq!(
            find(&uri("module-name=token"), &Modules::default()),
            Err(Refusal::ModuleMissing("token".into()))
        );
        // An entry without a slash is a file, not a beginning.
        let prefix = Modules { allowed: vec![format!("{here}/lib"), here.clone()], ..list.clone() };
        assert!(matches!(find(&uri("module-name=token"), &prefix), Err(Refusal::ModuleNotAllowed(_))));
    }

    #[test]
    fn what_is_not_there() {
        let (allowed, _elsewhere) = scene();
        let here = allowed.path().display();
        let list = modules(allowed.path());
        let refused = |query: &str| find(&uri(query), &list).unwrap_err();
        assert_eq!(refused("x=1"), Refusal::NoModule);
        assert_eq!(refused(&format!("module-path={here}")), Refusal::NoModule);
        assert_eq!(refused("module-name=absent"), Refusal::ModuleMissing("absent".into()));
        let absent = format!("{here}/absent.so");
        assert_eq!(refused(&format!("module-path={absent}")), Refusal::ModuleMissing(absent));
    }
}
