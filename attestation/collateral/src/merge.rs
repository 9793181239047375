//! What a verifier gets for a report: the guest's certificate table, which the host wrote and which is a
//! hint and no more, and the cache, which wins where both have a piece. The newest revocation list counts
//! by its own date, once its signature is checked. Nothing from a table is kept but such a list.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tee_evidence::snp::{CertEntry, CertKind, CertificateTable, Product, RawReport, Report, TableError};

use crate::bundle::identify;
use crate::collateral::{Added, Collateral, Reach};
use crate::item::Item;
use crate::key::{Csp, Key, Line, products};
use crate::note::{Note, Why};
use crate::x509::{Certificate, Crl};

/// What there is for a report.
#[derive(Debug, Default)]
pub struct Completed {
    /// For the verifier: at most one report-signing key's certificate, ASK, ARK and list from the cache;
    /// from the table as it was.
    pub certificates: Vec<CertEntry>,
    /// What is missing, for whoever tells a refusal: a verifier that is content needs none of it.
    pub notes: Vec<Note>,
}

impl Completed {
    /// What to add to a verifier's refusal: what is missing and the next step. Without addresses.
    #[must_use]
    pub fn explain(&self) -> Option<String> {
        self.notes.first().map(Note::to_string)
    }

    /// The same for the operator's log.
    #[must_use]
    pub fn detail(&self) -> Option<String> {
        let notes: Vec<_> = self.notes.iter().map(Note::detail).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }
}

/// The guest's table, by kind.
struct Hint {
    vek: Vec<CertEntry>,
    ask: Vec<CertEntry>,
    ark: Vec<CertEntry>,
    crl: Vec<CertEntry>,
}

impl Hint {
    fn new(entries: Vec<CertEntry>, vek: CertKind) -> Self {
        let mut hint = Self { vek: Vec::new(), ask: Vec::new(), ark: Vec::new(), crl: Vec::new() };
        for entry in entries {
            match entry.kind {
                kind if kind == vek => hint.vek.push(entry),
                CertKind::Ask => hint.ask.push(entry),
                CertKind::Ark => hint.ark.push(entry),
                CertKind::Crl => hint.crl.push(entry),
                _ => {}
            }
        }
        hint
    }
}

/// Where the report-signing key's certificate comes from.
enum Vek {
    Cached(Product),
    Hinted,
    Missing,
}

impl Collateral {
    /// Completes a guest's certificate table for its report. Never refuses: what is missing stays missing,
    /// and the verifier says so. `wait` bounds the whole.
    pub async fn complete(
        self: &Arc<Self>,
        report: &RawReport,
        table: Vec<CertEntry>,
        now: SystemTime,
        wait: Duration,
    ) -> Completed {
        let parsed = Report::from_raw(report).ok();
        let signer = parsed.as_ref().and_then(|report| report.key_info.signing_key());
        let (Some(report), Some(signer)) = (parsed.as_ref(), signer) else {
            return Completed { certificates: table, notes: Vec::new() };
        };
        let line = Line::from(signer);
        let vek_kind = match line {
            Line::Vcek => CertKind::Vcek,
            Line::Vlek => CertKind::Vlek,
        };
        let mut hint = Hint::new(table, vek_kind);
        let mut out = Completed::default();
        let deadline = tokio::time::Instant::now() + wait;
        let look = Look { collateral: self, now, deadline };

        let vek = look.vek(report, line, &mut hint, vek_kind, &mut out).await;
        let product = match vek {
            Vek::Cached(product) => Some(product),
            Vek::Hinted | Vek::Missing => match products(report) {
                [product] => Some(*product),
                _ => hint.vek.first().and_then(|vek| Certificate::parse(&vek.data).ok()?.product().ok()),
            },
        };
        if let Some(product) = product {
            look.chain_and_crl(product, line, &vek, &mut hint, &mut out).await;
        }
        let Hint { vek, ask, ark, crl } = hint;
        out.certificates.extend([vek, ask, ark, crl].into_iter().flatten());
        out
    }
}

