use super::*;
use deltaforge_core::Class;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// An authority, and what it signed.
struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    ca: String,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap().pem();
        Authority { dir: tempfile::tempdir().unwrap(), issuer: Issuer::new(params, key), ca }
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path: PathBuf = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn ca_file(&self) -> String {
        self.file("ca.pem", &self.ca)
    }

    fn leaf(
        &self,
        host: &str,
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_string()]).unwrap();
        params.extended_key_usages = vec![usage];
        change(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn server(&self, host: &str) -> (String, String) {
        self.leaf(host, ExtendedKeyUsagePurpose::ServerAuth, |_| ())
    }

    /// A handshake with a server that shows `leaf`, then one byte from it.
    async fn shake(
        &self,
        (certificate, key): &(String, String),
        host: &str,
        config: Arc<ClientConfig>,
        ask_client: bool,
    ) -> Result<u8, Fault> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if ask_client {
            let roots = Arc::new(roots(Some(&self.ca_file())).unwrap());
            builder.with_client_cert_verifier(
                rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap(),
            )
        } else {
            builder.with_no_client_auth()
        };
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let server = tokio_rustls::TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let serve = async move {
            if let Ok(mut stream) = server.accept(theirs).await {
                let _ = stream.write_all(b"!").await;
                let _ = stream.flush().await;
                let _ = stream.read_u8().await;
            }
        };
        let client = async {
            let mut stream = connect(&config, host, ours).await?;
            stream.read_u8().await.map_err(|e| handshake_fault(host, &e))
        };
        tokio::join!(client, serve).0
    }
}

fn tls(ca_file: Option<String>) -> Tls {
    Tls { ca_file, ..Tls::default() }
}

#[tokio::test]
async fn each_mode_refuses_what_it_must() {
    let (ours, other) = (Authority::new(), Authority::new());
    let good = ours.server("db.example");
    let expired = ours.leaf("db.example", ExtendedKeyUsagePurpose::ServerAuth, |p| {
        p.not_after = rcgen::date_time_ymd(2020, 1, 1)
    });
    let stranger = other.server("db.example");
    // Server's certificate, host asked for, whether each mode takes it.
    let cases = [
        ("good", &good, "db.example", [true, true, true]),
        ("wrong host", &good, "db2.example", [true, true, false]),
        ("wrong authority", &stranger, "db.example", [true, false, false]),
        ("expired", &expired, "db.example", [true, false, false]),
    ];
    for (name, leaf, host, accepted) in cases {
        for (mode, accepted) in
            [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull].into_iter().zip(accepted)
        {
            let config = client_config(&tls(Some(ours.ca_file())), mode).unwrap();
            let result = ours.shake(leaf, host, config, false).await;
            match result {
                Ok(byte) => assert!(accepted && byte == b'!', "{name} passed {mode:?}"),
                Err(fault) => {
                    assert!(!accepted, "{name} was refused by {mode:?}: {fault}");
                    assert_eq!(
                        (fault.class(), fault.code()),
                        (Class::Config, "tls.certificate_refused"),
                        "{fault}"
                    );
                    assert!(fault.hint_text().is_some());
                }
            }
        }
    }
}

#[tokio::test]
async fn client_certificates() {
    let ours = Authority::new();
    let server = ours.server("db.example");
    let (certificate, key) = ours.leaf("me", ExtendedKeyUsagePurpose::ClientAuth, |_| ());
    let with = Tls {
        cert_file: Some(ours.file("c.pem", &certificate)),
        key_file: Some(ours.file("k.pem", &key)),
        ..tls(Some(ours.ca_file()))
    };
    let config = client_config(&with, TlsMode::VerifyFull).unwrap();
    assert_eq!(ours.shake(&server, "db.example", config, true).await.unwrap(), b'!');
    let config = client_config(&tls(Some(ours.ca_file())), TlsMode::VerifyFull).unwrap();
    let fault = ours.shake(&server, "db.example", config, true).await.unwrap_err();
    assert_eq!((fault.class(), fault.code()), (Class::Config, "tls.client_certificate_refused"), "{fault}");
}

/// The certificate is public, so showing it proves nothing: `require` still wants its key.
#[tokio::test]
async fn a_copied_certificate_without_its_key_is_refused() {
    let ours = Authority::new();
    let (certificate, _) = ours.server("db.example");
    let (_, other_key) = ours.server("db.example");
    let key = PrivateKeyDer::from_pem_slice(other_key.as_bytes()).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let signing = provider.key_provider.load_private_key(key).unwrap();
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
    let certified = Arc::new(rustls::sign::CertifiedKey::new(chain, signing));
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let (client_end, server_end) = tokio::io::duplex(64 * 1024);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let config = client_config(&tls(None), TlsMode::Require).unwrap();
    let (client, _) = tokio::join!(connect(&config, "db.example", client_end), acceptor.accept(server_end));
    assert_eq!(client.err().unwrap().class(), Class::Config);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let ours = Authority::new();
    let (certificate, key) = ours.server("h");
    let (_, other_key) = ours.server("h");
    let (c, k) = (ours.file("c.pem", &certificate), ours.file("k.pem", &key));
    let other = ours.file("other.pem", &other_key);
    let empty = ours.file("empty.pem", "");
    let pair =
        |cert: &str, key: &str| Tls { cert_file: Some(cert.into()), key_file: Some(key.into()), ..tls(None) };
    let cases = [
        (tls(Some("/no/such".into())), "tls.file_unreadable", "/no/such"),
        (tls(Some(empty.clone())), "tls.file_invalid", empty.as_str()),
        (pair(&c, &other), "tls.key_mismatch", other.as_str()),
        (pair(&c, &c), "tls.file_invalid", c.as_str()),
        (pair(&k, &k), "tls.file_invalid", k.as_str()),
    ];
    for (tls, code, file) in cases {
        let fault = client_config(&tls, TlsMode::Require).unwrap_err();
        assert_eq!((fault.class(), fault.code()), (Class::Config, code), "{fault}");
        assert!(fault.message().contains(file), "{fault}");
    }
    assert!(client_config(&pair(&c, &k), TlsMode::Require).is_ok());
    assert_eq!(client_config(&tls(None), TlsMode::Disable).unwrap_err().class(), Class::Bug);
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_a_broken_line() {
    let config = client_config(&tls(None), TlsMode::Require).unwrap();
    let (ours, mut theirs) = tokio::io::duplex(4096);
    theirs.write_all(b"-ERR unknown command\r\n").await.unwrap();
    let fault = connect(&config, "h", ours).await.err().unwrap();
    assert_eq!((fault.class(), fault.code()), (Class::Config, "tls.not_spoken"), "{fault}");
    let (ours, theirs) = tokio::io::duplex(4096);
    drop(theirs);
    let fault = connect(&config, "h", ours).await.err().unwrap();
    assert_eq!((fault.class(), fault.code()), (Class::Retry, "tls.handshake_broken"), "{fault}");
}
