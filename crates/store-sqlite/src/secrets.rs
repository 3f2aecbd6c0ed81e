//! Sealed secrets and options of endpoints: what the engine reads, and every write of them. Nothing here is plain text.
//!
//! Writes `endpoint_secrets` and `endpoint_sealed`.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::endpoint::SecretVersion;
use postrider_domain::endpoint_options::SealedPart;
use postrider_domain::id::{EndpointId, RowKey};
use postrider_domain::time::Timestamp;
use postrider_store::column::header_names_from;
use postrider_store::sealing::{Resealed, SealedPage, SealedPlace, SealedPosition};
use postrider_store::{SealedParts, SealedSigningKey, SecretRotation, Secrets, StoreError};

use crate::SqliteStore;
use crate::machinery::column::{broken, parsed, unexpected};
use crate::machinery::writer::WriteTx;
use crate::meta;

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
    meta::check_sealed(tx, sealed)?;
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
    meta::check_sealed(tx, &rotation.sealed)?;
    if let Some(key) = signing_key {
        meta::check_sealed(tx, &key.sealed)?;
    }
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
    meta::check_sealed(tx, &key.sealed)?;
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
    meta::check_sealed(tx, sealed)?;
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

/// A page of secrets and signing keys.
pub fn secrets_page(connection: &Connection, after: (i64, u32), rows: usize) -> Result<SealedPage, rusqlite::Error> {
    let mut select = connection.prepare_cached(
        "SELECT s.endpoint_key, s.version, e.id, s.sealed, s.sealed_signing_key
         FROM endpoint_secrets s JOIN endpoints e ON e.key = s.endpoint_key
         WHERE (s.endpoint_key, s.version) > (?1, ?2) ORDER BY s.endpoint_key, s.version LIMIT ?3",
    )?;
    let mut found = select.query(params![after.0, after.1, rows])?;
    let (mut values, mut last, mut count) = (Vec::new(), after, 0);
    while let Some(row) = found.next()? {
        last = (row.get(0)?, row.get(1)?);
        count += 1;
        let (endpoint_key, version) = (RowKey::from_i64(last.0), SecretVersion(last.1));
        let endpoint: EndpointId = parsed(row, "id")?;
        values.push((SealedPlace::Secret { endpoint_key, endpoint, version }, row.get(3)?));
        if let Some(sealed) = row.get(4)? {
            values.push((SealedPlace::SigningKey { endpoint_key, endpoint, version }, sealed));
        }
    }
    let next = match count < rows {
        true => SealedPosition::parts(),
        false => SealedPosition::Secrets { endpoint_key: last.0, version: last.1 },
    };
    Ok(SealedPage { values, next: Some(next) })
}

/// A page of sealed options.
pub fn parts_page(connection: &Connection, after: (i64, &str), rows: usize) -> Result<SealedPage, rusqlite::Error> {
    let mut select = connection.prepare_cached(
        "SELECT p.endpoint_key, p.part, e.id, p.sealed
         FROM endpoint_sealed p JOIN endpoints e ON e.key = p.endpoint_key
         WHERE (p.endpoint_key, p.part) > (?1, ?2) ORDER BY p.endpoint_key, p.part LIMIT ?3",
    )?;
    let read = |row: &Row<'_>| {
        let (endpoint_key, part) = (RowKey::from_i64(row.get(0)?), row.get(1)?);
        Ok((SealedPlace::Part { endpoint_key, endpoint: parsed(row, "id")?, part }, row.get(3)?))
    };
    let values: Vec<(SealedPlace, Vec<u8>)> =
        select.query_map(params![after.0, after.1, rows], read)?.collect::<Result<_, rusqlite::Error>>()?;
    let next = match values.last() {
        Some((SealedPlace::Part { endpoint_key, part, .. }, _)) if values.len() >= rows => {
            SealedPosition::Parts { endpoint_key: endpoint_key.as_i64(), part: part.clone() }
        }
        _ => SealedPosition::ANSWERS,
    };
    Ok(SealedPage { values, next: Some(next) })
}

pub fn count_sealed(connection: &Connection) -> Result<u64, rusqlite::Error> {
    let sql = "SELECT (SELECT COUNT(*) + COUNT(sealed_signing_key) FROM endpoint_secrets)
                    + (SELECT COUNT(*) FROM endpoint_sealed)";
    connection.query_row(sql, [], |row| row.get(0))
}

/// Replaces a value if it is still as it was read. Answers are replaced in `idempotency.rs`.
pub fn reseal(tx: &WriteTx<'_>, value: &Resealed) -> Result<(), rusqlite::Error> {
    let Resealed { place, from, to } = value;
    match place {
        SealedPlace::Secret { endpoint_key, version, .. } => tx
            .connection
            .prepare_cached(
                "UPDATE endpoint_secrets SET sealed = ?4 WHERE endpoint_key = ?1 AND version = ?2 AND sealed = ?3",
            )?
            .execute(params![endpoint_key.as_i64(), version.0, from, to])?,
        SealedPlace::SigningKey { endpoint_key, version, .. } => tx
            .connection
            .prepare_cached(
                "UPDATE endpoint_secrets SET sealed_signing_key = ?4
                 WHERE endpoint_key = ?1 AND version = ?2 AND sealed_signing_key = ?3",
            )?
            .execute(params![endpoint_key.as_i64(), version.0, from, to])?,
        SealedPlace::Part { endpoint_key, part, .. } => tx
            .connection
            .prepare_cached(
                "UPDATE endpoint_sealed SET sealed = ?4 WHERE endpoint_key = ?1 AND part = ?2 AND sealed = ?3",
            )?
            .execute(params![endpoint_key.as_i64(), part, from, to])?,
        SealedPlace::Answer { .. } => 0,
    };
    Ok(())
}
