//! Sample evidence of the key broker protocol: anybody can make it, for tests of the protocol. It becomes
//! a verdict, so that the rest of the way is the same, but never a grant.

use serde::Serialize;
use subtle::ConstantTimeEq;

use crate::checks::Checks;
use crate::denial::refuse;
use crate::{Appraised, Claims, Denial, TeeKind, Trust, Verdict};

/// What sample evidence says: nothing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleClaims {
    /// A version that it gives itself.
    pub svn: String,
}

/// Longest `svn` that is kept.
const MAX_SVN: usize = 32;

/// Appraises sample evidence with the report data of this session, whose bytes after the hash it may leave
/// out if they are zero. Callers accept it only where their operator's configuration says so.
///
/// # Errors
/// If it is for another session, or gives itself a version that is none.
pub fn appraise(svn: &str, report_data: &[u8], session: &[u8; 64]) -> Result<Appraised, Denial> {
    let mut checks = Checks::new(&["svn", "report_data"]);
    checks.pass("svn", || {
        if svn.is_empty() || svn.len() > MAX_SVN || !svn.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return refuse!(
                Evidence,
                "sample evidence has an 'svn' that is not 1 to {MAX_SVN} letters and digits"
            );
        }
        Ok(svn.to_owned())
    })?;
    checks.pass("report_data", || {
        let mut padded = [0; 64];
        match padded.get_mut(..report_data.len()) {
            Some(start) if report_data.len() >= 32 => start.copy_from_slice(report_data),
            _ => return refuse!(Evidence, "sample evidence has report data of {} bytes", report_data.len()),
        }
        if !bool::from(padded.ct_eq(session)) {
            return refuse!(Binding, "sample evidence was made for another nonce or key than this session's");
        }
        Ok(hex::encode(session))
    })?;
    checks.not_checked("signature", "sample evidence has none: anybody can make it");
    checks.not_checked("init_data", "nothing binds sample evidence to init-data");
    Ok(Appraised::new(Verdict {
        tee: TeeKind::Sample,
        trust: Trust::Nobody,
        claims: Claims::Sample(SampleClaims { svn: svn.to_owned() }),
        init_data: [0; 32],
        report_data: Some(*session),
        checks: checks.into_records(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Check, ReferenceValues};

    fn session() -> [u8; 64] {
        let mut session = [0; 64];
        session[..48].fill(7);
        session
    }

    #[test]
    fn it_is_of_this_session_and_never_enough() {
        for length in [48, 64] {
            let appraised = appraise("1", &session()[..length], &session()).unwrap();
            assert_eq!(appraised.verdict().trust, Trust::Nobody);
            let reference = ReferenceValues { tee: vec![TeeKind::Sample], ..Default::default() };
            assert_eq!(appraised.grant(&reference).unwrap_err().check, Check::TeeKind);
        }
    }

    #[test]
    fn other_sessions_lengths_and_versions_are_refused() {
        for (svn, data, check) in [
            ("1", [8; 48].to_vec(), Check::Binding),
            ("1", session()[..47].to_vec(), Check::Binding),
            ("1", vec![], Check::Evidence),
            ("1", vec![7; 65], Check::Evidence),
            ("", session().to_vec(), Check::Evidence),
            ("1\n", session().to_vec(), Check::Evidence),
        ] {
            assert_eq!(appraise(svn, &data, &session()).unwrap_err().check, check, "{svn} {data:?}");
        }
    }
}
