//! TLS on the listener: its handshake has the head's time, and its certificate is read again on demand and on a change.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::support::tls::TestCa;
use crate::support::wait::eventually;

pub(super) struct Files {
    _directory: tempfile::TempDir,
    chain: std::path::PathBuf,
    key: std::path::PathBuf,
}

impl Files {
    pub(super) fn of(ca: &TestCa) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (chain, key) = (directory.path().join("tls.pem"), directory.path().join("tls.key"));
        let files = Self { _directory: directory, chain, key };
        files.replace(ca);
        files
    }

    fn replace(&self, ca: &TestCa) {
        let (chain, key) = ca.leaf_pem(&["127.0.0.1"]);
        std::fs::write(&self.chain, chain).unwrap();
        std::fs::write(&self.key, key).unwrap();
    }

    pub(super) fn read(&self) -> Arc<Certificate> {
        self.read_with(NEVER)
    }

    fn read_with(&self, check_interval: Duration) -> Arc<Certificate> {
        Arc::new(Certificate::read(&self.chain, &self.key, check_interval).unwrap())
    }
}

pub(super) async fn front(certificate: &Arc<Certificate>, limits: DoorLimits) -> Front {
    Front::open(limits, |door| door.certificate = Some(Arc::clone(certificate))).await
}

/// Fails unless the server's certificate is of this authority.
pub(super) async fn try_shake_hands(front: &Front, ca: &TestCa) -> std::io::Result<Client<TlsStream<TcpStream>>> {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = connect(front.address).await;
    let connecting = TlsConnector::from(client_config(ca)).connect(name, stream);
    bounded("a handshake", connecting).await.map(Client)
}

/// The first message of a client in its handshake.
pub(super) fn client_hello(ca: &TestCa) -> Vec<u8> {
    let mut client = ClientConnection::new(client_config(ca), ServerName::try_from("127.0.0.1").unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn client_config(ca: &TestCa) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

#[tokio::test]
async fn requests_over_tls_are_answered_with_hsts_and_http_1_1() {
    let ca = TestCa::new();
    let files = Files::of(&ca);
    let front = front(&files.read(), patient()).await;
    let mut client = try_shake_hands(&front, &ca).await.unwrap();
    assert_eq!(client.0.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    client.send(HELLO).await;
    let answer = client.answer().await;
    assert!(answer.check(200).head.contains("\r\nstrict-transport-security: max-age=31536000\r\n"), "{answer:?}");
    client.send("nonsense\r\n\r\n").await;
    assert_eq!(client.answer().await.check(400).body, "MalformedHead");
}

#[tokio::test]
async fn a_handshake_that_stops_is_given_up() {
    let ca = TestCa::new();
    let files = Files::of(&ca);
    let front = front(&files.read(), DoorLimits { head_time: SOON, ..patient() }).await;
    let mut silent = front.connect().await;
    let mut half = front.connect().await;
    half.send([0x16, 3, 1, 2, 0]).await;
    assert_eq!(silent.rest().await, b"");
    assert_eq!(half.rest().await, b"");
}

#[tokio::test]
async fn a_new_certificate_is_used_and_a_bad_one_is_not() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let files = Files::of(&old);
    let certificate = files.read();
    let front = front(&certificate, patient()).await;
    let mut client = try_shake_hands(&front, &old).await.unwrap();
    client.hello().await;

    std::fs::write(&files.chain, "nonsense").unwrap();
    certificate.reload();
    try_shake_hands(&front, &old).await.unwrap().hello().await;

    // The certificate of one pair with the key of another: the first of the two steps of a replacement.
    std::fs::write(&files.chain, new.leaf_pem(&["127.0.0.1"]).0).unwrap();
    certificate.reload();
    try_shake_hands(&front, &old).await.unwrap().hello().await;

    files.replace(&new);
    certificate.reload();
    try_shake_hands(&front, &new).await.unwrap().hello().await;
    assert!(try_shake_hands(&front, &old).await.is_err());
    client.hello().await;
}

#[tokio::test]
async fn a_certificate_is_read_again_when_its_files_change() {
    let old = TestCa::new();
    let files = Files::of(&old);
    let certificate = files.read_with(Duration::from_millis(1));
    let front = front(&certificate, patient()).await;
    tokio::spawn(async move { certificate.reload_when_changed().await });
    let mut client = try_shake_hands(&front, &old).await.unwrap();
    client.hello().await;
    let replaced_by = async |ca: &TestCa| {
        eventually("the new certificate", async || try_shake_hands(&front, ca).await.ok()).await.hello().await;
    };

    // In place.
    let new = TestCa::new();
    files.replace(&new);
    replaced_by(&new).await;
    assert!(try_shake_hands(&front, &old).await.is_err());

    // By other files of the same names.
    let newest = TestCa::new();
    let others = Files::of(&newest);
    std::fs::rename(&others.chain, &files.chain).unwrap();
    std::fs::rename(&others.key, &files.key).unwrap();
    replaced_by(&newest).await;
    client.hello().await;
}
