//! A web server that records what it takes.

#![allow(unreachable_pub, reason = "each test binary has it as a module")]

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use deltaforge_core::task::{Task, spawn};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};

/// One request, and how it was answered.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub status: StatusCode,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The event, or those of the array.
    pub fn events(&self) -> Vec<Value> {
        match self.json() {
            Value::Array(events) => events,
            event => vec![event],
        }
    }
}

type Answer = dyn Fn(&Seen, usize) -> Response<Body> + Send + Sync;

struct Inner {
    answer: Box<Answer>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

/// Listens until it is dropped.
pub struct Web {
    pub address: SocketAddr,
    scheme: &'static str,
    inner: Arc<Inner>,
    _task: Task<()>,
}

pub fn status(code: u16) -> Response<Body> {
    Response::builder().status(code).body(Body::empty()).unwrap()
}

impl Web {
    /// Answers 204 to everything.
    pub async fn start() -> Web {
        Web::answering(|_, _| status(204)).await
    }

    /// `answer` gets the request and how many came before it.
    pub async fn answering(answer: impl Fn(&Seen, usize) -> Response<Body> + Send + Sync + 'static) -> Web {
        Web::listen("127.0.0.1:0".parse().unwrap(), None, Box::new(answer)).await
    }

    pub async fn encrypted(config: rustls::ServerConfig) -> Web {
        Web::listen("127.0.0.1:0".parse().unwrap(), Some(config), Box::new(|_, _| status(200))).await
    }

    pub async fn listen(at: SocketAddr, tls: Option<rustls::ServerConfig>, answer: Box<Answer>) -> Web {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner { answer, seen: Mutex::default(), connections: AtomicUsize::new(0) });
        let app = Router::new()
            .fallback(take)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(inner.clone());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let counted = inner.clone();
        let task = spawn("web server", async move {
            match tls {
                None => axum::serve(Counting(listener, counted), app).await.unwrap(),
                Some(config) => {
                    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
                    axum::serve(Encrypting(Counting(listener, counted), acceptor), app).await.unwrap();
                }
            }
        });
        Web { address, scheme, inner, _task: task }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://{}/{path}", self.scheme, self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.inner.connections.load(SeqCst)
    }

    /// The events that were taken under a path, in order.
    pub fn taken(&self, path: &str) -> Vec<Value> {
        let seen = self.seen();
        let here = seen.iter().filter(|s| s.uri.path() == format!("/{path}") && s.status.is_success());
        here.flat_map(Seen::events).collect()
    }
}

async fn take(
    State(inner): State<Arc<Inner>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    // One lock over asking and recording: what was recorded before is what was answered before.
    let mut all = inner.seen.lock().unwrap();
    let mut seen = Seen { method, uri, headers, body, status: StatusCode::OK };
    let response = (inner.answer)(&seen, all.len());
    seen.status = response.status();
    all.push(seen);
    response
}

struct Counting(TcpListener, Arc<Inner>);

impl axum::serve::Listener for Counting {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        let accepted = self.0.accept().await.unwrap();
        self.1.connections.fetch_add(1, SeqCst);
        accepted
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

struct Encrypting(Counting, tokio_rustls::TlsAcceptor);

impl axum::serve::Listener for Encrypting {
    type Io = tokio_rustls::server::TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, peer) = axum::serve::Listener::accept(&mut self.0).await;
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.0.local_addr()
    }
}