/// Why there is no table for a chip.
#[derive(Debug, thiserror::Error)]
pub enum CertificateTableError {
    /// A piece isn't there.
    #[error("{0}")]
    Missing(Note),
    /// The pieces don't fit into a table.
    #[error(transparent)]
    Table(#[from] TableError),
}

impl Collateral {
    /// The table that a host hands to guests of a chip: certificate, ASK, ARK and list (GHCB 56421 §4.1.8.1).
    ///
    /// # Errors
    /// [`CertificateTableError`].
    pub async fn certificate_table(
        self: &Arc<Self>,
        vcek: &Key,
        now: SystemTime,
        wait: Duration,
    ) -> Result<Vec<u8>, CertificateTableError> {
        let mut entries = Vec::new();
        let crl = vcek.product().map(|product| Key::Crl(product, Line::Vcek));
        for key in [Some(vcek.clone()), vcek.chain(), crl].into_iter().flatten() {
            let found = self.get(&key, Reach::Service, now, wait).await;
            let (Some(item), None) = (found.item, &found.note) else {
                let note = found.note.unwrap_or(Note { key, why: Why::NotCached });
                return Err(CertificateTableError::Missing(note));
            };
            match item.chain() {
                Some((ask, ark)) => {
                    entries.push(CertEntry { kind: CertKind::Ask, data: ask.der().to_vec() });
                    entries.push(CertEntry { kind: CertKind::Ark, data: ark.der().to_vec() });
                }
                None => {
                    let kind = if item.crl().is_some() { CertKind::Crl } else { CertKind::Vcek };
                    entries.push(CertEntry { kind, data: item.bytes().to_vec() });
                }
            }
        }
        Ok(CertificateTable::encode(&entries)?)
    }
}

/// One completion's means.
struct Look<'a> {
    collateral: &'a Arc<Collateral>,
    now: SystemTime,
    deadline: tokio::time::Instant,
}

