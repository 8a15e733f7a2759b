//! Kafka: one broker that is its own controller (KRaft).
//!
//! Three listeners: CLIENT is what a test connects to, set up as its options say; INTERNAL lets everybody in and is the door
//! for the broker itself and for a test that makes topics or looks behind the scenes; CONTROLLER is the quorum of one.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::port::Port;
use super::process::{self, Server};
use super::{HOST, Proxy, Tls, binaries, template};

/// Small and quick to start; what a test does with it never pays for the second compiler.
const JVM: [&str; 6] = [
    "-Xms64m",
    "-Xmx512m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-Xshare:auto",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
];

/// The line in which the broker says that it serves is one of `info`.
const READY_LOG: &str = "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info";
const READY: &str = "Kafka Server started";

/// How users log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaSasl {
    /// The password as it is.
    Plain,
    /// `SCRAM-SHA-256`.
    Scram256,
    /// `SCRAM-SHA-512`.
    Scram512,
}

impl KafkaSasl {
    /// The mechanism's name.
    pub fn mechanism(self) -> &'static str {
        match self {
            KafkaSasl::Plain => "PLAIN",
            KafkaSasl::Scram256 => "SCRAM-SHA-256",
            KafkaSasl::Scram512 => "SCRAM-SHA-512",
        }
    }
}

/// How the broker is set up. The default lets everybody in and speaks no TLS.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// Mechanisms by which clients must log in; none: nobody needs to.
    pub sasl: Vec<KafkaSasl>,
    /// Users and passwords (letters and digits).
    pub users: Vec<(String, String)>,
    /// TLS only, with a certificate from [`Kafka::tls`]. A client's certificate is accepted, not demanded.
    pub tls: bool,
    /// Whether rights are checked: then a user who is not in `super_users` has those given by [`Kafka::allow`].
    pub acl: bool,
    /// Users who may do everything.
    pub super_users: Vec<String>,
    /// Clients come through a [`Proxy`], see [`Kafka::proxy`]; the internal listener stays direct.
    pub proxied: bool,
    /// Further lines of `server.properties`.
    pub properties: Vec<(String, String)>,
}

/// A running broker that keeps its data over a restart. Killed and removed when dropped.
pub struct Kafka {
    libs: PathBuf,
    client: Port,
    internal: Port,
    _controller: Port,
    proxy: Option<Proxy>,
    tls: Option<Tls>,
    server: Server,
}

impl Kafka {
    /// Starts an empty broker and returns when it serves.
    ///
    /// # Errors
    /// A sentence for humans: what is missing and how to get it, or the broker's log.
    pub fn start(options: &KafkaOptions) -> Result<Kafka, String> {
        let libs = binaries::kafka()?;
        let server = Server::new("kafka")?;
        let (client, internal, controller) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
        let tls = if options.tls { Some(Tls::generate(server.dir().join("tls"))?) } else { None };
        // Clients go where the broker sends them: it has to know the proxy's port before it starts.
        let proxy = options.proxied.then(|| Proxy::start(client.number()));
        let advertised = proxy.as_ref().map_or(client.number(), Proxy::port);
        let ports = [client.number(), advertised, internal.number(), controller.number()];
        let properties = properties(options, server.dir(), tls.as_ref(), ports)?;
        let file = server.dir().join("server.properties");
        fs::write(&file, properties).map_err(|error| format!("{}: {error}", file.display()))?;
        format(&libs, &file, &server.dir().join("data"), options)?;
        let kafka = Kafka { libs, client, internal, _controller: controller, proxy, tls, server };
        kafka.launch()?;
        Ok(kafka)
    }

    fn launch(&self) -> Result<(), String> {
        let mut args: Vec<String> = JVM.map(str::to_owned).into();
        args.extend([READY_LOG.into(), "-cp".into(), class_path(&self.libs), "kafka.Kafka".into()]);
        args.push(self.server.dir().join("server.properties").display().to_string());
        self.server.start(&binaries::java()?, &args, |_, log| log.contains(READY))
    }

    /// The port for clients (the proxy's, if there is one), which stays the same over [`Kafka::restart`].
    pub fn port(&self) -> u16 {
        self.proxy.as_ref().map_or(self.client.number(), Proxy::port)
    }

