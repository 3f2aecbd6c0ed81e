//! An endpoint's options: the columns that are shown, and what is sealed beside them.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::endpoint::SecretVersion;
use crate::domain::endpoint_options::{
    CertificateFacts, DeliveryOrder, DeliveryRate, EndpointOptions, OptionsChange, SealedPart, SignatureSchemes,
};
use crate::domain::id::RowKey;
use crate::domain::private_options::HeaderName;
use crate::domain::retry::RetrySchedule;
use crate::store::{SealedOptions, SealedParts, SealedSigningKey};

use super::column::{coded, unexpected};
use super::writer::WriteTx;

pub fn options_from_row(row: &Row<'_>) -> Result<EndpointOptions, rusqlite::Error> {
    let schedule: Option<String> = row.get("retry_schedule")?;
    let rate: Option<u64> = row.get("rate_limit")?;
    let names: String = row.get("header_names")?;
    Ok(EndpointOptions {
        headers: headers_from(&names)?,
        retry_schedule: schedule.map(|text| schedule_from(&text)).transpose()?,
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

/// Why options were not changed.
pub enum OptionsRefusal {
    /// Nothing is stored of this header that could be kept.
    NothingToKeep(HeaderName),
    /// The key for `v1a` came for another version of the secret.
    Outrun,
}

/// What is asked of an endpoint's options.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub change: &'a OptionsChange,
    pub sealed: &'a SealedOptions,
    /// The version of the secret that signs now.
    pub secret_version: SecretVersion,
}

impl Asked<'_> {
    /// What the options become. Nothing is written yet.
    pub fn of(&self, now: &EndpointOptions) -> Result<EndpointOptions, OptionsRefusal> {
        let mut options = now.clone();
        options.apply(self.change);
        if let Some(headers) = &self.sealed.headers {
            let mut kept = headers.iter().filter(|header| header.sealed.is_none());
            if let Some(missing) = kept.find(|header| !now.headers.contains(&header.name)) {
                return Err(OptionsRefusal::NothingToKeep(missing.name.clone()));
            }
            options.headers = headers.iter().map(|header| header.name.clone()).collect();
        }
        if let Some(certificate) = &self.sealed.client_certificate {
            options.client_certificate = certificate.as_ref().map(|certificate| certificate.facts.clone());
        }
        if !self.sealed.is_empty() {
            options.sealed_version += 1;
        }
        if options.signature_schemes.has_v1a() && options.public_key.is_none() {
            match &self.sealed.signing_key {
                Some((version, key)) if *version == self.secret_version => {
                    options.public_key = Some(key.public_key.clone());
                }
                _ => return Err(OptionsRefusal::Outrun),
            }
        }
        Ok(options)
    }

    /// Writes what [`Self::of`] said.
    pub fn write(
        &self,
        tx: &WriteTx<'_>,
        endpoint_key: RowKey,
        before: &EndpointOptions,
        after: &EndpointOptions,
    ) -> Result<(), rusqlite::Error> {
        for gone in before.headers.iter().filter(|name| !after.headers.contains(name)) {
            remove_part(tx, endpoint_key, &SealedPart::Header(gone.clone()))?;
        }
        for header in self.sealed.headers.iter().flatten() {
            if let Some(sealed) = &header.sealed {
                put_part(tx, endpoint_key, &SealedPart::Header(header.name.clone()), sealed)?;
            }
        }
        match &self.sealed.client_certificate {
            Some(Some(certificate)) => put_part(tx, endpoint_key, &SealedPart::Certificate, &certificate.sealed)?,
            Some(None) => remove_part(tx, endpoint_key, &SealedPart::Certificate)?,
            None => {}
        }
        if let Some((version, key)) = &self.sealed.signing_key
            && before.public_key != after.public_key
        {
            write_signing_key(tx, endpoint_key, *version, key)?;
        }
        write_columns(tx, endpoint_key, after)
    }
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
    for name in headers_from(&names)? {
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

fn headers_from(names: &str) -> Result<Vec<HeaderName>, rusqlite::Error> {
    names
        .split_ascii_whitespace()
        .map(|name| HeaderName::parse(name).map_err(|_| unexpected("endpoints.header_names")))
        .collect()
}

fn schedule_from(text: &str) -> Result<RetrySchedule, rusqlite::Error> {
    let seconds: Option<Vec<u64>> = text.split_ascii_whitespace().map(|wait| wait.parse().ok()).collect();
    let schedule = seconds.and_then(|seconds| RetrySchedule::from_seconds(&seconds).ok());
    schedule.ok_or_else(|| unexpected("endpoints.retry_schedule"))
}

fn joined<T: ToString>(words: impl Iterator<Item = T>) -> String {
    words.map(|word| word.to_string()).collect::<Vec<_>>().join(" ")
}
