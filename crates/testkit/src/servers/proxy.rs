//! A TCP proxy that misbehaves on command: the bad network between us and a server.
//!
//! One thread owns all sockets and waits in `poll`. It has to be one: a connection is reset (as opposed to closed in
//! order) only when the last descriptor of a socket with zero linger is closed, and no second thread may hold another.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use socket2::SockRef;

use super::port::Port;

/// A proxy on 127.0.0.1 in front of a port of 127.0.0.1. Every command has taken effect when it returns.
pub struct Proxy {
    port: u16,
    counters: Arc<Counters>,
    link: Mutex<Link>,
    thread: Option<JoinHandle<()>>,
}

struct Link {
    commands: Sender<(Command, SyncSender<()>)>,
    wake: UnixStream,
}

enum Command {
    Cut,
    CutAfter(Option<u64>),
    Refuse(bool),
    Freeze(bool),
    Quit,
}

#[derive(Default)]
struct Counters {
    to_client: AtomicU64,
    to_server: AtomicU64,
    accepted: AtomicU64,
    open: AtomicUsize,
}

impl Proxy {
    /// Starts to listen; connects to `target_port` anew for each client.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn start(target_port: u16) -> Proxy {
        let port = Port::reserve().unwrap_or_else(|error| panic!("{error}"));
        let number = port.number();
        let (wake, woken) = UnixStream::pair().expect("a socket pair");
        woken.set_nonblocking(true).expect("non-blocking");
        let (commands, received) = channel();
        let counters = Arc::new(Counters::default());
        let mut forwarder = Forwarder {
            listener: Some(listen(&port)),
            port,
            target: SocketAddr::from(([127, 0, 0, 1], target_port)),
            commands: received,
            woken,
            connections: Vec::new(),
            frozen: false,
            cut_after: None,
            counters: counters.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("proxy-{number}"))
            .spawn(move || forwarder.run())
            .expect("a thread for the proxy");
        Proxy { port: number, counters, link: Mutex::new(Link { commands, wake }), thread: Some(thread) }
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Resets all connections, on both sides. New ones are welcome.
    pub fn cut(&self) {
        self.tell(Command::Cut);
    }

    /// Resets all connections once, as soon as `bytes` more have been sent from the server to clients.
    pub fn cut_after_bytes(&self, bytes: u64) {
        self.tell(Command::CutAfter(Some(bytes)));
    }

    /// Takes back [`Proxy::cut_after_bytes`].
    pub fn cut_never(&self) {
        self.tell(Command::CutAfter(None));
    }

    /// Refuses new connections (the port is closed) or stops to do so. Existing ones go on.
    pub fn refuse(&self, refuse: bool) {
        self.tell(Command::Refuse(refuse));
    }

    /// Forwards nothing, in either direction, not even the end of a connection, while connections are still accepted; or
    /// goes on, with nothing lost.
    pub fn freeze(&self, freeze: bool) {
        self.tell(Command::Freeze(freeze));
    }

    /// Bytes handed to clients since the start.
    pub fn bytes_to_client(&self) -> u64 {
        self.counters.to_client.load(Ordering::Acquire)
    }

    /// Bytes handed to the server since the start.
    pub fn bytes_to_server(&self) -> u64 {
        self.counters.to_server.load(Ordering::Acquire)
    }

