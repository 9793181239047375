//! Owners: a repository and the public key that speaks for it, enrolled by the operator.

use protocols::owner::{KeyError, OwnerPublicKey};
use serde_json::json;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, Tx, query};
use crate::config::COMPAT_REPOSITORY;
use crate::secrets::MasterKey;

const TABLE: &str = "owners";
const SELECT: &str = "SELECT public_key, tag FROM owners WHERE repository = ?";
const LOOK_UP: &str = "look up an owner";

impl Tx<'_> {
    async fn enrol(&mut self, repository: &str, key: &OwnerPublicKey) -> Result<Enrolment, StoreError> {
        // The operator's own.
        if repository == COMPAT_REPOSITORY {
            return Ok(Enrolment::OtherKey);
        }
        if let Some(present) = self.owner(repository).await? {
            return Ok(if present == *key { Enrolment::Same } else { Enrolment::OtherKey });
        }
        let text = key.to_string();
        sqlx::query("INSERT INTO owners (repository, public_key, enrolled_at, tag) VALUES (?, ?, ?, ?)")
            .bind(repository)
            .bind(&text)
            .bind(&self.now)
            .bind(self.store.master.tag(TABLE, &[repository, &text]))
            .execute(&mut *self.inner)
            .await
            .map_err(query("enrol an owner"))?;
        self.record("owner.enrolled", repository, json!({ "key": text })).await?;
        Ok(Enrolment::New)
    }

    /// The key that speaks for `repository`, if it is enrolled.
    pub(crate) async fn owner(&mut self, repository: &str) -> Result<Option<OwnerPublicKey>, StoreError> {
        let row = sqlx::query(SELECT)
            .bind(repository)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(query(LOOK_UP))?;
        row.map(|row| read(&self.store.master, repository, &row)).transpose()
    }
}

impl Store {
    /// Enrols `key` for `repository`, which never changes its key afterwards. Repeating it is harmless.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn enrol(&self, repository: &str, key: &OwnerPublicKey) -> Result<Enrolment, StoreError> {
        let mut tx = self.begin().await?;
        let enrolment = tx.enrol(repository, key).await?;
        if enrolment == Enrolment::New {
            tx.keep_checkpoint().await?;
            tx.commit().await?;
        }
        Ok(enrolment)
    }

    /// The key that speaks for `repository`, if it is enrolled.
    pub(crate) async fn owner(&self, repository: &str) -> Result<Option<OwnerPublicKey>, StoreError> {
        let row = sqlx::query(SELECT)
            .bind(repository)
            .fetch_optional(&self.readers)
            .await
            .map_err(query(LOOK_UP))?;
        row.map(|row| read(&self.master, repository, &row)).transpose()
    }
}

fn read(master: &MasterKey, repository: &str, row: &SqliteRow) -> Result<OwnerPublicKey, StoreError> {
    let text: &str = row.try_get(0).map_err(query(LOOK_UP))?;
    let tag: &[u8] = row.try_get(1).map_err(query(LOOK_UP))?;
    check(master, repository, text, tag)?;
    parse(repository, text)
}

/// The key in an owner's row.
pub(super) fn parse(repository: &str, key: &str) -> Result<OwnerPublicKey, StoreError> {
    key.parse().map_err(|error: KeyError| StoreError::Damaged {
        what: row_of(repository),
        problem: error.to_string(),
    })
}

/// Checks that an owner's row is one that this broker wrote.
pub(super) fn check(master: &MasterKey, repository: &str, key: &str, tag: &[u8]) -> Result<(), StoreError> {
    master
        .check_tag(TABLE, &[repository, key], tag)
        .map_err(|source| StoreError::Secret { what: row_of(repository), source })
}

fn row_of(repository: &str) -> String {
    format!("the owner row of '{repository}'")
}

/// What came of an enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolment {
    /// The owner is enrolled now.
    New,
    /// It was enrolled with this key before.
    Same,
    /// The repository belongs to another key.
    OtherKey,
}
