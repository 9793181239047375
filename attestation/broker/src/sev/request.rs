//! What the relay sends, as bytes: every length is checked before anything looks inside.

use base64::prelude::{BASE64_STANDARD, Engine};
use protocols::refusal::Code;
use protocols::sev::{MeasurementRequest, SessionRequest};
use sealed_spec::initdata::{self, Initdata};
use verifier::sev::{FirmwareApi, Launch, Measurement, Platform, Policy};

use crate::appraise::Named;
use crate::refused::Refused;

/// Bytes of the first processor's id.
const CPU_ID: usize = 64;
/// Longest certificate text that is decoded: a chain is 6252 bytes.
const MAX_TEXT: usize = 16 * 1024;

/// A platform and the guest that it is to launch.
pub(crate) struct Asked {
    pub(crate) platform: Platform,
    pub(crate) cpu0_id: Option<[u8; CPU_ID]>,
    pub(crate) es: bool,
    /// SHA-256 of the initdata.
    pub(crate) init_data: [u8; 32],
    pub(crate) named: Named,
}

impl Asked {
    pub(crate) fn read(request: &SessionRequest) -> Result<Self, Refused> {
        let SessionRequest { init_data: body, es, pdh, cert_chain, cpu0_id } = request;
        let (pdh, chain) = (decode("pdh", pdh)?, decode("cert_chain", cert_chain)?);
        let cpu0_id = match decode("cpu0_id", cpu0_id)? {
            id if id.is_empty() => None,
            id => Some(<[u8; CPU_ID]>::try_from(id).map_err(|id| {
                Refused::new(Code::Evidence, format!("cpu0_id has {} bytes; {CPU_ID} are expected", id.len()))
            })?),
        };
        let platform = Platform::parse(&pdh, &chain)?;
        let initdata = Initdata::parse(body.as_bytes())
            .map_err(|error| Refused::new(Code::InitdataInvalid, error.to_string()))?;
        let init_data = initdata::digest(body.as_bytes());
        Ok(Self { platform, cpu0_id, es: *es, init_data, named: initdata.config.into() })
    }
}

/// The name of a session or connection: 32 lower-case hex digits.
pub(crate) fn id(text: &str) -> Option<&str> {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == 32 && text.bytes().all(hex)).then_some(text)
}

/// What the host says of a launch.
pub(crate) fn launch(request: &MeasurementRequest) -> Result<Launch, Refused> {
    let measurement = Measurement::parse(&decode("measurement", &request.measurement)?)
        .map_err(|error| Refused::new(Code::Evidence, format!("measurement: {error}")))?;
    Ok(Launch {
        api: FirmwareApi { major: request.api_major, minor: request.api_minor },
        build: request.build,
        policy: Policy(request.policy),
        measurement,
    })
}

fn decode(field: &str, text: &str) -> Result<Vec<u8>, Refused> {
    if text.len() > MAX_TEXT {
        return Err(Refused::new(
            Code::Evidence,
            format!("{field} has {} characters, more than {MAX_TEXT}", text.len()),
        ));
    }
    BASE64_STANDARD.decode(text).map_err(|_| Refused::new(Code::Evidence, format!("{field} is not base64")))
}

/// Reads the body for a session as far as that goes without keys. For fuzzing: true if all of it was readable.
#[doc(hidden)]
#[must_use]
pub fn read_session(body: &[u8]) -> bool {
    serde_json::from_slice::<SessionRequest>(body).is_ok_and(|request| Asked::read(&request).is_ok())
}

/// Reads the body of a measurement. For fuzzing: true if all of it was readable.
#[doc(hidden)]
#[must_use]
pub fn read_measurement(body: &[u8]) -> bool {
    serde_json::from_slice::<MeasurementRequest>(body)
        .is_ok_and(|request| id(&request.session).is_some() && launch(&request).is_ok())
}
