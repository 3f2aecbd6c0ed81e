//! An endpoint's options: the columns that are shown, and what is sealed beside them.

use std::time::Duration;

use tokio_postgres::Row;

use crate::domain::endpoint_options::{
    CertificateFacts, DeliveryOrder, DeliveryRate, EndpointOptions, SignatureSchemes,
};
use crate::store::shared::column::{header_names_from, schedule_from};

use super::column::{coded, get, number, opt_number, unexpected};
use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::endpoint::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

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

pub async fn find_signing_key(
    _s: &Session,
    _endpoint_key: RowKey,
    _version: SecretVersion,
) -> Result<Option<Vec<u8>>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn find_sealed(_s: &Session, _endpoint_key: RowKey) -> Result<Option<SealedParts>, PgError> {
    Err(PgError::Unavailable("not built"))
}
