//! Redis: one server, a cluster, and a pair watched by a sentinel.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::port::Port;
use super::process::{self, Server};
use super::{HOST, Tls, binaries};
use crate::wait_for;

/// How the server is set up. The default lets everybody in and speaks no TLS.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Further arguments of `redis-server`, such as `--maxmemory 10mb`, word by word.
    pub args: Vec<String>,
    /// TLS only, with a certificate from [`Redis::tls`]. A client's certificate is accepted, not demanded.
    pub tls: bool,
    /// The password of the default user.
    pub password: Option<String>,
}

/// A running Redis, the system's version, that keeps its data over a restart. Stopped and removed when dropped.
pub struct Redis {
    bin: PathBuf,
    port: Port,
    /// The cluster's nodes talk to each other on a second port.
    bus: Option<Port>,
    password: Option<String>,
    args: Vec<String>,
    tls: Option<Tls>,
    ready: &'static str,
    server: Server,
}

impl Redis {
    /// Starts an empty server and returns when it takes commands.
    ///
    /// # Errors
    /// A sentence for humans: what is missing and how to get it, or the server's log.
    pub fn start(options: &RedisOptions) -> Result<Redis, String> {
        let redis = Redis::new("redis", options)?;
        redis.launch()?;
        Ok(redis)
    }

    fn new(name: &str, options: &RedisOptions) -> Result<Redis, String> {
        let bin = binaries::redis()?;
        let server = Server::new(name)?;
        let port = Port::reserve()?;
        let dir = server.dir().display().to_string();
        let number = port.number().to_string();
        let mut args: Vec<String> =
            ["--bind", HOST, "--dir", &dir, "--save", "", "--appendonly", "yes"].map(str::to_owned).into();
        let mut option = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
        let tls = if options.tls { Some(Tls::generate(server.dir().join("tls"))?) } else { None };
        match &tls {
            None => option("--port", &number),
            Some(tls) => {
                option("--port", "0");
                option("--tls-port", &number);
                option("--tls-ca-cert-file", &tls.ca_file().display().to_string());
                option("--tls-cert-file", &tls.server_cert_file().display().to_string());
                option("--tls-key-file", &tls.server_key_file().display().to_string());
                option("--tls-auth-clients", "optional");
            }
        }
        if let Some(password) = &options.password {
            option("--requirepass", password);
        }
        args.extend_from_slice(&options.args);
        let password = options.password.clone();
        Ok(Redis { bin, port, bus: None, password, args, tls, ready: "Ready to accept connections", server })
    }

    fn launch(&self) -> Result<(), String> {
        self.server.start(&self.bin.join("redis-server"), &self.args, |_, log| log.contains(self.ready))
    }

    /// 127.0.0.1.
    pub fn host(&self) -> &'static str {
        HOST
    }

    /// The port, which stays the same over [`Redis::restart`].
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `redis://127.0.0.1:PORT` (`rediss://` with TLS), with the password if there is one.
    ///
    /// The password is not percent-encoded: give [`RedisOptions::password`] letters and digits.
    pub fn uri(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        let password = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("{scheme}://{password}{HOST}:{}", self.port())
    }

    /// The certificates.
    ///
    /// # Panics
    /// When started without [`RedisOptions::tls`].
    pub fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("this Redis was started without RedisOptions::tls")
    }

    /// The authority to trust: [`Tls::ca_file`] of [`Redis::tls`].
    pub fn ca_file(&self) -> PathBuf {
        self.tls().ca_file()
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

    /// Runs one command with `redis-cli` and returns its raw answer, without the last newline.
    ///
    /// # Panics
    /// When the command fails, with what redis-cli printed.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args).unwrap_or_else(|error| panic!("redis-cli {args:?}: {error}"))
    }

    /// [`Redis::cli`] for commands that may fail.
    ///
    /// # Errors
    /// What redis-cli printed.
    pub fn try_cli(&self, args: &[&str]) -> Result<String, String> {
        // -e: an error reply fails the program; without it redis-cli prints it like any other answer.
        let text = process::run(self.cli_command().arg("-e").args(args))?;
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }

    fn cli_command(&self) -> Command {
        let mut command = Command::new(self.bin.join("redis-cli"));
        command.args(["--raw", "-h", HOST, "-p", &self.port().to_string()]);
        command.env_remove("REDISCLI_AUTH");
        if let Some(password) = &self.password {
            command.env("REDISCLI_AUTH", password);
        }
        if let Some(tls) = &self.tls {
            command.arg("--tls").arg("--cacert").arg(tls.ca_file());
        }
        command
    }

    /// Ends the server in order; what it holds is kept for [`Redis::restart`].
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

    /// Starts it again with the same port and data, after [`Redis::stop`] if it runs.
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

    /// Ends [`Redis::pause`].
    pub fn resume(&self) {
        self.server.resume();
    }
}