    /// Connections accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.counters.accepted.load(Ordering::Acquire)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.counters.open.load(Ordering::Acquire)
    }

    fn tell(&self, command: Command) {
        let (done, wait) = sync_channel(1);
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if link.commands.send((command, done)).is_ok() && link.wake.write_all(&[0]).is_ok() {
            let _ = wait.recv();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tell(Command::Quit);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(port: &Port) -> TcpListener {
    let listener = port.listen().expect("the reserved port of the proxy");
    listener.set_nonblocking(true).expect("non-blocking");
    listener.into()
}

struct Forwarder {
    port: Port,
    listener: Option<TcpListener>,
    target: SocketAddr,
    commands: Receiver<(Command, SyncSender<()>)>,
    woken: UnixStream,
    connections: Vec<Connection>,
    frozen: bool,
    /// How many bytes may still go to clients before the next cut.
    cut_after: Option<u64>,
    counters: Arc<Counters>,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    to_server: Flow,
    to_client: Flow,
}

/// One direction: what was read and not yet written.
#[derive(Default)]
struct Flow {
    buffer: Vec<u8>,
    /// The reading side has ended.
    ended: bool,
    /// … and the writing side was told.
    closed: bool,
}

enum Progress {
    Open,
    Closed,
    /// One side was reset, so the other is to be reset too.
    Reset,
    /// The bytes of `cut_after` are used up.
    CutAll,
}

impl Forwarder {
    fn run(&mut self) {
        loop {
            self.wait();
            let mut drain = [0; 64];
            while matches!((&self.woken).read(&mut drain), Ok(n) if n > 0) {}
            while let Ok((command, done)) = self.commands.try_recv() {
                match command {
                    Command::Cut => self.cut(),
                    Command::CutAfter(bytes) => self.cut_after = bytes,
                    Command::Refuse(true) => self.listener = None,
                    Command::Refuse(false) => {
                        if self.listener.is_none() {
                            self.listener = Some(listen(&self.port));
                        }
                    }
                    Command::Freeze(freeze) => self.frozen = freeze,
                    Command::Quit => {
                        self.cut();
                        let _ = done.send(());
                        return;
                    }
                }
                let _ = done.send(());
            }
            self.accept();
            if !self.frozen {
                self.forward();
            }
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self) {
        let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN)];
        fds.extend(self.listener.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        if !self.frozen {
            for connection in &self.connections {
                let client = flags(&connection.to_server, &connection.to_client);
                let server = flags(&connection.to_client, &connection.to_server);
                // A socket without interest is left out: its end would be reported all the time.
                if !client.is_empty() {
                    fds.push(PollFd::new(&connection.client, client));
                }
                if !server.is_empty() {
                    fds.push(PollFd::new(&connection.server, server));
                }
            }
        }
        // Interrupted or not, the sockets are looked at next.
        let _ = poll(&mut fds, None);
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((client, _)) = listener.accept() {
            self.counters.accepted.fetch_add(1, Ordering::AcqRel);
            let Ok(server) = TcpStream::connect_timeout(&self.target, Duration::from_secs(5)) else {
                reset(client);
                continue;
            };
            for stream in [&client, &server] {
                let _ = stream.set_nonblocking(true);
                let _ = stream.set_nodelay(true);
            }
            let (to_server, to_client) = (Flow::default(), Flow::default());
            self.connections.push(Connection { client, server, to_server, to_client });
        }
        self.count();
    }

    fn forward(&mut self) {
        let mut index = 0;
        while index < self.connections.len() {
            let connection = &mut self.connections[index];
            match connection.forward(&mut self.cut_after, &self.counters) {
                Progress::Open => index += 1,
                Progress::Closed => drop(self.connections.swap_remove(index)),
                Progress::Reset => self.connections.swap_remove(index).reset(),
                Progress::CutAll => {
                    self.cut_after = None;
                    self.cut();
                }
            }
        }
        self.count();
    }

    fn cut(&mut self) {
        self.connections.drain(..).for_each(Connection::reset);
        self.count();
    }

    fn count(&self) {
        self.counters.open.store(self.connections.len(), Ordering::Release);
    }
}

/// What to wait for on a socket that `from` reads and `to` writes.
fn flags(from: &Flow, to: &Flow) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, !from.ended && from.buffer.is_empty());
    flags.set(PollFlags::OUT, !to.buffer.is_empty());
    flags
}

impl Connection {
    fn forward(&mut self, cut_after: &mut Option<u64>, counters: &Counters) -> Progress {
        let mut no_limit = None;
        let there = self.to_server.pass(&self.client, &self.server, &mut no_limit, &counters.to_server);
        let back = self.to_client.pass(&self.server, &self.client, cut_after, &counters.to_client);
        if *cut_after == Some(0) {
            return Progress::CutAll;
        }
        match (there, back) {
            (Ok(()), Ok(())) if self.to_server.closed && self.to_client.closed => Progress::Closed,
            (Ok(()), Ok(())) => Progress::Open,
            _ => Progress::Reset,
        }
    }

    fn reset(self) {
        reset(self.client);
        reset(self.server);
    }
}

impl Flow {
    /// Reads once if nothing is waiting, and writes what can be written, at most `limit`.
    fn pass(
        &mut self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        limit: &mut Option<u64>,
        count: &AtomicU64,
    ) -> std::io::Result<()> {
        if self.buffer.is_empty() && !self.ended {
            self.buffer.resize(64 * 1024, 0);
            let read = from.read(&mut self.buffer);
            self.buffer.truncate(*read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => self.ended = true,
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        let allowed = limit.map_or(self.buffer.len(), |limit| self.buffer.len().min(limit as usize));
        if allowed > 0 {
            match to.write(&self.buffer[..allowed]) {
                Ok(written) => {
                    self.buffer.drain(..written);
                    count.fetch_add(written as u64, Ordering::AcqRel);
                    *limit = limit.map(|limit| limit - written as u64);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if self.ended && self.buffer.is_empty() && !self.closed {
            self.closed = true;
            to.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}

/// Closes with a reset instead of an orderly end, dropping what was not sent yet.
fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}
