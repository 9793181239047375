//! What is signed: the JSON of containers-signature(5), which cosign shares. Read only after its signature
//! has verified, and strictly: a member of `critical` that isn't known changes what the signature means.

use serde_json::{Map, Value};

use crate::json;

/// `critical.type` of the two kinds.
pub(crate) const SIMPLE: &str = "atomic container signature";
pub(crate) const COSIGN: &str = "cosign container image signature";

/// What a signature claims.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) digest: String,
    pub(crate) reference: String,
}

impl Payload {
    pub(crate) fn parse(text: &[u8], kind: &str) -> Result<Self, String> {
        let mut document = object(json::parse(text)?, "the payload")?;
        let mut critical = object(member(&mut document, "critical")?, "\"critical\"")?;
        optional(member(&mut document, "optional")?, kind)?;
        finish(&document)?;

        let found = string(member(&mut critical, "type")?, "critical.type")?;
        if found != kind {
            return Err(format!("its type is {found:?}, not {kind:?}"));
        }
        let mut image = object(member(&mut critical, "image")?, "critical.image")?;
        let mut identity = object(member(&mut critical, "identity")?, "critical.identity")?;
        finish(&critical)?;
        let digest = string(member(&mut image, "docker-manifest-digest")?, "docker-manifest-digest")?;
        finish(&image)?;
        let reference = string(member(&mut identity, "docker-reference")?, "docker-reference")?;
        finish(&identity)?;
        Ok(Self { digest, reference })
    }
}

/// May hold anything, but `creator` and `timestamp` have types. cosign writes `null` for nothing.
fn optional(value: Value, kind: &str) -> Result<(), String> {
    if value.is_null() && kind == COSIGN {
        return Ok(());
    }
    let members = object(value, "\"optional\"")?;
    if members.get("creator").is_some_and(|creator| !creator.is_string()) {
        return Err("optional.creator is not a string".into());
    }
    if members.get("timestamp").is_some_and(|timestamp| timestamp.as_i64().is_none()) {
        return Err("optional.timestamp is not a whole number".into());
    }
    Ok(())
}

fn member(object: &mut Map<String, Value>, key: &str) -> Result<Value, String> {
    object.remove(key).ok_or_else(|| format!("{key:?} is missing"))
}

fn finish(object: &Map<String, Value>) -> Result<(), String> {
    match object.keys().next() {
        None => Ok(()),
        Some(key) => Err(format!("{:?} is unknown", key.chars().take(64).collect::<String>())),
    }
}

fn object(value: Value, what: &str) -> Result<Map<String, Value>, String> {
    match value {
        Value::Object(members) => Ok(members),
        other => Err(format!("{what} is {}, not an object", json::kind(&other))),
    }
}

fn string(value: Value, what: &str) -> Result<String, String> {
    match value {
        Value::String(text) if text.len() <= 1024 => Ok(text),
        _ => Err(format!("{what} is not a string of at most 1024 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"critical":{"type":"atomic container signature","image":{"docker-manifest-digest":"sha256:00"},"identity":{"docker-reference":"busybox:1"}},"optional":{"creator":"x 1","timestamp":1,"more":{}}}"#;

    #[test]
    fn a_payload_says_digest_and_reference() {
        let payload = Payload::parse(GOOD.as_bytes(), SIMPLE).unwrap();
        assert_eq!((payload.digest.as_str(), payload.reference.as_str()), ("sha256:00", "busybox:1"));
        let cosign = GOOD.replace(SIMPLE, COSIGN);
        assert!(Payload::parse(cosign.as_bytes(), COSIGN).is_ok());
        let null = r#""optional":null}"#;
        let cosign = format!("{}{null}", cosign.split_once("\"optional\"").unwrap().0);
        assert!(Payload::parse(cosign.as_bytes(), COSIGN).is_ok());
    }

    #[test]
    fn each_liberty_is_refused() {
        for (from, to) in [
            ("atomic container signature", "cosign container image signature"),
            ("\"type\":\"atomic container signature\",", ""),
            ("\"critical\":{", "\"critical\":{\"extra\":1,"),
            ("\"image\":{", "\"image\":{\"extra\":1,"),
            ("\"identity\":{", "\"identity\":{\"extra\":1,"),
            ("{\"critical\"", "{\"extra\":1,\"critical\""),
            ("\"docker-manifest-digest\":\"sha256:00\"", "\"docker-manifest-digest\":1"),
            (
                "\"docker-manifest-digest\":\"sha256:00\"",
                "\"docker-manifest-digest\":\"sha256:00\",\"docker-manifest-digest\":\"sha256:01\"",
            ),
            ("\"docker-reference\":\"busybox:1\"", "\"docker-reference\":null"),
            ("\"timestamp\":1", "\"timestamp\":1.5"),
            ("\"timestamp\":1", "\"timestamp\":1,\"timestamp\":2"),
            ("\"creator\":\"x 1\"", "\"creator\":1"),
            ("\"optional\":{\"creator\":\"x 1\",\"timestamp\":1,\"more\":{}}", "\"optional\":null"),
            (",\"optional\":{\"creator\":\"x 1\",\"timestamp\":1,\"more\":{}}", ""),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            assert!(Payload::parse(text.as_bytes(), SIMPLE).is_err(), "{text}");
        }
        assert!(Payload::parse(format!("{GOOD} x").as_bytes(), SIMPLE).is_err());
    }
}
