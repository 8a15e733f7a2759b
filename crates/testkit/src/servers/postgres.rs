//! PostgreSQL.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use super::port::Port;
use super::process::{self, Server};
use super::{HOST, Tls, binaries, template};

/// Which PostgreSQL to start: the oldest and the newest that we test with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PgVersion {
    /// 15, of Debian 12. pgoutput protocol versions 1 to 3.
    V15,
    /// 18, unpacked from a newer Debian. pgoutput protocol versions 1 to 4.
    V18,
}

/// How the server is set up. The default trusts everybody on 127.0.0.1 and speaks no TLS.
#[derive(Debug, Clone, Default)]
pub struct PgOptions {
    /// Settings (`name`, `value`) on top of ours: `wal_level=logical`, 20 slots and WAL senders, `fsync=off`,
    /// `wal_sender_timeout=5s`, time zone UTC. A later one wins.
    pub settings: Vec<(String, String)>,
    /// Offers TLS with a certificate from [`Postgres::tls`]; does not demand it.
    pub tls: bool,
    /// When given, the user `postgres` has this password and every connection must log in with SCRAM-SHA-256.
    pub password: Option<String>,
}

/// A running PostgreSQL, superuser `postgres`, locale `C.UTF-8`. Stopped and removed when dropped.
pub struct Postgres {
    version: PgVersion,
    bin: PathBuf,
    port: Port,
    password: Option<String>,
    settings: Vec<(String, String)>,
    tls: Option<Tls>,
    server: Server,
}

impl Postgres {
    /// Starts a server with an empty cluster and returns when it takes connections.
    ///
    /// # Errors
    /// A sentence for humans: what is missing and how to get it, or the server's log.
    pub fn start(version: PgVersion, options: &PgOptions) -> Result<Postgres, String> {
        let bin = binaries::postgres(version)?;
        let server = Server::new(version.name())?;
        let data = server.dir().join("data");
        copy_template(version, &bin, &data)?;

        let mut settings: Vec<(String, String)> = [
            ("listen_addresses", HOST),
            ("unix_socket_directories", ""),
            ("wal_level", "logical"),
            ("max_wal_senders", "20"),
            ("max_replication_slots", "20"),
            ("fsync", "off"),
            ("wal_sender_timeout", "5s"),
            ("timezone", "UTC"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let tls = if options.tls { Some(Tls::generate(server.dir().join("tls"))?) } else { None };
        if let Some(tls) = &tls {
            let files = [
                ("ssl_ca_file", tls.ca_file()),
                ("ssl_cert_file", tls.server_cert_file()),
                ("ssl_key_file", tls.server_key_file()),
            ];
            settings.push(("ssl".to_owned(), "on".to_owned()));
            settings.extend(files.map(|(name, file)| (name.to_owned(), file.display().to_string())));
        }
        settings.extend_from_slice(&options.settings);
        if let Some(password) = &options.password {
            demand_password(&bin, &data, password)?;
        }

        let password = options.password.clone();
        let postgres = Postgres { version, bin, port: Port::reserve()?, password, settings, tls, server };
        postgres.launch()?;
        Ok(postgres)
    }

    fn launch(&self) -> Result<(), String> {
        let data = self.server.dir().join("data");
        let mut args =
            vec!["-D".to_owned(), data.display().to_string(), "-p".to_owned(), self.port().to_string()];
        for (name, value) in &self.settings {
            args.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        // Line 1 of the pid file is the process id (an old file may lie there after a kill), line 8 the state.
        self.server.start(&self.bin.join("postgres"), args, |id, _| {
            let file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            let mut lines = file.lines().map(str::trim);
            lines.next() == Some(&id.to_string()) && lines.nth(6) == Some("ready")
        })
    }

    /// The version it was started as.
    pub fn version(&self) -> PgVersion {
        self.version
    }

    /// 127.0.0.1.
    pub fn host(&self) -> &'static str {
        HOST
    }

    /// The port, which stays the same over [`Postgres::restart`].
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `postgres://postgres@127.0.0.1:PORT/db`, with the password if there is one, without `sslmode`.
    ///
    /// The password is not percent-encoded: give [`PgOptions::password`] letters and digits, or build the DSN yourself.
    pub fn dsn(&self, db: &str) -> String {
        let password = self.password.as_ref().map(|password| format!(":{password}")).unwrap_or_default();
        format!("postgres://postgres{password}@{HOST}:{}/{db}", self.port())
    }

    /// The certificates.
    ///
    /// # Panics
    /// When started without [`PgOptions::tls`].
    pub fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("this PostgreSQL was started without PgOptions::tls")
    }

    /// The authority to trust: [`Tls::ca_file`] of [`Postgres::tls`].
    pub fn ca_file(&self) -> PathBuf {
        self.tls().ca_file()
    }

    /// The processes that stream a log at this moment, told by their titles.
    pub fn walsenders(&self) -> Vec<u32> {
        let streams = |pid: &u32| {
            let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            title.contains("walsender") && title.contains("START_REPLICATION")
        };
        let pids = process::processes_in(self.server.dir()).into_iter();
        pids.map(|pid| pid.as_raw_nonzero().get().unsigned_abs()).filter(streams).collect()
    }

    /// What the server has logged since it was made.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Creates an empty database whose name starts with `prefix`, and returns the name.
    pub fn fresh_db(&self, prefix: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{prefix}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        // Not from template1, which cannot be copied while another test is connected to it.
        self.psql("postgres", &format!("create database \"{name}\" template template0"));
        name
    }

    /// Runs statements with the `psql` program, each in its own transaction, and returns the rows: one per line, columns
    /// separated by `|`, values as the server prints them, null as nothing.
    ///
    /// # Panics
    /// When a statement fails, with what psql printed.
    #[track_caller]
    pub fn psql(&self, db: &str, sql: &str) -> String {
        self.try_psql(db, sql).unwrap_or_else(|error| panic!("psql: {error}\nwhile running: {sql}"))
    }

    /// [`Postgres::psql`] for statements that may fail.
    ///
    /// # Errors
    /// What psql printed.
    pub fn try_psql(&self, db: &str, sql: &str) -> Result<String, String> {
        let mut command = self.bin("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", db]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut input = child.stdin.take().ok_or("no standard input")?;
        let sql = sql.to_owned();
        // Written aside: psql may answer a lot before it has read all.
        let writer = std::thread::spawn(move || input.write_all(sql.as_bytes()));
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        let _ = writer.join();
        if !output.status.success() {
            let printed = [output.stderr, output.stdout].concat();
            return Err(String::from_utf8_lossy(&printed).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }

    /// A program of this version (`pg_recvlogical`, `pgbench`, …) that connects here unless its arguments say otherwise.
    pub fn bin(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("PG") {
                command.env_remove(variable);
            }
        }
        command.env("PGHOST", HOST).env("PGPORT", self.port().to_string()).env("PGUSER", "postgres");
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", password);
        }
        command
    }

    /// Shuts down as for planned maintenance: clients are disconnected, WAL senders first send all that was written.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    pub fn stop_fast(&self) {
        self.server.stop(Signal::INT).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Shuts down without a checkpoint, as after a crash: the next start recovers from the WAL.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    pub fn stop_immediate(&self) {
        self.server.stop(Signal::QUIT).unwrap_or_else(|error| panic!("{error}"));
    }

    /// `kill -9` of all its processes.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Starts it again with the same port and data, after [`Postgres::stop_fast`] if it runs.
    ///
    /// # Panics
    /// When it does not get ready, with its log.
    pub fn restart(&self) {
        if self.server.is_running() {
            self.stop_fast();
        }
        self.launch().unwrap_or_else(|error| panic!("{error}"));
    }

    /// Freezes all its processes: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.server.pause();
    }

