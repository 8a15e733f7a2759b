//! `deltaforge dlq`: dead letters of a running process, through its API.

use crate::cli::{DlqAction, DlqArgs, WhichArgs};
use crate::exit::{Exit, print};
use deltaforge_core::config::{Tls, TlsMode};
use reqwest::{Body, Client, Method, Request, Url};
use serde_json::{Value, json};
use std::time::Duration;

/// A retry waits for the sinks.
const PATIENCE: Duration = Duration::from_secs(600);

/// Asks and prints the answer.
///
/// # Errors
/// `Failed` when the process does not answer or refuses, in its words.
pub(crate) fn dlq(args: &DlqArgs) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Exit::failed(format!("the runtime cannot start: {e}")))?;
    let answer = runtime.block_on(ask(args))?;
    match args.json {
        true => print(&answer.to_string()),
        false => print(&shown(&args.action, &answer)),
    }
    Ok(())
}

async fn ask(args: &DlqArgs) -> Result<Value, Exit> {
    let request = request(args)?;
    let away = |e: reqwest::Error| {
        use std::error::Error;
        let e = e.without_url();
        let mut why: &dyn Error = &e;
        while let Some(cause) = why.source() {
            why = cause;
        }
        Exit::failed(format!("the API at {} does not answer: {why}", args.api))
    };
    let encrypted = request.url().scheme() == "https";
    // Where nothing is encrypted nobody needs the system's certificates.
    let mode = if encrypted { TlsMode::VerifyFull } else { TlsMode::Require };
    let tls = deltaforge_net::tls::client_config(&Tls::default(), mode)
        .map_err(|fault| Exit::failed(fault.to_string()))?;
    let client = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .timeout(PATIENCE)
        .tls_backend_preconfigured((*tls).clone())
        .build()
        .map_err(away)?;
    let response = client.execute(request).await.map_err(away)?;
    let status = response.status();
    let body = response.bytes().await.map_err(away)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if status.is_success() {
        return Ok(body);
    }
    let error = body["error"].as_str().map_or_else(|| format!("the API answers {status}"), str::to_owned);
    Err(Exit::failed(match body["hint"].as_str() {
        Some(hint) => format!("{error}\n  hint: {hint}"),
        None => error,
    }))
}

fn request(args: &DlqArgs) -> Result<Request, Exit> {
    let bad =
        || Exit::usage(format!("`{}` is not the address of an API, as http://127.0.0.1:8080", args.api));
    let mut url = Url::parse(&args.api).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad());
    }
    if args.pipeline.is_empty() {
        return Err(Exit::usage("`--pipeline NAME` is required"));
    }
    let mut path = vec!["pipelines", &args.pipeline, "dlq"];
    let (mut method, mut body) = (Method::GET, None);
    let mut query = Vec::new();
    match &args.action {
        DlqAction::List(list) => {
            query.extend(list.limit.map(|limit| ("limit", limit.to_string())));
            query.extend(list.after.map(|after| ("after", after.to_string())));
            query.extend(list.sink.clone().map(|sink| ("sink", sink)));
            query.extend(list.kind.clone().map(|kind| ("kind", kind)));
        }
        DlqAction::Retry(which) => {
            method = Method::POST;
            path.push("retry");
            body = Some(if which.all { json!({"all": true}) } else { json!({"ids": which.ids}) });
        }
        DlqAction::Purge(which) => {
            method = Method::DELETE;
            query.push(of_purge(which));
        }
    }
    url.path_segments_mut().map_err(|()| bad())?.pop_if_empty().extend(path);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    let mut request = Request::new(method, url);
    let headers = request.headers_mut();
    if let Some(token) = &args.token {
        let value = format!("Bearer {}", token.expose()).parse::<reqwest::header::HeaderValue>();
        let mut value = value.map_err(|_| Exit::usage("the token holds what no header may hold"))?;
        value.set_sensitive(true);
        headers.insert(reqwest::header::AUTHORIZATION, value);
    }
    if let Some(body) = body {
        let json = reqwest::header::HeaderValue::from_static("application/json");
        headers.insert(reqwest::header::CONTENT_TYPE, json);
        *request.body_mut() = Some(Body::from(body.to_string()));
    }
    Ok(request)
}

fn of_purge(which: &WhichArgs) -> (&'static str, String) {
    if which.all {
        return ("all", "true".into());
    }
    let ids: Vec<_> = which.ids.iter().map(u64::to_string).collect();
    ("ids", ids.join(","))
}

fn shown(action: &DlqAction, answer: &Value) -> String {
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    match action {
        DlqAction::List(_) => {
            let entries = answer["entries"].as_array();
            let mut lines: Vec<_> = entries.into_iter().flatten().map(line).collect();
            lines.push(match answer["next"].as_u64() {
                Some(next) => format!("{} dead letters, more behind --after {next}", number("total")),
                None => format!("{} dead letters", number("total")),
            });
            lines.join("\n")
        }
        DlqAction::Retry(_) => format!(
            "{} tried again, {} delivered, {} failed",
            number("retried"),
            number("delivered"),
            number("failed")
        ),
        DlqAction::Purge(_) => format!("{} purged", number("purged")),
    }
}

/// One entry without its event, which is shown with `--json`.
fn line(entry: &Value) -> String {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let cut = if entry["truncated"] == true { ", cut" } else { "" };
    format!(
        "{}  {}  {}  {}{cut}  {}  {} attempts  {}",
        entry["id"],
        text("stored_at"),
        text("sink"),
        text("kind"),
        text("event_id"),
        entry["attempts"],
        text("message")
    )
}
