//! The audit log in the database: appended to within the transaction that it tells of.

use std::io::Write;

use protocols::audit::{AuditError, Checkpoint, Head, Record, Summary};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row;

use super::{Store, StoreError, Tx, query, witness};

/// Records read at once while walking the log.
const PAGE: i64 = 128;

/// A line of an exported log: a record as it is, or a checkpoint under its own name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Exported {
    /// A checkpoint.
    Checkpoint {
        /// The checkpoint.
        checkpoint: Checkpoint,
    },
    /// A record.
    Record(Record),
}

impl Tx<'_> {
    /// Appends a record. It exists if and only if this transaction's changes do.
    pub(crate) async fn record(
        &mut self,
        event: &str,
        subject: &str,
        detail: Value,
    ) -> Result<(), StoreError> {
        let head = self.head().await?;
        let record = Record::after(&head, self.now.as_str(), event, subject, detail)?;
        let seq = i64::try_from(record.seq).map_err(|_| damaged("its number is out of range"))?;
        let text = serde_json::to_string(&record).map_err(|error| damaged(&error.to_string()))?;
        sqlx::query("INSERT INTO audit (seq, record) VALUES (?, ?)")
            .bind(seq)
            .bind(text)
            .execute(&mut *self.inner)
            .await
            .map_err(query("append to the audit log"))?;
        self.head = Some(record.head());
        Ok(())
    }

    /// Signs where the log stands with this transaction's records in it.
    pub(crate) async fn checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        let head = self.head().await?;
        Ok(Checkpoint::sign(&head, &self.store.audit_key))
    }

    /// The same, and keeps it for exports.
    pub(crate) async fn keep_checkpoint(&mut self) -> Result<Checkpoint, StoreError> {
        let checkpoint = self.checkpoint().await?;
        let seq = i64::try_from(checkpoint.seq).map_err(|_| damaged("its number is out of range"))?;
        let text = serde_json::to_string(&checkpoint).map_err(|error| damaged(&error.to_string()))?;
        sqlx::query("INSERT OR REPLACE INTO checkpoints (seq, checkpoint) VALUES (?, ?)")
            .bind(seq)
            .bind(text)
            .execute(&mut *self.inner)
            .await
            .map_err(query("keep a checkpoint"))?;
        Ok(checkpoint)
    }

    async fn head(&mut self) -> Result<Head, StoreError> {
        if let Some(head) = &self.head {
            return Ok(head.clone());
        }
        let row = sqlx::query("SELECT record FROM audit ORDER BY seq DESC LIMIT 1")
            .fetch_optional(&mut *self.inner)
            .await
            .map_err(query("read the audit log"))?;
        let head = match row {
            Some(row) => parse(row.try_get(0).map_err(query("read the audit log"))?)?.head(),
            None => Head::default(),
        };
        self.head = Some(head.clone());
        Ok(head)
    }
}

impl Store {
    /// Walks the whole log, holds it against the kept checkpoints and `also`, and the tables against it.
    ///
    /// # Errors
    /// [`StoreError::Audit`] names the first record that isn't as it was written, [`StoreError::Damaged`] a
    /// row that the log tells of and that is gone.
    pub async fn verify_audit(&self, also: &[Checkpoint]) -> Result<Summary, StoreError> {
        self.export_audit(&mut std::io::sink(), also).await
    }

