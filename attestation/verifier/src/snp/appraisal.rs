//! From a genuine report to a verdict for this session: what it is bound to, and what makes any report
//! unusable whatever the policy says.

use subtle::ConstantTimeEq;
use tee_evidence::snp::{GuestPolicy, RawTcb, Report};

use super::evidence::SignatureChecked;
use crate::denial::refuse;
use crate::grant::{below, show};
use crate::verdict::PolicyBits;
use crate::{CheckRecord, Denial, Grant, Outcome, ReferenceValues, TcbVersions, TeeKind, Trust, Verdict};

/// What evidence must be bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Hash of this session's nonce and key, as the protocol defines it.
    pub report_data: [u8; 64],
    /// SHA-256 of the init-data that came with the evidence.
    pub host_data: [u8; 32],
}

/// Genuine evidence of this session. Whether it is enough is the policy's business.
#[derive(Debug)]
pub struct Appraised {
    verdict: Verdict,
}

impl SignatureChecked {
    /// The report. It is genuine, but may have been made for another session.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Checks that the report is bound to this session and is usable at all.
    pub fn appraise(self, session: &Session) -> Result<Appraised, Denial> {
        let Self { report, key, product, trust, csp_id, mut checks } = self;
        let mut passed = |check, value: String| {
            checks.push(CheckRecord { check, outcome: Outcome::Passed, value });
        };
        if !bool::from(report.report_data.ct_eq(&session.report_data)) {
            return refuse!(Binding, "report was made for another nonce or key than this session's");
        }
        passed("report_data", hex::encode(report.report_data));
        if !bool::from(report.host_data.ct_eq(&session.host_data)) {
            return refuse!(
                HostData,
                "init-data has the digest {}, but the guest was launched with {}",
                hex::encode(session.host_data),
                hex::encode(report.host_data)
            );
        }
        passed("host_data", hex::encode(report.host_data));

        let decode = |name, raw: RawTcb| match raw.decode(product.tcb_layout()) {
            Ok(tcb) => Ok(tcb),
            Err(error) => refuse!(Evidence, "{name} TCB: {error}"),
        };
        let tcb = TcbVersions {
            reported: decode("reported", report.reported_tcb)?,
            committed: decode("committed", report.committed_tcb)?,
            current: decode("current", report.current_tcb)?,
            launch: decode("launch", report.launch_tcb)?,
        };
        check_order(&tcb)?;
        passed("tcb_order", "reported, committed, current".to_owned());

        check_policy(report.policy)?;
        passed("guest_policy_form", format!("{:#x}", report.policy.0));
        if report.vmpl > 3 {
            return refuse!(
                Vmpl,
                "report was asked for by the host, not by the guest (VMPL {:#x})",
                report.vmpl
            );
        }
        let verdict = Verdict {
            tee: match trust {
                Trust::Amd => TeeKind::Snp,
                Trust::Emulated { .. } => TeeKind::SnpEmulated,
            },
            trust,
            product,
            report_version: report.version,
            signing_key: key,
            csp_id,
            chip_id: report.chip_id,
            measurement: report.measurement,
            host_data: report.host_data,
            report_data: report.report_data,
            report_id: report.report_id,
            tcb,
            firmware: report.current_version,
            policy: PolicyBits {
                bits: report.policy.0,
                debug: report.policy.debug(),
                migrate_ma: report.policy.migrate_ma(),
                smt: report.policy.smt(),
                single_socket: report.policy.single_socket(),
            },
            platform_info: report.platform_info.0,
            alias_check: report.platform_info.alias_check(),
            vmpl: report.vmpl,
            guest_svn: report.guest_svn,
            id_key_digest: report.id_key_digest,
            author_key_digest: report.key_info.author_key_enabled().then_some(report.author_key_digest),
            checks,
        };
        Ok(Appraised { verdict })
    }
}

impl Appraised {
    /// What was found out.
    pub const fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Compares with what the relying party allows.
    pub fn grant(&self, reference: &ReferenceValues) -> Result<Grant, Denial> {
        Grant::decide(&self.verdict, reference)
    }
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
