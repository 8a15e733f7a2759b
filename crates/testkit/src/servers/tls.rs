//! Certificates made on the spot, so that TLS is tested with a chain that really has to be checked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::process;

/// Files (PEM) of one server's certificates. They live as long as the server.
#[derive(Debug, Clone)]
pub struct Tls {
    dir: PathBuf,
}

impl Tls {
    /// The authority that signed the server's and the client's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// An authority that signed nothing here: whoever trusts only this one must refuse the server.
    pub fn other_ca_file(&self) -> PathBuf {
        self.dir.join("other-ca.crt")
    }

    /// A client's certificate, for the user `postgres`.
    pub fn client_cert_file(&self) -> PathBuf {
        self.dir.join("client.crt")
    }

    /// The key of [`Tls::client_cert_file`].
    pub fn client_key_file(&self) -> PathBuf {
        self.dir.join("client.key")
    }

    /// The server's certificate, for `localhost` and 127.0.0.1.
    pub fn server_cert_file(&self) -> PathBuf {
        self.dir.join("server.crt")
    }

    /// Its key.
    pub fn server_key_file(&self) -> PathBuf {
        self.dir.join("server.key")
    }

    /// Makes all of them in a new folder.
    ///
    /// # Errors
    /// What could not be written.
    pub fn generate(dir: PathBuf) -> Result<Tls, String> {
        fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
        let tls = Tls { dir };
        tls.write().map_err(|error| format!("certificates: {error}"))?;
        // PostgreSQL refuses a key that is not its own or that others may read.
        process::give(&tls.server_key_file())?;
        Ok(tls)
    }

    fn write(&self) -> Result<(), Box<dyn std::error::Error>> {
        let (issuer, ca) = authority("DeltaForge test CA")?;
        write(&self.ca_file(), &ca, 0o644)?;
        write(&self.other_ca_file(), &authority("another CA")?.1, 0o644)?;

        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let (cert, key) = leaf(names, "localhost", ExtendedKeyUsagePurpose::ServerAuth, &issuer)?;
        write(&self.server_cert_file(), &cert, 0o644)?;
        write(&self.server_key_file(), &key, 0o600)?;
        let (cert, key) = leaf(Vec::new(), "postgres", ExtendedKeyUsagePurpose::ClientAuth, &issuer)?;
        write(&self.client_cert_file(), &cert, 0o644)?;
        write(&self.client_key_file(), &key, 0o600)?;
        Ok(())
    }
}

fn authority(name: &str) -> Result<(Issuer<'static, KeyPair>, String), rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

fn leaf(
    names: Vec<String>,
    common_name: &str,
    purpose: ExtendedKeyUsagePurpose,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<(String, String), rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