    /// What clients come through.
    ///
    /// # Panics
    /// When started without [`KafkaOptions::proxied`].
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("this Kafka was started without KafkaOptions::proxied")
    }

    /// `127.0.0.1:PORT`, for clients.
    pub fn brokers(&self) -> String {
        format!("{HOST}:{}", self.port())
    }

    /// `127.0.0.1:PORT` of the listener that lets everybody in, whatever the options say.
    pub fn internal(&self) -> String {
        format!("{HOST}:{}", self.internal.number())
    }

    /// The certificates.
    ///
    /// # Panics
    /// When started without [`KafkaOptions::tls`].
    pub fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("this Kafka was started without KafkaOptions::tls")
    }

    /// The process that serves, for those who look at what it uses.
    ///
    /// # Panics
    /// While the server is down.
    pub fn pid(&self) -> u32 {
        self.server.pid().expect("a server that runs")
    }

    /// What the broker has logged since it was made.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Runs one of Kafka's own programs, such as `org.apache.kafka.tools.TopicCommand`, at the internal listener; `input` goes
    /// to its standard input. Returns what it printed.
    ///
    /// # Panics
    /// When the program fails, with what it printed.
    #[track_caller]
    pub fn tool(&self, class: &str, args: &[&str], input: &str) -> String {
        let file = self.server.dir().join("input");
        fs::write(&file, input).expect("a file in the server's folder");
        let mut command = tool_command(&self.libs, class).unwrap_or_else(|error| panic!("{error}"));
        command.args(["--bootstrap-server", &self.internal()]).args(args);
        command.stdin(fs::File::open(&file).expect("the file just written"));
        process::run(&mut command).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Gives `user` rights, such as `["--operation", "Write", "--topic", "t"]`.
    ///
    /// # Panics
    /// When the broker refuses.
    #[track_caller]
    pub fn allow(&self, user: &str, rights: &[&str]) {
        let principal = format!("User:{user}");
        let mut args = vec!["--add", "--force", "--allow-principal", &principal];
        args.extend_from_slice(rights);
        self.tool("org.apache.kafka.tools.AclCommand", &args, "");
    }

    /// Ends the broker in order; what it holds is kept for [`Kafka::restart`].
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

    /// Starts it again with the same ports and data, after [`Kafka::stop`] if it runs.
    ///
    /// # Panics
    /// When it does not get ready, with its log.
    pub fn restart(&self) {
        if self.server.is_running() {
            self.stop();
        }
        self.launch().unwrap_or_else(|error| panic!("{error}"));
    }

    /// From now on no file of the broker can grow beyond so many bytes: to the broker, that is a disk that is full. A
    /// restart ends it.
    ///
    /// # Panics
    /// When the broker does not run.
    pub fn limit_files(&self, bytes: u64) {
        self.server.limit_files(bytes).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Whether the broker's process lives.
    pub fn is_running(&self) -> bool {
        self.server.is_running()
    }

    /// Freezes it: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Ends [`Kafka::pause`].
    pub fn resume(&self) {
        self.server.resume();
    }
}

impl Drop for Kafka {
    /// On the signal that ends the other servers a JVM only prints its threads.
    fn drop(&mut self) {
        self.server.kill();
    }
}

fn class_path(libs: &Path) -> String {
    format!("{}/*", libs.display())
}

fn tool_command(libs: &Path, class: &str) -> Result<Command, String> {
    let mut command = process::command(&binaries::java()?)?;
    command.args(JVM).args(["-cp", &class_path(libs), class]);
    Ok(command)
}

/// Makes the data folder. Without users it is the same for every broker.
fn format(libs: &Path, properties: &Path, data: &Path, options: &KafkaOptions) -> Result<(), String> {
    let run = |properties: &Path, scram: &[String]| {
        let mut command = tool_command(libs, "kafka.tools.StorageTool")?;
        command.args(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"]).arg(properties).args(scram);
        process::run(&mut command).map(drop)
    };
    let scram: Vec<String> = (options.sasl.iter())
        .filter(|sasl| **sasl != KafkaSasl::Plain)
        .flat_map(|sasl| options.users.iter().map(move |user| (sasl.mechanism(), user)))
        .flat_map(|(mechanism, (name, password))| {
            ["--add-scram".to_owned(), format!("{mechanism}=[name={name},password={password}]")]
        })
        .collect();
    if !scram.is_empty() {
        return run(properties, &scram);
    }
    let version = fs::read_dir(libs).ok().into_iter().flatten().flatten();
    let version = version.map(|jar| jar.file_name().to_string_lossy().into_owned());
    let version = version.into_iter().find(|jar| jar.starts_with("kafka-clients-")).unwrap_or_default();
    template::copy("kafka", &version, data, |folder| {
        let plain = self::properties(&KafkaOptions::default(), folder, None, [1, 1, 2, 3])?;
        let plain = plain.replace(&log_dirs(folder), &format!("log.dirs={}\n", folder.display()));
        let file = folder.join("for-format.properties");
        fs::write(&file, plain).map_err(|error| format!("{}: {error}", file.display()))?;
        run(&file, &[])?;
        fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))
    })
}

