//! Options of `sealpod seal` that hold several things at once.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use sealed_spec::grants::ResourceCeiling;
use sealed_spec::podspec::Quantity;
use sealed_spec::{KbsUri, NameError, Proxy, RegistrySource, Secret};

use crate::files;

const LIMIT: usize = 64 * 1024;

/// `--registry HOST=URL[,ca=FILE][,user=NAME,password-file=FILE|,credentials=kbs:///…][,mirror=URL]…[,lookaside=URL]`
#[derive(Debug, Clone)]
pub(crate) struct RegistryOption {
    host: String,
    location: String,
    ca: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    lookaside: Option<String>,
    credentials: Option<KbsUri>,
    mirrors: Vec<String>,
}

impl FromStr for RegistryOption {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let (host, location) = location(parts.next().unwrap_or_default())?;
        let mut option = Self {
            host,
            location,
            ca: None,
            user: None,
            password_file: None,
            lookaside: None,
            credentials: None,
            mirrors: Vec::new(),
        };
        for part in parts {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("'{part}' is not NAME=VALUE"))?;
            match name {
                "ca" => option.ca = Some(value.into()),
                "user" => option.user = Some(value.into()),
                "password-file" => option.password_file = Some(value.into()),
                "lookaside" => option.lookaside = Some(value.trim_end_matches('/').to_owned()),
                "credentials" => {
                    let uri = value.parse().map_err(|e: NameError| e.to_string())?;
                    option.credentials = Some(uri);
                }
                "mirror" => option.mirrors.push(value.trim_end_matches('/').to_owned()),
                _ => {
                    return Err(format!(
                        "'{name}' is unknown; ca, user, password-file, credentials, mirror and lookaside are known"
                    ));
                }
            }
        }
        if option.user.is_some() != option.password_file.is_some() {
            return Err("user and password-file go together".into());
        }
        if option.user.is_some() && option.credentials.is_some() {
            return Err("a login is given here or kept at the broker (credentials), not both".into());
        }
        if option.user.is_some() && option.location.starts_with("http://") {
            return Err("a login over http:// would be read by whoever is on the way; use https://".into());
        }
        Ok(option)
    }
}

impl RegistryOption {
    /// With the contents of the files it names.
    pub(crate) fn load(&self) -> Result<RegistrySource> {
        let read = |path: &PathBuf| files::read_text(path, LIMIT).context("--registry");
        let password = self.password_file.as_ref().map(read).transpose()?;
        Ok(RegistrySource {
            ca: self.ca.as_ref().map(read).transpose()?.map(|text| text.to_string()),
            username: self.user.clone(),
            // Editors end files with a line end that no password has.
            password: password.map(|text| Secret::new(text.trim_end_matches(['\r', '\n']))),
            lookaside: self.lookaside.clone(),
            credentials: self.credentials.clone(),
            mirrors: self.mirrors.clone(),
            ..RegistrySource::new(&self.host, &self.location)
        })
    }
}

/// `--proxy URL` or `--proxy-file FILE`, and `--proxy-except HOST`…
pub(super) fn proxy(url: Option<&str>, file: Option<&PathBuf>, except: &[String]) -> Result<Option<Proxy>> {
    let url = match (url, file) {
        (None, None) => return Ok(None),
        (Some(url), _) if url.contains('@') => {
            bail!(
                "--proxy: everybody on this machine can read a login there; put the URL into a file: --proxy-file"
            )
        }
        (Some(url), _) => Secret::new(url),
        (None, Some(file)) => Secret::new(files::read_text(file, LIMIT).context("--proxy-file")?.trim()),
    };
    Ok(Some(Proxy { url, except: except.to_vec() }))
}

/// `--resolve-via HOST=URL`
#[derive(Debug, Clone)]
pub(crate) struct ResolveVia {
    pub(super) host: String,
    pub(super) location: String,
}

impl FromStr for ResolveVia {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (host, location) = location(text)?;
        Ok(Self { host, location })
    }
}

