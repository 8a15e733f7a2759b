//! Steering one running pipeline.

use crate::dead_letters::Redelivery;
use crate::status::Status;
use deltaforge_core::task::Task;
use tokio::sync::{mpsc, watch};

/// What can be asked of a running pipeline.
#[derive(Debug)]
pub enum Command {
    /// Stop reading; keep the connection.
    Pause,
    /// Go on.
    Resume,
    /// Deliver what was read, save, close, end.
    Stop,
    /// Give dead letters to their sink again.
    Redeliver(Redelivery),
}

/// A pipeline's loop, running in its own task. Dropping the handle ends it at once, like a crash: nothing is lost by it,
/// what was not saved is delivered again.
#[derive(Debug)]
pub struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) task: Option<Task<()>>,
}

impl Handle {
    /// Puts a handle together. The one sender of `status` lives in `task`: its end is how everybody learns that the loop has
    /// ended, also when it panicked.
    pub fn new(commands: mpsc::Sender<Command>, status: watch::Receiver<Status>, task: Task<()>) -> Handle {
        Handle { commands, status, task: Some(task) }
    }

    /// The present condition.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows the condition.
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// True once the loop has ended: stopped or failed.
    pub fn has_ended(&self) -> bool {
        self.task.as_ref().is_none_or(Task::is_finished)
    }

    /// Halts reading; batches in flight finish, what waits for a batch waits on, the connection stays. A pipeline that has ended is left alone.
    pub async fn pause(&self) {
        let _ended = self.commands.send(Command::Pause).await;
    }

    /// Goes on after a pause.
    pub async fn resume(&self) {
        let _ended = self.commands.send(Command::Resume).await;
    }

    /// A way to give dead letters to their sinks again that does not keep the pipeline from being stopped meanwhile.
    pub fn commands(&self) -> mpsc::Sender<Command> {
        self.commands.clone()
    }

    /// Drains, saves the final checkpoint, closes connections; gives the last status. False when the deadline passed first: the
    /// loop was then ended like a crash.
    pub async fn stop(mut self, deadline: std::time::Duration) -> (Status, bool) {
        let _ended = self.commands.send(Command::Stop).await;
        let drained = match self.task.take() {
            Some(task) => tokio::time::timeout(deadline, task).await.is_ok(),
            None => true,
        };
        (self.status(), drained)
    }
}
