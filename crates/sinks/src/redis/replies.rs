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

/// A transaction, or a part of one that goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// It begins with `MULTI`.
    pub(super) opens: bool,
    /// Commands queued.
    pub(super) queued: usize,
    /// It ends with `EXEC`, and this is how many commands the whole transaction has.
    pub(super) executes: Option<usize>,
}

/// How far the replies to a [`Shape`] have been taken.
#[derive(Debug)]
pub(super) struct Progress {
    /// Replies still to come: to MULTI, to each command, to EXEC, and the members of the latter.
    step: Step,
    shape: Shape,
    /// The first error reply: the reason why the whole failed.
    pub(super) error: Option<Vec<u8>>,
    /// `EXEC` did nothing, since somebody wrote what was watched.
    pub(super) is_fenced: bool,
    /// The error stands among the answers of what was executed.
    pub(super) is_partly: bool,
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
    pub(super) fn new(shape: Shape) -> Progress {
        let mut progress =
            Progress { step: Step::Multi, shape, error: None, is_fenced: false, is_partly: false };
        if !shape.opens {
            progress.step = progress.after_queued(shape.queued);
        }
        progress
    }

    /// What is due with so many commands still to be queued.
    fn after_queued(&self, left: usize) -> Step {
        match (left, self.shape.executes) {
            (0, Some(_)) => Step::Exec,
            (0, None) => Step::Done,
            (left, _) => Step::Queued(left),
        }
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
        self.step = match (self.step, token) {
            (Step::Multi, Token::Simple(b"OK") | Token::Error(_)) => self.after_queued(self.shape.queued),
            (Step::Queued(left), Token::Simple(b"QUEUED") | Token::Error(_)) => self.after_queued(left - 1),
            // MULTI was refused, so what followed it was executed.
            (Step::Queued(left), Token::Bulk(_)) if self.error.is_some() => self.after_queued(left - 1),
            (Step::Exec, Token::Error(_)) => Step::Done,
            (Step::Exec, Token::Null) => {
                self.is_fenced = true;
                Step::Done
            }
            (Step::Exec, Token::Array(count)) if Some(*count) == self.shape.executes => Step::Ids(*count),
            // An id of XADD, the OK of SET.
            (Step::Ids(left), Token::Bulk(_) | Token::Simple(b"OK") | Token::Error(_)) => {
                self.is_partly |= matches!(token, Token::Error(_));
                if left > 1 { Step::Ids(left - 1) } else { Step::Done }
            }
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
                progress.step = progress.after_queued(left - run);
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
        let shape = Shape { opens: true, queued: entries, executes: Some(entries) };
        let mut progress = Progress::new(shape);
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
        for wrong in [
            &b"+QUEUED\r\n"[..],
            b"+OK\r\n*-1\r\n",
            b"+OK\r\n+OK\r\n",
            b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*1\r\n",
            b"+OK\r\n:1\r\n",
        ] {
            assert!(feed(wrong, 2, wrong.len()).await.0.is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_transaction_in_parts() {
        let bytes = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n$3\r\n1-0\r\n$3\r\n1-1\r\n+OK\r\n";
        let shapes = [
            Shape { opens: true, queued: 1, executes: None },
            Shape { opens: false, queued: 0, executes: None },
            Shape { opens: false, queued: 2, executes: Some(3) },
        ];
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut replies = Replies::new(Box::new(ours));
        tokio::io::AsyncWriteExt::write_all(&mut theirs, bytes).await.unwrap();
        replies.more().await.unwrap();
        for shape in shapes {
            let mut progress = Progress::new(shape);
            replies.advance(&mut progress).unwrap();
            assert!(progress.is_done() && progress.error.is_none() && !progress.is_fenced, "{shape:?}");
        }
        assert_eq!(replies.start, replies.end);
    }

    #[tokio::test]
    async fn a_watched_key_was_written() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut replies = Replies::new(Box::new(ours));
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"+OK\r\n+QUEUED\r\n*-1\r\n").await.unwrap();
        replies.more().await.unwrap();
        let mut progress = Progress::new(Shape { opens: true, queued: 1, executes: Some(1) });
        replies.advance(&mut progress).unwrap();
        assert!(progress.is_done() && progress.is_fenced);
    }
}