    /// Ends [`Postgres::pause`].
    pub fn resume(&self) {
        self.server.resume();
    }
}

impl PgVersion {
    fn name(self) -> &'static str {
        match self {
            PgVersion::V15 => "pg15",
            PgVersion::V18 => "pg18",
        }
    }
}

fn copy_template(version: PgVersion, bin: &Path, data: &Path) -> Result<(), String> {
    let exact = process::run(Command::new(bin.join("postgres")).arg("--version"))?;
    template::copy(version.name(), &exact, data, |folder| {
        let mut initdb = process::command(&bin.join("initdb"))?;
        initdb.args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "-D"]);
        process::run(initdb.arg(folder).current_dir("/")).map(drop)
    })
}

/// Sets the password of `postgres` and lets nobody in without one. Done before the first start, by PostgreSQL's
/// single-user mode, so that there is no moment at which the server would still trust.
fn demand_password(bin: &Path, data: &Path, password: &str) -> Result<(), String> {
    let mut single = process::command(&bin.join("postgres"))?;
    single.args(["--single", "-c", "password_encryption=scram-sha-256", "-D"]).arg(data).arg("postgres");
    single.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = single.spawn().map_err(|error| format!("{single:?}: {error}"))?;
    let sql = format!("alter user postgres password '{}'\n", password.replace('\'', "''"));
    let mut input = child.stdin.take().ok_or("no standard input")?;
    input.write_all(sql.as_bytes()).map_err(|error| error.to_string())?;
    drop(input);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let printed = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || printed.contains("ERROR") {
        return Err(format!("the password was not set: {printed}"));
    }

    let mut rules = String::new();
    for database in ["all", "replication"] {
        let _ = writeln!(rules, "host {database} all {HOST}/32 scram-sha-256");
    }
    fs::write(data.join("pg_hba.conf"), rules).map_err(|error| format!("pg_hba.conf: {error}"))
}
