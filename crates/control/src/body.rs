//! Reading request bodies: JSON or YAML, at most 4 MiB.

use crate::answer::Problem;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;

/// Most bytes of a body.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// Most bytes that are read and thrown away after that, so that a client which sends first and reads later gets the answer
/// instead of a broken connection.
const MAX_DISCARDED: usize = 64 << 20;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Yaml,
}

/// A body as text.
pub(crate) struct Text {
    pub(crate) form: Form,
    pub(crate) text: String,
}

/// Reads the body of a request.
pub(crate) async fn read(request: Request) -> Result<Text, Problem> {
    let (parts, body) = request.into_parts();
    let form = form(&parts.headers)?;
    let text =
        String::from_utf8(bytes(body).await?).map_err(|_| Problem::request("the body is not UTF-8"))?;
    Ok(Text { form, text })
}

/// Reads a JSON body; an empty one is none.
pub(crate) async fn json(request: Request) -> Result<Option<serde_json::Value>, Problem> {
    let Text { form, text } = read(request).await?;
    if form == Form::Yaml {
        return Err(
            Problem::request("this route takes JSON only").hint("send content-type: application/json")
        );
    }
    if text.trim().is_empty() {
        return Ok(None);
    }
    serde_json::from_str(&text).map(Some).map_err(|e| Problem::request(format!("the body is not JSON: {e}")))
}

fn form(headers: &HeaderMap) -> Result<Form, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Form::Json) };
    let value = value.to_str().unwrap_or_default();
    let mime = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match mime.as_str() {
        // The last is what curl sends unless told otherwise.
        "" | "application/json" | "application/merge-patch+json" | "application/x-www-form-urlencoded" => {
            Ok(Form::Json)
        }
        "application/yaml" | "application/x-yaml" | "text/yaml" | "text/x-yaml" => Ok(Form::Yaml),
        _ => Err(Problem::request("the content type is not understood")
            .hint("send content-type: application/json or application/yaml")),
    }
}

async fn bytes(body: Body) -> Result<Vec<u8>, Problem> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut discarded = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::request("the body ended early"))?;
        if discarded == 0 && bytes.len() + chunk.len() <= MAX_BYTES {
            bytes.extend_from_slice(&chunk);
            continue;
        }
        discarded += std::mem::take(&mut bytes).len() + chunk.len();
        if discarded > MAX_DISCARDED {
            break;
        }
    }
    if discarded == 0 { Ok(bytes) } else { Err(too_large()) }
}

fn too_large() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "INVALID_REQUEST", "the body is larger than 4 MiB")
}
