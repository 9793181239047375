//! `signedIdentity`: which name a signature must carry to count for an image.

use serde_json::Value;

use crate::PolicyError;
use crate::json::Object;
use crate::reference::Reference;

const KNOWN: &str =
    "matchExact, matchRepoDigestOrExact, matchRepository, exactReference, exactRepository and remapIdentity";

/// containers-policy.json(5), "signedIdentity".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SignedIdentity {
    MatchExact,
    MatchRepoDigestOrExact,
    MatchRepository,
    ExactReference(Reference),
    ExactRepository(String),
    RemapIdentity { prefix: String, signed_prefix: String },
}

impl SignedIdentity {
    /// From a requirement's member; what a missing one means is the same for both kinds of signature.
    pub(crate) fn parse(at: &str, value: Option<Value>) -> Result<Self, PolicyError> {
        let Some(value) = value else { return Ok(Self::MatchRepoDigestOrExact) };
        let mut object = Object::new(format!("{at}.signedIdentity"), value)?;
        let kind = object.required("type")?;
        let identity = match kind.as_str() {
            "matchExact" => Self::MatchExact,
            "matchRepoDigestOrExact" => Self::MatchRepoDigestOrExact,
            "matchRepository" => Self::MatchRepository,
            "exactReference" => {
                let reference = reference(&mut object, "dockerReference")?;
                if reference.is_name_only() {
                    let problem = "\"dockerReference\" needs a tag or digest".into();
                    return Err(PolicyError::Value { at: object.at, problem });
                }
                Self::ExactReference(reference)
            }
            "exactRepository" => {
                let repository = reference(&mut object, "dockerRepository")?;
                if !repository.is_name_only() {
                    let problem = "\"dockerRepository\" must have neither tag nor digest".into();
                    return Err(PolicyError::Value { at: object.at, problem });
                }
                Self::ExactRepository(repository.name().to_owned())
            }
            "remapIdentity" => {
                let prefix = prefix(&mut object, "prefix")?;
                Self::RemapIdentity { prefix, signed_prefix: self::prefix(&mut object, "signedPrefix")? }
            }
            _ => return Err(PolicyError::UnknownType { at: object.at, name: kind, known: KNOWN }),
        };
        object.finish()?;
        Ok(identity)
    }

    /// Whether a signature for `signed` counts for `image`.
    pub(crate) fn accepts(&self, image: &Reference, signed: &str) -> bool {
        let Ok(signed) = Reference::parse(signed) else { return false };
        match self {
            Self::MatchExact => !image.is_name_only() && signed == *image,
            Self::MatchRepoDigestOrExact => repo_digest_or_exact(image, &signed),
            Self::MatchRepository => signed.name() == image.name(),
            Self::ExactReference(reference) => signed == *reference,
            Self::ExactRepository(name) => signed.name() == name,
            Self::RemapIdentity { prefix, signed_prefix } => match remainder(image.name(), prefix) {
                None => repo_digest_or_exact(image, &signed),
                Some(rest) => image
                    .renamed(&format!("{signed_prefix}{rest}"))
                    .is_some_and(|image| repo_digest_or_exact(&image, &signed)),
            },
        }
    }
}

fn repo_digest_or_exact(image: &Reference, signed: &Reference) -> bool {
    match (image.tag(), image.digest()) {
        _ if signed.is_name_only() => false,
        (Some(_), _) => signed == image,
        // That the digest is the signed one is checked apart.
        (None, Some(_)) => signed.name() == image.name(),
        (None, None) => false,
    }
}

/// What comes after a prefix that ends where a path segment does.
fn remainder<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn reference(object: &mut Object, key: &'static str) -> Result<Reference, PolicyError> {
    let text = object.required(key)?;
    Reference::parse(&text)
        .map_err(|error| PolicyError::Value { at: object.at.clone(), problem: error.to_string() })
}

