//! Sealed secrets and options of endpoints: what the engine reads, and every write of them. Nothing here is plain text.
//!
//! Writes `endpoint_secrets` and `endpoint_sealed`.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

use postrider_domain::endpoint::SecretVersion;
use postrider_domain::endpoint_options::SealedPart;
use postrider_domain::id::RowKey;
use postrider_domain::time::Timestamp;
use postrider_store::column::header_names_from;
use postrider_store::{SealedParts, SealedSigningKey, SecretRotation, Secrets, StoreError};

use crate::SqliteStore;
use crate::machinery::column::{broken, unexpected};
use crate::machinery::writer::WriteTx;

#[async_trait]
impl Secrets for SqliteStore {
    async fn find_secret(&self, endpoint_key: RowKey, version: SecretVersion) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |tx| {
            tx.connection
                .prepare_cached("SELECT sealed FROM endpoint_secrets WHERE endpoint_key = ?1 AND version = ?2")?
                .query_row(params![endpoint_key.as_i64(), version.0], |row| row.get(0))
                .optional()
        })
        .await
    }

    async fn find_signing_key(
        &self,
        endpoint_key: RowKey,
        version: SecretVersion,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |tx| {
            let found = tx
                .connection
                .prepare_cached(
                    "SELECT sealed_signing_key FROM endpoint_secrets WHERE endpoint_key = ?1 AND version = ?2",
                )?
                .query_row(params![endpoint_key.as_i64(), version.0], |row| row.get(0))
                .optional()?;
            Ok(found.flatten())
        })
        .await
    }

    async fn find_sealed_parts(&self, endpoint_key: RowKey) -> Result<Option<SealedParts>, StoreError> {
        self.read(move |tx| find_sealed_parts(tx.connection, endpoint_key)).await
    }
}

fn find_sealed_parts(connection: &Connection, endpoint_key: RowKey) -> Result<Option<SealedParts>, rusqlite::Error> {
    let found = connection
        .prepare_cached(
            "SELECT header_names, sealed_version, url FROM endpoints WHERE key = ?1 AND deleted_at IS NULL",
        )?
        .query_row([endpoint_key.as_i64()], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((names, version, url)) = found else { return Ok(None) };
    let mut select =
        connection.prepare_cached("SELECT sealed FROM endpoint_sealed WHERE endpoint_key = ?1 AND part = ?2")?;
    let mut part = |part: SealedPart| -> Result<Option<Vec<u8>>, rusqlite::Error> {
        select.query_row(params![endpoint_key.as_i64(), part.to_string()], |row| row.get(0)).optional()
    };
    let mut headers = Vec::new();
    for name in header_names_from(&names).map_err(broken)? {
        let sealed = part(SealedPart::Header(name.clone()))?.ok_or_else(|| unexpected("endpoints.header_names"))?;
        headers.push((name, sealed));
    }
    Ok(Some(SealedParts { version, url, headers, client_certificate: part(SealedPart::Certificate)? }))
}

/// Stores the secret of a new endpoint.
pub fn insert_first(tx: &WriteTx<'_>, endpoint_key: RowKey, sealed: &[u8]) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("INSERT INTO endpoint_secrets (endpoint_key, version, sealed) VALUES (?1, ?2, ?3)")?
        .execute(params![endpoint_key.as_i64(), SecretVersion::FIRST.0, sealed])?;
    Ok(())
}

/// Stores the secret of a rotation. `signing_key` is set if the endpoint signs with `v1a`.
pub fn insert_rotated(
    tx: &WriteTx<'_>,
    endpoint_key: RowKey,
    rotation: &SecretRotation,
    signing_key: Option<&SealedSigningKey>,
) -> Result<(), rusqlite::Error> {
    let overlap_until = (!rotation.overlap.is_zero()).then(|| tx.now.plus(rotation.overlap).millis());
    tx.connection
        .prepare_cached(
            "INSERT INTO endpoint_secrets (endpoint_key, version, sealed, overlap_until, sealed_signing_key)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            endpoint_key.as_i64(),
            rotation.version.0,
            rotation.sealed,
            overlap_until,
            signing_key.map(|key| key.sealed.as_slice()),
        ])?;
    Ok(())
}

