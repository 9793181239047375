//! What owners signed: registrations with their keys, policies, retirements. Create-only.
//!
//! A statement is verified again with its owner's key whenever it is read, so whoever holds the database
//! alone can't write one.

use std::sync::Arc;

use protocols::name;
use protocols::owner::{OwnerPublicKey, PolicyStatement, Registration, Retirement, Statement, Verified};
use sqlx::Row;
use zeroize::Zeroizing;

use super::{StoreError, Tx, query};
use crate::secrets::Place;

/// What came of writing a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in place.
    Added,
    /// Exactly this one was in place before; nothing changed.
    Same,
    /// Something else holds its place: what, for people.
    Taken(String),
}

/// A registration as stored.
pub struct Registered {
    pub(super) statement: Arc<Verified<Registration>>,
    pub(super) sealed_key: Vec<u8>,
}

impl Registered {
    /// What the owner signed.
    #[must_use]
    pub fn statement(&self) -> &Registration {
        &self.statement
    }

    fn place(&self) -> Place<'_> {
        Place { owner: &self.statement.repository, key_id: &self.statement.key_id }
    }
}

impl Tx<'_> {
    /// Stores a registration and its key.
    pub(crate) async fn register(
        &mut self,
        registration: &Verified<Registration>,
        key: &[u8],
    ) -> Result<Outcome, StoreError> {
        const OPERATION: &str = "store a registration";
        let Registration { repository, lineage, revision, spec_digest, key_id, .. } = &**registration;
        let row = sqlx::query(
            "SELECT key_id, lineage, revision, statement FROM registrations WHERE key_id = ?1
             OR (repository = ?2 AND (spec_digest = ?3 OR (lineage = ?4 AND revision = ?5))) LIMIT 1",
        )
        .bind(key_id)
        .bind(repository)
        .bind(spec_digest)
        .bind(lineage)
        .bind(number(*revision)?)
        .fetch_optional(&mut *self.inner)
        .await
        .map_err(query(OPERATION))?;
        if let Some(row) = row {
            let statement: String = row.try_get(3).map_err(query(OPERATION))?;
            if statement == registration.jws() {
                return Ok(Outcome::Same);
            }
            let held: (String, String, i64) = (
                row.try_get(0).map_err(query(OPERATION))?,
                row.try_get(1).map_err(query(OPERATION))?,
                row.try_get(2).map_err(query(OPERATION))?,
            );
            return Ok(Outcome::Taken(format!(
                "revision {} of lineage '{}' with key {}",
                held.2, held.1, held.0
            )));
        }
        let sealed = self.seal(Place { owner: repository, key_id }, key)?;
        sqlx::query(
            "INSERT INTO registrations
             (key_id, repository, lineage, revision, spec_digest, statement, sealed_key, created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(key_id)
        .bind(repository)
        .bind(lineage)
        .bind(number(*revision)?)
        .bind(spec_digest)
        .bind(registration.jws())
        .bind(sealed)
        .bind(&self.now)
        .execute(&mut *self.inner)
        .await
        .map_err(query(OPERATION))?;
        Ok(Outcome::Added)
    }

    /// Whether `repository` has a registration of this sealed spec.
    pub(crate) async fn has_spec(&mut self, repository: &str, spec_digest: &str) -> Result<bool, StoreError> {
        sqlx::query("SELECT 1 FROM registrations WHERE repository = ? AND spec_digest = ?")
            .bind(repository)
            .bind(spec_digest)
            .fetch_optional(&mut *self.inner)
            .await
            .map(|row| row.is_some())
            .map_err(query("look up a sealed spec"))
    }

    /// Opens a registration's key; its owner's signature covers its hash.
    pub(crate) fn open_key(&self, registered: &Registered) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let what = || format!("the key {}", registered.statement.key_id);
        let key = self
            .store
            .master
            .open(registered.place(), &registered.sealed_key)
            .map_err(|source| StoreError::Secret { what: what(), source })?;
        same(&what(), &name::sha256(&key), &registered.statement.key_sha256)?;
        Ok(key)
    }

    /// Stores a policy if its serial is above every other's of its lineage.
    pub(crate) async fn add_policy(
        &mut self,
        policy: &Verified<PolicyStatement>,
    ) -> Result<Outcome, StoreError> {
        if let Some(present) = self.policy(&policy.repository, &policy.lineage).await? {
            if present.jws() == policy.jws() {
                return Ok(Outcome::Same);
            }
            if present.serial >= policy.serial {
                return Ok(Outcome::Taken(format!("serial {}", present.serial)));
            }
        }
        sqlx::query(
            "INSERT INTO policies (repository, lineage, serial, statement, created_at) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(&policy.repository)
        .bind(&policy.lineage)
        .bind(number(policy.serial)?)
        .bind(policy.jws())
        .bind(&self.now)
        .execute(&mut *self.inner)
        .await
        .map_err(query("store a policy"))?;
        Ok(Outcome::Added)
    }

    /// The policy in force for a lineage.
    pub(super) async fn policy(
        &mut self,
        repository: &str,
        lineage: &str,
    ) -> Result<Option<Verified<PolicyStatement>>, StoreError> {
        const OPERATION: &str = "look up a policy";
        let row = sqlx::query(
            "SELECT serial, statement FROM policies WHERE repository = ? AND lineage = ? ORDER BY serial DESC LIMIT 1",
        )
        .bind(repository)
        .bind(lineage)
        .fetch_optional(&mut *self.inner)
        .await
        .map_err(query(OPERATION))?;
        let Some(row) = row else { return Ok(None) };
        let serial: i64 = row.try_get(0).map_err(query(OPERATION))?;
        let jws: String = row.try_get(1).map_err(query(OPERATION))?;
        let what = format!("the policy of '{repository}/{lineage}'");
        let policy: Verified<PolicyStatement> = self.reverify(repository, &jws, &what).await?;
        same(&what, &policy.lineage, lineage)?;
        same(&what, &policy.serial.to_string(), &serial.to_string())?;
        Ok(Some(policy))
    }

    /// Ends a revision, if it was registered.
    pub(crate) async fn retire(
        &mut self,
        retirement: &Verified<Retirement>,
    ) -> Result<Option<Outcome>, StoreError> {
        let Retirement { repository, lineage, revision } = &**retirement;
        if self.is_retired(repository, lineage, *revision).await? {
            return Ok(Some(Outcome::Same));
        }
        let registered =
            sqlx::query("SELECT 1 FROM registrations WHERE repository = ? AND lineage = ? AND revision = ?")
                .bind(repository)
                .bind(lineage)
                .bind(number(*revision)?)
                .fetch_optional(&mut *self.inner)
                .await
                .map_err(query("look up a revision"))?;
        if registered.is_none() {
            return Ok(None);
        }
        sqlx::query(
            "INSERT INTO retirements (repository, lineage, revision, statement, created_at) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(repository)
        .bind(lineage)
        .bind(number(*revision)?)
        .bind(retirement.jws())
        .bind(&self.now)
        .execute(&mut *self.inner)
        .await
        .map_err(query("store a retirement"))?;
        Ok(Some(Outcome::Added))
    }

    /// Whether a revision was retired. A row counts as it stands: its signature could only be a reason to
    /// release what somebody ended.
    async fn is_retired(
        &mut self,
        repository: &str,
        lineage: &str,
        revision: u64,
    ) -> Result<bool, StoreError> {
        sqlx::query("SELECT 1 FROM retirements WHERE repository = ? AND lineage = ? AND revision = ?")
            .bind(repository)
            .bind(lineage)
            .bind(number(revision)?)
            .fetch_optional(&mut *self.inner)
            .await
            .map(|row| row.is_some())
            .map_err(query("look up a retirement"))
    }

    pub(super) async fn reverify<S: Statement>(
        &mut self,
        repository: &str,
        jws: &str,
        what: &str,
    ) -> Result<Verified<S>, StoreError> {
        let owner: OwnerPublicKey = self.owner(repository).await?.ok_or_else(|| StoreError::Damaged {
            what: what.to_owned(),
            problem: format!("its owner '{repository}' is not enrolled"),
        })?;
        let statement: Verified<S> =
            owner.verify(jws).map_err(|source| StoreError::Statement { what: what.to_owned(), source })?;
        same(what, statement.repository(), repository)?;
        Ok(statement)
    }
}

pub(super) fn same(what: &str, found: &str, wanted: &str) -> Result<(), StoreError> {
    if found == wanted {
        return Ok(());
    }
    Err(StoreError::Damaged {
        what: what.to_owned(),
        problem: format!("it holds {found} instead of {wanted}"),
    })
}

pub(super) fn number(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Damaged {
        what: "a number".into(),
        problem: format!("{value} is out of range"),
    })
}
