//! What JetStream answers, and how atomic batches are cut.

use super::error::ApiError;
use memchr::memmem;

/// The most that a server takes in one atomic batch, unless configured otherwise.
const ATOMIC_MESSAGES: u64 = 1000;

/// The place of a message in its atomic batch, of those that a batch of the source becomes.
pub(super) struct Group {
    pub(super) at: u64,
    pub(super) len: u64,
}

impl Group {
    pub(super) fn of(index: u64, messages: u64) -> Group {
        let first = index - index % ATOMIC_MESSAGES;
        Group { at: index - first, len: ATOMIC_MESSAGES.min(messages - first) }
    }

    pub(super) fn is_last(&self) -> bool {
        self.at + 1 == self.len
    }
}

/// The error in an answer, if it is one.
pub(super) fn api_error(payload: &[u8]) -> Option<ApiError> {
    memmem::find(payload, b"\"error\":")?;
    let answer: serde_json::Value = serde_json::from_slice(payload).ok()?;
    let error = answer.get("error")?;
    let number = error["err_code"].as_u64().or(error["code"].as_u64()).unwrap_or(0);
    Some(ApiError { number, text: error["description"].as_str().unwrap_or_default().to_owned() })
}

/// The sequence in an acknowledgement: `{"stream":"S","seq":7}`.
fn sequence(payload: &[u8]) -> Option<u64> {
    let at = memmem::find(payload, b"\"seq\":")? + 6;
    let digits = payload[at..].iter().skip_while(|b| **b == b' ').take_while(|b| b.is_ascii_digit());
    digits.fold(None, |n: Option<u64>, digit| {
        Some(n.unwrap_or(0).wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
    })
}

/// Recognises a stream's acknowledgements. A reply may come from anybody who is subscribed to the subject, so nothing else counts.
#[derive(Clone, Debug)]
pub(super) struct Acknowledgements {
    stream: String,
    /// The stream's name as most answers hold it.
    member: Vec<u8>,
}

impl Acknowledgements {
    pub(super) fn of(stream: &str) -> Acknowledgements {
        let member = format!("\"stream\":{}", serde_json::Value::from(stream)).into_bytes();
        Acknowledgements { stream: stream.to_owned(), member }
    }

    /// The sequence in an acknowledgement of the stream; `None`: this is none.
    pub(super) fn sequence(&self, payload: &[u8]) -> Option<u64> {
        let sequence = sequence(payload)?;
        if memmem::find(payload, &self.member).is_some() {
            return Some(sequence);
        }
        // Written with blanks or other escapes.
        let answer: serde_json::Value = serde_json::from_slice(payload).ok()?;
        (answer["stream"].as_str() == Some(self.stream.as_str())).then(|| answer["seq"].as_u64()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_streams_own_acknowledgement_is_one() {
        let acknowledgements = Acknowledgements::of("S & <T>");
        let sequence = |text: &str| acknowledgements.sequence(text.as_bytes());
        assert_eq!(sequence("{\"stream\":\"S & <T>\",\"seq\":7}"), Some(7));
        assert_eq!(
            sequence("{\"stream\": \"S \\u0026 \\u003cT>\", \"domain\": \"hub\", \"seq\": 7}"),
            Some(7)
        );
        for stranger in [
            "",
            "ok",
            "{}",
            "{\"seq\":7}",
            "{\"stream\":\"S & <T>\"}",
            "{\"stream\":\"S\",\"seq\":7}",
            "\"seq\":7",
        ] {
            assert_eq!(sequence(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn answers() {
        assert_eq!(sequence(b"{\"stream\":\"S\",\"seq\":1234, \"duplicate\": true}"), Some(1234));
        assert_eq!(sequence(b"{\"stream\":\"S\", \"seq\": 7}"), Some(7));
        assert_eq!(sequence(b"{}"), None);
        assert_eq!(api_error(b"{\"stream\":\"S\",\"seq\":1}"), None);
        let error = api_error(
            b"{\"error\":{\"code\":400,\"err_code\":10070,\"description\":\"wrong last msg ID: 2\"}}",
        )
        .unwrap();
        assert!(error.is_wrong_last());
    }

    #[test]
    fn atomic_batches_are_cut_at_the_servers_limit() {
        let shape = |index, messages| {
            let group = Group::of(index, messages);
            (group.at, group.len, group.is_last())
        };
        assert_eq!(shape(0, 1), (0, 1, true));
        assert_eq!(shape(999, 2500), (999, 1000, true));
        assert_eq!(shape(1000, 2500), (0, 1000, false));
        assert_eq!(shape(2499, 2500), (499, 500, true));
    }
}
