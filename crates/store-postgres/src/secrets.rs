//! Sealed secrets and options of endpoints: how the engine reads them, how the registry stores them, how they are
//! erased. Nothing here is plain text. Writes `endpoint_secrets` and `endpoint_sealed`.

use std::collections::HashMap;

use async_trait::async_trait;

use postrider_domain::endpoint::SecretVersion;
use postrider_domain::endpoint_options::SealedPart;
use postrider_domain::id::RowKey;
use postrider_store::column::header_names_from;
use postrider_store::sealing::{Resealed, SealedPage, SealedPlace, SealedPosition};
use postrider_store::{SealedParts, SealedSigningKey, SecretRotation, Secrets, StoreError};

use crate::PostgresStore;
use crate::machinery::column::{get, key, number, parsed, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::WriteTx;
use crate::meta;
use crate::publish::matching;

#[async_trait]
impl Secrets for PostgresStore {
    async fn find_secret(&self, endpoint_key: RowKey, version: SecretVersion) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |session| {
            Box::pin(async move {
                let sql = "SELECT sealed FROM endpoint_secrets WHERE endpoint_key = $1 AND version = $2";
                let found = session.query_opt(sql, &[&endpoint_key.as_i64(), &i64::from(version.0)]).await?;
                found.map(|row| get(&row, "sealed")).transpose()
            })
        })
        .await
    }

    async fn find_signing_key(
        &self,
        endpoint_key: RowKey,
        version: SecretVersion,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(move |session| {
            Box::pin(async move {
                let sql = "SELECT sealed_signing_key FROM endpoint_secrets WHERE endpoint_key = $1 AND version = $2";
                let found = session.query_opt(sql, &[&endpoint_key.as_i64(), &i64::from(version.0)]).await?;
                Ok(found.map(|row| get(&row, "sealed_signing_key")).transpose()?.flatten())
            })
        })
        .await
    }

    async fn find_sealed_parts(&self, endpoint_key: RowKey) -> Result<Option<SealedParts>, StoreError> {
        self.read(move |session| Box::pin(find_sealed_parts(session, endpoint_key))).await
    }
}

async fn find_sealed_parts(session: &Session, endpoint_key: RowKey) -> Result<Option<SealedParts>, PgError> {
    let sql = "SELECT header_names, sealed_version, url FROM endpoints WHERE key = $1 AND deleted_at IS NULL";
    let Some(endpoint) = session.query_opt(sql, &[&endpoint_key.as_i64()]).await? else { return Ok(None) };
    let sql = "SELECT part, sealed FROM endpoint_sealed WHERE endpoint_key = $1";
    let rows = session.query(sql, &[&endpoint_key.as_i64()]).await?;
    let mut parts: HashMap<String, Vec<u8>> =
        rows.iter().map(|row| Ok((get(row, "part")?, get(row, "sealed")?))).collect::<Result<_, PgError>>()?;
    let mut part = |part: SealedPart| parts.remove(&part.to_string());
    let mut headers = Vec::new();
    for name in header_names_from(get(&endpoint, "header_names")?)? {
        let sealed = part(SealedPart::Header(name.clone())).ok_or_else(|| unexpected("endpoints.header_names"))?;
        headers.push((name, sealed));
    }
    let (version, url) = (number(&endpoint, "sealed_version")?, get(&endpoint, "url")?);
    Ok(Some(SealedParts { version, url, headers, client_certificate: part(SealedPart::Certificate) }))
}

/// Stores the first secret of a new endpoint.
pub async fn insert_first(tx: &WriteTx, endpoint_key: RowKey, sealed: &[u8]) -> Result<(), PgError> {
    meta::check_sealed(tx, &[sealed]).await?;
    let sql = "INSERT INTO endpoint_secrets (endpoint_key, version, sealed) VALUES ($1, $2, $3)";
    tx.execute(sql, &[&endpoint_key.as_i64(), &i64::from(SecretVersion::FIRST.0), &sealed]).await?;
    Ok(())
}

