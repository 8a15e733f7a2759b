//! Where the servers' programs are, and as which user they run. `dev.sh` follows the same rules when it puts them there.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::PgVersion;

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

fn folder_with(program: &str, variable: &str, usual: &[PathBuf]) -> Result<PathBuf, String> {
    let folders = match env::var_os(variable) {
        Some(folder) if !folder.is_empty() => vec![PathBuf::from(folder)],
        _ => usual.to_vec(),
    };
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
