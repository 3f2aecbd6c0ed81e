//! An endpoint's options: the columns that are shown, and what is sealed beside them.

use std::collections::HashMap;
use std::time::Duration;

use tokio_postgres::Row;

use postrider_domain::endpoint::SecretVersion;
use postrider_domain::endpoint_options::{
    CertificateFacts, DeliveryOrder, DeliveryRate, EndpointOptions, SealedPart, SignatureSchemes,
};
use postrider_domain::id::RowKey;
use postrider_domain::private_options::HeaderName;
use postrider_store::column::{header_names_from, joined, schedule_from};
use postrider_store::registry::endpoint_options::Asked;
use postrider_store::{SealedParts, SealedSigningKey};

use super::column::{coded, get, number, opt_number, unexpected};
use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;

pub fn options_from_row(row: &Row) -> Result<EndpointOptions, PgError> {
    let schedule: Option<&str> = get(row, "retry_schedule")?;
    let rate: Option<u64> = opt_number(row, "rate_limit")?;
    Ok(EndpointOptions {
        headers: header_names_from(get(row, "header_names")?)?,
        retry_schedule: schedule.map(schedule_from).transpose()?,
        timeout: opt_number(row, "timeout_seconds")?.map(Duration::from_secs),
        signature_schemes: coded(row, "signature_schemes", SignatureSchemes::from_code)?,
        public_key: get(row, "public_key")?,
        rate_limit: rate.map(DeliveryRate::parse).transpose().map_err(|_| unexpected("endpoints.rate_limit"))?,
        ordering: coded(row, "ordering", DeliveryOrder::from_code)?,
        client_certificate: get::<Option<String>>(row, "certificate_sha256")?.map(|sha256| CertificateFacts { sha256 }),
        sealed_version: number(row, "sealed_version")?,
    })
}

/// Writes what [`Asked::of`] said.
pub async fn write(
    tx: &WriteTx,
    asked: &Asked<'_>,
    endpoint_key: RowKey,
    before: &EndpointOptions,
    after: &EndpointOptions,
) -> Result<(), PgError> {
    for gone in before.headers.iter().filter(|name| !after.headers.contains(name)) {
        remove_part(tx, endpoint_key, &SealedPart::Header(gone.clone())).await?;
    }
    for header in asked.sealed.headers.iter().flatten() {
        if let Some(sealed) = &header.sealed {
            put_part(tx, endpoint_key, &SealedPart::Header(header.name.clone()), sealed).await?;
        }
    }
    match &asked.sealed.client_certificate {
        Some(Some(certificate)) => put_part(tx, endpoint_key, &SealedPart::Certificate, &certificate.sealed).await?,
        Some(None) => remove_part(tx, endpoint_key, &SealedPart::Certificate).await?,
        None => {}
    }
    if let Some((version, key)) = &asked.sealed.signing_key
        && before.public_key != after.public_key
    {
        write_signing_key(tx, endpoint_key, *version, key).await?;
    }
    write_columns(tx, endpoint_key, after).await
}

async fn write_columns(tx: &WriteTx, endpoint_key: RowKey, options: &EndpointOptions) -> Result<(), PgError> {
    let schedule = options.retry_schedule.as_ref().map(|schedule| joined(schedule.seconds()));
    let timeout = options.timeout.map(|timeout| i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX));
    tx.execute(
        "UPDATE endpoints SET retry_schedule = $2, timeout_seconds = $3, rate_limit = $4, ordering = $5,
                signature_schemes = $6, public_key = $7, header_names = $8, certificate_sha256 = $9, sealed_version = $10
         WHERE key = $1",
        &[
            &endpoint_key.as_i64(),
            &schedule,
            &timeout,
            &options.rate_limit.map(|rate| i64::from(rate.per_second())),
            &options.ordering.code(),
            &options.signature_schemes.code(),
            &options.public_key,
            &joined(options.headers.iter().map(HeaderName::as_str)),
            &options.client_certificate.as_ref().map(|facts| facts.sha256.as_str()),
            &i64::from(options.sealed_version),
        ],
    )
    .await?;
    Ok(())
}

async fn put_part(tx: &WriteTx, endpoint_key: RowKey, part: &SealedPart, sealed: &[u8]) -> Result<(), PgError> {
    tx.execute(
        "INSERT INTO endpoint_sealed (endpoint_key, part, sealed) VALUES ($1, $2, $3)
         ON CONFLICT (endpoint_key, part) DO UPDATE SET sealed = excluded.sealed",
        &[&endpoint_key.as_i64(), &part.to_string(), &sealed],
    )
    .await?;
    Ok(())
}

async fn remove_part(tx: &WriteTx, endpoint_key: RowKey, part: &SealedPart) -> Result<(), PgError> {
    let sql = "DELETE FROM endpoint_sealed WHERE endpoint_key = $1 AND part = $2";
    tx.execute(sql, &[&endpoint_key.as_i64(), &part.to_string()]).await?;
    Ok(())
}

pub async fn remove_all_parts(tx: &WriteTx, endpoint_key: RowKey) -> Result<(), PgError> {
    tx.execute("DELETE FROM endpoint_sealed WHERE endpoint_key = $1", &[&endpoint_key.as_i64()]).await?;
    Ok(())
}

/// What is sealed of an endpoint now.
pub async fn find_sealed(session: &Session, endpoint_key: RowKey) -> Result<Option<SealedParts>, PgError> {
    let sql = "SELECT header_names, sealed_version FROM endpoints WHERE key = $1 AND deleted_at IS NULL";
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
    let version = number(&endpoint, "sealed_version")?;
    Ok(Some(SealedParts { version, headers, client_certificate: part(SealedPart::Certificate) }))
}

/// Gives a version of the secret the key of its `v1a` signatures.
async fn write_signing_key(
    tx: &WriteTx,
    endpoint_key: RowKey,
    version: SecretVersion,
    key: &SealedSigningKey,
) -> Result<(), PgError> {
    let sql = "UPDATE endpoint_secrets SET sealed_signing_key = $3 WHERE endpoint_key = $1 AND version = $2";
    tx.execute(sql, &[&endpoint_key.as_i64(), &i64::from(version.0), &key.sealed]).await?;
    Ok(())
}

pub async fn find_signing_key(
    session: &Session,
    endpoint_key: RowKey,
    version: SecretVersion,
) -> Result<Option<Vec<u8>>, PgError> {
    let sql = "SELECT sealed_signing_key FROM endpoint_secrets WHERE endpoint_key = $1 AND version = $2";
    let found = session.query_opt(sql, &[&endpoint_key.as_i64(), &i64::from(version.0)]).await?;
    Ok(found.map(|row| get(&row, "sealed_signing_key")).transpose()?.flatten())
}
