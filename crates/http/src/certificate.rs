//! The certificate of a listener: read from two files, and read again when they change or on demand.
//!
//! A bad new file never replaces a good certificate. A listener must not end because somebody is replacing its files,
//! which takes two steps.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use postrider_domain::error_chain::Chain;
use postrider_metrics::{Gauges, WatchedFile};

/// A certificate chain and its key, in PEM files.
pub struct Certificate {
    chain_file: PathBuf,
    key_file: PathBuf,
    check_interval: Duration,
    current: Mutex<Current>,
    problem: Gauges,
}

struct Current {
    acceptor: TlsAcceptor,
    versions: [Option<Version>; 2],
}

/// What shows that a file is another one.
type Version = (SystemTime, u64, u64);

/// The files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is not PEM with certificates")]
    ChainPem {
        path: String,
        #[source]
        source: pem::Error,
    },
    #[error("{path} contains no certificate")]
    NoCertificate { path: String },
    #[error("{path} is not PEM with an unencrypted private key (PKCS#8, PKCS#1 or SEC1)")]
    KeyPem {
        path: String,
        #[source]
        source: pem::Error,
    },
    #[error("the certificate and the key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

impl Certificate {
    /// Reads the chain, the server's own certificate first, and the private key. [`Self::reload_when_changed`] looks at
    /// the files at each `check_interval`.
    ///
    /// # Errors
    /// When a file cannot be read or used, or the key does not belong to the certificate.
    pub fn read(chain_file: &Path, key_file: &Path, check_interval: Duration) -> Result<Self, CertificateError> {
        let versions = [version(chain_file), version(key_file)];
        let acceptor = read_acceptor(chain_file, key_file)?;
        let current = Mutex::new(Current { acceptor, versions });
        let (chain_file, key_file) = (chain_file.to_owned(), key_file.to_owned());
        Ok(Self { chain_file, key_file, check_interval, current, problem: Gauges::default() })
    }

    /// From now on, sets the gauge to 1 when the files cannot be used and to 0 when they can.
    #[must_use]
    pub fn reporting_to(self, problem: Gauges) -> Self {
        problem.set_count(WatchedFile::Certificate, 0);
        Self { problem, ..self }
    }

    /// Reads the files again. New connections get the new certificate. Keeps the old one when the files are bad.
    pub fn reload(&self) {
        let versions = [version(&self.chain_file), version(&self.key_file)];
        let read = read_acceptor(&self.chain_file, &self.key_file);
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.versions = versions;
        self.problem.set_count(WatchedFile::Certificate, u64::from(read.is_err()));
        match read {
            Ok(acceptor) => {
                current.acceptor = acceptor;
                tracing::info!(file = %self.chain_file.display(), "the certificate has been read again");
            }
            Err(error) => tracing::error!(
                error = %Chain(&error),
                "cannot use the new certificate; keeping the old one (--tls-cert-file, --tls-key-file)"
            ),
        }
    }

    /// Reads the files again whenever they change. Never returns.
    pub async fn reload_when_changed(&self) {
        let mut interval = tokio::time::interval(self.check_interval);
        loop {
            interval.tick().await;
            let versions = [version(&self.chain_file), version(&self.key_file)];
            let known = self.current.lock().unwrap_or_else(PoisonError::into_inner).versions;
            if versions != known {
                self.reload();
            }
        }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).acceptor.clone()
    }
}

fn version(file: &Path) -> Option<Version> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

fn read_acceptor(chain_file: &Path, key_file: &Path) -> Result<TlsAcceptor, CertificateError> {
    let read = |file: &Path| {
        std::fs::read(file).map_err(|source| CertificateError::Read { path: file.display().to_string(), source })
    };
    let path = || chain_file.display().to_string();
    let chain: Result<Vec<CertificateDer<'static>>, pem::Error> =
        CertificateDer::pem_slice_iter(&read(chain_file)?).collect();
    let chain = chain.map_err(|source| CertificateError::ChainPem { path: path(), source })?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate { path: path() });
    }
    let key = PrivateKeyDer::from_pem_slice(&read(key_file)?)
        .map_err(|source| CertificateError::KeyPem { path: key_file.display().to_string(), source })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(CertificateError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(CertificateError::Unusable)?;
    // Our limits are those of HTTP/1.1. HTTP/2 would need its own.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