fn location(text: &str) -> Result<(String, String), String> {
    let (host, location) = text.split_once('=').ok_or("HOST=URL is needed")?;
    if !(location.starts_with("https://") || location.starts_with("http://")) {
        return Err(format!("'{location}' must start with https:// or http://"));
    }
    Ok((host.to_owned(), location.trim_end_matches('/').to_owned()))
}

/// `--grant-exec CONTAINER=COMMAND`
#[derive(Debug, Clone)]
pub(crate) struct ExecGrant {
    pub(super) container: String,
    pub(super) argv: Vec<String>,
}

impl FromStr for ExecGrant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (container, command) = text.split_once('=').ok_or("CONTAINER=COMMAND is needed")?;
        let argv = words(command)?;
        if argv.is_empty() {
            return Err("the command is empty".into());
        }
        Ok(Self { container: container.to_owned(), argv })
    }
}

/// `WHAT=VALUE`: a container or a secret's key, and something of it.
#[derive(Debug, Clone)]
pub(crate) struct ContainerAnd<T> {
    pub(super) container: String,
    pub(super) what: T,
}

impl<T: FromStr<Err: std::fmt::Display>> FromStr for ContainerAnd<T> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (container, what) = text.split_once('=').ok_or("an '=' is needed")?;
        let what = what.parse().map_err(|error: T::Err| error.to_string())?;
        Ok(Self { container: container.to_owned(), what })
    }
}

/// `cpu:2,memory:1Gi`
#[derive(Debug, Clone)]
pub(crate) struct Ceiling(pub(super) ResourceCeiling);

impl FromStr for Ceiling {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut ceiling = ResourceCeiling::default();
        for part in text.split(',') {
            let (name, amount) =
                part.split_once(':').ok_or("cpu:AMOUNT, memory:AMOUNT or both are needed")?;
            let amount = Quantity::parse(amount).map_err(|error| error.to_string())?;
            let place = match name {
                "cpu" => &mut ceiling.cpu,
                "memory" => &mut ceiling.memory,
                _ => return Err(format!("'{name}' is unknown; cpu and memory are known")),
            };
            if place.replace(amount).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(Self(ceiling))
    }
}

/// `CONTAINER:PATH[:exec][:max=SIZE]`
#[derive(Debug, Clone)]
pub(crate) struct VolumeOption {
    pub(super) container: String,
    pub(super) path: String,
    pub(super) executable: bool,
    pub(super) max: Option<Quantity>,
}

impl FromStr for VolumeOption {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (Some(container), Some(path)) = (parts.next(), parts.next()) else {
            return Err("CONTAINER:PATH is needed".into());
        };
        if container.is_empty() || !path.starts_with('/') {
            return Err("CONTAINER:PATH with an absolute path is needed".into());
        }
        let path = path.trim_end_matches('/').to_owned();
        let mut option = Self { container: container.to_owned(), path, executable: false, max: None };
        for part in parts {
            match part.split_once('=') {
                None if part == "exec" => option.executable = true,
                Some(("max", size)) => {
                    option.max = Some(Quantity::parse(size).map_err(|error| error.to_string())?);
                }
                _ => return Err(format!("'{part}' is unknown; exec and max=SIZE are known")),
            }
        }
        Ok(option)
    }
}

/// `NAMES=IMAGE[,count=N]`
#[derive(Debug, Clone)]
pub(crate) struct DebugOption {
    pub(super) names: String,
    pub(super) image: String,
    pub(super) count: u32,
}

impl FromStr for DebugOption {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (names, rest) = text.split_once('=').ok_or("NAMES=IMAGE is needed")?;
        let (image, count) = match rest.split_once(',') {
            None => (rest, 1),
            Some((image, more)) => {
                let count = more.strip_prefix("count=").ok_or_else(|| format!("'{more}' is not count=N"))?;
                (image, count.parse().map_err(|_| format!("'{count}' is not a number"))?)
            }
        };
        if image.is_empty() {
            return Err("an image is needed".into());
        }
        Ok(Self { names: names.to_owned(), image: image.to_owned(), count })
    }
}

