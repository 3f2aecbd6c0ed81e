//! An endpoint's options: the columns that are shown, and what is sealed beside them.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::endpoint::SecretVersion;
use postrider_domain::endpoint_options::{
    CertificateFacts, DeliveryOrder, DeliveryRate, EndpointOptions, SealedPart, SignatureSchemes,
};
use postrider_domain::id::RowKey;
use postrider_domain::private_options::HeaderName;
use postrider_store::{SealedParts, SealedSigningKey};

use postrider_store::column::{header_names_from, joined, schedule_from};
use postrider_store::registry::endpoint_options::Asked;

use super::column::{broken, coded, unexpected};
use super::writer::WriteTx;

pub fn options_from_row(row: &Row<'_>) -> Result<EndpointOptions, rusqlite::Error> {
    let schedule: Option<String> = row.get("retry_schedule")?;
    let rate: Option<u64> = row.get("rate_limit")?;
    let names: String = row.get("header_names")?;
    Ok(EndpointOptions {
        headers: header_names_from(&names).map_err(broken)?,
        retry_schedule: schedule.map(|text| schedule_from(&text)).transpose().map_err(broken)?,
        timeout: row.get::<_, Option<u64>>("timeout_seconds")?.map(Duration::from_secs),
        signature_schemes: coded(row, "signature_schemes", SignatureSchemes::from_code)?,
        public_key: row.get("public_key")?,
        rate_limit: rate.map(DeliveryRate::parse).transpose().map_err(|_| unexpected("endpoints.rate_limit"))?,
        ordering: coded(row, "ordering", DeliveryOrder::from_code)?,
        client_certificate: row
            .get::<_, Option<String>>("certificate_sha256")?
            .map(|sha256| CertificateFacts { sha256 }),
        sealed_version: row.get("sealed_version")?,
    })
}

/// Writes what [`Asked::of`] said.
pub fn write(
    tx: &WriteTx<'_>,
    asked: &Asked<'_>,
    endpoint_key: RowKey,
    before: &EndpointOptions,
    after: &EndpointOptions,
) -> Result<(), rusqlite::Error> {
    for gone in before.headers.iter().filter(|name| !after.headers.contains(name)) {
        remove_part(tx, endpoint_key, &SealedPart::Header(gone.clone()))?;
    }
    for header in asked.sealed.headers.iter().flatten() {
        if let Some(sealed) = &header.sealed {
            put_part(tx, endpoint_key, &SealedPart::Header(header.name.clone()), sealed)?;
        }
    }
    match &asked.sealed.client_certificate {
        Some(Some(certificate)) => put_part(tx, endpoint_key, &SealedPart::Certificate, &certificate.sealed)?,
        Some(None) => remove_part(tx, endpoint_key, &SealedPart::Certificate)?,
        None => {}
    }
    if let Some((version, key)) = &asked.sealed.signing_key
        && before.public_key != after.public_key
    {
        write_signing_key(tx, endpoint_key, *version, key)?;
    }
    write_columns(tx, endpoint_key, after)
}

fn write_columns(tx: &WriteTx<'_>, endpoint_key: RowKey, options: &EndpointOptions) -> Result<(), rusqlite::Error> {
    let schedule = options.retry_schedule.as_ref().map(|schedule| joined(schedule.seconds()));
    tx.connection
        .prepare_cached(
            "UPDATE endpoints SET retry_schedule = ?2, timeout_seconds = ?3, rate_limit = ?4, ordering = ?5,
                    signature_schemes = ?6, public_key = ?7, header_names = ?8, certificate_sha256 = ?9,
                    sealed_version = ?10
             WHERE key = ?1",
        )?
        .execute(params![
            endpoint_key.as_i64(),
            schedule,
            options.timeout.map(|timeout| timeout.as_secs()),
            options.rate_limit.map(DeliveryRate::per_second),
            options.ordering.code(),
            options.signature_schemes.code(),
            options.public_key,
            joined(options.headers.iter().map(HeaderName::as_str)),
            options.client_certificate.as_ref().map(|facts| facts.sha256.as_str()),
            options.sealed_version,
        ])?;
    Ok(())
}

fn put_part(tx: &WriteTx<'_>, endpoint_key: RowKey, part: &SealedPart, sealed: &[u8]) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("INSERT OR REPLACE INTO endpoint_sealed (endpoint_key, part, sealed) VALUES (?1, ?2, ?3)")?
        .execute(params![endpoint_key.as_i64(), part.to_string(), sealed])?;
    Ok(())
}

fn remove_part(tx: &WriteTx<'_>, endpoint_key: RowKey, part: &SealedPart) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("DELETE FROM endpoint_sealed WHERE endpoint_key = ?1 AND part = ?2")?
        .execute(params![endpoint_key.as_i64(), part.to_string()])?;
    Ok(())
}

pub fn remove_all_parts(tx: &WriteTx<'_>, endpoint_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("DELETE FROM endpoint_sealed WHERE endpoint_key = ?1")?
        .execute([endpoint_key.as_i64()])?;
    Ok(())
}

/// What is sealed of an endpoint now.
pub fn find_sealed(connection: &Connection, endpoint_key: RowKey) -> Result<Option<SealedParts>, rusqlite::Error> {
    let found = connection
        .prepare_cached("SELECT header_names, sealed_version FROM endpoints WHERE key = ?1 AND deleted_at IS NULL")?
        .query_row([endpoint_key.as_i64()], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
        .optional()?;
    let Some((names, version)) = found else { return Ok(None) };
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
    Ok(Some(SealedParts { version, headers, client_certificate: part(SealedPart::Certificate)? }))
}

/// Gives a version of the secret the key of its `v1a` signatures.
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

pub fn find_signing_key(
    connection: &Connection,
    endpoint_key: RowKey,
    version: SecretVersion,
) -> Result<Option<Vec<u8>>, rusqlite::Error> {
    let found = connection
        .prepare_cached("SELECT sealed_signing_key FROM endpoint_secrets WHERE endpoint_key = ?1 AND version = ?2")?
        .query_row(params![endpoint_key.as_i64(), version.0], |row| row.get(0))
        .optional()?;
    Ok(found.flatten())
}
