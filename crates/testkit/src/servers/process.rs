//! Server processes that never outlive their test.
//!
//! ```text
//!  test process ──spawn──► postgres, redis-server, …     each works in run/<pid>/<server>-<n>/
//!       │                        ▲
//!       └─pipe──► watchdog ──────┘ at the end of the pipe: quit, then kill, then remove run/<pid>
//! ```
//!
//! Three things end a server: its `Drop`; the watchdog, a shell that reads a pipe whose other end only the test process
//! holds, so that it wakes when that process is gone for whatever reason (`kill -9`, or a server in a `static`, which is
//! never dropped); and, should both have been killed at once, the next test process, which finds `run/<pid>` unlocked.
//!
//! The parent-death signal of Linux would be shorter but is sent when the *thread* that started the server ends: every
//! server shared by the tests of a binary would die with the first of them.
//!
//! Which processes belong to a server is told by their working directory. Process groups do not tell: each backend of
//! PostgreSQL makes one of its own.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::binaries::{self, ServerUser, give_to_server};
use crate::wait_for;

/// How often a starting or stopping server is looked at. Finer than `wait_for`, as every test pays for it.
const POLL: Duration = Duration::from_millis(5);

/// How long a server may take to start. Two seconds are usual; a machine with too much to do needs far longer.
const START_LIMIT: Duration = Duration::from_secs(180);

