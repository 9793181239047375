//! The audit log as a witness of the other tables: what it tells of must still be there. Whoever holds the
//! database can't forge a policy, but could delete the newest one, a retirement or a blob's denial, and
//! so go back to what an owner ended.

use sqlx::{Row, Sqlite, Transaction};

use super::{StoreError, query};

const OPERATION: &str = "hold its tables against the audit log";

/// For each event that adds a row: the row's name for people, and the first record that misses its row.
/// Subjects are a key id, a blob's id, a repository, or `repository/lineage`, in neither of which a slash can stand.
const MISSING: &[(&str, &str)] = &[
    (
        "an owner",
        "SELECT seq, record ->> '$.subject' AS subject FROM audit WHERE record ->> '$.event' = 'owner.enrolled'
            AND NOT EXISTS (SELECT 1 FROM owners WHERE repository = subject)
            ORDER BY seq LIMIT 1",
    ),
    (
        "a registration",
        "SELECT seq, record ->> '$.subject' AS subject FROM audit WHERE record ->> '$.event' = 'key.registered'
            AND NOT EXISTS (SELECT 1 FROM registrations WHERE key_id = subject)
            ORDER BY seq LIMIT 1",
    ),
    (
        "a policy",
        "SELECT seq, record ->> '$.subject' AS subject FROM audit WHERE record ->> '$.event' = 'policy.set'
            AND NOT EXISTS (SELECT 1 FROM policies WHERE repository = substr(subject, 1, instr(subject, '/') - 1)
                AND lineage = substr(subject, instr(subject, '/') + 1) AND serial = record ->> '$.detail.serial')
            ORDER BY seq LIMIT 1",
    ),
    (
        "a retirement",
        "SELECT seq, record ->> '$.subject' AS subject FROM audit WHERE record ->> '$.event' = 'revision.retired'
            AND NOT EXISTS (SELECT 1 FROM retirements WHERE repository = substr(subject, 1, instr(subject, '/') - 1)
                AND lineage = substr(subject, instr(subject, '/') + 1) AND revision = record ->> '$.detail.revision')
            ORDER BY seq LIMIT 1",
    ),
    // Or the machines of an older statement would count again.
    (
        "an enrolment",
        "SELECT seq, record ->> '$.subject' AS subject FROM audit WHERE record ->> '$.event' = 'blob.enrolled'
            AND NOT EXISTS (SELECT 1 FROM blobs WHERE blob = subject AND serial = record ->> '$.detail.serial'
                AND repository = record ->> '$.detail.repository')
            ORDER BY seq LIMIT 1",
    ),
    (
        "a denial",
        "SELECT seq, record ->> '$.subject' AS subject FROM audit WHERE record ->> '$.event' = 'blob.denied'
            AND NOT EXISTS (SELECT 1 FROM blob_denials WHERE blob = subject)
            ORDER BY seq LIMIT 1",
    ),
    // Or a key with few releases would have more.
    (
        "a release",
        "SELECT seq, record ->> '$.subject' AS subject FROM audit WHERE record ->> '$.event' = 'key.released'
            AND NOT EXISTS (SELECT 1 FROM releases WHERE id = record ->> '$.detail.release')
            ORDER BY seq LIMIT 1",
    ),
];

/// Checks that no row is gone that the log, itself verified, tells of.
pub(super) async fn check(tx: &mut Transaction<'static, Sqlite>) -> Result<(), StoreError> {
    for (what, statement) in MISSING {
        let row = sqlx::query(*statement).fetch_optional(&mut **tx).await.map_err(query(OPERATION))?;
        if let Some(row) = row {
            let seq: i64 = row.try_get(0).map_err(query(OPERATION))?;
            let subject: &str = row.try_get(1).map_err(query(OPERATION))?;
            return Err(StoreError::Damaged {
                what: format!("{what} of '{subject}'"),
                problem: format!(
                    "record {seq} of the audit log tells of it, but it is gone; restore a backup"
                ),
            });
        }
    }
    Ok(())
}
