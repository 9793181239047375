//! Stand-ins for tests: a TEE, and initdata for a broker.

use protocols::rcar::TeeKind;
use sealed_spec::SpecDigest;
use sealed_spec::initdata::{BrokerPin, Initdata, SealpodConfig, Via};
use serde_json::{Value, json};

use crate::tee::{Binding, Tee, TeeError};

/// A TEE whose evidence is the report data, for a broker that only looks at that.
pub(crate) struct FakeTee {
    pub(crate) host_data: [u8; 32],
    /// The sealed spec that the launch names beside it.
    pub(crate) sealed_spec: Option<[u8; 32]>,
}

impl Tee for FakeTee {
    fn kind(&self) -> TeeKind {
        TeeKind::Snp
    }

    fn init_data_digest(&self) -> Result<[u8; 32], TeeError> {
        Ok(self.host_data)
    }

    fn evidence(&self, binding: &Binding<'_>) -> Result<Value, TeeError> {
        Ok(json!({ "report_data": binding.report_data.as_slice() }))
    }

    fn sealed_spec(&self) -> Option<&[u8; 32]> {
        self.sealed_spec.as_ref()
    }
}

pub(crate) fn document(url: &str, via: Via, ca: &str) -> String {
    let config = SealpodConfig {
        sealed_spec: SpecDigest::of(b"spec"),
        key_id: "kbs:///team-a/sealed-spec/web.r1.0a1b2c3d".parse().unwrap(),
        broker: BrokerPin { url: url.to_owned(), via, ca: ca.to_owned() },
    };
    Initdata { config, document: None }.to_toml().unwrap()
}