/// Words as a shell splits them, without any of its expansions: quotes and backslashes only.
pub(super) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(c),
            (_, '\\') => {
                let next = characters.next().ok_or("it ends in a backslash")?;
                // Inside double quotes only these two can be escaped.
                if quote.is_some() && !matches!(next, '"' | '\\') {
                    word.get_or_insert_default().push('\\');
                }
                word.get_or_insert_default().push(next);
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_like_a_shell_does() {
        for (text, expected) in [
            ("date", vec!["date"]),
            ("  cat  /etc/hosts ", vec!["cat", "/etc/hosts"]),
            ("sh -c 'echo \"$X\" done'", vec!["sh", "-c", "echo \"$X\" done"]),
            ("a \"b \\\" \\n\" '' c\\ d", vec!["a", "b \" \\n", "", "c d"]),
        ] {
            assert_eq!(words(text).unwrap(), expected, "{text}");
        }
        assert!(words("a 'b").is_err());
        assert!(words("a \\").is_err());
        assert!("web=".parse::<ExecGrant>().is_err());
        assert!("web".parse::<ExecGrant>().is_err());
    }

    #[test]
    fn one_login_a_registry_and_none_in_arguments() {
        for (bad, rule) in [
            ("r=https://r,user=u,password-file=f,credentials=kbs:///a/b/c", "not both"),
            ("r=https://r,credentials=/a/b/c", "kbs:///"),
            ("r=https://r,user=u", "go together"),
            ("r=https://r,mirrors=https://m", "is unknown"),
        ] {
            let error = bad.parse::<RegistryOption>().unwrap_err();
            assert!(error.contains(rule), "{bad}: {error}");
        }
        assert!(proxy(None, None, &[]).unwrap().is_none());
        let error = proxy(Some("http://u:p@proxy:1"), None, &[]).unwrap_err().to_string();
        assert!(error.contains("--proxy-file") && !error.contains("u:p"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "http://u:p@proxy:1\n").unwrap();
        let read = proxy(None, Some(&file.path().to_owned()), &[]).unwrap().unwrap();
        assert_eq!(read.url.expose(), "http://u:p@proxy:1");
    }

    #[test]
    fn grants() {
        let volume: VolumeOption = "web:/etc/config/:exec:max=4Mi".parse().unwrap();
        assert_eq!(
            (volume.container.as_str(), volume.path.as_str(), volume.executable),
            ("web", "/etc/config", true)
        );
        assert_eq!(volume.max.unwrap().units(), 4 << 20);
        for bad in ["web", "web:", "web:etc", ":/etc", "web:/etc:ro", "web:/etc:max=x", "web:/etc:max"] {
            assert!(bad.parse::<VolumeOption>().is_err(), "{bad}");
        }
        let update: ContainerAnd<Ceiling> = "web=cpu:2,memory:1Gi".parse().unwrap();
        assert_eq!(update.container, "web");
        assert_eq!(update.what.0.memory.unwrap().units(), 1 << 30);
        for bad in ["web", "web=", "web=cpu", "web=cpu:x", "web=disk:1", "web=cpu:1,cpu:2"] {
            assert!(bad.parse::<ContainerAnd<Ceiling>>().is_err(), "{bad}");
        }
        let debug: DebugOption = "debugger-*=r.example/tools:1,count=3".parse().unwrap();
        assert_eq!((debug.image.as_str(), debug.count), ("r.example/tools:1", 3));
        for bad in ["x", "x=", "x=i,count", "x=i,count=y", "x=i,n=1"] {
            assert!(bad.parse::<DebugOption>().is_err(), "{bad}");
        }
    }

    #[test]
    fn registries() {
        let option: RegistryOption = "r.example:5000=http://10.0.2.2:5000/".parse().unwrap();
        assert_eq!(
            (option.host.as_str(), option.location.as_str()),
            ("r.example:5000", "http://10.0.2.2:5000")
        );
        for bad in ["r", "r=10.0.2.2", "r=https://x,colour=red", "r=https://x,user=u", "r=https://x,ca"] {
            assert!(bad.parse::<RegistryOption>().is_err(), "{bad}");
        }
    }
}