/// A host, a namespace or a repository, fully expanded.
fn prefix(object: &mut Object, key: &'static str) -> Result<String, PolicyError> {
    let text = object.required(key)?;
    // A host alone is a prefix too; with a path below it, it has to be a repository's name as it stands.
    let probe = if text.contains('/') { text.clone() } else { format!("{text}/x") };
    let good = Reference::parse(&probe).is_ok_and(|it| it.is_name_only() && it.name() == probe);
    // What has no dot, port or `localhost` in front would be expanded, so the comparison refuses it.
    if good {
        return Ok(text);
    }
    let problem =
        format!("{key:?} must be a host, namespace or repository in expanded form, without tag or digest");
    Err(PolicyError::Value { at: object.at.clone(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

    fn identity(value: Value) -> SignedIdentity {
        SignedIdentity::parse("x", Some(value)).unwrap()
    }

    fn check(identity: &SignedIdentity, image: &str, rows: &[(&str, bool)]) {
        let image = Reference::parse(image).unwrap();
        for (signed, expected) in rows {
            assert_eq!(identity.accepts(&image, signed), *expected, "{identity:?} {image} {signed}");
        }
    }

    #[test]
    fn names_that_match() {
        let tagged = "r.example/team/app:1";
        let digested = format!("r.example/team/app@{DIGEST}");
        let exact = identity(json!({"type": "matchExact"}));
        check(
            &exact,
            tagged,
            &[
                (tagged, true),
                ("r.example/team/app:2", false),
                ("r.example/team/app", false),
                ("r.example/team/other:1", false),
                ("other.example/team/app:1", false),
                ("team/app:1", false),
                ("", false),
            ],
        );
        check(&exact, &digested, &[(tagged, false), (&digested, true)]);
        check(&exact, "r.example/team/app", &[("r.example/team/app", false)]);

        let default = SignedIdentity::parse("x", None).unwrap();
        check(
            &default,
            tagged,
            &[(tagged, true), ("r.example/team/app:2", false), ("r.example/team/app", false)],
        );
        check(
            &default,
            &digested,
            &[
                (tagged, true),
                ("r.example/team/app:2", true),
                ("r.example/team/app", false),
                ("r.example/team/other:1", false),
            ],
        );
        check(&default, "r.example/team/app", &[("r.example/team/app:1", false)]);

        let repository = identity(json!({"type": "matchRepository"}));
        check(
            &repository,
            tagged,
            &[
                (tagged, true),
                ("r.example/team/app:9", true),
                ("r.example/team/app", true),
                ("r.example/team/app2", false),
                ("r.example/team", false),
            ],
        );
        check(&repository, "busybox:1", &[("docker.io/library/busybox", true), ("busybox:2", true)]);

        let reference = identity(json!({"type": "exactReference", "dockerReference": "busybox:1"}));
        check(
            &reference,
            tagged,
            &[("docker.io/library/busybox:1", true), ("busybox:2", false), (tagged, false)],
        );
        let repository = identity(json!({"type": "exactRepository", "dockerRepository": "busybox"}));
        check(&repository, tagged, &[("busybox:7", true), ("busybox", true), (tagged, false)]);
    }

    #[test]
    fn names_that_are_remapped() {
        let remap = |from: &str, to: &str| {
            identity(json!({"type": "remapIdentity", "prefix": from, "signedPrefix": to}))
        };
        let image = "mirror.example/hub/team/app:1";
        check(
            &remap("mirror.example/hub", "r.example"),
            image,
            &[
                ("r.example/team/app:1", true),
                ("r.example/team/app:2", false),
                ("r.example/team/app", false),
                (image, false),
            ],
        );
        check(
            &remap("mirror.example/hub/team/app", "busybox.example/x"),
            image,
            &[("busybox.example/x:1", true)],
        );
        // No segment's beginning, so not the prefix: the name stays.
        check(
            &remap("mirror.example/hu", "r.example"),
            image,
            &[(image, true), ("r.example/b/team/app:1", false)],
        );
        check(&remap("mirror.example", "r.example:5000"), image, &[("r.example:5000/hub/team/app:1", true)]);
    }

    #[test]
    fn identities_that_are_none() {
        for value in [
            json!({}),
            json!("matchExact"),
            json!({"type": "matchWhatever"}),
            json!({"type": "matchExact", "x": 1}),
            json!({"type": "exactReference"}),
            json!({"type": "exactReference", "dockerReference": "busybox"}),
            json!({"type": "exactReference", "dockerReference": 1}),
            json!({"type": "exactReference", "dockerReference": "busybox:1", "dockerRepository": "busybox"}),
            json!({"type": "exactRepository", "dockerRepository": "busybox:1"}),
            json!({"type": "remapIdentity", "prefix": "r.example"}),
            json!({"type": "remapIdentity", "prefix": "busybox", "signedPrefix": "r.example"}),
            json!({"type": "remapIdentity", "prefix": "r.example/a:1", "signedPrefix": "r.example"}),
            json!({"type": "remapIdentity", "prefix": "r.example/", "signedPrefix": "r.example"}),
            json!({"type": "remapIdentity", "prefix": "", "signedPrefix": "r.example"}),
        ] {
            assert!(SignedIdentity::parse("x", Some(value.clone())).is_err(), "{value}");
        }
    }
}
