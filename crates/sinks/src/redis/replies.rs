//! The read half of a connection: replies as they arrive, in one buffer that is reused.

use super::resp::{self, Malformed, Token, Value};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

const BUFFER_BYTES: usize = 32 * 1024;
const QUEUED: &[u8] = b"+QUEUED\r\n";

/// Replies not yet taken are `buffer[start..end]`.
pub(super) struct Replies {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// How far the replies to one `MULTI … EXEC` of `entries` commands have been taken.
#[derive(Debug)]
pub(super) struct Progress {
    /// Replies still to come: to MULTI, to each command, to EXEC, and the members of the latter.
    step: Step,
    entries: usize,
    /// The first error reply: the reason why the whole failed.
    pub(super) error: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Multi,
    Queued(usize),
    Exec,
    Ids(usize),
    Done,
}

impl Progress {
    pub(super) fn new(entries: usize) -> Progress {
        Progress { step: Step::Multi, entries, error: None }
    }

    /// Whether every reply was taken.
    pub(super) fn is_done(&self) -> bool {
        self.step == Step::Done
    }

    /// Takes one reply.
    fn take(&mut self, token: &Token<'_>) -> Result<(), Malformed> {
        if let Token::Error(text) = token
            && self.error.is_none()
        {
            self.error = Some(text.to_vec());
        }
        let after_queued = |left: usize| if left == 0 { Step::Exec } else { Step::Queued(left) };
        self.step = match (self.step, token) {
            (Step::Multi, Token::Simple(b"OK") | Token::Error(_)) => after_queued(self.entries),
            (Step::Queued(left), Token::Simple(b"QUEUED") | Token::Error(_)) => after_queued(left - 1),
            // MULTI was refused, so what followed it was executed.
            (Step::Queued(left), Token::Bulk(_)) if self.error.is_some() => after_queued(left - 1),
            (Step::Exec, Token::Error(_)) => Step::Done,
            (Step::Exec, Token::Array(count)) if *count == self.entries => Step::Ids(self.entries),
            (Step::Ids(left), Token::Bulk(_) | Token::Error(_)) if left > 1 => Step::Ids(left - 1),
            (Step::Ids(_), Token::Bulk(_) | Token::Error(_)) => Step::Done,
            // For instance a null after EXEC, which answers a WATCH that we never use.
            _ => return Err(Malformed("a reply that does not belong to a transaction")),
        };
        Ok(())
    }
}

impl Replies {
    pub(super) fn new(reader: Box<dyn AsyncRead + Send + Unpin>) -> Replies {
        Replies { reader, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0 }
    }

    /// Waits for more bytes. Cancel-safe.
    pub(super) async fn more(&mut self) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            self.buffer.truncate(BUFFER_BYTES);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            // A single reply fills it: only the answers to our own questions are that long, within the parser's limits.
            if self.end * 2 > self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
        }
        match self.reader.read(&mut self.buffer[self.end..]).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.end += read;
                Ok(())
            }
        }
    }

    /// The next whole reply that has arrived.
    pub(super) fn value(&mut self) -> Result<Option<Value>, Malformed> {
        let found = resp::value(&self.buffer[self.start..self.end], 8)?;
        Ok(found.map(|(value, taken)| {
            self.start += taken;
            value
        }))
    }

    /// Takes the replies that have arrived, up to the end of the transaction.
    pub(super) fn advance(&mut self, progress: &mut Progress) -> Result<(), Malformed> {
        while !progress.is_done() {
            let bytes = &self.buffer[self.start..self.end];
            // Nearly every reply is this one, so it is compared instead of parsed.
            if let Step::Queued(left) = progress.step
                && bytes.starts_with(QUEUED)
            {
                let run =
                    bytes.chunks_exact(QUEUED.len()).take(left).take_while(|chunk| *chunk == QUEUED).count();
                self.start += run * QUEUED.len();
                progress.step = if run == left { Step::Exec } else { Step::Queued(left - run) };
                continue;
            }
            let Some((token, taken)) = resp::token(bytes)? else { return Ok(()) };
            progress.take(&token)?;
            self.start += taken;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the bytes in pieces of `size` and gives the outcome and what was left.
    async fn feed(
        bytes: &[u8],
        entries: usize,
        size: usize,
    ) -> (Result<bool, Malformed>, Option<String>, usize) {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let mut replies = Replies::new(Box::new(ours));
        let mut progress = Progress::new(entries);
        for piece in bytes.chunks(size) {
            tokio::io::AsyncWriteExt::write_all(&mut theirs, piece).await.unwrap();
            replies.more().await.unwrap();
            if let Err(why) = replies.advance(&mut progress) {
                return (Err(why), None, 0);
            }
        }
        let error = progress.error.as_ref().map(|e| String::from_utf8_lossy(e).into_owned());
        (Ok(progress.is_done()), error, replies.end - replies.start)
    }

    #[tokio::test]
    async fn transactions_in_any_pieces() {
        let ids = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$3\r\n1-0\r\n$3\r\n1-1\r\n+PONG\r\n";
        let full = b"+OK\r\n+QUEUED\r\n-OOM command not allowed\r\n-EXECABORT Transaction discarded\r\n";
        let partly = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$3\r\n1-0\r\n-WRONGTYPE no\r\n";
        for size in 1..=ids.len() {
            assert_eq!(feed(ids, 2, size).await, (Ok(true), None, 7), "{size}");
            assert_eq!(
                feed(full, 2, size).await,
                (Ok(true), Some("OOM command not allowed".into()), 0),
                "{size}"
            );
            assert_eq!(feed(partly, 2, size).await, (Ok(true), Some("WRONGTYPE no".into()), 0), "{size}");
            assert_eq!(feed(&ids[..ids.len() - 8], 2, size).await.0, Ok(false), "{size}");
        }
        for wrong in
            [&b"+QUEUED\r\n"[..], b"+OK\r\n*-1\r\n", b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*1\r\n", b"+OK\r\n:1\r\n"]
        {
            assert!(feed(wrong, 2, wrong.len()).await.0.is_err(), "{wrong:?}");
        }
    }
}
