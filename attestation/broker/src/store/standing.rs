//! Everything in the database that decides on one key, in one look.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use protocols::owner::{OwnerPublicKey, PolicyStatement, Registration, Statement, Verified};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::owners;
use super::statements::{Registered, number, same};
use super::{StoreError, Tx, query};

const OPERATION: &str = "look up a key";

/// The columns find; the statements, verified with their owner's key, say. What both hold must agree.
const SELECT: &str = "SELECT r.repository, r.lineage, r.revision, r.statement, r.sealed_key,
        o.public_key, o.tag, p.serial, p.statement,
        EXISTS (SELECT 1 FROM retirements t
            WHERE t.repository = r.repository AND t.lineage = r.lineage AND t.revision = r.revision)
    FROM registrations r
    LEFT JOIN owners o ON o.repository = r.repository
    LEFT JOIN policies p ON p.repository = r.repository AND p.lineage = r.lineage
        AND p.serial = (SELECT MAX(serial) FROM policies WHERE repository = r.repository AND lineage = r.lineage)
    WHERE r.key_id = ?";

/// How a key stands: its registration, whether that is retired, and its lineage's policy in force.
pub struct Standing {
    /// The registration and the sealed key.
    pub(crate) registered: Registered,
    /// Whether the revision was retired.
    pub(crate) retired: bool,
    /// The policy, if the lineage has one.
    pub(crate) policy: Option<Arc<Verified<PolicyStatement>>>,
}

impl Tx<'_> {
    /// How `key_id` stands, if it is registered.
    pub(crate) async fn standing(&mut self, key_id: &str) -> Result<Option<Standing>, StoreError> {
        let row = sqlx::query(SELECT)
            .bind(key_id)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(query(OPERATION))?;
        row.map(|row| self.read_standing(key_id, &row)).transpose()
    }

    fn read_standing(&self, key_id: &str, row: &SqliteRow) -> Result<Standing, StoreError> {
        let repository: &str = row.try_get(0).map_err(query(OPERATION))?;
        let lineage: &str = row.try_get(1).map_err(query(OPERATION))?;
        let revision: i64 = row.try_get(2).map_err(query(OPERATION))?;
        let registration: &str = row.try_get(3).map_err(query(OPERATION))?;
        let sealed_key = row.try_get(4).map_err(query(OPERATION))?;
        let public_key: &str = row.try_get(5).map_err(query(OPERATION))?;
        let tag: &[u8] = row.try_get(6).map_err(query(OPERATION))?;
        let serial: Option<i64> = row.try_get(7).map_err(query(OPERATION))?;
        let policy: Option<&str> = row.try_get(8).map_err(query(OPERATION))?;
        let retired: bool = row.try_get(9).map_err(query(OPERATION))?;

        let store = self.store;
        owners::check(&store.master, repository, public_key, tag)?;
        let statement = store.registrations.verified(public_key, registration, key_id)?;
        same(key_id, &statement.key_id, key_id)?;
        same(key_id, &statement.repository, repository)?;
        same(key_id, &statement.lineage, lineage)?;
        same(key_id, &number(statement.revision)?.to_string(), &revision.to_string())?;
        let policy = match (serial, policy) {
            (Some(serial), Some(policy)) => {
                let what = format!("the policy of '{repository}/{lineage}'");
                let policy = store.policies.verified(public_key, policy, &what)?;
                same(&what, &policy.repository, repository)?;
                same(&what, &policy.lineage, lineage)?;
                same(&what, &number(policy.serial)?.to_string(), &serial.to_string())?;
                Some(policy)
            }
            _ => None,
        };
        Ok(Standing { registered: Registered { statement, sealed_key }, retired, policy })
    }
}

/// Statements that were verified with a key before: the same bytes under the same key verify again.
pub(super) struct Verifications<S>(Mutex<HashMap<[u8; 32], Arc<Verified<S>>>>);

impl<S> Default for Verifications<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S> std::fmt::Debug for Verifications<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifications")
    }
}

/// Statements remembered, and bytes of the longest one that is.
const REMEMBERED: usize = 512;
const LONGEST: usize = 32 * 1024;

impl<S: Statement> Verifications<S> {
    fn verified(&self, key: &str, jws: &str, what: &str) -> Result<Arc<Verified<S>>, StoreError> {
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        // A key's text has no line break, so the parts can't be confused.
        [key, "\n", jws].iter().for_each(|part| hash.update(part.as_bytes()));
        let mut name = [0; 32];
        name.copy_from_slice(hash.finish().as_ref());
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(known.clone());
        }
        let damaged = |problem: String| StoreError::Damaged { what: what.to_owned(), problem };
        let owner: OwnerPublicKey =
            key.parse().map_err(|error: protocols::owner::KeyError| damaged(error.to_string()))?;
        let statement = owner
            .verify::<S>(jws)
            .map(Arc::new)
            .map_err(|source| StoreError::Statement { what: what.to_owned(), source })?;
        if jws.len() <= LONGEST {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(name, statement.clone());
        }
        Ok(statement)
    }
}

/// The registrations and policies remembered by a store.
pub(super) type KnownRegistrations = Verifications<Registration>;
pub(super) type KnownPolicies = Verifications<PolicyStatement>;
