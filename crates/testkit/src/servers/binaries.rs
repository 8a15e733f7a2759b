//! Where the servers' programs are, and as which user they run. `dev.sh` follows the same rules when it puts them there.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Flavour, NatsVersion, PgVersion};

const SERVER_USER: &str = "deltaforge-dev";
const REMEDY: &str = "run `./dev.sh setup`, which installs all that the tests need";

/// The folder outside the clone in which servers and their data live: `DELTAFORGE_DEV_DIR`, or one per user under
/// `/var/tmp`. Outside, because the servers' user must be able to enter it and a clone may be in a private home.
pub(super) fn dev_dir() -> Result<PathBuf, String> {
    let uid = rustix::process::geteuid().as_raw();
    let dir = match env::var_os("DELTAFORGE_DEV_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(format!("/var/tmp/deltaforge-dev-{uid}")),
    };
    let owner = fs::metadata(&dir).map_err(|error| format!("{}: {error}: {REMEDY}", dir.display()))?.uid();
    if owner != uid {
        // Everyone may write to /var/tmp: a folder that somebody else prepared could hold anything.
        return Err(format!(
            "{} belongs to another user; set DELTAFORGE_DEV_DIR to one of your own",
            dir.display()
        ));
    }
    // Processes are told by their working directory, which the kernel reports without symbolic links.
    dir.canonicalize().map_err(|error| format!("{}: {error}", dir.display()))
}

/// The folder with PostgreSQL's programs.
pub(super) fn postgres(version: PgVersion) -> Result<PathBuf, String> {
    let (variable, usual) = match version {
        PgVersion::V15 => ("DELTAFORGE_PG15_BIN", PathBuf::from("/usr/lib/postgresql/15/bin")),
        PgVersion::V18 => ("DELTAFORGE_PG18_BIN", dev_dir()?.join("sid/root/usr/lib/postgresql/18/bin")),
    };
    folder_with("postgres", variable, &[usual])
}

/// The folder with Redis's programs: the system's.
pub(super) fn redis() -> Result<PathBuf, String> {
    folder_with("redis-server", "DELTAFORGE_REDIS_BIN", &["/usr/bin".into(), "/usr/local/bin".into()])
}

/// The folder with Kafka's jars.
pub(super) fn kafka() -> Result<PathBuf, String> {
    let named = env::var_os("DELTAFORGE_KAFKA_LIBS").filter(|folder| !folder.is_empty());
    let folder = match named {
        Some(folder) => PathBuf::from(folder),
        None => dev_dir()?.join("kafka/libs"),
    };
    let jars = fs::read_dir(&folder).ok().into_iter().flatten().flatten();
    let found = jars.into_iter().any(|jar| jar.file_name().to_string_lossy().starts_with("kafka_2.13-"));
    if found {
        return Ok(folder);
    }
    Err(format!("no Kafka in {} (another place: DELTAFORGE_KAFKA_LIBS): {REMEDY}", folder.display()))
}

/// The Java that Kafka runs on: the system's.
pub(super) fn java() -> Result<PathBuf, String> {
    let folder = folder_with("java", "DELTAFORGE_JAVA_BIN", &["/usr/bin".into(), "/usr/local/bin".into()])?;
    Ok(folder.join("java"))
}

/// The folder with `nats-server`.
pub(super) fn nats(version: NatsVersion) -> Result<PathBuf, String> {
    let (variable, usual) = match version {
        NatsVersion::Newest => ("DELTAFORGE_NATS_BIN", "nats/newest"),
        NatsVersion::V2_9 => ("DELTAFORGE_NATS29_BIN", "nats/2.9"),
    };
    folder_with("nats-server", variable, &[dev_dir()?.join(usual)])
}

/// The programs of MySQL or MariaDB. Distributions split them over two folders, `sbin` and `bin`.
#[derive(Debug, Clone)]
pub(super) struct MysqlPrograms {
    folders: Vec<PathBuf>,
    /// The folder with the server.
    server: PathBuf,
    /// Where the server's plug-ins are, when it would not find them by itself.
    pub(super) plugins: Option<PathBuf>,
}