    /// The last `count` records, the oldest first; not verified.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn last_records(&self, count: u32) -> Result<Vec<Record>, StoreError> {
        const OPERATION: &str = "read the audit log";
        let rows = sqlx::query("SELECT record FROM audit ORDER BY seq DESC LIMIT ?")
            .bind(count)
            .fetch_all(&self.readers)
            .await
            .map_err(query(OPERATION))?;
        rows.iter().rev().map(|row| parse(row.try_get(0).map_err(query(OPERATION))?)).collect()
    }

    /// Writes the whole log as JSON lines, then the kept checkpoints and a fresh one, and verifies it on
    /// the way. Lines up to a broken record are written before the error.
    ///
    /// # Errors
    /// [`StoreError::Audit`], or the writer's.
    pub async fn export_audit(
        &self,
        out: &mut (dyn Write + Send),
        also: &[Checkpoint],
    ) -> Result<Summary, StoreError> {
        // One read transaction: records and checkpoints are of the same moment.
        let mut tx = self.readers.begin().await.map_err(query("read the audit log"))?;
        let rows = sqlx::query("SELECT checkpoint FROM checkpoints ORDER BY seq")
            .fetch_all(&mut *tx)
            .await
            .map_err(query("read the checkpoints"))?;
        let mut checkpoints = also.to_vec();
        for row in rows {
            let text: &str = row.try_get(0).map_err(query("read the checkpoints"))?;
            let checkpoint = serde_json::from_str(text).map_err(|error| StoreError::Damaged {
                what: "a checkpoint".into(),
                problem: error.to_string(),
            })?;
            checkpoints.push(checkpoint);
        }
        if let Some(foreign) = checkpoints.iter().find(|kept| kept.key != self.audit_key.public()) {
            return Err(AuditError::CheckpointKey(foreign.seq).into());
        }

        checkpoints.sort_by_key(|checkpoint| checkpoint.seq);
        let mut walk = Walk::new(&checkpoints);
        loop {
            let rows = sqlx::query("SELECT record FROM audit WHERE seq > ? ORDER BY seq LIMIT ?")
                .bind(walk.seq())
                .bind(PAGE)
                .fetch_all(&mut *tx)
                .await
                .map_err(query("read the audit log"))?;
            for row in &rows {
                let text: &str = row.try_get(0).map_err(query("read the audit log"))?;
                writeln!(out, "{text}").map_err(write_failed)?;
                walk.take(&parse(text)?)?;
            }
            if rows.len() < PAGE as usize {
                break;
            }
        }
        let head = walk.finish()?;
        witness::check(&mut tx).await?;
        checkpoints.push(Checkpoint::sign(&head, &self.audit_key));
        for checkpoint in &checkpoints {
            let line = Exported::Checkpoint { checkpoint: checkpoint.clone() };
            let text = serde_json::to_string(&line).map_err(|error| damaged(&error.to_string()))?;
            writeln!(out, "{text}").map_err(write_failed)?;
        }
        let key = Some(self.audit_key.public());
        Ok(Summary { head, checkpoints: checkpoints.len(), key })
    }
}

/// Verifies a log record by record, so that its length doesn't matter.
struct Walk<'a> {
    head: Head,
    /// Checkpoints not met yet, in order.
    due: std::iter::Peekable<std::slice::Iter<'a, Checkpoint>>,
}

impl<'a> Walk<'a> {
    fn new(checkpoints: &'a [Checkpoint]) -> Self {
        Self { head: Head::default(), due: checkpoints.iter().peekable() }
    }

    fn seq(&self) -> i64 {
        i64::try_from(self.head.seq).unwrap_or(i64::MAX)
    }

    fn take(&mut self, record: &Record) -> Result<(), StoreError> {
        let expected = self.head.seq + 1;
        if record.seq != expected {
            return Err(AuditError::Sequence { expected, found: record.seq }.into());
        }
        if record.previous != self.head.hash {
            return Err(AuditError::Previous(record.seq).into());
        }
        let Record { time, event, subject, detail, .. } = record.clone();
        if Record::after(&self.head, time, event, subject, detail)? != *record {
            return Err(AuditError::Hash(record.seq).into());
        }
        self.head = record.head();
        self.meet()
    }

    fn meet(&mut self) -> Result<(), StoreError> {
        while let Some(checkpoint) = self.due.next_if(|checkpoint| checkpoint.seq <= self.head.seq) {
            checkpoint.verify()?;
            if (checkpoint.seq, &checkpoint.hash) != (self.head.seq, &self.head.hash) {
                return Err(AuditError::CheckpointHash(checkpoint.seq).into());
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Head, StoreError> {
        // An empty log may have checkpoints of its emptiness.
        self.meet()?;
        match self.due.next() {
            Some(due) => Err(AuditError::Truncated { end: self.head.seq, checkpoint: due.seq }.into()),
            None => Ok(self.head),
        }
    }
}

fn parse(text: &str) -> Result<Record, StoreError> {
    serde_json::from_str(text).map_err(|error| damaged(&error.to_string()))
}

fn damaged(problem: &str) -> StoreError {
    StoreError::Damaged { what: "a record of the audit log".into(), problem: problem.into() }
}

fn write_failed(source: std::io::Error) -> StoreError {
    StoreError::Query { operation: "be exported", source: sqlx::Error::Io(source) }
}
