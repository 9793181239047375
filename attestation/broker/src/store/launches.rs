//! Launches of SEV and SEV-ES guests: sessions that wait for their one measurement, and connections by which launched
//! guests come back. Their keys are sealed; both are bounded in number and age.

use sqlx::Row;
use zeroize::Zeroizing;

use super::{StoreError, Tx, query};
use crate::clock;
use crate::secrets::Place;

/// Seconds that a session waits for its measurement: a launch takes a few.
pub(crate) const SESSION_SECONDS: i64 = 600;
/// Sessions of one key at once, so that all are bounded by what owners registered. A platform's certificates and a
/// guest's initdata are no secrets: whoever shows others' gets sessions that only the real platform can use, so a new
/// session costs the oldest of the same key on the same chip, and nobody else's launch.
const SESSIONS_PER_KEY: i64 = 128;
/// Sessions of one key on one chip at once.
const SESSIONS_PER_CHIP: i64 = 16;
/// Sessions at once from one address.
const SESSIONS_PER_ADDRESS: i64 = 128;
/// Seconds after which a connection that nobody uses is forgotten.
const CONNECTION_SECONDS: i64 = 30 * 86_400;
/// Connections of one key; the one that was used longest ago goes first.
const CONNECTIONS_PER_KEY: i64 = 1024;
/// Seconds between notes of use.
const NOTED_SECONDS: i64 = 3600;

/// A session or connection as stored.
pub(crate) struct Sealed {
    /// The registered key that it is for.
    pub(crate) key_id: String,
    /// What was stored.
    pub(crate) secret: Zeroizing<Vec<u8>>,
}

const fn session(id: &str) -> Place<'_> {
    Place { owner: "launch session", key_id: id }
}

const fn connection(id: &str) -> Place<'_> {
    Place { owner: "launch connection", key_id: id }
}