impl MysqlPrograms {
    pub(super) fn find(flavour: Flavour) -> Result<MysqlPrograms, String> {
        let program = flavour.server_program();
        let (variable, usual, plugins) = match flavour {
            Flavour::MySql => {
                let usr = dev_dir()?.join("sid/root/usr");
                let plugins = usr.join("lib/mysql/plugin");
                ("DELTAFORGE_MYSQL_BIN", [usr.join("sbin"), usr.join("bin")], plugins)
            }
            Flavour::MariaDb => {
                let plugins = dev_dir()?.join("mariadb/plugin");
                ("DELTAFORGE_MARIADB_BIN", ["/usr/sbin".into(), "/usr/bin".into()], plugins)
            }
        };
        let named = env::var_os(variable).filter(|folders| !folders.is_empty());
        let plugins = Some(plugins).filter(|plugins| named.is_none() && plugins.is_dir());
        let folders = named.map_or(usual.to_vec(), |folders| env::split_paths(&folders).collect());
        let server = find_in(&folders, program, variable)?;
        Ok(MysqlPrograms { folders, server, plugins })
    }

    /// The program of that name; the folder with the server when no folder has it, for a clear error.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        let found = self.folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        found.unwrap_or_else(|| self.server.join(name))
    }

    /// The folder that holds `bin` or `sbin`, `lib` and `share`: the server's option `basedir`.
    pub(super) fn base(&self) -> &Path {
        self.server.parent().unwrap_or(&self.server)
    }
}

/// Why this machine has no MySQL, as `./dev.sh setup` found: then, and only then, a test may go without it.
pub(super) fn mysql_left_out() -> Option<String> {
    if MysqlPrograms::find(Flavour::MySql).is_ok() || env::var_os("DELTAFORGE_MYSQL_BIN").is_some() {
        return None;
    }
    let note = fs::read_to_string(dev_dir().ok()?.join("sid/mysql-left-out")).ok()?;
    Some(note.trim().to_owned())
}

fn folder_with(program: &str, variable: &str, usual: &[PathBuf]) -> Result<PathBuf, String> {
    let folders = match env::var_os(variable) {
        Some(folder) if !folder.is_empty() => vec![PathBuf::from(folder)],
        _ => usual.to_vec(),
    };
    find_in(&folders, program, variable)
}

fn find_in(folders: &[PathBuf], program: &str, variable: &str) -> Result<PathBuf, String> {
    if let Some(found) = folders.iter().find(|folder| folder.join(program).is_file()) {
        return Ok(found.clone());
    }
    let looked = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(format!("no `{program}` in {looked} (other places: {variable}): {REMEDY}"))
}

/// The unprivileged user for servers, needed by root only: PostgreSQL refuses to run as root.
#[derive(Clone, Copy)]
pub(super) struct ServerUser {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl ServerUser {
    /// `None` when the tests run as an ordinary user: the servers then run as that user.
    pub(super) fn find() -> Result<Option<ServerUser>, String> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").map_err(|error| format!("/etc/passwd: {error}"))?;
        let line = users.lines().find_map(|line| line.strip_prefix(SERVER_USER)?.strip_prefix(':'));
        let mut fields = line.ok_or(format!("there is no user {SERVER_USER}: {REMEDY}"))?.split(':').skip(1);
        match (fields.next().and_then(|uid| uid.parse().ok()), fields.next().and_then(|gid| gid.parse().ok()))
        {
            (Some(uid), Some(gid)) => Ok(Some(ServerUser { uid, gid })),
            _ => Err(format!("/etc/passwd: the line of {SERVER_USER} is not understood")),
        }
    }
}

/// Gives a file or folder to the servers' user, if there is one.
pub(super) fn give_to_server(path: &Path, user: Option<ServerUser>) -> Result<(), String> {
    let Some(user) = user else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid))
        .map_err(|error| format!("chown {}: {error}", path.display()))
}
