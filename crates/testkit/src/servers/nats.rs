//! NATS with JetStream: one server, or a cluster of three.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::port::Port;
use super::process::{self, Server};
use super::{HOST, Tls, binaries};
use crate::wait_for;

/// Which server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NatsVersion {
    /// What Debian sid has: 2.12 or later, with atomic batches.
    #[default]
    Newest,
    /// What Debian 12 has.
    V2_9,
}

/// Who is let in.
#[derive(Debug, Clone, Default)]
pub enum NatsAuth {
    /// Everybody.
    #[default]
    None,
    /// A user with a password.
    User(String, String),
    /// Whoever knows the token.
    Token(String),
    /// The user of [`Nats::nkey_seed`].
    NKey,
    /// The user of [`Nats::credentials_file`]: an operator, an account and a user as JWTs, the account held in memory.
    Credentials,
}

/// How the server is set up. The default is the newest, with JetStream, for everybody, without TLS.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// Which server.
    pub version: NatsVersion,
    /// Who is let in.
    pub auth: NatsAuth,
    /// TLS only, with a certificate from [`Nats::tls`].
    pub tls: bool,
    /// Without JetStream.
    pub no_jetstream: bool,
    /// Lines inside the block `jetstream`, such as `max_file_store: 10MB` or `sync_interval: always`.
    pub jetstream: String,
    /// Further lines of the configuration, such as `max_payload: 64KB`.
    pub config: String,
}

/// A running server that keeps its data over a restart. Stopped and removed when dropped.
pub struct Nats {
    bin: PathBuf,
    port: Port,
    auth: NatsAuth,
    tls: Option<Tls>,
    nkey_seed: Option<String>,
    server: Server,
}

impl Nats {
    /// Starts an empty server and returns when it takes commands.
    ///
    /// # Errors
    /// A sentence for humans: what is missing and how to get it, or the server's log.
    pub fn start(options: &NatsOptions) -> Result<Nats, String> {
        let nats = Nats::new("nats", options, "")?;
        nats.launch()?;
        Ok(nats)
    }

    fn new(name: &str, options: &NatsOptions, cluster: &str) -> Result<Nats, String> {
        let bin = binaries::nats(options.version)?;
        let server = Server::new(name)?;
        let port = Port::reserve()?;
        let tls = if options.tls { Some(Tls::generate(server.dir().join("tls"))?) } else { None };
        let mut nats = Nats { bin, port, auth: options.auth.clone(), tls, nkey_seed: None, server };
        let config = nats.config(options, cluster)?;
        nats.write("nats.conf", &config)?;
        Ok(nats)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let file = self.server.dir().join(name);
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        process::give(&file)?;
        Ok(file)
    }

    fn config(&mut self, options: &NatsOptions, cluster: &str) -> Result<String, String> {
        let mut config = format!("host: {HOST}\nport: {}\n{cluster}\n", self.port());
        if !options.no_jetstream {
            let dir = self.server.dir().join("jetstream");
            let _ = writeln!(config, "jetstream {{\nstore_dir: {:?}\n{}\n}}", dir, options.jetstream);
        }
        if let Some(tls) = &self.tls {
            let (cert, key, ca) = (tls.server_cert_file(), tls.server_key_file(), tls.ca_file());
            let _ = writeln!(config, "tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {ca:?} }}");
        }
        match &options.auth {
            NatsAuth::None => {}
            NatsAuth::User(user, password) => {
                let _ = writeln!(config, "authorization {{ user: {user:?}, password: {password:?} }}");
            }
            NatsAuth::Token(token) => {
                let _ = writeln!(config, "authorization {{ token: {token:?} }}");
            }
            NatsAuth::NKey => {
                let user = KeyPair::new_user();
                self.nkey_seed = Some(user.seed().map_err(|error| error.to_string())?);
                let _ = writeln!(config, "authorization {{ users: [ {{ nkey: {} }} ] }}", user.public_key());
            }
            NatsAuth::Credentials => config.push_str(&self.operator()?),
        }
        config.push_str(&options.config);
        Ok(config)
    }

