//! MySQL and MariaDB: one type, so that a test can run over both.

mod launch;
mod replica;
mod session;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use super::binaries::{self, MysqlPrograms};
use super::port::Port;
use super::process::Server;
use super::{HOST, Tls};

use launch::{copy_template, data, launch, socket};
pub use session::{ByteRows, Rows, Session, SqlError};

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// MySQL, unpacked from a newer Debian. Debian 12 itself has none.
    MySql,
    /// MariaDB of Debian 12.
    MariaDb,
}

impl Flavour {
    /// Those that this machine has, for `for flavour in Flavour::available()`.
    ///
    /// MySQL comes from a distribution that moves, so it alone may be missing: when `./dev.sh setup` said so. Every test
    /// that goes without it says `SKIPPED: MySQL …` on the terminal, past the test runner's capture.
    pub fn available() -> Vec<Flavour> {
        [Flavour::MySql, Flavour::MariaDb].into_iter().filter(|flavour| flavour.is_available()).collect()
    }

    /// Whether a test for this flavour alone can run; says `SKIPPED: MySQL …` when it cannot.
    pub fn is_available(self) -> bool {
        let Some(reason) = (self == Flavour::MySql).then(binaries::mysql_left_out).flatten() else {
            return true;
        };
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        // Not `eprintln!`, which the test runner keeps to itself when the test passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: MySQL in {test}: {reason}");
        false
    }

    /// `mysql` or `mariadb`: the type of the source, the scheme of the DSN, the name of the command line client.
    pub fn name(self) -> &'static str {
        match self {
            Flavour::MySql => "mysql",
            Flavour::MariaDb => "mariadb",
        }
    }

    pub(super) fn server_program(self) -> &'static str {
        match self {
            Flavour::MySql => "mysqld",
            Flavour::MariaDb => "mariadbd",
        }
    }
}

/// How the server is set up. The default lets `root` in from 127.0.0.1 without a password.
///
/// TLS without [`MysqldOptions::tls`] is what the server does by itself: MySQL offers it with a certificate that it made
/// up, MariaDB before 11.4 offers none.
#[derive(Debug, Clone, Default)]
pub struct MysqldOptions {
    /// Further arguments of the server, such as `--gtid-mode=OFF` or `--log-bin-compress=ON`, after ours; a later one
    /// wins.
    ///
    /// Ours: binary log on, format ROW, row image FULL, row metadata FULL, GTIDs on (MariaDB: domain 7, strict, replicas
    /// log too), `utf8mb4`, names not resolved, performance schema off, nothing waits for the disk. A commit survives
    /// [`Mysqld::kill`] all the same.
    pub args: Vec<String>,
    /// Offers TLS with a certificate from [`Mysqld::tls`]; does not demand it.
    pub tls: bool,
    /// The password of `root` over TCP, kept by the server's own default method.
    pub password: Option<String>,
}

/// A running MySQL or MariaDB. Killed and removed when dropped.
///
/// `root` may do everything, over TCP and, always without a password, over the Unix socket, on which [`Mysqld::sql`] and
/// [`Mysqld::session`] work: they work whatever a test does to passwords and TLS.
pub struct Mysqld {
    flavour: Flavour,
    programs: MysqlPrograms,
    port: Port,
    password: Option<String>,
    args: Vec<String>,
    tls: Option<Tls>,
    server: Server,
}

impl Mysqld {
    /// Starts a server with no databases of its own, an empty binary log and a server id and UUID that no other server
    /// of this test has, and returns when it takes connections.
    ///
    /// # Errors
    /// A sentence for humans: what is missing and how to get it, or the server's log.
    pub fn start(flavour: Flavour, options: &MysqldOptions) -> Result<Mysqld, String> {
        let programs = MysqlPrograms::find(flavour)?;
        let server = Server::new(flavour.name())?;
        copy_template(flavour, &programs, &data(&server))?;

        let port = Port::reserve()?;
        let mut args = vec![
            format!("--port={}", port.number()),
            format!("--bind-address={HOST}"),
            // A port is unique, which is all that the number of a server has to be.
            format!("--server-id={}", port.number()),
        ];
        let mut add = |list: &[&str]| args.extend(list.iter().map(|arg| (*arg).to_owned()));
        add(&["--log-bin=bin", "--binlog-format=ROW", "--binlog-row-image=FULL"]);
        add(&["--binlog-row-metadata=FULL", "--sync-binlog=0", "--character-set-server=utf8mb4"]);
        match flavour {
            Flavour::MySql => add(&["--gtid-mode=ON", "--enforce-gtid-consistency=ON"]),
            Flavour::MariaDb => {
                add(&["--gtid-domain-id=7", "--gtid-strict-mode=ON", "--log-slave-updates=ON"]);
            }
        }
        let tls = if options.tls { Some(Tls::generate(server.dir().join("tls"))?) } else { None };
        if let Some(tls) = &tls {
            args.push(format!("--ssl-ca={}", tls.ca_file().display()));
            args.push(format!("--ssl-cert={}", tls.server_cert_file().display()));
            args.push(format!("--ssl-key={}", tls.server_key_file().display()));
        }
        args.extend_from_slice(&options.args);

        let password = options.password.clone();
        let mysqld = Mysqld { flavour, programs, port, password, args, tls, server };
        mysqld.launch()?;
        if let Some(password) = &mysqld.password {
            let sql = format!("set sql_log_bin = 0; alter user root@'%' identified by {}", quoted(password));
            mysqld.try_sql("", &sql).map_err(|error| error.to_string())?;
        }
        Ok(mysqld)
    }

    fn launch(&self) -> Result<(), String> {
        launch(self.flavour, &self.programs, &self.server, &self.args)
    }