fn log_dirs(dir: &Path) -> String {
    format!("log.dirs={}\n", dir.join("data").display())
}

/// Records bear the times of their changes, which in tests may lie years back: nothing is to be removed for its age. A broker
/// that was killed is let in again once its session has ended: 9 s by default.
fn properties(
    options: &KafkaOptions,
    dir: &Path,
    tls: Option<&Tls>,
    [client, advertised, internal, controller]: [u16; 4],
) -> Result<String, String> {
    let protocol = match (options.sasl.is_empty(), options.tls) {
        (true, false) => "PLAINTEXT",
        (true, true) => "SSL",
        (false, false) => "SASL_PLAINTEXT",
        (false, true) => "SASL_SSL",
    };
    let mut text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@{HOST}:{controller}\n\
         listeners=CLIENT://{HOST}:{client},INTERNAL://{HOST}:{internal},CONTROLLER://{HOST}:{controller}\n\
         advertised.listeners=CLIENT://{HOST}:{advertised},INTERNAL://{HOST}:{internal}\n\
         listener.security.protocol.map=CLIENT:{protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         controller.listener.names=CONTROLLER\ninter.broker.listener.name=INTERNAL\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=1\ngroup.initial.rebalance.delay.ms=0\n\
         share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
         auto.create.topics.enable=false\ncontrolled.shutdown.enable=false\n\
         log.retention.ms=-1\nbroker.session.timeout.ms=1000\nbroker.heartbeat.interval.ms=200\n"
    );
    text += &log_dirs(dir);
    let mut add = |key: &str, value: &str| {
        let _ = writeln!(text, "{key}={value}");
    };
    if !options.sasl.is_empty() {
        let names: Vec<&str> = options.sasl.iter().map(|sasl| sasl.mechanism()).collect();
        add("sasl.enabled.mechanisms", &names.join(","));
        for sasl in &options.sasl {
            let module = match sasl {
                KafkaSasl::Plain => "plain.PlainLoginModule",
                _ => "scram.ScramLoginModule",
            };
            let mut jaas = format!("org.apache.kafka.common.security.{module} required");
            if *sasl == KafkaSasl::Plain {
                for (name, password) in &options.users {
                    let _ = write!(jaas, " user_{name}=\"{password}\"");
                }
            }
            let listener = format!("listener.name.client.{}", sasl.mechanism().to_lowercase());
            add(&format!("{listener}.sasl.jaas.config"), &format!("{jaas};"));
        }
    }
    if let Some(tls) = tls {
        let pem = dir.join("tls/server.pem");
        let read = |path: PathBuf| fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()));
        let both = read(tls.server_key_file())? + &read(tls.server_cert_file())?;
        fs::write(&pem, both).map_err(|error| format!("{}: {error}", pem.display()))?;
        process::give(&pem)?;
        add("listener.name.client.ssl.keystore.type", "PEM");
        add("listener.name.client.ssl.keystore.location", &pem.display().to_string());
        add("listener.name.client.ssl.truststore.type", "PEM");
        add("listener.name.client.ssl.truststore.location", &tls.ca_file().display().to_string());
        add("listener.name.client.ssl.client.auth", "requested");
    }
    if options.acl {
        add("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer");
        let mut users = vec!["User:ANONYMOUS".to_owned()];
        users.extend(options.super_users.iter().map(|user| format!("User:{user}")));
        add("super.users", &users.join(";"));
    }
    for (key, value) in &options.properties {
        add(key, value);
    }
    Ok(text)
}
