//! A policy's section for SEV and SEV-ES.

use protocols::owner::{SevPolicy, SevProduct as Named};
use tee_evidence::sev::FirmwareApi;
use verifier::SevReference;
use verifier::sev::{STRICT, SevProduct};

use crate::MappingError;

pub(crate) fn reference(policy: &SevPolicy) -> Result<SevReference, MappingError> {
    // Every field is named, so that a new one can't be forgotten here. Which secret is injected is the launch's
    // business.
    let SevPolicy { minimum_api, minimum_build, secret: _, denied_products, denied_chips } = policy;
    let chip = |text: &String| {
        let mut chip = [0; 32];
        hex::decode_to_slice(text, &mut chip).map_err(|_| MappingError { field: "sev.denied_chips" })?;
        Ok(chip)
    };
    Ok(SevReference {
        minimum_api: FirmwareApi { major: minimum_api.major, minor: minimum_api.minor },
        minimum_build: *minimum_build,
        required_bits: STRICT,
        denied_products: denied_products.iter().copied().map(product).collect(),
        denied_chips: denied_chips.iter().map(chip).collect::<Result<_, _>>()?,
    })
}

const fn product(named: Named) -> SevProduct {
    match named {
        Named::Naples => SevProduct::Naples,
        Named::Rome => SevProduct::Rome,
        Named::Milan => SevProduct::Milan,
        Named::Genoa => SevProduct::Genoa,
        Named::Turin => SevProduct::Turin,
    }
}
