//! `sealpod appraise`: the broker's appraisal, offline, on files, with every check in a table. What the caller
//! can't know (whose session it was) is said to be not checked. Nothing is fetched, nothing is kept.

mod evidence;
mod files;
mod snp;
mod table;

use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use protocols::owner::ReleasePolicy;
use sealed_spec::initdata;
use tee_evidence::snp::CertEntry;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use verifier::snp::{Anchors, Revocation};
use verifier::{Denial, ReferenceValues, Verdict};

use crate::cli::AppraiseArgs;
use evidence::{Evidence, Given};

const EVIDENCE_LIMIT: usize = 4 * 1024 * 1024;
const POLICY_LIMIT: usize = 1024 * 1024;
const INITDATA_LIMIT: usize = 4 * 1024 * 1024;

/// What evidence is appraised with.
pub(crate) struct Means {
    /// Certificates and revocation lists that the caller named.
    certificates: Vec<CertEntry>,
    anchors: Anchors,
    revocation: Revocation,
    now: SystemTime,
    /// What the evidence must be bound to, as far as it is known.
    report_data: Option<[u8; 64]>,
    init_data: Option<[u8; 32]>,
    reference: Option<ReferenceValues>,
}

/// The moment that evidence is appraised for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(SystemTime);

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = OffsetDateTime::parse(text, &Rfc3339)
            .map_err(|error| format!("not a time as in 2026-01-31T12:00:00Z: {error}"))?;
        Ok(Self(time.into()))
    }
}

/// What the report must be bound to: 64 bytes, or the hash that they start with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReportData([u8; 64]);

impl std::str::FromStr for ReportData {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "must be 64, 96 or 128 hexadecimal digits; zeros follow a shorter one";
        let bytes = hex::decode(text).map_err(|_| FORM)?;
        if ![32, 48, 64].contains(&bytes.len()) {
            return Err(FORM);
        }
        let mut data = [0; 64];
        data[..bytes.len()].copy_from_slice(&bytes);
        Ok(Self(data))
    }
}

pub(crate) fn run(args: &AppraiseArgs) -> Result<ExitCode> {
    let bytes = crate::files::read(&args.evidence, EVIDENCE_LIMIT)?;
    let given = evidence::read(&bytes).with_context(|| args.evidence.display().to_string())?;
    let means = means(args, &given)?;
    let result = appraise(&given.evidence, &means);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&table::json(&result, &means)?)?);
    } else {
        print!("{}", table::text(&result, &means));
    }
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The one place where a kind of evidence meets its verifier.
fn appraise(evidence: &Evidence, means: &Means) -> Result<Verdict, Denial> {
    match evidence {
        Evidence::Snp(evidence) => snp::appraise(evidence, means),
    }
}

fn means(args: &AppraiseArgs, given: &Given) -> Result<Means> {
    let mut certificates = Vec::new();
    for path in args.certs.iter().chain(&args.crl) {
        certificates.extend(files::certificates(path)?);
    }
    let mut anchors = Anchors::amd();
    for path in &args.emulated_root {
        let root = crate::files::read(path, verifier::snp::pile::MAX_BYTES)?;
        anchors = anchors.with_emulated(&root).with_context(|| path.display().to_string())?;
    }
    let policy = args.policy.as_deref().map(|path| {
        let text = crate::files::read_text(path, POLICY_LIMIT)?;
        ReleasePolicy::from_toml(&text).with_context(|| path.display().to_string())
    });
    let reference = match policy.transpose()? {
        Some(policy) => Some(reference_values::reference_values(&policy)?),
        None => None,
    };
    let init_data = match &args.initdata {
        Some(path) => Some(initdata::digest(&crate::files::read(path, INITDATA_LIMIT)?)),
        None => given.init_data,
    };
    if let (Some(ReportData(asked)), Some(body)) = (args.report_data, given.report_data)
        && asked != body
    {
        bail!("the body is bound to another nonce and key than --report-data says; leave one of them out");
    }
    Ok(Means {
        certificates,
        anchors,
        revocation: if args.without_crl { Revocation::Waived } else { Revocation::Required },
        now: args.at.map_or_else(SystemTime::now, |Moment(at)| at),
        report_data: args.report_data.map(|ReportData(data)| data).or(given.report_data),
        init_data,
        reference,
    })
}