/// Stores the signing key that a version of the secret did not have before.
pub fn write_signing_key(
    tx: &WriteTx<'_>,
    endpoint_key: RowKey,
    version: SecretVersion,
    key: &SealedSigningKey,
) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("UPDATE endpoint_secrets SET sealed_signing_key = ?3 WHERE endpoint_key = ?1 AND version = ?2")?
        .execute(params![endpoint_key.as_i64(), version.0, key.sealed])?;
    Ok(())
}

pub fn put_part(
    tx: &WriteTx<'_>,
    endpoint_key: RowKey,
    part: &SealedPart,
    sealed: &[u8],
) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("INSERT OR REPLACE INTO endpoint_sealed (endpoint_key, part, sealed) VALUES (?1, ?2, ?3)")?
        .execute(params![endpoint_key.as_i64(), part.to_string(), sealed])?;
    Ok(())
}

pub fn remove_part(tx: &WriteTx<'_>, endpoint_key: RowKey, part: &SealedPart) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("DELETE FROM endpoint_sealed WHERE endpoint_key = ?1 AND part = ?2")?
        .execute(params![endpoint_key.as_i64(), part.to_string()])?;
    Ok(())
}

/// Erases the secrets and sealed options of a deleted endpoint.
pub fn erase_of_endpoint(tx: &WriteTx<'_>, endpoint_key: RowKey) -> Result<(), rusqlite::Error> {
    for sql in
        ["DELETE FROM endpoint_secrets WHERE endpoint_key = ?1", "DELETE FROM endpoint_sealed WHERE endpoint_key = ?1"]
    {
        tx.connection.prepare_cached(sql)?.execute([endpoint_key.as_i64()])?;
    }
    Ok(())
}

/// Erases the secrets and sealed options of a workspace's endpoints. Call it before the endpoints are deleted: it skips
/// deleted endpoints, whose secrets are erased already.
pub fn erase_of_workspace(tx: &WriteTx<'_>, workspace: RowKey) -> Result<(), rusqlite::Error> {
    for sql in [
        "DELETE FROM endpoint_secrets WHERE endpoint_key IN
             (SELECT key FROM endpoints WHERE workspace_key = ?1 AND deleted_at IS NULL)",
        "DELETE FROM endpoint_sealed WHERE endpoint_key IN
             (SELECT key FROM endpoints WHERE workspace_key = ?1 AND deleted_at IS NULL)",
    ] {
        tx.connection.prepare_cached(sql)?.execute([workspace.as_i64()])?;
    }
    Ok(())
}

/// Old versions that no overlap needs and no queued delivery is signed with, each as `(endpoint_key, version)`. They
/// stay unused: a new delivery is signed with the newest version.
pub fn find_unused(connection: &Connection, now: Timestamp, limit: usize) -> Result<Vec<(i64, u32)>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT s.endpoint_key, s.version FROM endpoint_secrets s
             JOIN endpoints e ON e.key = s.endpoint_key
             JOIN endpoint_secrets newest ON newest.endpoint_key = e.key AND newest.version = e.secret_version
             WHERE s.version < e.secret_version
               AND (newest.overlap_until IS NULL OR newest.overlap_until <= ?1 OR s.version < e.secret_version - 1)
               AND NOT EXISTS
                    (SELECT 1 FROM due
                     WHERE lane_key IN (e.key, -e.key) AND due.secret_version >= e.oldest_secret_version
                       AND (due.secret_version = s.version OR due.also_secret_version = s.version))
             LIMIT ?2",
        )?
        .query_map(params![now.millis(), limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

pub fn erase(tx: &mut WriteTx<'_>, unused: &[(i64, u32)]) -> Result<usize, rusqlite::Error> {
    let mut erased = 0;
    for (endpoint_key, version) in unused {
        erased += tx
            .connection
            .prepare_cached("DELETE FROM endpoint_secrets WHERE endpoint_key = ?1 AND version = ?2")?
            .execute(params![endpoint_key, version])?;
    }
    Ok(erased)
}
