//! ESM blobs: what their owners say of them, and which are denied. Statements of one blob replace each other by
//! their serial; a denial is for ever.

use protocols::owner::{BlobDenial, PefBlob, Verified};
use serde_json::json;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::statements::{number, same};
use super::{Outcome, Store, StoreError, Tx, owners, query};

const OPERATION: &str = "look up an ESM blob";
const SELECT: &str = "SELECT b.repository, b.serial, b.statement, o.public_key, o.tag
    FROM blobs b JOIN owners o ON o.repository = b.repository
    WHERE b.blob = ? ORDER BY b.serial DESC LIMIT 1";
const DENIED: &str = "SELECT 1 FROM blob_denials WHERE blob = ?";

impl Store {
    /// What the owner says of a blob, unless nobody enrolled it or it is denied.
    ///
    /// # Errors
    /// [`StoreError`]; never read as "not denied".
    pub(crate) async fn blob(&self, blob: &str) -> Result<Option<PefBlob>, StoreError> {
        let denied =
            sqlx::query(DENIED).bind(blob).fetch_optional(&self.readers).await.map_err(query(OPERATION))?;
        if denied.is_some() {
            return Ok(None);
        }
        let row =
            sqlx::query(SELECT).bind(blob).fetch_optional(&self.readers).await.map_err(query(OPERATION))?;
        row.map(|row| read(self, blob, &row).map(Verified::into_inner)).transpose()
    }

    /// Denies a blob by the operator's word; false if it was denied before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn deny_blob(&self, blob: &str) -> Result<bool, StoreError> {
        let mut tx = self.begin().await?;
        if tx.is_denied(blob).await? {
            return Ok(false);
        }
        tx.insert_denial(blob, None).await?;
        tx.record("blob.denied", blob, json!({ "by": "operator" })).await?;
        tx.keep_checkpoint().await?;
        tx.commit().await?;
        Ok(true)
    }
}

impl Tx<'_> {
    /// Stores what an owner says of a blob, if its serial is above every other's of that blob.
    pub(crate) async fn enrol_blob(&mut self, blob: &Verified<PefBlob>) -> Result<Outcome, StoreError> {
        if let Some(present) = self.latest_blob(&blob.blob).await? {
            if present.jws() == blob.jws() {
                return Ok(Outcome::Same);
            }
            // Its machines may change; whose it is and what it is for may not.
            let fixed = |blob: &PefBlob| PefBlob { serial: 0, machines: Vec::new(), ..blob.clone() };
            if fixed(&present) != fixed(blob) {
                return Ok(Outcome::Taken(format!("blob {}", blob.blob)));
            }
            if present.serial >= blob.serial {
                return Ok(Outcome::Taken(format!("serial {}", present.serial)));
            }
        }
        sqlx::query(
            "INSERT INTO blobs (blob, serial, repository, statement, created_at) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(&blob.blob)
        .bind(number(blob.serial)?)
        .bind(&blob.repository)
        .bind(blob.jws())
        .bind(&self.now)
        .execute(&mut *self.inner)
        .await
        .map_err(query("store an ESM blob's statement"))?;
        Ok(Outcome::Added)
    }

    /// Denies a blob by its owner's word. `None` if that owner enrolled no such blob.
    pub(crate) async fn deny(
        &mut self,
        denial: &Verified<BlobDenial>,
    ) -> Result<Option<Outcome>, StoreError> {
        let own =
            self.latest_blob(&denial.blob).await?.is_some_and(|blob| blob.repository == denial.repository);
        if !own {
            return Ok(None);
        }
        if self.is_denied(&denial.blob).await? {
            return Ok(Some(Outcome::Same));
        }
        self.insert_denial(&denial.blob, Some(denial.jws())).await?;
        Ok(Some(Outcome::Added))
    }

    /// Whether a blob is denied. A row counts as it stands, signed by its owner or written by the operator.
    pub(crate) async fn is_denied(&mut self, blob: &str) -> Result<bool, StoreError> {
        sqlx::query(DENIED)
            .bind(blob)
            .fetch_optional(&mut *self.inner)
            .await
            .map(|row| row.is_some())
            .map_err(query(OPERATION))
    }

    async fn insert_denial(&mut self, blob: &str, statement: Option<&str>) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO blob_denials (blob, statement, created_at) VALUES (?, ?, ?)")
            .bind(blob)
            .bind(statement)
            .bind(&self.now)
            .execute(&mut *self.inner)
            .await
            .map(drop)
            .map_err(query("deny an ESM blob"))
    }

    async fn latest_blob(&mut self, blob: &str) -> Result<Option<Verified<PefBlob>>, StoreError> {
        let row = sqlx::query(SELECT)
            .bind(blob)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(query(OPERATION))?;
        row.map(|row| read(self.store, blob, &row)).transpose()
    }
}

/// Nothing in the row counts but what its owner signed.
fn read(store: &Store, blob: &str, row: &SqliteRow) -> Result<Verified<PefBlob>, StoreError> {
    let repository: &str = row.try_get(0).map_err(query(OPERATION))?;
    let serial: i64 = row.try_get(1).map_err(query(OPERATION))?;
    let jws: &str = row.try_get(2).map_err(query(OPERATION))?;
    let public_key: &str = row.try_get(3).map_err(query(OPERATION))?;
    let tag: &[u8] = row.try_get(4).map_err(query(OPERATION))?;
    owners::check(&store.master, repository, public_key, tag)?;
    let what = format!("the ESM blob {blob}");
    let owner = owners::parse(repository, public_key)?;
    let statement: Verified<PefBlob> =
        owner.verify(jws).map_err(|source| StoreError::Statement { what: what.clone(), source })?;
    same(&what, &statement.blob, blob)?;
    same(&what, &statement.repository, repository)?;
    same(&what, &number(statement.serial)?.to_string(), &serial.to_string())?;
    Ok(statement)
}
