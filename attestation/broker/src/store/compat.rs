//! Resources of the operator's compat repository, sealed at rest under the master key. They can be replaced.

use protocols::rcar::ResourceUri;
use serde_json::json;
use sqlx::Row;
use zeroize::Zeroizing;

use super::{Store, StoreError, Tx, query};
use crate::config::COMPAT_REPOSITORY;
use crate::secrets::Place;

impl Tx<'_> {
    async fn put_compat(&mut self, uri: &str, content: &[u8]) -> Result<(), StoreError> {
        let sealed = self.seal(Place { owner: COMPAT_REPOSITORY, key_id: uri }, content)?;
        sqlx::query(
            "INSERT OR REPLACE INTO compat_resources (uri, sealed_content, written_at) VALUES (?, ?, ?)",
        )
        .bind(uri)
        .bind(sealed)
        .bind(&self.now)
        .execute(&mut *self.inner)
        .await
        .map_err(query("store a resource"))?;
        // Nothing of the content, not even a digest, by which a short secret could be guessed.
        self.record("compat.written", uri, json!({})).await
    }

    /// Opens a resource of the compat repository.
    pub(crate) async fn compat_resource(
        &mut self,
        uri: &str,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        const OPERATION: &str = "look up a resource";
        let row = sqlx::query("SELECT sealed_content FROM compat_resources WHERE uri = ?")
            .bind(uri)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(query(OPERATION))?;
        let Some(row) = row else { return Ok(None) };
        let sealed: &[u8] = row.try_get(0).map_err(query(OPERATION))?;
        self.store
            .master
            .open(Place { owner: COMPAT_REPOSITORY, key_id: uri }, sealed)
            .map(Some)
            .map_err(|source| StoreError::Secret { what: uri.to_owned(), source })
    }
}

impl Store {
    /// Writes a resource of the compat repository, over what was there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn write_compat(&self, uri: &ResourceUri, content: &[u8]) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.put_compat(&uri.to_string(), content).await?;
        tx.keep_checkpoint().await?;
        tx.commit().await
    }
}
