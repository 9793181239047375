//! Releases as rows: one for each (key, sealed spec, attested key). Reserved before the key leaves,
//! delivered once it did, confirmed once the guest says that it opened its sealed spec; asking again with
//! the same attested key is the same release, whatever became of it.

use std::time::Duration;

use sqlx::Row;

use super::{Store, StoreError, Tx, query};
use crate::clock;

/// A release, named by a random id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// 32 hex digits.
    pub id: String,
}

/// A release found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The release.
    pub release: Release,
    /// Whether this request made it.
    pub new: bool,
}

/// How many releases of a key there may be, in all or within so many seconds. Reserved ones count: whether
/// their key arrived is not known.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// At most so many.
    pub count: i64,
    /// Counting those of so many seconds; of all time without it.
    pub seconds: Option<u64>,
}

/// What came of a guest's word that its key arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confirmed {
    /// The release is confirmed now.
    Now(Release),
    /// It was before.
    Again,
}

/// How many releases there are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReleaseCounts {
    /// Made, and not known to have left.
    pub reserved: i64,
    /// Handed to a connection.
    pub delivered: i64,
    /// Confirmed by their guest.
    pub confirmed: i64,
}

impl Tx<'_> {
    /// Finds the release of `key_id` to `attested_key`, or makes it within `bound`. None: the bound is reached.
    pub(crate) async fn reserve(
        &mut self,
        key_id: &str,
        spec_digest: &str,
        attested_key: &str,
        policy_serial: u64,
        bound: Option<Bound>,
    ) -> Result<Option<Reservation>, StoreError> {
        const OPERATION: &str = "reserve a release";
        if let Some(bound) = bound
            && self.count(key_id, attested_key, bound).await? >= bound.count
        {
            // Only what is there already.
            let found = self.find(key_id, spec_digest, attested_key).await?;
            return Ok(found.map(|release| Reservation { release, new: false }));
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| StoreError::Random)?;
        let id = hex::encode(id);
        let serial = i64::try_from(policy_serial).unwrap_or(i64::MAX);
        let made = sqlx::query(
            "INSERT INTO releases (id, key_id, spec_digest, attested_key, state, policy_serial, reserved_at)
             VALUES (?, ?, ?, ?, 'reserved', ?, ?) ON CONFLICT (key_id, spec_digest, attested_key) DO NOTHING",
        )
        .bind(&id)
        .bind(key_id)
        .bind(spec_digest)
        .bind(attested_key)
        .bind(serial)
        .bind(&self.now)
        .execute(&mut *self.inner)
        .await
        .map_err(query(OPERATION))?;
        if made.rows_affected() == 1 {
            return Ok(Some(Reservation { release: Release { id }, new: true }));
        }
        let found = self.find(key_id, spec_digest, attested_key).await?;
        let damaged = || StoreError::Damaged { what: "a release".into(), problem: "it is gone".into() };
        found.map(|release| Some(Reservation { release, new: false })).ok_or_else(damaged)
    }

    /// Releases of a key to others.
    async fn count(&mut self, key_id: &str, attested_key: &str, bound: Bound) -> Result<i64, StoreError> {
        const OPERATION: &str = "count releases";
        // Times are of one form and so sort as text. After a clock was set back, those of the future count.
        let since = bound.seconds.map_or_else(String::new, |seconds| {
            let now = self.store.clock.now();
            clock::rfc3339(now.checked_sub(Duration::from_secs(seconds)).unwrap_or(std::time::UNIX_EPOCH))
        });
        sqlx::query(
            "SELECT COUNT(*) FROM releases WHERE key_id = ? AND attested_key <> ? AND reserved_at > ?",
        )
        .bind(key_id)
        .bind(attested_key)
        .bind(since)
        .fetch_one(&mut *self.inner)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(query(OPERATION))
    }

    async fn find(
        &mut self,
        key_id: &str,
        spec_digest: &str,
        attested_key: &str,
    ) -> Result<Option<Release>, StoreError> {
        const OPERATION: &str = "look up a release";
        let row =
            sqlx::query("SELECT id FROM releases WHERE key_id = ? AND spec_digest = ? AND attested_key = ?")
                .bind(key_id)
                .bind(spec_digest)
                .bind(attested_key)
                .fetch_optional(&mut *self.inner)
                .await
                .map_err(query(OPERATION))?;
        row.map(|row| row.try_get(0).map(|id| Release { id }).map_err(query(OPERATION))).transpose()
    }

    /// Marks a release as delivered.
    pub(crate) async fn delivered(&mut self, release: &Release) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE releases SET state = 'delivered', delivered_at = ? WHERE id = ? AND state = 'reserved'",
        )
        .bind(&self.now)
        .bind(&release.id)
        .execute(&mut *self.inner)
        .await
        .map(|_| ())
        .map_err(query("mark a release as delivered"))
    }

    /// Marks the release of `key_id` to `attested_key` as confirmed, if there is one.
    pub(crate) async fn confirm(
        &mut self,
        key_id: &str,
        attested_key: &str,
    ) -> Result<Option<Confirmed>, StoreError> {
        const OPERATION: &str = "confirm a release";
        let row = sqlx::query("SELECT id, state FROM releases WHERE key_id = ? AND attested_key = ?")
            .bind(key_id)
            .bind(attested_key)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(query(OPERATION))?;
        let Some(row) = row else { return Ok(None) };
        let id: String = row.try_get(0).map_err(query(OPERATION))?;
        let state: &str = row.try_get(1).map_err(query(OPERATION))?;
        if state == "confirmed" {
            return Ok(Some(Confirmed::Again));
        }
        sqlx::query("UPDATE releases SET state = 'confirmed', confirmed_at = ? WHERE id = ?")
            .bind(&self.now)
            .bind(&id)
            .execute(&mut *self.inner)
            .await
            .map_err(query(OPERATION))?;
        Ok(Some(Confirmed::Now(Release { id })))
    }
}

impl Store {
    /// How many releases there are in each state.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub async fn release_counts(&self) -> Result<ReleaseCounts, StoreError> {
        const OPERATION: &str = "count releases";
        let row = sqlx::query(
            "SELECT COUNT(*) FILTER (WHERE state = 'reserved'), COUNT(*) FILTER (WHERE state = 'delivered'),
                COUNT(*) FILTER (WHERE state = 'confirmed') FROM releases",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(query(OPERATION))?;
        let number = |column: usize| row.try_get(column).map_err(query(OPERATION));
        Ok(ReleaseCounts { reserved: number(0)?, delivered: number(1)?, confirmed: number(2)? })
    }
}
