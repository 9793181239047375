//! From a genuine report to a verdict for this session: what it is bound to, and what makes any report
//! unusable whatever the policy says.

use subtle::ConstantTimeEq;
use tee_evidence::snp::{GuestPolicy, Line, Product, RawTcb, Report};

use super::claims::{SnpClaims, TcbVersions};
use super::evidence::SignatureChecked;
use crate::denial::refuse;
use crate::grant::{below, show};
use crate::{Appraised, Claims, Denial, Inspected, TeeKind, Trust, Verdict};

/// What evidence must be bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Hash of this session's nonce and key, as the protocol defines it.
    pub report_data: [u8; 64],
    /// SHA-256 of the init-data that came with the evidence.
    pub host_data: [u8; 32],
}

impl SignatureChecked {
    /// The report. It is genuine, but may have been made for another session.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Checks that the report is bound to this session and is usable at all.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn appraise(self, session: &Session) -> Result<Appraised, Denial> {
        self.verdict(Some(&session.report_data), Some(&session.host_data)).map(Appraised::new)
    }

    /// As [`SignatureChecked::appraise`], for people who look at evidence of somebody else's session: what
    /// they don't know is not checked, and what comes of it can't be turned into a [`crate::Grant`].
    ///
    /// # Errors
    /// The first check that failed.
    pub fn inspect(
        self,
        report_data: Option<&[u8; 64]>,
        host_data: Option<&[u8; 32]>,
    ) -> Result<Inspected, Denial> {
        self.verdict(report_data, host_data).map(Inspected::new)
    }

    fn verdict(
        self,
        report_data: Option<&[u8; 64]>,
        host_data: Option<&[u8; 32]>,
    ) -> Result<Verdict, Denial> {
        let Self { report, key, product, trust, csp_id, mut checks } = self;
        match report_data {
            Some(expected) => checks.pass("report_data", || {
                if !bool::from(report.report_data.ct_eq(expected)) {
                    return refuse!(Binding, "report was made for another nonce or key than this session's");
                }
                Ok(hex::encode(report.report_data))
            })?,
            None => checks.not_checked("report_data", "not known which session it should be of"),
        }
        match host_data {
            Some(expected) => checks.pass("host_data", || {
                if !bool::from(report.host_data.ct_eq(expected)) {
                    return refuse!(
                        HostData,
                        "init-data has the digest {}, but the guest was launched with {}",
                        hex::encode(expected),
                        hex::encode(report.host_data)
                    );
                }
                Ok(hex::encode(report.host_data))
            })?,
            None => checks.not_checked("host_data", "not known which init-data it should be"),
        }
        let tcb = checks.run("tcb_order", || {
            let tcb = decode(&report, product)?;
            check_order(&tcb)?;
            Ok((tcb, "reported, committed, current".to_owned()))
        })?;
        checks.pass("guest_policy_form", || {
            check_policy(report.policy)?;
            Ok(format!("{:#x}", report.policy.0))
        })?;
        checks.pass("asked_by_guest", || {
            if report.vmpl > 3 {
                return refuse!(
                    Vmpl,
                    "report was asked for by the host, not by the guest (VMPL {:#x})",
                    report.vmpl
                );
            }
            Ok(format!("VMPL {}", report.vmpl))
        })?;
        let claims = SnpClaims {
            product,
            line: Line::of(product, report.cpuid),
            cpuid: report.cpuid,
            report_version: report.version,
            signing_key: key,
            csp_id,
            chip_id: report.chip_id,
            measurement: report.measurement,
            host_data: report.host_data,
            report_id: report.report_id,
            tcb,
            firmware: report.current_version,
            committed_firmware: report.committed_version,
            policy: report.policy.into(),
            platform_info: report.platform_info.0,
            platform: report.platform_info.into(),
            alias_check: report.platform_info.alias_check(),
            mitigations: report.mitigations,
            vmpl: report.vmpl,
            guest_svn: report.guest_svn,
            family_id: report.family_id,
            image_id: report.image_id,
            id_key_digest: report.id_key_digest,
            author_key_digest: report.key_info.author_key_enabled().then_some(report.author_key_digest),
        };
        Ok(Verdict {
            tee: if trust == Trust::Amd { TeeKind::Snp } else { TeeKind::SnpEmulated },
            trust,
            claims: Claims::Snp(Box::new(claims)),
            init_data: report.host_data,
            report_data: Some(report.report_data),
            checks: checks.into_records(),
        })
    }
}

/// The four TCB versions in the product's layout.
fn decode(report: &Report, product: Product) -> Result<TcbVersions, Denial> {
    let decode = |name, raw: RawTcb| match raw.decode(product.tcb_layout()) {
        Ok(tcb) => Ok(tcb),
        Err(error) => refuse!(Evidence, "{name} TCB: {error}"),
    };
    Ok(TcbVersions {
        reported: decode("reported", report.reported_tcb)?,
        committed: decode("committed", report.committed_tcb)?,
        current: decode("current", report.current_tcb)?,
        launch: decode("launch", report.launch_tcb)?,
    })
}

/// A platform reports no more than it has committed to, and runs no less than that: otherwise it can be
/// rolled back behind what the report claims.
fn check_order(tcb: &TcbVersions) -> Result<(), Denial> {
    for (low, low_name, high, high_name) in [
        (tcb.reported, "reported", tcb.committed, "committed"),
        (tcb.committed, "committed", tcb.current, "current"),
    ] {
        if let Some((component, ..)) = below(high, low) {
            return refuse!(
                Tcb,
                "{high_name} TCB ({}) is behind the {low_name} one ({}) in {component}",
                show(high),
                show(low)
            );
        }
    }
    Ok(())
}

fn check_policy(policy: GuestPolicy) -> Result<(), Denial> {
    if !policy.must_be_one() || !policy.reserved_is_zero() {
        return refuse!(GuestPolicy, "guest policy {:#x} has bit 17 clear or reserved bits set", policy.0);
    }
    Ok(())
}
