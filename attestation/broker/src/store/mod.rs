//! The broker's state in one SQLite file: owners, registrations with their sealed keys, policies,
//! retirements, releases and the audit log.
//!
//! One writer, and every change in a transaction together with the audit records that tell of it. An
//! error of any kind is an error: nothing is ever read as "no policy" because the database failed.

mod audit_log;
mod blobs;
mod compat;
mod launches;
mod owners;
mod releases;
mod resources;
mod schema;
mod standing;
mod statements;
mod witness;

use std::path::Path;
use std::time::Duration;

use protocols::audit::{AuditError, AuditKey};
use protocols::owner::StatementError;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Row, Sqlite, Transaction};

use crate::clock::{self, Clock};
use crate::secrets::{MasterKey, Place, SecretError};

pub use audit_log::Exported;
pub use owners::Enrolment;
pub use releases::{Bound, Confirmed, Release, ReleaseCounts, Reservation};
pub(crate) use resources::Kept;
pub use standing::Standing;
pub use statements::{Outcome, Registered};

/// How long a transaction may wait for the writer before it fails.
const WAIT: Duration = Duration::from_secs(5);

/// Connections for reading beside the writer.
const READERS: u32 = 2;

/// What went wrong in the database. Fatal to the request, never a decision.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the database can't {operation}")]
    Query {
        /// What was tried.
        operation: &'static str,
        /// What it said.
        source: sqlx::Error,
    },
    /// Written by a later program.
    #[error("the database has version {found}; this broker knows versions up to {newest}")]
    Newer {
        /// Version found.
        found: i64,
        /// Newest version known.
        newest: i64,
    },
    /// The wrong `master.key` lies beside the database.
    #[error("master.key is not the one that this database was made with; restore the right one")]
    MasterKey,
    /// A stored secret or row doesn't authenticate.
    #[error("{what} in the database was changed")]
    Secret {
        /// Which row.
        what: String,
        /// What failed.
        source: SecretError,
    },
    /// A stored statement isn't what its owner signed.
    #[error("{what} in the database was changed")]
    Statement {
        /// Which row.
        what: String,
        /// What failed.
        source: StatementError,
    },
    /// A stored value can't be what this broker wrote.
    #[error("{what} in the database was changed: {problem}")]
    Damaged {
        /// Which row.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The audit log isn't whole, or a record can't be made.
    #[error("audit log")]
    Audit(#[from] AuditError),
    /// The system gave no randomness.
    #[error("the system's random number generator failed")]
    Random,
}

fn query(operation: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Query { operation, source }
}

/// An open database.
#[derive(Debug)]
pub struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    master: MasterKey,
    audit_key: AuditKey,
    clock: Clock,
    registrations: standing::KnownRegistrations,
    policies: standing::KnownPolicies,
}

impl Store {
    /// Makes a new database at `path` (which must not exist) under `master`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create(path: &Path, master: &MasterKey) -> Result<(), StoreError> {
        let mut connection = sqlx::SqliteConnection::connect_with(&options(path).create_if_missing(true))
            .await
            .map_err(query("be made"))?;
        schema::migrate(&mut connection).await?;
        let check = master
            .seal(CHECK, b"")
            .map_err(|source| StoreError::Secret { what: CHECK_ROW.into(), source })?;
        sqlx::query("INSERT INTO meta (name, value) VALUES (?, ?)")
            .bind(CHECK_ROW)
            .bind(check)
            .execute(&mut connection)
            .await
            .map_err(query("write its first row"))?;
        connection.close().await.map_err(query("be closed"))
    }

    /// Opens the database at `path`, brings its tables up to date, and holds `master` against it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(
        path: &Path,
        master: MasterKey,
        audit_key: AuditKey,
        clock: Clock,
    ) -> Result<Self, StoreError> {
        let pool = |most, options: SqliteConnectOptions| {
            SqlitePoolOptions::new()
                .max_connections(most)
                .acquire_timeout(WAIT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                // A commit that fails for want of room is rolled back by SQLite itself, and sqlx goes on counting
                // a transaction: such a connection would refuse every later write.
                .before_acquire(|connection, _| Box::pin(async move { Ok(!connection.is_in_transaction()) }))
                .connect_with(options)
        };
        let writer = pool(1, options(path)).await.map_err(query("be opened"))?;
        schema::migrate(&mut *writer.acquire().await.map_err(query("be opened"))?).await?;
        let readers = pool(READERS, options(path).read_only(true)).await.map_err(query("be opened"))?;
        let (registrations, policies) = Default::default();
        let store = Self { writer, readers, master, audit_key, clock, registrations, policies };
        store.check_master_key().await?;
        Ok(store)
    }

    async fn check_master_key(&self) -> Result<(), StoreError> {
        let row = sqlx::query("SELECT value FROM meta WHERE name = ?")
            .bind(CHECK_ROW)
            .fetch_one(&self.readers)
            .await
            .map_err(query("be read"))?;
        let sealed: Vec<u8> = row.try_get(0).map_err(query("be read"))?;
        self.master.open(CHECK, &sealed).map(|_| ()).map_err(|_| StoreError::MasterKey)
    }

    /// Starts a transaction that may write. Only one runs at a time; it sees everything before it.
    ///
    /// # Errors
    /// [`StoreError::Query`], also when the writer stays busy.
    pub async fn begin(&self) -> Result<Tx<'_>, StoreError> {
        let inner = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(query("start a change"))?;
        let now = clock::rfc3339(self.clock.now());
        Ok(Tx { store: self, inner, now, head: None })
    }

    /// Whether the database answers and would take a write.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub async fn probe(&self) -> Result<(), StoreError> {
        let tx = self.begin().await?;
        tx.inner.rollback().await.map_err(query("end a probe"))
    }

    /// Finishes what is under way and closes the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A transaction. Dropped without `commit`, it never happened.
pub struct Tx<'s> {
    store: &'s Store,
    inner: Transaction<'static, Sqlite>,
    now: String,
    /// Where the audit log stands, once this transaction has asked.
    head: Option<protocols::audit::Head>,
}

impl Tx<'_> {
    fn seal(&self, place: Place<'_>, secret: &[u8]) -> Result<Vec<u8>, StoreError> {
        let seal = |source| StoreError::Secret { what: place.key_id.to_owned(), source };
        self.store.master.seal(place, secret).map_err(seal)
    }

    /// Makes the changes and their audit records lasting, all or none.
    ///
    /// # Errors
    /// [`StoreError::Query`]; then nothing changed.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.inner.commit().await.map_err(query("make a change lasting"))
    }
}

/// The row that tells the right master key from another one.
const CHECK_ROW: &str = "master-key-check";
const CHECK: Place<'_> = Place { owner: "", key_id: CHECK_ROW };

fn options(path: &Path) -> SqliteConnectOptions {
    // FULL: a release that an owner's checkpoint vouches for survives a power cut.
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(WAIT)
        .foreign_keys(true)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .pragma("secure_delete", "ON")
}
