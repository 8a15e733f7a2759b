//! A served control plane and the smallest of HTTP clients: one request per connection.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use axum::Extension;
use axum::extract::ConnectInfo;
use deltaforge_control::Api;
use deltaforge_core::task::{self, Task};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A served router.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) api: Api,
    _task: Task<()>,
}

impl Server {
    /// Serves all routes. With `remote`, every peer looks like one on another machine.
    pub(crate) async fn start(api: Api, remote: bool) -> Server {
        let mut router = deltaforge_control::router(api.clone());
        if remote {
            let peer: SocketAddr = "192.0.2.7:4711".parse().unwrap();
            router = router.layer(Extension(ConnectInfo(peer)));
        }
        Server::serve(api, router).await
    }

    /// Serves the routes of the metrics address.
    pub(crate) async fn start_metrics(api: Api) -> Server {
        let router = deltaforge_control::metrics_router(api.clone());
        Server::serve(api, router).await
    }

    async fn serve(api: Api, router: axum::Router) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task =
            task::spawn(
                "test server",
                async move { deltaforge_control::serve(listener, router).await.unwrap() },
            );
        Server { address, api, _task: task }
    }

    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut stream = self.request(method, path, headers, body).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        parse(&String::from_utf8(answer).unwrap())
    }

    /// Sends a request and closes the connection without reading the answer.
    pub(crate) async fn send_and_leave(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) {
        drop(self.request(method, path, headers, body).await);
    }

    async fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        stream
    }
}

fn parse(answer: &str) -> Reply {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_string()));
    let headers: Vec<_> = lines.filter_map(header).collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    assert!(!chunked, "answers are small enough to have a length");
    Reply { status, headers, body: body.into() }
}