    /// An operator who signs an account with JetStream, which signs a user, whose credentials go to a file.
    fn operator(&self) -> Result<String, String> {
        let (operator, system) = (KeyPair::new_operator(), KeyPair::new_account());
        let (account, user) = (KeyPair::new_account(), KeyPair::new_user());
        let limits = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1 });
        // JetStream wants an account for the server's own messages.
        let claims = json!({ "type": "operator", "version": 2, "system_account": system.public_key() });
        let operator_jwt = jwt(&operator, &operator, "test", claims)?;
        let system_jwt = jwt(&operator, &system, "SYS", json!({ "type": "account", "version": 2 }))?;
        let claims = json!({ "type": "account", "version": 2, "limits": limits });
        let account_jwt = jwt(&operator, &account, "test", claims)?;
        let claims = json!({ "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {} });
        let user_jwt = jwt(&account, &user, "test", claims)?;
        let seed = user.seed().map_err(|error| error.to_string())?;
        self.write(
            "user.creds",
            &format!(
                "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n\
                 -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
            ),
        )?;
        let (account, system) = (account.public_key(), system.public_key());
        Ok(format!(
            "operator: {operator_jwt}\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{ {account}: {account_jwt}, {system}: {system_jwt} }}\n"
        ))
    }

    fn launch(&self) -> Result<(), String> {
        let config = self.server.dir().join("nats.conf").display().to_string();
        let args = ["--config".to_owned(), config];
        self.server.start(&self.bin.join("nats-server"), args, |_, log| log.contains("Server is ready"))
    }

    /// 127.0.0.1.
    pub fn host(&self) -> &'static str {
        HOST
    }

    /// The port, which stays the same over [`Nats::restart`].
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `nats://127.0.0.1:PORT` (`tls://` with TLS).
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "tls" } else { "nats" };
        format!("{scheme}://{HOST}:{}", self.port())
    }

    /// What lets a client in.
    pub fn auth(&self) -> &NatsAuth {
        &self.auth
    }

    /// The seed of the user of [`NatsAuth::NKey`].
    ///
    /// # Panics
    /// When started otherwise.
    pub fn nkey_seed(&self) -> &str {
        self.nkey_seed.as_deref().expect("this server was started without NatsAuth::NKey")
    }

    /// The file of the user of [`NatsAuth::Credentials`].
    pub fn credentials_file(&self) -> PathBuf {
        self.server.dir().join("user.creds")
    }

    /// The certificates.
    ///
    /// # Panics
    /// When started without [`NatsOptions::tls`].
    pub fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("this server was started without NatsOptions::tls")
    }

    /// The process that serves, for those who look at what it uses.
    ///
    /// # Panics
    /// While the server is down.
    pub fn pid(&self) -> u32 {
        self.server.pid().expect("a server that runs")
    }

    /// What the server has logged since it was made.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Ends the server in order; what it holds is kept for [`Nats::restart`].
    ///
    /// # Panics
    /// When that takes longer than a minute.
    pub fn stop(&self) {
        self.server.stop(Signal::TERM).unwrap_or_else(|error| panic!("{error}"));
    }

    /// `kill -9`.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Starts it again with the same port and data, after [`Nats::stop`] if it runs.
    ///
    /// # Panics
    /// When it does not get ready, with its log.
    pub fn restart(&self) {
        if self.server.is_running() {
            self.stop();
        }
        self.launch().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Freezes it: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Ends [`Nats::pause`].
    pub fn resume(&self) {
        self.server.resume();
    }
}

impl Drop for Nats {
    /// On the signal that [`Server`] would send, a program in Go logs the stack of everything.
    fn drop(&mut self) {
        self.server.resume();
        self.server.kill();
    }
}

/// A JWT of NATS: signed by `issuer`, about `subject`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, claims: Value) -> Result<String, String> {
    let mut body = json!({ "jti": "", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": name,
        "sub": subject.public_key(), "nats": claims });
    // The identity is a hash of the rest; the server does not compare it, yet it must be there.
    let identity = Sha256::digest(body.to_string());
    body["jti"] = URL_SAFE_NO_PAD.encode(identity).into();
    let head = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(head.to_string()), URL_SAFE_NO_PAD.encode(body.to_string()));
    let signature = issuer.sign(signed.as_bytes()).map_err(|error| error.to_string())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Three servers with a common JetStream.
pub struct NatsCluster {
    nodes: Vec<Nats>,
    _routes: Vec<Port>,
}

impl NatsCluster {
    /// Starts three nodes and returns when they have elected who leads them.
    ///
    /// # Errors
    /// What is missing and how to get it, or what went wrong.
    pub fn start(options: &NatsOptions) -> Result<NatsCluster, String> {
        let routes: Vec<Port> = (0..3).map(|_| Port::reserve()).collect::<Result<_, _>>()?;
        let peers: Vec<String> =
            routes.iter().map(|port| format!("nats://{HOST}:{}", port.number())).collect();
        let mut nodes = Vec::new();
        for (n, route) in routes.iter().enumerate() {
            let cluster = format!(
                "server_name: n{n}\ncluster {{ name: df, listen: \"{HOST}:{}\", routes: [ {} ] }}",
                route.number(),
                peers.join(", ")
            );
            nodes.push(Nats::new("nats-node", options, &cluster)?);
        }
        std::thread::scope(|scope| {
            let starts: Vec<_> = nodes.iter().map(|node| scope.spawn(|| node.launch())).collect();
            starts.into_iter().try_for_each(|start| {
                start.join().unwrap_or_else(|_| Err("the thread that starts a node panicked".into()))
            })
        })?;
        let cluster = NatsCluster { nodes, _routes: routes };
        wait_for("a JetStream leader of the NATS cluster", Duration::from_secs(60), || {
            cluster
                .nodes
                .iter()
                .any(|node| node.log().contains("Self is new JetStream cluster metadata leader"))
        });
        Ok(cluster)
    }

    /// `nats://…,nats://…`, all nodes.
    pub fn url(&self) -> String {
        self.nodes.iter().map(Nats::url).collect::<Vec<_>>().join(",")
    }

    /// The nodes, named `n0` to `n2`, each to be stopped or frozen by itself.
    pub fn nodes(&self) -> &[Nats] {
        &self.nodes
    }

    /// The node of that name.
    ///
    /// # Panics
    /// When there is none.
    pub fn node(&self, name: &str) -> &Nats {
        let at = name.strip_prefix('n').and_then(|n| n.parse::<usize>().ok());
        at.and_then(|at| self.nodes.get(at)).unwrap_or_else(|| panic!("no node {name}"))
    }
}
