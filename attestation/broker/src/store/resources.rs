//! Resources: bytes that owners keep for their lineages' guests, sealed at rest. Create-only.

use protocols::name;
use protocols::owner::{IMAGE_KEY_KIND, PolicyStatement, Resource, Verified};
use protocols::rcar::ResourceUri;
use sqlx::Row;
use zeroize::Zeroizing;

use super::statements::same;
use super::{Outcome, StoreError, Tx, query};
use crate::secrets::Place;

/// A resource as stored.
pub(crate) struct Kept {
    statement: Verified<Resource>,
    sealed: Vec<u8>,
}

impl Kept {
    /// What the owner signed.
    pub(crate) fn statement(&self) -> &Resource {
        &self.statement
    }
}

impl Tx<'_> {
    /// Stores a resource.
    pub(crate) async fn keep(
        &mut self,
        resource: &Verified<Resource>,
        content: &[u8],
    ) -> Result<Outcome, StoreError> {
        let Resource { repository, uri, .. } = &**resource;
        if let Some(present) = self.kept(uri).await? {
            let same = present.statement.jws() == resource.jws() || repeats(present.statement(), resource);
            return Ok(if same { Outcome::Same } else { Outcome::Taken(uri.clone()) });
        }
        let sealed = self.seal(Place { owner: repository, key_id: uri }, content)?;
        sqlx::query(
            "INSERT INTO resources (uri, repository, statement, sealed_content, created_at) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(uri)
        .bind(repository)
        .bind(resource.jws())
        .bind(sealed)
        .bind(&self.now)
        .execute(&mut *self.inner)
        .await
        .map_err(query("store a resource"))?;
        Ok(Outcome::Added)
    }

    /// A resource, its statement verified with its owner's key.
    pub(crate) async fn kept(&mut self, uri: &str) -> Result<Option<Kept>, StoreError> {
        const OPERATION: &str = "look up a resource";
        let row = sqlx::query("SELECT repository, statement, sealed_content FROM resources WHERE uri = ?")
            .bind(uri)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(query(OPERATION))?;
        let Some(row) = row else { return Ok(None) };
        let repository: String = row.try_get(0).map_err(query(OPERATION))?;
        let jws: String = row.try_get(1).map_err(query(OPERATION))?;
        let sealed = row.try_get(2).map_err(query(OPERATION))?;
        let statement: Verified<Resource> = self.reverify(&repository, &jws, uri).await?;
        same(uri, &statement.uri, uri)?;
        Ok(Some(Kept { statement, sealed }))
    }

    /// Opens a resource; its owner's signature covers its hash.
    pub(crate) fn open_kept(&self, kept: &Kept) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let Resource { repository, uri, sha256, .. } = kept.statement();
        let content = self
            .store
            .master
            .open(Place { owner: repository, key_id: uri }, &kept.sealed)
            .map_err(|source| StoreError::Secret { what: uri.clone(), source })?;
        same(uri, &name::sha256(&content), sha256)?;
        Ok(content)
    }

    /// The policy in force for the lineage that a resource is for.
    pub(crate) async fn policy_for(
        &mut self,
        kept: &Kept,
        lineage: &str,
    ) -> Result<Option<Verified<PolicyStatement>>, StoreError> {
        self.policy(&kept.statement().repository, lineage).await
    }
}

/// Whether a second statement of an image key says nothing that the first doesn't: the same bytes, for no
/// further guests under a policy. Keys are pushed again with each pod that uses their image.
fn repeats(first: &Resource, second: &Resource) -> bool {
    let image_key = first.uri.parse().is_ok_and(|uri: ResourceUri| uri.kind() == IMAGE_KEY_KIND);
    let listed = || {
        first.lineage == second.lineage && second.init_data.iter().all(|one| first.init_data.contains(one))
    };
    image_key
        && first.uri == second.uri
        && first.sha256 == second.sha256
        && (second.init_data.is_empty() || listed())
}
