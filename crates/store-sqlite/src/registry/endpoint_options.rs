//! An endpoint's options: the columns that hold their public part, and how an update is written. The sealed parts are
//! in `secrets.rs`.
//!
//! Writes the columns of options in `endpoints`, as a rotation does with `public_key` (`endpoint.rs`).

use std::time::Duration;

use rusqlite::{Row, params};

use postrider_domain::endpoint_options::{
    CertificateFacts, DeliveryOrder, DeliveryRate, EndpointOptions, SealedPart, SignatureSchemes,
};
use postrider_domain::id::RowKey;
use postrider_domain::private_options::HeaderName;
use postrider_store::column::{header_names_from, joined, schedule_from};
use postrider_store::registry::endpoint_options::OptionsUpdate;

use crate::machinery::column::{broken, coded, unexpected};
use crate::machinery::writer::WriteTx;
use crate::secrets;

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
        trace_forwarding: row.get("trace_forwarding")?,
    })
}

/// Writes the result of [`OptionsUpdate::apply_to`].
pub fn write(
    tx: &WriteTx<'_>,
    update: &OptionsUpdate<'_>,
    endpoint_key: RowKey,
    before: &EndpointOptions,
    after: &EndpointOptions,
) -> Result<(), rusqlite::Error> {
    for removed in before.headers.iter().filter(|name| !after.headers.contains(name)) {
        secrets::remove_part(tx, endpoint_key, &SealedPart::Header(removed.clone()))?;
    }
    for header in update.sealed.headers.iter().flatten() {
        if let Some(sealed) = &header.sealed {
            secrets::put_part(tx, endpoint_key, &SealedPart::Header(header.name.clone()), sealed)?;
        }
    }
    match &update.sealed.client_certificate {
        Some(Some(certificate)) => {
            secrets::put_part(tx, endpoint_key, &SealedPart::Certificate, &certificate.sealed)?;
        }
        Some(None) => secrets::remove_part(tx, endpoint_key, &SealedPart::Certificate)?,
        None => {}
    }
    if let Some((version, key)) = &update.sealed.signing_key
        && before.public_key != after.public_key
    {
        secrets::write_signing_key(tx, endpoint_key, *version, key)?;
    }
    write_columns(tx, endpoint_key, after)
}

fn write_columns(tx: &WriteTx<'_>, endpoint_key: RowKey, options: &EndpointOptions) -> Result<(), rusqlite::Error> {
    let schedule = options.retry_schedule.as_ref().map(|schedule| joined(schedule.seconds()));
    tx.connection
        .prepare_cached(
            "UPDATE endpoints SET retry_schedule = ?2, timeout_seconds = ?3, rate_limit = ?4, ordering = ?5,
                    signature_schemes = ?6, public_key = ?7, header_names = ?8, certificate_sha256 = ?9,
                    sealed_version = ?10, trace_forwarding = ?11
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
            options.trace_forwarding,
        ])?;
    Ok(())
}