/// Stores the new secret of a rotation, with its signing key if the endpoint needs one.
pub async fn insert_rotated(
    tx: &WriteTx,
    endpoint_key: RowKey,
    rotation: &SecretRotation,
    signing_key: Option<&SealedSigningKey>,
) -> Result<(), PgError> {
    let sealed: Vec<&[u8]> = std::iter::once(&*rotation.sealed).chain(signing_key.map(|key| &*key.sealed)).collect();
    meta::check_sealed(tx, &sealed).await?;
    let overlap_until = (!rotation.overlap.is_zero()).then(|| tx.now.plus(rotation.overlap).millis());
    tx.execute(
        "INSERT INTO endpoint_secrets (endpoint_key, version, sealed, overlap_until, sealed_signing_key)
         VALUES ($1, $2, $3, $4, $5)",
        &[
            &endpoint_key.as_i64(),
            &i64::from(rotation.version.0),
            &rotation.sealed,
            &overlap_until,
            &signing_key.map(|key| key.sealed.as_slice()),
        ],
    )
    .await?;
    Ok(())
}

/// Stores a sealed part of the options. Replaces the stored one.
pub async fn put_part(tx: &WriteTx, endpoint_key: RowKey, part: &SealedPart, sealed: &[u8]) -> Result<(), PgError> {
    meta::check_sealed(tx, &[sealed]).await?;
    tx.execute(
        "INSERT INTO endpoint_sealed (endpoint_key, part, sealed) VALUES ($1, $2, $3)
         ON CONFLICT (endpoint_key, part) DO UPDATE SET sealed = excluded.sealed",
        &[&endpoint_key.as_i64(), &part.to_string(), &sealed],
    )
    .await?;
    Ok(())
}

pub async fn remove_part(tx: &WriteTx, endpoint_key: RowKey, part: &SealedPart) -> Result<(), PgError> {
    let sql = "DELETE FROM endpoint_sealed WHERE endpoint_key = $1 AND part = $2";
    tx.execute(sql, &[&endpoint_key.as_i64(), &part.to_string()]).await?;
    Ok(())
}

/// Stores the key for `v1a` signatures beside its version of the secret.
pub async fn write_signing_key(
    tx: &WriteTx,
    endpoint_key: RowKey,
    version: SecretVersion,
    key: &SealedSigningKey,
) -> Result<(), PgError> {
    meta::check_sealed(tx, &[&*key.sealed]).await?;
    let sql = "UPDATE endpoint_secrets SET sealed_signing_key = $3 WHERE endpoint_key = $1 AND version = $2";
    tx.execute(sql, &[&endpoint_key.as_i64(), &i64::from(version.0), &key.sealed]).await?;
    Ok(())
}

/// Erases the secrets and options of an endpoint that has just been deleted.
pub async fn erase_of_endpoint(tx: &WriteTx, endpoint_key: RowKey) -> Result<(), PgError> {
    tx.execute("DELETE FROM endpoint_secrets WHERE endpoint_key = $1", &[&endpoint_key.as_i64()]).await?;
    tx.execute("DELETE FROM endpoint_sealed WHERE endpoint_key = $1", &[&endpoint_key.as_i64()]).await?;
    Ok(())
}

/// Erases the secrets and options of all endpoints of a workspace that is being deleted. Call it before the endpoints
/// are marked as deleted.
pub async fn erase_of_workspace(tx: &WriteTx, workspace: RowKey) -> Result<(), PgError> {
    for table in ["endpoint_secrets", "endpoint_sealed"] {
        let sql = format!(
            "DELETE FROM {table} WHERE endpoint_key IN
                 (SELECT key FROM endpoints WHERE workspace_key = $1 AND deleted_at IS NULL)"
        );
        tx.execute(&sql, &[&workspace.as_i64()]).await?;
    }
    Ok(())
}