    /// The flavour it was started as.
    pub fn flavour(&self) -> Flavour {
        self.flavour
    }

    /// What the server calls its version, such as `10.11.19-MariaDB-0+deb12u1-log`.
    pub fn version(&self) -> String {
        self.value("select version()")
    }

    /// 127.0.0.1.
    pub fn host(&self) -> &'static str {
        HOST
    }

    /// The port, which stays the same over [`Mysqld::restart`].
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `mysql://root@127.0.0.1:PORT/db` or `mariadb://…`, with the password if there is one.
    ///
    /// The password is not percent-encoded: give [`MysqldOptions::password`] letters and digits.
    pub fn dsn(&self, db: &str) -> String {
        match &self.password {
            None => format!("{}://root@{HOST}:{}/{db}", self.flavour.name(), self.port()),
            Some(password) => self.dsn_of("root", password, db),
        }
    }

    /// [`Mysqld::dsn`] of another user, whom the test has created. Neither part is percent-encoded.
    pub fn dsn_of(&self, user: &str, password: &str, db: &str) -> String {
        format!("{}://{user}:{password}@{HOST}:{}/{db}", self.flavour.name(), self.port())
    }

    /// The server's Unix socket, on which everybody is on the same machine and so has a secure connection.
    pub fn socket(&self) -> PathBuf {
        socket(&self.server)
    }

    /// The certificates.
    ///
    /// # Panics
    /// When started without [`MysqldOptions::tls`].
    pub fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("this server was started without MysqldOptions::tls")
    }

    /// The authority to trust: [`Tls::ca_file`] of [`Mysqld::tls`].
    pub fn ca_file(&self) -> PathBuf {
        self.tls().ca_file()
    }

    /// What the server has logged since it was made.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// The folder with the binary log and everything else that the server keeps.
    pub fn data_dir(&self) -> PathBuf {
        data(&self.server)
    }

    /// Creates an empty database whose name starts with `prefix`, and returns the name.
    pub fn fresh_db(&self, prefix: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{prefix}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.sql("", &format!("create database `{}`", name.replace('`', "``")));
        name
    }

    /// Runs statements, separated by `;`, on a new connection and returns the rows of all of them. `db` may be empty.
    ///
    /// # Panics
    /// When a statement fails, with the server's answer.
    #[track_caller]
    pub fn sql(&self, db: &str, sql: &str) -> Rows {
        self.session(db).sql(sql)
    }

    /// [`Mysqld::sql`] for statements that may fail.
    ///
    /// # Errors
    /// The server's answer.
    pub fn try_sql(&self, db: &str, sql: &str) -> Result<Rows, SqlError> {
        Session::open(&self.socket(), db)?.try_sql(sql)
    }

    /// The first column of the first row, for questions that have one answer. Null is empty.
    ///
    /// # Panics
    /// When there is no row, or as [`Mysqld::sql`].
    #[track_caller]
    pub fn value(&self, sql: &str) -> String {
        let mut rows = self.sql("", sql);
        assert!(rows.first().is_some_and(|row| !row.is_empty()), "no row: {sql}");
        rows.swap_remove(0).swap_remove(0).unwrap_or_default()
    }

    /// A connection that stays open.
    ///
    /// # Panics
    /// When the server does not let it in, with its answer.
    #[track_caller]
    pub fn session(&self, db: &str) -> Session {
        let session = Session::open(&self.socket(), db);
        session.unwrap_or_else(|error| panic!("connecting to {}: {error}", self.flavour.name()))
    }

    /// The end of the binary log: file and offset.
    pub fn binlog_end(&self) -> (String, u64) {
        // MySQL 8.4 has dropped the old statement, MariaDB and MySQL before 8.2 do not know the new one.
        let rows =
            self.try_sql("", "show binary log status").unwrap_or_else(|_| self.sql("", "show master status"));
        let text = |i: usize| rows.first().and_then(|row| row.get(i)?.clone()).unwrap_or_default();
        (text(0), text(1).parse().unwrap_or_else(|_| panic!("the binary log is off: {rows:?}")))
    }

    /// The GTIDs of the binary log up to its end, in one line: a set for MySQL, a position for MariaDB.
    pub fn gtids(&self) -> String {
        let gtids = match self.flavour {
            Flavour::MySql => self.value("select @@global.gtid_executed"),
            Flavour::MariaDb => self.value("select @@global.gtid_binlog_pos"),
        };
        gtids.replace('\n', "")
    }

    /// A program of this version (`mysqlbinlog`, `mariadb-dump`, …), without arguments and without any option file.
    ///
    /// These programs take their address from arguments only: see [`Mysqld::client_args`].
    pub fn bin(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.path(name));
        command.env_remove("MYSQL_PWD").env("HOME", "/nonexistent").arg("--no-defaults");
        command
    }

    /// The arguments with which the programs of [`Mysqld::bin`] connect here as `root`.
    pub fn client_args(&self) -> Vec<String> {
        vec!["--user=root".to_owned(), format!("--socket={}", self.socket().display())]
    }

    /// Shuts down as for planned maintenance, replication clients included.
    ///
    /// # Panics
    /// When that takes longer than a minute.
    pub fn stop(&self) {
        self.server.stop(Signal::TERM).unwrap_or_else(|error| panic!("{error}"));
    }

    /// `kill -9`. What was committed is still there after [`Mysqld::restart`].
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Starts it again with the same port and data, after [`Mysqld::stop`] if it runs.
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

    /// Ends [`Mysqld::pause`].
    pub fn resume(&self) {
        self.server.resume();
    }
}

impl Drop for Mysqld {
    fn drop(&mut self) {
        // An orderly end would take seconds and save data that is about to be removed.
        self.server.kill();
    }
}

/// A text as an SQL literal.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