impl Tx<'_> {
    fn seconds(&self) -> i64 {
        i64::try_from(clock::unix(self.store.clock.now())).unwrap_or(i64::MAX)
    }

    fn unseal(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let what = format!("{} {}", place.owner, place.key_id);
        self.store.master.open(place, sealed).map_err(|source| StoreError::Secret { what, source })
    }

    /// Stores a session, in the place of the oldest one of the same key and chip where there are too many. False: too many
    /// are of this address.
    pub(crate) async fn open_launch(
        &mut self,
        id: &str,
        (key_id, chip): (&str, &str),
        address: &str,
        secret: &[u8],
    ) -> Result<bool, StoreError> {
        const OPERATION: &str = "store a launch session";
        let now = self.seconds();
        // Sessions of the future are of a clock that was set back.
        sqlx::query("DELETE FROM launch_sessions WHERE opened_at < ? OR opened_at > ?")
            .bind(now - SESSION_SECONDS)
            .bind(now)
            .execute(&mut *self.inner)
            .await
            .map_err(query(OPERATION))?;
        let open: i64 = sqlx::query("SELECT COUNT(*) FROM launch_sessions WHERE address = ?")
            .bind(address)
            .fetch_one(&mut *self.inner)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(query(OPERATION))?;
        if open >= SESSIONS_PER_ADDRESS {
            return Ok(false);
        }
        // rowid grows with each session, also within a second.
        sqlx::query(
            "DELETE FROM launch_sessions WHERE id IN (SELECT id FROM launch_sessions WHERE key_id = ? AND chip = ?
                ORDER BY opened_at DESC, rowid DESC LIMIT -1 OFFSET ?)
             OR id IN (SELECT id FROM launch_sessions WHERE key_id = ?
                ORDER BY opened_at DESC, rowid DESC LIMIT -1 OFFSET ?)",
        )
        .bind(key_id)
        .bind(chip)
        .bind(SESSIONS_PER_CHIP - 1)
        .bind(key_id)
        .bind(SESSIONS_PER_KEY - 1)
        .execute(&mut *self.inner)
        .await
        .map_err(query(OPERATION))?;
        let sealed = self.seal(session(id), secret)?;
        sqlx::query(
            "INSERT INTO launch_sessions (id, key_id, chip, address, opened_at, sealed) VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(key_id)
        .bind(chip)
        .bind(address)
        .bind(now)
        .bind(sealed)
        .execute(&mut *self.inner)
        .await
        .map_err(query(OPERATION))?;
        Ok(true)
    }

    /// Takes a session out: it is there for nobody afterwards. None: unknown, taken before, or too old.
    pub(crate) async fn take_launch(&mut self, id: &str) -> Result<Option<Sealed>, StoreError> {
        const OPERATION: &str = "take a launch session";
        let row = sqlx::query("DELETE FROM launch_sessions WHERE id = ? RETURNING key_id, sealed, opened_at")
            .bind(id)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(query(OPERATION))?;
        let Some(row) = row else { return Ok(None) };
        let opened_at: i64 = row.try_get(2).map_err(query(OPERATION))?;
        if !(0..=SESSION_SECONDS).contains(&(self.seconds() - opened_at)) {
            return Ok(None);
        }
        let key_id = row.try_get(0).map_err(query(OPERATION))?;
        let sealed: &[u8] = row.try_get(1).map_err(query(OPERATION))?;
        Ok(Some(Sealed { key_id, secret: self.unseal(session(id), sealed)? }))
    }

    /// Stores a connection, in the place of the key's oldest one where there are too many.
    pub(crate) async fn add_connection(
        &mut self,
        id: &str,
        key_id: &str,
        secret: &[u8],
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "store a launch connection";
        let now = self.seconds();
        sqlx::query(
            "DELETE FROM launch_connections WHERE used_at < ? OR id IN (SELECT id FROM launch_connections
                WHERE key_id = ? ORDER BY used_at DESC LIMIT -1 OFFSET ?)",
        )
        .bind(now - CONNECTION_SECONDS)
        .bind(key_id)
        .bind(CONNECTIONS_PER_KEY - 1)
        .execute(&mut *self.inner)
        .await
        .map_err(query(OPERATION))?;
        let sealed = self.seal(connection(id), secret)?;
        sqlx::query("INSERT INTO launch_connections (id, key_id, used_at, sealed) VALUES (?, ?, ?, ?)")
            .bind(id)
            .bind(key_id)
            .bind(now)
            .bind(sealed)
            .execute(&mut *self.inner)
            .await
            .map(|_| ())
            .map_err(query(OPERATION))
    }

    /// A connection, if there is one. Who asks has proved nothing yet.
    pub(crate) async fn connection(&mut self, id: &str) -> Result<Option<Sealed>, StoreError> {
        const OPERATION: &str = "look up a launch connection";
        let row = sqlx::query("SELECT key_id, sealed FROM launch_connections WHERE id = ? AND used_at >= ?")
            .bind(id)
            .bind(self.seconds() - CONNECTION_SECONDS)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(query(OPERATION))?;
        let Some(row) = row else { return Ok(None) };
        let key_id = row.try_get(0).map_err(query(OPERATION))?;
        let sealed: &[u8] = row.try_get(1).map_err(query(OPERATION))?;
        Ok(Some(Sealed { key_id, secret: self.unseal(connection(id), sealed)? }))
    }

    /// Binds a connection to the attested key that used it first. False: it is another key's.
    pub(crate) async fn bind_connection(&mut self, id: &str, attested_key: &str) -> Result<bool, StoreError> {
        const OPERATION: &str = "bind a launch connection";
        let row = sqlx::query("SELECT attested_key, used_at FROM launch_connections WHERE id = ?")
            .bind(id)
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(query(OPERATION))?;
        let Some(row) = row else { return Ok(false) };
        let bound: Option<&str> = row.try_get(0).map_err(query(OPERATION))?;
        let used_at: i64 = row.try_get(1).map_err(query(OPERATION))?;
        if bound.is_some_and(|bound| bound != attested_key) {
            return Ok(false);
        }
        let now = self.seconds();
        if bound.is_some() && now - used_at < NOTED_SECONDS {
            return Ok(true);
        }
        sqlx::query("UPDATE launch_connections SET attested_key = ?, used_at = ? WHERE id = ?")
            .bind(attested_key)
            .bind(now)
            .bind(id)
            .execute(&mut *self.inner)
            .await
            .map(|_| true)
            .map_err(query(OPERATION))
    }
}
