//! TLS client settings from the `tls` block.
//!
//! | mode | chain | host name | handshake signature |
//! |---|---|---|---|
//! | `prefer`, `require` | no | no | yes |
//! | `verify-ca` | yes | no | yes |
//! | `verify-full` | yes | yes | yes |
//!
//! The handshake signature is checked even where nothing else is: it proves that the peer owns the key of the certificate
//! it shows. Without it, whoever copies the server's certificate would also pass SCRAM's channel binding to it.
//!
//! The cryptography is *ring*'s, named explicitly: a process-wide default provider would depend on what else is linked.

use deltaforge_core::Fault;
use deltaforge_core::config::{Tls, TlsMode};
use deltaforge_core::fault::Kind;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// The settings of a TLS client for `mode`, which is the effective one: the caller has applied its default to
/// [`Tls::mode`]. Reads the files named in `tls`, or the system's roots.
///
/// # Errors
/// `Config`, naming the file: unreadable, without a certificate or key, a key that does not fit its certificate, no
/// roots. `Bug` for [`TlsMode::Disable`].
pub fn client_config(tls: &Tls, mode: TlsMode) -> Result<Arc<ClientConfig>, Fault> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match mode {
        TlsMode::Disable => {
            return Err(Fault::bug("tls.disabled", "TLS settings were asked for while TLS is disabled"));
        }
        // A bundle that cannot be read is a mistake also where it is not needed.
        TlsMode::Prefer | TlsMode::Require => {
            if let Some(file) = &tls.ca_file {
                roots(Some(file))?;
            }
            Arc::new(AnyCertificate(provider.clone()))
        }
        TlsMode::VerifyCa => Arc::new(AnyName(chain(tls, &provider)?)),
        TlsMode::VerifyFull => chain(tls, &provider)?,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Fault::bug("tls.provider", format!("no TLS version is usable: {e}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (&tls.cert_file, &tls.key_file) {
        (Some(cert_file), Some(key_file)) => {
            let (certificates, key) = (certificates(cert_file)?, private_key(key_file)?);
            builder.with_client_auth_cert(certificates, key).map_err(|e| {
                let message =
                    format!("the key in {key_file} cannot be used with the certificate in {cert_file}: {e}");
                config_fault("tls.key_mismatch", message)
                    .hint("give the certificate first and the key that it was made for, both as PEM")
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn config_fault(code: &'static str, message: String) -> Fault {
    Fault::config(code, message).kind(Kind::Tls)
}

fn read(file: &str) -> Result<Vec<u8>, Fault> {
    std::fs::read(Path::new(file))
        .map_err(|e| config_fault("tls.file_unreadable", format!("{file} cannot be read: {e}")))
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let pem = read(file)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let bad = |what: String| config_fault("tls.file_invalid", format!("{file} {what}"));
    match parsed {
        Ok(certificates) if certificates.is_empty() => Err(bad("holds no certificate in PEM".into())),
        Ok(certificates) => Ok(certificates),
        Err(e) => Err(bad(format!("is not PEM: {e}"))),
    }
}

fn private_key(file: &str) -> Result<PrivateKeyDer<'static>, Fault> {
    let pem = read(file)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        config_fault("tls.file_invalid", format!("{file} holds no unencrypted private key in PEM"))
            .hint(format!("decrypt it: openssl pkey -in {file} -out key.pem"))
    })
}

fn roots(ca_file: Option<&String>) -> Result<RootCertStore, Fault> {
    let mut store = RootCertStore::empty();
    let Some(file) = ca_file else {
        let native = rustls_native_certs::load_native_certs();
        let (added, _) = store.add_parsable_certificates(native.certs);
        if added == 0 {
            return Err(config_fault("tls.no_roots", "this system has no root certificates".into())
                .hint("install the package ca-certificates, or set tls.ca_file"));
        }
        return Ok(store);
    };
    for certificate in certificates(file)? {
        store.add(certificate).map_err(|e| {
            config_fault("tls.file_invalid", format!("{file} holds a certificate that cannot be used: {e}"))
        })?;
    }
    Ok(store)
}

fn chain(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Fault> {
    let roots = Arc::new(roots(tls.ca_file.as_ref())?);
    WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build().map_err(|e| {
        config_fault("tls.file_invalid", format!("the trusted certificates cannot be used: {e}"))
    })
}

/// Takes every certificate whose key the peer has.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks the chain, not the name. The verifier below looks at the name last, so an error of the name means that the chain
/// is good.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::Error::InvalidCertificate;
        match self.0.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The name that a handshake asks for and `verify-full` checks: a DNS name or an IP address, without brackets.
///
/// # Errors
/// `Config` when it is neither.
pub fn server_name(host: &str) -> Result<ServerName<'static>, Fault> {
    ServerName::try_from(host.to_owned()).map_err(|_| {
        config_fault("tls.host_name", format!("`{host}` is neither a DNS name nor an IP address"))
    })
}

/// Encrypts a connection.
///
/// # Errors
/// As [`handshake_fault`] and [`server_name`] say. The caller limits the time.
pub async fn connect<S>(
    config: &Arc<ClientConfig>,
    host: &str,
    stream: S,
) -> Result<tokio_rustls::client::TlsStream<S>, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connector = tokio_rustls::TlsConnector::from(config.clone());
    connector.connect(server_name(host)?, stream).await.map_err(|e| handshake_fault(host, &e))
}

/// What a failed handshake means: `Config` where a certificate is refused by either side, or where there is no common
/// ground, as trying again cannot help; `Retry` for a connection that broke.
///
/// Also to be asked when the *first read* after the handshake fails: with TLS 1.3 a server refuses the client's certificate
/// after the client has finished.
pub fn handshake_fault(host: &str, error: &io::Error) -> Fault {
    use rustls::Error as E;
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<E>());
    let (code, hint) = match inner {
        Some(E::InvalidCertificate(why)) => ("tls.certificate_refused", Some(certificate_hint(why))),
        Some(E::AlertReceived(alert)) => {
            use rustls::AlertDescription as A;
            match alert {
                A::CertificateRequired
                | A::BadCertificate
                | A::UnsupportedCertificate
                | A::UnknownCA
                | A::CertificateExpired
                | A::CertificateRevoked
                | A::CertificateUnknown
                | A::AccessDenied => (
                    "tls.client_certificate_refused",
                    Some("the server refuses this client's certificate: set tls.cert_file and tls.key_file"),
                ),
                A::InternalError | A::UserCanceled | A::CloseNotify => return broken(host, error),
                _ => (
                    "tls.no_common_ground",
                    Some("the server refuses the handshake: it may speak only older versions of TLS"),
                ),
            }
        }
        Some(E::PeerIncompatible(_)) => {
            ("tls.no_common_ground", Some("the server speaks no TLS 1.2 or 1.3 that is safe"))
        }
        Some(E::InvalidMessage(_)) => (
            "tls.not_spoken",
            Some("the server does not speak TLS on this port: check the port and tls.mode"),
        ),
        Some(E::NoCertificatesPresented | E::UnsupportedNameType) => ("tls.certificate_refused", None),
        _ => return broken(host, error),
    };
    let fault = config_fault(code, format!("TLS with {host} failed: {error}"));
    match hint {
        Some(hint) => fault.hint(hint),
        None => fault,
    }
}

fn broken(host: &str, error: &io::Error) -> Fault {
    Fault::retry("tls.handshake_broken", format!("TLS with {host} broke off: {error}")).kind(Kind::Tls)
}

fn certificate_hint(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: compare the clocks"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for another host: connect by a name it carries, or set tls.mode: verify-ca"
        }
        CertificateError::UnknownIssuer => {
            "set tls.ca_file to the authority that signed the server's certificate"
        }
        CertificateError::Other(_) => {
            "a certificate made with CA:TRUE cannot be a server's own: make one that is signed by an authority, or set tls.mode: require"
        }
        _ => "check the server's certificate: openssl s_client -connect HOST:PORT",
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