/// Erases up to `limit` old secrets: no queued delivery is signed with them, and no overlap needs them.
///
/// An erased secret cannot become needed again. Only a delivery enqueued in an overlap uses a secret that is not the
/// newest, and an overlap counts as over here only once that is stored.
pub async fn erase_unused(tx: &mut WriteTx, limit: usize) -> Result<usize, PgError> {
    end_overlaps(tx).await?;
    let erased = tx
        .execute(
            "DELETE FROM endpoint_secrets WHERE (endpoint_key, version) IN
                 (SELECT s.endpoint_key, s.version FROM endpoint_secrets s
                  JOIN endpoints e ON e.key = s.endpoint_key
                  JOIN endpoint_secrets newest ON newest.endpoint_key = e.key AND newest.version = e.secret_version
                  WHERE s.version < e.secret_version
                    AND (newest.overlap_until IS NULL OR s.version < e.secret_version - 1)
                    AND NOT EXISTS
                         (SELECT 1 FROM due
                          WHERE lane_key IN (e.key, -e.key) AND due.secret_version >= e.oldest_secret_version
                            AND (due.secret_version = s.version OR due.also_secret_version = s.version))
                  LIMIT $1)",
            &[&i64::try_from(limit).unwrap_or(i64::MAX)],
        )
        .await?;
    Ok(usize::try_from(erased).unwrap_or(usize::MAX))
}

/// Stores which overlaps have ended, for one workspace per call.
///
/// A passed instant alone proves nothing: a transaction that began before it may still enqueue with both secrets. Under
/// the workspace's lock no such transaction runs, and every later one sees no overlap, whatever time it began at.
async fn end_overlaps(tx: &mut WriteTx) -> Result<(), PgError> {
    let now = tx.now.millis();
    let ended = tx
        .query_opt(
            "SELECT e.workspace_key FROM endpoint_secrets newest
             JOIN endpoints e ON e.key = newest.endpoint_key AND e.secret_version = newest.version
             WHERE newest.overlap_until <= $1 ORDER BY newest.overlap_until LIMIT 1",
            &[&now],
        )
        .await?;
    let Some(ended) = ended else { return Ok(()) };
    let workspace_key = key(&ended, "workspace_key")?;
    tx.lock_workspace(workspace_key).await?;
    tx.execute(
        "UPDATE endpoint_secrets SET overlap_until = NULL
         WHERE overlap_until <= $1 AND endpoint_key IN (SELECT key FROM endpoints WHERE workspace_key = $2)",
        &[&now, &workspace_key.as_i64()],
    )
    .await?;
    matching::bump(tx, workspace_key).await
}

/// A page of secrets and signing keys.
pub async fn secrets_page(session: &Session, after: (i64, u32), rows: usize) -> Result<SealedPage, PgError> {
    let found = session
        .query(
            "SELECT s.endpoint_key, s.version, e.id, s.sealed, s.sealed_signing_key
             FROM endpoint_secrets s JOIN endpoints e ON e.key = s.endpoint_key
             WHERE (s.endpoint_key, s.version) > ($1, $2) ORDER BY s.endpoint_key, s.version LIMIT $3",
            &[&after.0, &i64::from(after.1), &limit_of(rows)],
        )
        .await?;
    let mut values = Vec::new();
    let mut next = SealedPosition::parts();
    for row in &found {
        let (endpoint_key, version) = (key(row, "endpoint_key")?, SecretVersion(number(row, "version")?));
        let endpoint = parsed(row, "id")?;
        values.push((SealedPlace::Secret { endpoint_key, endpoint, version }, get(row, "sealed")?));
        if let Some(sealed) = get(row, "sealed_signing_key")? {
            values.push((SealedPlace::SigningKey { endpoint_key, endpoint, version }, sealed));
        }
        if found.len() >= rows {
            next = SealedPosition::Secrets { endpoint_key: endpoint_key.as_i64(), version: version.0 };
        }
    }
    Ok(SealedPage { values, next: Some(next) })
}

