//! The database's tables, as a list of migrations. A row of the list never changes once released; a
//! change is a new row.

use sqlx::{Executor, Row, SqliteConnection};

use super::StoreError;

/// A migration: the version that it brings the database to, and its statements.
struct Migration {
    version: i64,
    statements: &'static [&'static str],
}

const MIGRATIONS: &[Migration] = &[FIRST, RESOURCES, CONFIRMATIONS, BLOBS, LAUNCHES];

const FIRST: Migration = Migration {
    version: 1,
    statements: &[
        // One row a fact about the database itself.
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT",
        // tag: made with the master key, so that a key can't be put in place in the database alone.
        "CREATE TABLE owners (
            repository TEXT PRIMARY KEY,
            public_key TEXT NOT NULL,
            enrolled_at TEXT NOT NULL,
            tag BLOB NOT NULL
        ) STRICT",
        // The columns are for finding a row; what decides is the owner's signed statement in it.
        // Versions are create-only: neither a key id, a revision nor a sealed spec comes twice.
        "CREATE TABLE registrations (
            key_id TEXT PRIMARY KEY,
            repository TEXT NOT NULL REFERENCES owners,
            lineage TEXT NOT NULL,
            revision INTEGER NOT NULL CHECK (revision > 0),
            spec_digest TEXT NOT NULL,
            statement TEXT NOT NULL,
            sealed_key BLOB NOT NULL,
            created_at TEXT NOT NULL,
            UNIQUE (repository, lineage, revision),
            UNIQUE (repository, spec_digest)
        ) STRICT",
        "CREATE TABLE policies (
            repository TEXT NOT NULL REFERENCES owners,
            lineage TEXT NOT NULL,
            serial INTEGER NOT NULL CHECK (serial > 0),
            statement TEXT NOT NULL,
            created_at TEXT NOT NULL,
            PRIMARY KEY (repository, lineage, serial)
        ) STRICT",
        "CREATE TABLE retirements (
            repository TEXT NOT NULL REFERENCES owners,
            lineage TEXT NOT NULL,
            revision INTEGER NOT NULL,
            statement TEXT NOT NULL,
            created_at TEXT NOT NULL,
            PRIMARY KEY (repository, lineage, revision)
        ) STRICT",
        // One row a (key, sealed spec, attested key): asking again is the same release.
        "CREATE TABLE releases (
            id TEXT PRIMARY KEY,
            key_id TEXT NOT NULL REFERENCES registrations,
            spec_digest TEXT NOT NULL,
            attested_key TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('reserved', 'delivered')),
            policy_serial INTEGER NOT NULL,
            reserved_at TEXT NOT NULL,
            delivered_at TEXT,
            UNIQUE (key_id, spec_digest, attested_key)
        ) STRICT",
        // record: the whole record as JSON; the chain in it makes changes visible, the triggers only
        // keep accidents away.
        "CREATE TABLE audit (seq INTEGER PRIMARY KEY, record TEXT NOT NULL) STRICT",
        "CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit
            BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
        "CREATE TRIGGER audit_keeps_all BEFORE DELETE ON audit
            BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END",
        "CREATE TABLE checkpoints (seq INTEGER PRIMARY KEY, checkpoint TEXT NOT NULL) STRICT",
    ],
};

const RESOURCES: Migration = Migration {
    version: 2,
    statements: &[
        // Create-only, like registrations; what decides is the owner's signed statement in the row.
        "CREATE TABLE resources (
            uri TEXT PRIMARY KEY,
            repository TEXT NOT NULL REFERENCES owners,
            statement TEXT NOT NULL,
            sealed_content BLOB NOT NULL,
            created_at TEXT NOT NULL
        ) STRICT",
    ],
};

const CONFIRMATIONS: Migration = Migration {
    version: 3,
    statements: &[
        // A table's checks can't be changed in place.
        "CREATE TABLE releases_3 (
            id TEXT PRIMARY KEY,
            key_id TEXT NOT NULL REFERENCES registrations,
            spec_digest TEXT NOT NULL,
            attested_key TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('reserved', 'delivered', 'confirmed')),
            policy_serial INTEGER NOT NULL,
            reserved_at TEXT NOT NULL,
            delivered_at TEXT,
            confirmed_at TEXT,
            UNIQUE (key_id, spec_digest, attested_key)
        ) STRICT",
        "INSERT INTO releases_3 SELECT id, key_id, spec_digest, attested_key, state, policy_serial, reserved_at,
            delivered_at, NULL FROM releases",
        "DROP TABLE releases",
        "ALTER TABLE releases_3 RENAME TO releases",
        // The operator's own resources, for stock clients.
        "CREATE TABLE compat_resources (
            uri TEXT PRIMARY KEY,
            sealed_content BLOB NOT NULL,
            written_at TEXT NOT NULL
        ) STRICT",
    ],
};

const BLOBS: Migration = Migration {
    version: 4,
    statements: &[
        // What owners say of their ESM blobs; the highest serial counts.
        "CREATE TABLE blobs (
            blob TEXT NOT NULL,
            serial INTEGER NOT NULL CHECK (serial > 0),
            repository TEXT NOT NULL REFERENCES owners,
            statement TEXT NOT NULL,
            created_at TEXT NOT NULL,
            PRIMARY KEY (blob, serial)
        ) STRICT",
        // statement: the owner's; NULL if the operator said so.
        "CREATE TABLE blob_denials (
            blob TEXT PRIMARY KEY,
            statement TEXT,
            created_at TEXT NOT NULL
        ) STRICT",
    ],
};

const LAUNCHES: Migration = Migration {
    version: 5,
    statements: &[
        // Launch sessions of SEV guests, gone once they are measured. Times are seconds since 1970.
        "CREATE TABLE launch_sessions (
            id TEXT PRIMARY KEY,
            key_id TEXT NOT NULL REFERENCES registrations,
            chip TEXT NOT NULL,
            address TEXT NOT NULL,
            opened_at INTEGER NOT NULL,
            sealed BLOB NOT NULL
        ) STRICT",
        // Connections by which launched guests come back, each bound to the first attested key that uses it.
        "CREATE TABLE launch_connections (
            id TEXT PRIMARY KEY,
            key_id TEXT NOT NULL REFERENCES registrations,
            attested_key TEXT,
            used_at INTEGER NOT NULL,
            sealed BLOB NOT NULL
        ) STRICT",
        "CREATE INDEX launch_sessions_of_keys ON launch_sessions (key_id, chip, opened_at)",
        "CREATE INDEX launch_connections_of_keys ON launch_connections (key_id, used_at)",
    ],
};

/// Brings the database up to this program's version.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let query = |source| StoreError::Query { operation: "read its version", source };
    let found: i64 = connection.fetch_one("PRAGMA user_version").await.map_err(query)?.get(0);
    let newest = MIGRATIONS.last().map_or(0, |migration| migration.version);
    if found > newest {
        return Err(StoreError::Newer { found, newest });
    }
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > found) {
        let query = |source| StoreError::Query { operation: "migrate its tables", source };
        connection.execute("BEGIN IMMEDIATE").await.map_err(query)?;
        for statement in migration.statements {
            connection.execute(*statement).await.map_err(query)?;
        }
        // A pragma takes no bound values; this is a number from the table above.
        let version = format!("PRAGMA user_version = {}", migration.version);
        connection.execute(sqlx::AssertSqlSafe(version)).await.map_err(query)?;
        connection.execute("COMMIT").await.map_err(query)?;
    }
    Ok(())
}