/// Redis nodes that share the key space.
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Starts a cluster of masters without replicas and returns when every node sees all slots served.
    ///
    /// # Errors
    /// What is missing and how to get it, or what went wrong. Redis wants at least three masters.
    pub fn start(masters: usize) -> Result<RedisCluster, String> {
        let mut nodes = Vec::new();
        for _ in 0..masters {
            let mut node = Redis::new("redis-node", &RedisOptions::default())?;
            let bus = Port::reserve()?;
            let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port"];
            node.args.extend(args.map(str::to_owned));
            node.args.push(bus.number().to_string());
            node.bus = Some(bus);
            node.launch()?;
            nodes.push(node);
        }
        let cluster = RedisCluster { nodes };
        let first = cluster.nodes.first().ok_or("a cluster needs masters")?;
        let mut create = Command::new(first.bin.join("redis-cli"));
        create.args(["--cluster", "create"]).args(cluster.addresses()).args(["--cluster-replicas", "0"]);
        process::run(create.arg("--cluster-yes"))?;
        wait_for("every node of the Redis cluster to see all slots", Duration::from_secs(30), || {
            cluster.nodes.iter().all(|node| node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
        });
        Ok(cluster)
    }

    /// `redis-cluster://HOST:PORT,HOST:PORT,…`, all nodes.
    pub fn uri(&self) -> String {
        format!("redis-cluster://{}", self.addresses().join(","))
    }

    fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("{HOST}:{}", node.port())).collect()
    }

    /// The nodes, each to be stopped or frozen by itself.
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// Runs one command with `redis-cli` on whichever node serves its key.
    ///
    /// # Panics
    /// When the command fails, with what redis-cli printed.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> String {
        let text = process::run(self.nodes[0].cli_command().args(["-c", "-e"]).args(args))
            .unwrap_or_else(|error| panic!("redis-cli {args:?}: {error}"));
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    }
}

/// A master with one replica, watched by one sentinel whose vote alone is enough for a failover.
pub struct RedisSentinel {
    sentinel: Redis,
    master: Redis,
    replica: Redis,
}

impl RedisSentinel {
    /// The name under which the sentinel knows the master.
    pub const MASTER: &str = "df-master";

    /// Starts all three and returns when the sentinel knows the replica and the replica follows.
    ///
    /// # Errors
    /// What is missing and how to get it, or what went wrong.
    pub fn start() -> Result<RedisSentinel, String> {
        let master = Redis::start(&RedisOptions::default())?;
        let follow = ["--replicaof", HOST, &master.port().to_string()].map(str::to_owned);
        let replica = Redis::start(&RedisOptions { args: follow.into(), ..RedisOptions::default() })?;

        let mut sentinel = Redis::new("sentinel", &RedisOptions::default())?;
        let name = Self::MASTER;
        let config = format!(
            "bind {HOST}\nport {}\ndir {}\nsentinel monitor {name} {HOST} {} 1\n\
             sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 5000\n",
            sentinel.port(),
            sentinel.server.dir().display(),
            master.port(),
        );
        // The sentinel keeps what it learns in its configuration file, so it must own it.
        let file = sentinel.server.dir().join("sentinel.conf");
        std::fs::write(&file, config).map_err(|error| format!("{}: {error}", file.display()))?;
        process::give(&file)?;
        sentinel.args = vec![file.display().to_string(), "--sentinel".to_owned()];
        sentinel.ready = "+monitor master";
        sentinel.launch()?;

        let watched = RedisSentinel { sentinel, master, replica };
        wait_for("the replica to follow and the sentinel to know it", Duration::from_secs(30), || {
            let followed = watched.master.cli(&["INFO", "replication"]).contains("state=online");
            let known = watched.sentinel.cli(&["SENTINEL", "REPLICAS", name]);
            followed && known.contains("master-link-status\nok")
        });
        Ok(watched)
    }

    /// `redis-sentinel://HOST:PORT?master=NAME`.
    pub fn uri(&self) -> String {
        format!("redis-sentinel://{HOST}:{}?master={}", self.sentinel.port(), Self::MASTER)
    }

    /// The sentinel itself.
    pub fn sentinel(&self) -> &Redis {
        &self.sentinel
    }

    /// The server that was the master at the start.
    pub fn master(&self) -> &Redis {
        &self.master
    }

    /// The server that was the replica at the start.
    pub fn replica(&self) -> &Redis {
        &self.replica
    }

    /// The port that the sentinel gives for the master now.
    pub fn master_port(&self) -> u16 {
        let answer = self.sentinel.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::MASTER]);
        answer.lines().nth(1).and_then(|port| port.parse().ok()).unwrap_or_default()
    }

    /// Makes the replica the master, the old master being healthy or not, and returns when the sentinel says so.
    ///
    /// # Panics
    /// When that takes longer than 30 seconds.
    pub fn failover(&self) {
        let old = self.master_port();
        // Refused while the sentinel has not yet heard from the replica, so asked again.
        wait_for("the sentinel to begin a failover", Duration::from_secs(30), || {
            self.sentinel.try_cli(&["SENTINEL", "FAILOVER", Self::MASTER]).is_ok()
                || self.master_port() != old
        });
        wait_for("the failover", Duration::from_secs(30), || self.master_port() != old);
    }
}