impl Look<'_> {
    async fn get(&self, key: &Key, reach: Reach, out: &mut Completed) -> Option<Arc<Item>> {
        let wait = self.deadline.saturating_duration_since(tokio::time::Instant::now());
        let found = self.collateral.get(key, reach, self.now, wait).await;
        if reach == Reach::Service {
            out.notes.extend(found.note);
        }
        found.item
    }

    async fn vek(
        &self,
        report: &Report,
        line: Line,
        hint: &mut Hint,
        kind: CertKind,
        out: &mut Completed,
    ) -> Vek {
        let keys = match line {
            Line::Vcek => vcek_keys(report),
            Line::Vlek => self.vlek_keys(report, &hint.vek).await,
        };
        // A host's table is often behind its firmware: where there is somebody to ask, a certificate for
        // another TCB version or chip counts as none.
        let fits = |entry: &CertEntry| {
            !self.collateral.asks() || identify(&entry.data).is_some_and(|key| keys.contains(&key))
        };
        let hinted = hint.vek.first().is_some_and(fits);
        let reaches: &[Reach] = if hinted { &[Reach::Cache] } else { &[Reach::Cache, Reach::Service] };
        for &reach in reaches {
            for key in &keys {
                let Some(item) = self.get(key, reach, out).await else { continue };
                let (Some(product), Some(certificate)) = (key.product(), item.vek()) else { continue };
                // Several providers' keys may fit a report's TCB version; one of them signed.
                if line == Line::Vlek && keys.len() > 1 && !certificate.signed(report) {
                    continue;
                }
                hint.vek = vec![CertEntry { kind, data: item.bytes().to_vec() }];
                out.notes.clear();
                return Vek::Cached(product);
            }
        }
        if hint.vek.is_empty() { Vek::Missing } else { Vek::Hinted }
    }

    /// A report doesn't say whose key signed it: the table's provider, else all that the cache knows.
    async fn vlek_keys(&self, report: &Report, hint: &[CertEntry]) -> Vec<Key> {
        let csps = match hint.first() {
            Some(vek) => Certificate::parse(&vek.data)
                .ok()
                .and_then(|vek| Csp::new(&vek.csp().ok()?))
                .into_iter()
                .collect(),
            None => self.collateral.csps(self.now).await,
        };
        let tcb = report.reported_tcb;
        products(report)
            .iter()
            .filter(|product| tcb.decode(product.tcb_layout()).is_ok())
            .flat_map(|product| csps.iter().map(|csp| (*product, csp.clone())))
            .map(|(product, csp)| Key::Vlek { product, csp, tcb: tcb.0 })
            .collect()
    }

    async fn chain_and_crl(
        &self,
        product: Product,
        line: Line,
        vek: &Vek,
        hint: &mut Hint,
        out: &mut Completed,
    ) {
        let lacks_some = hint.ask.is_empty() || hint.ark.is_empty() || hint.crl.is_empty();
        let reach = if lacks_some { Reach::Service } else { Reach::Cache };
        let chain = self.get(&Key::Chain(product, line), reach, out).await;
        if let Some(chain) = &chain {
            // A table may be of a root that the cache has nothing of: then it stands or falls as a whole.
            if matches!(vek, Vek::Hinted) && !belongs(hint, chain) {
                out.notes.clear();
                return;
            }
            if let Some((ask, ark)) = chain.chain() {
                replace(&mut hint.ask, CertKind::Ask, ask.der());
                replace(&mut hint.ark, CertKind::Ark, ark.der());
            }
        }
        let crl_key = Key::Crl(product, line);
        let cached = if hint.crl.is_empty() {
            self.get(&crl_key, Reach::Service, out).await
        } else {
            // With a list at hand nobody waits for a better one, but it is fetched for the next.
            let here = self.get(&crl_key, Reach::Cache, out).await;
            let hurry = Self { deadline: tokio::time::Instant::now(), ..*self };
            hurry.get(&crl_key, Reach::Service, &mut Completed::default()).await.or(here)
        };
        let Some(cached) = cached else { return };
        let Some(mine) = cached.crl() else { return };
        if hint.crl.len() == 1 && hint.crl[0].data != cached.bytes() {
            let newer =
                Crl::parse(&hint.crl[0].data).is_ok_and(|theirs| theirs.this_update > mine.this_update);
            if newer {
                let added = self.collateral.add(&crl_key, &hint.crl[0].data, self.now).await;
                if matches!(added, Ok(Added::New | Added::Same)) {
                    return;
                }
            }
        }
        replace(&mut hint.crl, CertKind::Crl, cached.bytes());
    }
}

/// Is the table's report-signing key of that chain? The bytes of its ASK say so at no cost; else its
/// issuer's name does, and the verifier checks the signature.
fn belongs(hint: &Hint, chain: &Item) -> bool {
    let Some((ask, _)) = chain.chain() else { return false };
    if hint.ask.first().is_some_and(|theirs| theirs.data == ask.der()) {
        return true;
    }
    let vek = hint.vek.first().and_then(|vek| Certificate::parse(&vek.data).ok());
    vek.is_some_and(|vek| vek.names_issuer(ask))
}

fn vcek_keys(report: &Report) -> Vec<Key> {
    products(report)
        .iter()
        .filter_map(|product| Key::vcek(*product, &report.chip_id, report.reported_tcb))
        .collect()
}

/// Puts the cache's bytes in the place of a table's, unless they are the same.
fn replace(entries: &mut Vec<CertEntry>, kind: CertKind, data: &[u8]) {
    if let [one] = entries.as_slice()
        && one.data == data
    {
        return;
    }
    *entries = vec![CertEntry { kind, data: data.to_vec() }];
}
