//! The operator webhook: its URL, and the file of its secret, readable only by its owner. The first start creates the
//! file, as it does the master key.

use std::path::Path;

use zeroize::Zeroizing;

use crate::config::Settings;
use postrider_crypto::Random;
use postrider_domain::endpoint::EndpointUrl;
use postrider_domain::invalid_field::InvalidField;
use postrider_domain::secret::WebhookSecret;
use postrider_service::OperatorWebhook;
use postrider_store::directory::write_private_new;

#[derive(Debug, thiserror::Error)]
pub enum OperatorWebhookError {
    #[error("the URL of the operator webhook {0} (--operator-webhook-url)")]
    Url(InvalidField),
    #[error("cannot read the secret of the operator webhook in {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write the secret of the operator webhook to {path}")]
    Write {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} does not contain a secret of the form whsec_ and base64 (--operator-webhook-secret-file)")]
    Form { path: String },
}

/// Reads the operator webhook of the settings. Creates the secret if its default file does not exist.
pub fn read(settings: &Settings, random: &Random) -> Result<Option<OperatorWebhook>, OperatorWebhookError> {
    let Some(url) = &settings.operator_webhook_url else { return Ok(None) };
    let url = EndpointUrl::parse(url).map_err(OperatorWebhookError::Url)?;
    let path = settings.operator_webhook_secret_path();
    let shown = path.display().to_string();
    let secret = match std::fs::read_to_string(&path).map(Zeroizing::new) {
        Ok(text) => WebhookSecret::parse(text.trim()).map_err(|_| OperatorWebhookError::Form { path: shown })?,
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && settings.operator_webhook_secret_file.is_none() =>
        {
            let secret = WebhookSecret::generate(random);
            write(&path, &secret).map_err(|source| OperatorWebhookError::Write { path: shown.clone(), source })?;
            tracing::info!(
                path = shown,
                "created a secret for the operator webhook; use it to verify operational events"
            );
            secret
        }
        Err(source) => return Err(OperatorWebhookError::Read { path: shown, source }),
    };
    Ok(Some(OperatorWebhook { url, secret }))
}

fn write(path: &Path, secret: &WebhookSecret) -> std::io::Result<()> {
    let text = Zeroizing::new(format!("{}\n", secret.reveal()));
    write_private_new(path, text.as_bytes())
}
