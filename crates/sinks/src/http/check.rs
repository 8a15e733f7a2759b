//! Looks at the server before anything is sent: name, connection, encryption. No request is made, as none is without effect.

use super::config::Settings;
use deltaforge_core::Fault;
use deltaforge_core::config::{Report, Severity, TlsMode};
use deltaforge_core::fault::Kind;

/// Whether the server can be reached.
pub(super) async fn check(settings: &Settings) -> Report {
    let mut report = Report::default();
    let address = &settings.target.address;
    match connect(settings).await {
        Ok(()) if settings.tls_mode == TlsMode::Disable => {
            let evidence = format!("{address} takes connections; they are not encrypted");
            report.add("connection", Severity::Ok, evidence, None);
        }
        Ok(()) => {
            let evidence =
                format!("{address} takes connections, encrypted (tls.mode {})", settings.tls_mode.as_str());
            report.add("connection", Severity::Ok, evidence, None);
        }
        Err(fault) => {
            let evidence = format!("{}: {}", fault.code(), fault.message());
            report.add("connection", Severity::Error, evidence, fault.hint_text().map(str::to_owned));
        }
    }
    report
}

/// Makes a connection, encrypts it and closes it.
///
/// # Errors
/// `Retry` when the server is not there, `Config` for certificates.
pub(super) async fn connect(settings: &Settings) -> Result<(), Fault> {
    let address = &settings.target.address;
    let stream = address.connect(settings.connect_timeout, "http.unreachable").await?;
    if settings.tls_mode == TlsMode::Disable {
        return Ok(());
    }
    let config = deltaforge_net::tls::client_config(&settings.tls, settings.tls_mode)?;
    let handshake = deltaforge_net::tls::connect(&config, &address.host, stream);
    match tokio::time::timeout(settings.connect_timeout, handshake).await {
        Ok(connected) => connected.map(|_| ()),
        Err(_) => {
            let secs = settings.connect_timeout.as_secs();
            let message = format!("{address} did not answer the TLS handshake within {secs} s");
            Err(Fault::retry("http.timeout", message)
                .kind(Kind::Timeout)
                .hint("the server may not speak TLS on this port: check port and scheme of url"))
        }
    }
}
