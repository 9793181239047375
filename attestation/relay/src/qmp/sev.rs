//! What QEMU says of SEV (qapi/misc-target.json), and the two commands that go on from there. Certificates and
//! measurements are base64 that the broker reads; here they are only bounded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Client, QmpError};

const CAPABILITIES: &str = "query-sev-capabilities";
const STATE: &str = "query-sev";
const MEASURE: &str = "query-sev-launch-measure";
const INJECT: &str = "sev-inject-launch-secret";
/// The state of a guest that is measured and not running.
const LAUNCH_SECRET: &str = "launch-secret";

/// Bounds in bytes before base64: a PDH is 2084, the chain three of these, an id 64 or 128.
const MAX_CERTIFICATE: usize = 4 * 1024;
const MAX_CHAIN: usize = 16 * 1024;
const MAX_ID: usize = 128;
/// MEASURE and MNONCE.
const MEASUREMENT: usize = 48;

/// The platform, as `query-sev-capabilities` tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// The platform's Diffie-Hellman certificate, base64.
    pub pdh: String,
    /// PEK, OCA and CEK certificates, base64.
    pub cert_chain: String,
    /// The first processor's id, base64; empty where QEMU doesn't say.
    #[serde(default)]
    pub cpu0_id: String,
    /// Position of the C-bit in page table entries.
    pub cbitpos: u32,
    /// Physical address bits that encryption takes away.
    pub reduced_phys_bits: u32,
}

/// The guest, as `query-sev` tells once its launch is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// API version of the firmware.
    pub api_major: u8,
    /// API version of the firmware.
    pub api_minor: u8,
    /// Build of the firmware.
    pub build: u8,
    /// The guest's policy.
    pub policy: u32,
}

/// The measurement: base64 of exactly 48 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurement(String);

impl Capabilities {
    /// From what the command returned.
    ///
    /// # Errors
    /// [`QmpError::Field`] that names the field.
    pub fn from_value(value: &Value) -> Result<Self, QmpError> {
        let fields = Fields { command: CAPABILITIES, value };
        let capabilities = Self {
            pdh: fields.text("pdh")?,
            cert_chain: fields.text("cert-chain")?,
            cpu0_id: if value.get("cpu0-id").is_some() { fields.text("cpu0-id")? } else { String::new() },
            cbitpos: fields.number("cbitpos")?,
            reduced_phys_bits: fields.number("reduced-phys-bits")?,
        };
        capabilities.check()?;
        Ok(capabilities)
    }

    /// Checks sizes, whoever wrote it.
    ///
    /// # Errors
    /// [`QmpError::Field`] that names the field.
    pub fn check(&self) -> Result<(), QmpError> {
        let wrong = |field, rule| Err(QmpError::Field { command: CAPABILITIES, field, rule });
        for (field, text, least, most) in [
            ("pdh", &self.pdh, 1, MAX_CERTIFICATE),
            ("cert-chain", &self.cert_chain, 1, MAX_CHAIN),
            ("cpu0-id", &self.cpu0_id, 0, MAX_ID),
        ] {
            match STANDARD.decode(text) {
                Ok(bytes) if (least..=most).contains(&bytes.len()) => {}
                Ok(_) => return wrong(field, "has the wrong length"),
                Err(_) => return wrong(field, "is not base64"),
            }
        }
        if !(32..=63).contains(&self.cbitpos) {
            return wrong("cbitpos", "is not a bit from 32 to 63");
        }
        if !(1..=16).contains(&self.reduced_phys_bits) {
            return wrong("reduced-phys-bits", "is not a number from 1 to 16");
        }
        Ok(())
    }
}

impl Launch {
    /// From what the command returned, of a guest that waits for its secret.
    ///
    /// # Errors
    /// [`QmpError::Field`] that names the field.
    pub fn from_value(value: &Value) -> Result<Self, QmpError> {
        let wrong = |field, rule| Err(QmpError::Field { command: STATE, field, rule });
        let fields = Fields { command: STATE, value };
        if value.get("enabled") != Some(&Value::Bool(true)) {
            return wrong("enabled", "is not true: the guest was not started with SEV");
        }
        if !matches!(value.get("sev-type").map(Value::as_str), None | Some(Some("sev"))) {
            return wrong("sev-type", "is not sev: the guest was started as another kind");
        }
        if value.get("state").and_then(Value::as_str) != Some(LAUNCH_SECRET) {
            return wrong("state", "is not launch-secret: the guest is not measured, or runs already");
        }
        Ok(Self {
            api_major: fields.number("api-major")?,
            api_minor: fields.number("api-minor")?,
            build: fields.number("build-id")?,
            policy: fields.number("policy")?,
        })
    }
}

impl Measurement {
    /// From what the command returned.
    ///
    /// # Errors
    /// [`QmpError::Field`].
    pub fn from_value(value: &Value) -> Result<Self, QmpError> {
        let text = Fields { command: MEASURE, value }.text("data")?;
        match STANDARD.decode(&text) {
            Ok(bytes) if bytes.len() == MEASUREMENT => Ok(Self(text)),
            _ => Err(QmpError::Field { command: MEASURE, field: "data", rule: "is not base64 of 48 bytes" }),
        }
    }

    /// As QEMU wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// `query-sev-capabilities`.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn sev_capabilities(&mut self) -> Result<Capabilities, QmpError> {
        Capabilities::from_value(&self.execute(CAPABILITIES, None).await?)
    }

    /// `query-sev` of a guest that waits for its secret.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn sev_launch(&mut self) -> Result<Launch, QmpError> {
        Launch::from_value(&self.execute(STATE, None).await?)
    }

    /// `query-sev-launch-measure`.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn sev_measurement(&mut self) -> Result<Measurement, QmpError> {
        Measurement::from_value(&self.execute(MEASURE, None).await?)
    }

    /// `sev-inject-launch-secret`, where the guest's firmware wants it.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn sev_inject(&mut self, packet_header: &str, secret: &str) -> Result<(), QmpError> {
        let arguments = json!({ "packet-header": packet_header, "secret": secret });
        self.execute(INJECT, Some(arguments)).await.map(drop)
    }

    /// `cont`: the guest runs.
    ///
    /// # Errors
    /// [`QmpError`].
    pub async fn cont(&mut self) -> Result<(), QmpError> {
        self.execute("cont", None).await.map(drop)
    }
}

struct Fields<'a> {
    command: &'static str,
    value: &'a Value,
}

impl Fields<'_> {
    fn text(&self, field: &'static str) -> Result<String, QmpError> {
        let text = self.value.get(field).and_then(Value::as_str);
        text.map(str::to_owned).ok_or(QmpError::Field { command: self.command, field, rule: "is not a text" })
    }

    fn number<N: TryFrom<u64>>(&self, field: &'static str) -> Result<N, QmpError> {
        let number = self.value.get(field).and_then(Value::as_u64).and_then(|number| number.try_into().ok());
        number.ok_or(QmpError::Field {
            command: self.command,
            field,
            rule: "is not a number of the right size",
        })
    }
}
