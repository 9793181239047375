//! Releases as rows: one for each (key, sealed spec, attested key). Reserved before the key leaves,
//! delivered once it did; asking again with the same attested key is the same release.

use sqlx::Row;

use super::{Store, StoreError, Tx, query};

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

impl Tx<'_> {
    /// Finds or makes the release of `key_id` to `attested_key`.
    pub(crate) async fn reserve(
        &mut self,
        key_id: &str,
        spec_digest: &str,
        attested_key: &str,
        policy_serial: u64,
    ) -> Result<Reservation, StoreError> {
        const OPERATION: &str = "reserve a release";
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
            return Ok(Reservation { release: Release { id }, new: true });
        }
        let row =
            sqlx::query("SELECT id FROM releases WHERE key_id = ? AND spec_digest = ? AND attested_key = ?")
                .bind(key_id)
                .bind(spec_digest)
                .bind(attested_key)
                .fetch_one(&mut *self.inner)
                .await
                .map_err(query(OPERATION))?;
        let id = row.try_get(0).map_err(query(OPERATION))?;
        Ok(Reservation { release: Release { id }, new: false })
    }

    /// Marks releases as delivered.
    pub(crate) async fn delivered(&mut self, releases: &[Release]) -> Result<(), StoreError> {
        for release in releases {
            sqlx::query(
                "UPDATE releases SET state = 'delivered', delivered_at = ? WHERE id = ? AND state = 'reserved'",
            )
            .bind(&self.now)
            .bind(&release.id)
            .execute(&mut *self.inner)
            .await
            .map_err(query("mark a release as delivered"))?;
        }
        Ok(())
    }
}

impl Store {
    /// How many releases there are in each state: (reserved, delivered).
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub async fn release_counts(&self) -> Result<(i64, i64), StoreError> {
        const OPERATION: &str = "count releases";
        let row = sqlx::query(
            "SELECT COUNT(*) FILTER (WHERE state = 'reserved'), COUNT(*) FILTER (WHERE state = 'delivered') FROM releases",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(query(OPERATION))?;
        Ok((row.try_get(0).map_err(query(OPERATION))?, row.try_get(1).map_err(query(OPERATION))?))
    }
}