/// A page of sealed options.
pub async fn parts_page(session: &Session, after: (i64, &str), rows: usize) -> Result<SealedPage, PgError> {
    let found = session
        .query(
            "SELECT p.endpoint_key, p.part, e.id, p.sealed
             FROM endpoint_sealed p JOIN endpoints e ON e.key = p.endpoint_key
             WHERE (p.endpoint_key, p.part) > ($1, $2) ORDER BY p.endpoint_key, p.part LIMIT $3",
            &[&after.0, &after.1, &limit_of(rows)],
        )
        .await?;
    let mut values = Vec::new();
    let mut next = SealedPosition::ANSWERS;
    for row in &found {
        let (endpoint_key, part): (_, String) = (key(row, "endpoint_key")?, get(row, "part")?);
        if found.len() >= rows {
            next = SealedPosition::Parts { endpoint_key: endpoint_key.as_i64(), part: part.clone() };
        }
        values.push((SealedPlace::Part { endpoint_key, endpoint: parsed(row, "id")?, part }, get(row, "sealed")?));
    }
    Ok(SealedPage { values, next: Some(next) })
}

pub async fn count_sealed(session: &Session) -> Result<u64, PgError> {
    let sql = "SELECT (SELECT COUNT(*) + COUNT(sealed_signing_key) FROM endpoint_secrets)
                    + (SELECT COUNT(*) FROM endpoint_sealed) AS count";
    number(&session.query_one(sql, &[]).await?, "count")
}

/// Replaces each value that is still as it was read. Answers are replaced in `idempotency.rs`.
pub async fn reseal(tx: &WriteTx, values: &[Resealed]) -> Result<(), PgError> {
    let of_version = |value: &Resealed, is_secret: bool| match &value.place {
        SealedPlace::Secret { endpoint_key, version, .. } if is_secret => Some((endpoint_key.as_i64(), version.0)),
        SealedPlace::SigningKey { endpoint_key, version, .. } if !is_secret => Some((endpoint_key.as_i64(), version.0)),
        _ => None,
    };
    for (column, is_secret) in [("sealed", true), ("sealed_signing_key", false)] {
        let chosen = values.iter().filter_map(|value| Some((of_version(value, is_secret)?, value)));
        let (places, chosen): (Vec<(i64, u32)>, Vec<&Resealed>) = chosen.unzip();
        if chosen.is_empty() {
            continue;
        }
        let (keys, versions): (Vec<i64>, Vec<i64>) =
            places.into_iter().map(|(key, version)| (key, i64::from(version))).unzip();
        let (from, to) = from_and_to(&chosen);
        let sql = format!(
            "UPDATE endpoint_secrets s SET {column} = n.new
             FROM unnest($1, $2, $3, $4) AS n (endpoint_key, version, old, new)
             WHERE s.endpoint_key = n.endpoint_key AND s.version = n.version AND s.{column} = n.old"
        );
        tx.execute(&sql, &[&keys, &versions, &from, &to]).await?;
    }
    let of_part = |value: &'_ Resealed| match &value.place {
        SealedPlace::Part { endpoint_key, part, .. } => Some((endpoint_key.as_i64(), part.clone())),
        _ => None,
    };
    let chosen = values.iter().filter_map(|value| Some((of_part(value)?, value)));
    let (places, chosen): (Vec<(i64, String)>, Vec<&Resealed>) = chosen.unzip();
    if !chosen.is_empty() {
        let (keys, parts): (Vec<i64>, Vec<String>) = places.into_iter().unzip();
        let (from, to) = from_and_to(&chosen);
        let sql = "UPDATE endpoint_sealed p SET sealed = n.new
                   FROM unnest($1, $2, $3, $4) AS n (endpoint_key, part, old, new)
                   WHERE p.endpoint_key = n.endpoint_key AND p.part = n.part AND p.sealed = n.old";
        tx.execute(sql, &[&keys, &parts, &from, &to]).await?;
    }
    Ok(())
}

/// The bytes before and after, as parameters of a statement for many rows.
pub fn from_and_to<'v>(values: &[&'v Resealed]) -> (Vec<&'v [u8]>, Vec<&'v [u8]>) {
    values.iter().map(|value| (&*value.from, &*value.to)).unzip()
}

fn limit_of(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
