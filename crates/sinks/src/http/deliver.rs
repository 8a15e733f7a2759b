//! Sending, one request at a time.
//!
//! **Nothing overtakes.** A request is begun after the one before it was answered, over one connection that is kept. What a
//! server has taken is therefore a prefix of what was delivered, and a redelivery repeats a contiguous stretch of it. One
//! thing no client can rule out: a server that answers too late, after we gave the connection up, may act on the old request
//! after the repeated one. The `Idempotency-Key` is the same on both.
//!
//! **One refused event stops nobody before it.** In batch mode a refused array is sent again in halves, the first half
//! first, until the refused event stands alone: everything before it is delivered, and it is named. What comes
//! after it waits until somebody has decided about it.

use super::Rest;
use super::answer::{Verdict, no_answer, poison, retry_after, verdict};
use super::config::Settings;
use super::requests::{Requests, Run, Writer};
use super::sign::sign;
use crate::shared::relay::Relay;
use async_trait::async_trait;
use deltaforge_core::config::TlsMode;
use deltaforge_core::sink::{Delivered, Delivery, Receipt, Sink, SinkContext};
use deltaforge_core::{Batch, Fault, clock};
use deltaforge_net::tls::client_config;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Client, Request, Response};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How much of an answer is read, and for how long, so that its connection can be used again.
const ANSWER_BYTES: usize = 64 * 1024;
const ANSWER_TIME: Duration = Duration::from_secs(1);
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An open sink.
pub(super) struct HttpSink {
    writer: Writer,
    relay: Relay<Sender>,
}

/// The client and what is the same for every request.
struct Sender {
    client: Client,
    settings: Arc<Settings>,
    rest: Arc<Rest>,
    headers: HeaderMap,
}

impl HttpSink {
    pub(super) fn new(
        settings: Arc<Settings>,
        rest: Arc<Rest>,
        context: &SinkContext,
    ) -> Result<HttpSink, Fault> {
        let sender = Sender::new(settings.clone(), rest)?;
        Ok(HttpSink { writer: Writer::new(settings, context), relay: Relay::new("http sink", sender) })
    }
}

#[async_trait]
impl Sink for HttpSink {
    async fn deliver(&mut self, batch: Arc<Batch>, _: Delivery) -> Result<Receipt, Fault> {
        let written = self.writer.write(&batch);
        // Also when this batch cannot be written: the receipts of those before it come first.
        self.relay.settled().await?;
        let requests = written?;
        self.relay
            .hand_over(move |sender| async move {
                for run in &requests.runs {
                    sender.send(&requests, run).await?;
                }
                Ok((sender, Delivered { bytes: requests.payload }))
            })
            .await
    }

    async fn close(mut self: Box<Self>) {
        let _ = self.relay.settled().await;
    }
}

impl Sender {
    /// No proxy from the environment, no redirect followed, nothing tried again behind our back.
    fn new(settings: Arc<Settings>, rest: Arc<Rest>) -> Result<Sender, Fault> {
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .pool_max_idle_per_host(1)
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.send_timeout)
            .tcp_keepalive(Duration::from_secs(30))
            .user_agent(concat!("deltaforge/", env!("CARGO_PKG_VERSION")));
        if settings.tls_mode != TlsMode::Disable {
            // Read anew for each opening, so that renewed certificates are taken without a restart.
            let config = client_config(&settings.tls, settings.tls_mode)?;
            builder = builder.tls_backend_preconfigured((*config).clone());
        } else {
            builder = builder.tls_backend_preconfigured(no_tls()?);
        }
        let client = builder.build().map_err(|e| {
            Fault::bug("http.client", format!("the HTTP client cannot be made: {}", e.without_url()))
        })?;
        let mut headers = settings.constant.clone();
        let content_type = settings.common.envelope.content_type();
        let content_type = match (settings.batch_mode, content_type) {
            (true, "application/cloudevents+json") => "application/cloudevents-batch+json",
            (_, content_type) => content_type,
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(Sender { client, settings, rest, headers })
    }

    /// Sends the events of a run, in halves where the server does not take them together.
    async fn send(&self, requests: &Requests, run: &Run) -> Result<(), Fault> {
        let mut todo = vec![run.events.clone()];
        while let Some(part) = todo.pop() {
            match self.post(requests, run, &part).await {
                Verdict::Taken => {}
                Verdict::Refused(_) if part.len() > 1 => {
                    let middle = part.start + part.len() / 2;
                    todo.push(middle..part.end);
                    todo.push(part.start..middle);
                }
                Verdict::Refused(status) => {
                    return Err(poison(status, &self.settings.target.address, requests.id(part.start)));
                }
                Verdict::Fault(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    async fn post(&self, requests: &Requests, run: &Run, part: &Range<usize>) -> Verdict {
        let settings = &self.settings;
        let request = match self.request(requests, run, part) {
            Ok(request) => request,
            Err(fault) => return Verdict::Fault(fault),
        };
        let address = &settings.target.address;
        let response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) => return Verdict::Fault(no_answer(error, address, settings.send_timeout)),
        };
        let verdict = verdict(response.status(), address);
        if let Verdict::Fault(fault) = &verdict
            && fault.is_retry()
            && let Some(rest) = retry_after(response.headers())
        {
            self.rest.until(Instant::now() + rest);
        }
        read_away(response).await;
        verdict
    }

    fn request(&self, requests: &Requests, run: &Run, part: &Range<usize>) -> Result<Request, Fault> {
        let settings = &self.settings;
        let Some(url) = run.url.as_ref().or(settings.target.constant.as_ref()) else {
            return Err(Fault::bug("http.request", "a request has no URL"));
        };
        let body = requests.body(run, part, settings.batch_mode);
        let mut request = Request::new(settings.method.clone(), url.clone());
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        for (name, value) in &run.headers {
            headers.insert(name.clone(), value.clone());
        }
        let first = requests.id(part.start);
        let key = match settings.batch_mode {
            true => format!("{first}/{}", requests.id(part.end - 1)),
            false => first.to_string(),
        };
        let key = HeaderValue::try_from(key);
        headers.insert(
            IDEMPOTENCY_KEY,
            key.map_err(|_| Fault::bug("http.request", "an event id is no header"))?,
        );
        if let Some(signature) = &settings.signature {
            sign(signature, clock::unix_millis() / 1000, &body, headers)?;
        }
        *request.body_mut() = Some(Body::from(body));
        Ok(request)
    }
}

/// The client wants settings for TLS also where it will never use them, and must not look for roots of its own then.
fn no_tls() -> Result<rustls::ClientConfig, Fault> {
    let config = client_config(&deltaforge_core::config::Tls::default(), TlsMode::Require)?;
    Ok((*config).clone())
}

/// Reads an answer away, which counts from its status on, so that the next request finds the connection free. A long one costs
/// the connection.
async fn read_away(mut response: Response) {
    let read = async {
        let mut bytes = 0;
        while bytes <= ANSWER_BYTES
            && let Ok(Some(chunk)) = response.chunk().await
        {
            bytes += chunk.len();
        }
    };
    let _ = tokio::time::timeout(ANSWER_TIME, read).await;
}
