//! What a server is started with, and how its empty data folder is made.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::{Flavour, Session, SqlError};
use crate::servers::binaries::MysqlPrograms;
use crate::servers::process::{self, Server};
use crate::servers::template;

/// For the template: `root` may log in from everywhere.
const ACCOUNTS: &str = "create user root@'%'; grant all on *.* to root@'%' with grant option";

/// MariaDB also makes users without a name, and several of `root` for addresses of this machine: all of them would come
/// before `'name'@'%'`.
const MARIADB_CLEARED: &str = "delete from mysql.global_priv where user = '' or host <> 'localhost';
    delete from mysql.proxies_priv where host <> 'localhost'; flush privileges";

pub(super) fn data(server: &Server) -> PathBuf {
    server.dir().join("data")
}

pub(super) fn socket(server: &Server) -> PathBuf {
    server.dir().join("socket")
}

/// What both the servers and their preparation are given.
fn base_args(flavour: Flavour, programs: &MysqlPrograms, data: &Path) -> Vec<String> {
    let base = programs.base();
    // The first must be the first: it keeps the machine's option files out.
    let mut args = vec![
        "--no-defaults".to_owned(),
        format!("--datadir={}", data.display()),
        format!("--basedir={}", base.display()),
    ];
    let messages = base.join("share/mysql");
    if messages.join("english/errmsg.sys").is_file() {
        args.push(format!("--lc-messages-dir={}", messages.display()));
    }
    if let Some(plugins) = &programs.plugins {
        args.push(format!("--plugin-dir={}", plugins.display()));
    }
    let more: &[&str] = match flavour {
        // Debian's default for the first is a folder that does not exist here.
        Flavour::MySql => &["--secure-file-priv=", "--mysqlx=OFF", "--innodb-redo-log-capacity=32M"],
        Flavour::MariaDb => &["--debug-no-sync", "--innodb-log-file-size=16M"],
    };
    args.extend(more.iter().map(|arg| (*arg).to_owned()));
    // A commit goes to the kernel (2), which outlives a killed server, and nothing goes to the disk (nosync).
    let common = [
        "--innodb-buffer-pool-size=64M",
        "--innodb-flush-log-at-trx-commit=2",
        "--innodb-flush-method=nosync",
        "--skip-name-resolve",
        "--performance-schema=OFF",
    ];
    args.extend(common.map(str::to_owned));
    args
}

pub(super) fn launch(
    flavour: Flavour,
    programs: &MysqlPrograms,
    server: &Server,
    args: &[String],
) -> Result<(), String> {
    let mut all = base_args(flavour, programs, &data(server));
    all.push(format!("--socket={}", socket(server).display()));
    all.push(format!("--pid-file={}", server.dir().join("pid").display()));
    all.extend_from_slice(args);
    server
        .start(&programs.path(flavour.server_program()), all, |_, log| log.contains("ready for connections"))
}

/// The data folder of an empty server, with `root` allowed in from everywhere.
pub(super) fn copy_template(flavour: Flavour, programs: &MysqlPrograms, target: &Path) -> Result<(), String> {
    let program = programs.path(flavour.server_program());
    let version = process::run(Command::new(&program).args(["--no-defaults", "--version"]))?;
    // Without the path in front, which would only make the name long.
    let version = version.split_once("Ver ").map_or(version.as_str(), |(_, version)| version);
    template::copy(flavour.name(), version, target, |folder| {
        let server = Server::new(flavour.name())?;
        let data = data(&server);
        process::run(&mut initialize(flavour, programs, &data)?)?;
        let alone = ["--skip-networking", "--skip-log-bin", "--server-id=1"].map(str::to_owned);
        launch(flavour, programs, &server, &alone)?;
        let accounts = || -> Result<_, SqlError> {
            let mut session = Session::open(&socket(&server), "")?;
            if flavour == Flavour::MariaDb {
                session.try_sql(MARIADB_CLEARED)?;
            }
            session.try_sql(ACCOUNTS)
        };
        accounts().map_err(|error| error.to_string())?;
        server.stop(Signal::TERM)?;
        // Holds the server's UUID: each copy makes up its own.
        let _ = std::fs::remove_file(data.join("auto.cnf"));
        std::fs::rename(&data, folder).map_err(|error| format!("{}: {error}", folder.display()))
    })
}

fn initialize(flavour: Flavour, programs: &MysqlPrograms, data: &Path) -> Result<Command, String> {
    let args = base_args(flavour, programs, data);
    let mut command = match flavour {
        Flavour::MySql => {
            let mut command = process::command(&programs.path("mysqld"))?;
            command.args(args).arg("--initialize-insecure");
            command
        }
        Flavour::MariaDb => {
            let mut command = process::command(&programs.path("mariadb-install-db"))?;
            command.args(args).args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
            command
        }
    };
    command.current_dir("/");
    Ok(command)
}
