//! An endpoint's options. Writes the option columns of `endpoints`. The sealed parts are written in `secrets.rs`.

use std::time::Duration;

use tokio_postgres::Row;

use postrider_domain::endpoint::Endpoint;
use postrider_domain::endpoint_options::{
    CertificateFacts, DeliveryOrder, DeliveryRate, EndpointOptions, SealedPart, SignatureSchemes,
};
use postrider_domain::id::RowKey;
use postrider_domain::private_options::HeaderName;
use postrider_store::column::{header_names_from, joined, schedule_from};
use postrider_store::registry::endpoint_options::OptionsUpdate;

use crate::machinery::column::{coded, get, number, opt_number, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::transaction::WriteTx;
use crate::secrets;

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
        trace_forwarding: get(row, "trace_forwarding")?,
    })
}

/// Writes `after`, the result of [`OptionsUpdate::apply_to`]. `endpoint` still has its options from before.
pub async fn write(
    tx: &WriteTx,
    update: &OptionsUpdate<'_>,
    endpoint: &Endpoint,
    after: &EndpointOptions,
) -> Result<(), PgError> {
    let (endpoint_key, before) = (endpoint.key, &endpoint.options);
    for removed in before.headers.iter().filter(|name| !after.headers.contains(name)) {
        secrets::remove_part(tx, endpoint_key, &SealedPart::Header(removed.clone())).await?;
    }
    for header in update.sealed.headers.iter().flatten() {
        if let Some(sealed) = &header.sealed {
            secrets::put_part(tx, endpoint_key, &SealedPart::Header(header.name.clone()), sealed).await?;
        }
    }
    match &update.sealed.client_certificate {
        Some(Some(certificate)) => {
            secrets::put_part(tx, endpoint_key, &SealedPart::Certificate, &certificate.sealed).await?
        }
        Some(None) => secrets::remove_part(tx, endpoint_key, &SealedPart::Certificate).await?,
        None => {}
    }
    if let Some((version, key)) = &update.sealed.signing_key
        && before.public_key != after.public_key
    {
        secrets::write_signing_key(tx, endpoint_key, *version, key).await?;
    }
    write_columns(tx, endpoint_key, after).await
}

async fn write_columns(tx: &WriteTx, endpoint_key: RowKey, options: &EndpointOptions) -> Result<(), PgError> {
    let schedule = options.retry_schedule.as_ref().map(|schedule| joined(schedule.seconds()));
    let timeout = options.timeout.map(|timeout| i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX));
    tx.execute(
        "UPDATE endpoints SET retry_schedule = $2, timeout_seconds = $3, rate_limit = $4, ordering = $5,
                signature_schemes = $6, public_key = $7, header_names = $8, certificate_sha256 = $9, sealed_version = $10,
                trace_forwarding = $11
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
            &options.trace_forwarding,
        ],
    )
    .await?;
    Ok(())
}