const WATCHDOG: &str = r#"
trap '' HUP INT TERM
dir=$1
while read -r _; do :; done
signal() {
  found=
  for process in /proc/[0-9]*; do
    case $(readlink "$process/cwd") in
      "$dir"/*) found=1; kill "$1" "${process#/proc/}" ;;
    esac
  done
}
signal -CONT
signal -QUIT
tries=0
while [ -n "$found" ] && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); signal -0; done
signal -KILL
rm -rf "$dir"
"#;

/// The folder of this test process, with its watchdog.
struct Home {
    dir: PathBuf,
    user: Option<ServerUser>,
    _lock: File,
    _watchdog: ChildStdin,
}

fn home() -> Result<&'static Home, String> {
    static HOME: OnceLock<Result<Home, String>> = OnceLock::new();
    HOME.get_or_init(Home::create).as_ref().map_err(Clone::clone)
}

impl Home {
    fn create() -> Result<Home, String> {
        let user = ServerUser::find()?;
        let run = binaries::dev_dir()?.join("run");
        let io = |error: std::io::Error| format!("{}: {error}", run.display());
        fs::create_dir_all(&run).map_err(io)?;
        // Held while folders are swept and made: a folder without its lock is then always an abandoned one.
        let gate = File::create(run.join("lock")).map_err(io)?;
        gate.lock().map_err(io)?;
        sweep(&run);

        let dir = run.join(std::process::id().to_string());
        fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).map_err(io)?;
        let lock = File::create(dir.join("owner")).map_err(io)?;
        lock.lock().map_err(io)?;

        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "deltaforge-watchdog"])
            .arg(&dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of the terminal's group, or Ctrl-C would end it together with the tests.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("the watchdog's shell did not start: {error}"))?;
        let pipe = watchdog.stdin.take().ok_or("the watchdog has no pipe")?;
        Ok(Home { dir, user, _lock: lock, _watchdog: pipe })
    }
}

/// Removes what test processes left behind that were killed together with their watchdog.
fn sweep(run: &Path) {
    let Ok(entries) = fs::read_dir(run) else { return };
    for dir in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let abandoned = match File::open(dir.join("owner")) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => true,
        };
        if abandoned {
            signal_all(&dir, Signal::KILL);
            let _ = fs::remove_dir_all(&dir);
        }
    }
}

/// A folder for one server, owned by the user that it will run as.
pub(super) fn new_folder(name: &str) -> Result<PathBuf, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let home = home()?;
    let dir = home.dir.join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    give(&dir)?;
    Ok(dir)
}

/// Gives a file or folder to the servers' user.
pub(super) fn give(path: &Path) -> Result<(), String> {
    give_to_server(path, home()?.user)
}

/// A command that will run as the servers' user, with a known environment and no standard streams.
pub(super) fn command(program: &Path) -> Result<Command, String> {
    let mut command = match home()?.user {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)]);
            command.args(["--clear-groups", "--"]).arg(program);
            command
        }
    };
    command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// Runs a command to its end; an error holds what it printed.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(text.into_owned());
    }
    Err(format!("{command:?}: {}\n{}{text}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// One server: a folder, and the processes that work in it.
pub(super) struct Server {
    name: String,
    dir: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Server {
    pub(super) fn new(name: &str) -> Result<Server, String> {
        Ok(Server { name: name.to_owned(), dir: new_folder(name)?, child: Mutex::new(None) })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_running(&self) -> bool {
        matches!(self.child().as_mut().map(Child::try_wait), Some(Ok(None)))
    }

    /// The main process, while there is one.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Starts the program and waits until `ready` finds, given the process id and what was logged since the start, that
    /// it serves.
    pub(super) fn start<I, S>(
        &self,
        program: &Path,
        args: I,
        ready: impl Fn(u32, &str) -> bool,
    ) -> Result<(), String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        assert!(!self.is_running(), "{} is already running", self.name);
        let log_path = self.log_path();
        let open = || File::options().create(true).append(true).open(&log_path);
        let (out, err) = (open(), open());
        let (Ok(out), Ok(err)) = (out, err) else {
            return Err(format!("cannot write {}", log_path.display()));
        };
        let before = fs::metadata(&log_path).map_or(0, |log| log.len()) as usize;

        let mut command = command(program)?;
        command.args(args).current_dir(&self.dir).stdout(out).stderr(err).process_group(0);
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let id = child.id();
        *self.child() = Some(child);

        let start = Instant::now();
        loop {
            let log = fs::read(&log_path).unwrap_or_default();
            let log = String::from_utf8_lossy(log.get(before..).unwrap_or_default());
            if ready(id, &log) {
                return Ok(());
            }
            if !self.is_running() {
                return Err(format!("{} ended while starting; its log:\n{log}", self.name));
            }
            if start.elapsed() > START_LIMIT {
                return Err(format!(
                    "{} did not get ready within {START_LIMIT:?}; its log:\n{log}",
                    self.name
                ));
            }
            std::thread::sleep(POLL);
        }
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// Limits how large a file may become that the main process writes to, from now on.
    pub(super) fn limit_files(&self, bytes: u64) -> Result<(), String> {
        let id = self.child().as_ref().map(Child::id).ok_or_else(|| format!("{} does not run", self.name))?;
        // As the servers' user, who may do it to a process of its own; in a container, root may not. Only the soft limit.
        let mut command = command(Path::new("prlimit"))?;
        command.arg(format!("--pid={id}")).arg(format!("--fsize={bytes}:"));
        run(&mut command).map(drop)
    }

    /// Asks the main process to end and waits until it has.
    pub(super) fn stop(&self, signal: Signal) -> Result<(), String> {
        let mut guard = self.child();
        let Some(child) = guard.as_mut() else { return Ok(()) };
        let _ = kill_process(Pid::from_child(child), signal);
        // Longer than the slowest honest end: PostgreSQL waits for a frozen WAL sender until its timeout.
        if !wait_end(child, Duration::from_secs(60)) {
            return Err(format!(
                "{} did not stop on {signal:?} within 60 s; its log:\n{}",
                self.name,
                self.log()
            ));
        }
        *guard = None;
        Ok(())
    }

    /// `kill -9` of all processes at once, as a power cut would.
    pub(super) fn kill(&self) {
        let mut guard = self.child();
        if let Some(mut child) = guard.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        signal_all(&self.dir, Signal::KILL);
        let start = Instant::now();
        while !processes_in(&self.dir).is_empty() {
            assert!(start.elapsed() < Duration::from_secs(10), "processes of {} survive kill -9", self.name);
            std::thread::sleep(POLL);
        }
    }

    /// Stops all processes in their tracks. Connections stay open, nothing answers.
    pub(super) fn pause(&self) {
        // The main process first, as it starts the others.
        if let Some(child) = self.child().as_ref() {
            let _ = kill_process(Pid::from_child(child), Signal::STOP);
        }
        signal_all(&self.dir, Signal::STOP);
        // A thread runs on until the kernel next looks at it.
        let pid = self.child().as_ref().map(Child::id);
        if let Some(pid) = pid {
            wait_for("all threads of a server to stand still", Duration::from_secs(10), || stands_still(pid));
        }
    }

    pub(super) fn resume(&self) {
        signal_all(&self.dir, Signal::CONT);
    }
}

/// Whether every thread of a process is stopped, or gone.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // proc(5): the state follows the name, which stands in parentheses.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        matches!(state, None | Some('T' | 't' | 'Z' | 'X'))
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        self.resume();
        if let Some(mut child) = self.child().take() {
            // SIGQUIT is PostgreSQL's immediate shutdown: unlike a kill it gives the shared memory back.
            let _ = kill_process(Pid::from_child(&child), Signal::QUIT);
            if !wait_end(&mut child, Duration::from_secs(5)) {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        signal_all(&self.dir, Signal::KILL);
        if std::thread::panicking() {
            let log = self.log();
            let from = log.lines().count().saturating_sub(30);
            let tail = log.lines().skip(from).collect::<Vec<_>>().join("\n");
            eprintln!("--- the last lines logged by {}:\n{tail}\n---", self.name);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn wait_end(child: &mut Child, timeout: Duration) -> bool {
    let start = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if start.elapsed() > timeout {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// The processes whose working directory is `dir` or below.
pub(super) fn processes_in(dir: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir)))
        .filter_map(Pid::from_raw)
        .collect()
}

/// Signals every process in `dir`, and those that these started meanwhile.
fn signal_all(dir: &Path, signal: Signal) {
    let mut done = HashSet::new();
    loop {
        let fresh: Vec<Pid> = processes_in(dir).into_iter().filter(|pid| done.insert(*pid)).collect();
        if fresh.is_empty() {
            return;
        }
        for pid in fresh {
            let _ = kill_process(pid, signal);
        }
    }
}
