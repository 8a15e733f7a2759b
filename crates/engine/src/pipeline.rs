//! The one loop. A batch goes one way, a watermark comes back.
//!
//! ```text
//!            fill              cut                     send                receipt
//!  Source ─────────► builder ───────► Arc<Batch> ───────────► lane ─────────────────┐
//!    ▲                                                                              │ delivered(sink, seq)
//!    │ Released                save (always before release)                         ▼
//!    └───────────── saved ◄──────────── store ◄───────────── safe ◄──────────── Progress
//! ```
//!
//! The loop awaits one closed enum, [`Happening`], changes what it holds accordingly, and then does what has become
//! due: cut a batch, save a checkpoint, sample the measurements. It never waits for a sink or the store itself, so a command
//! or a source's fault is seen at once whatever hangs.
//!
//! **Why nothing is lost.** A place is released to the source only by [`saving`], after the store has answered; it is
//! saved only when [`Progress`] calls it safe; it is safe only when every batch up to it is delivered as the policy asks;
//! and every event read before it is in one of those batches, because the builder takes places and events in one order.
//! When the source breaks, the unfinished transaction in the builder is rolled back and read again from its start.

mod measure;
mod resume;
mod saving;
mod sinks;

use crate::dead_letters::{DeadLetters, Redelivery};
use crate::handle::{Command, Handle};
use crate::lane::{BuriedEvents, Lane, LaneNews, LaneReport, LaneSettings, random};
use crate::memory::{Holder, MemoryBudget};
use crate::progress::Progress;
use crate::spec::PipelineSpec;
use crate::status::{Phase, State, Status, Trouble};
use deltaforge_core::batch::BatchBuilder;
use deltaforge_core::checkpoint::StateStore;
use deltaforge_core::metrics::PipelineMetrics;
use deltaforge_core::metrics::{Reason, Stage, Trigger};
use deltaforge_core::position::{End, Releaser};
use deltaforge_core::schema::SchemaLog;
use deltaforge_core::sink::{Held, SinkContext};
use deltaforge_core::source::{Fill, Opened, Source, SourceContext, SourceStats};
use deltaforge_core::task::spawn;
use deltaforge_core::{Batch, Checkpoint, Class, Fault, Released, clock};
use futures_util::future::BoxFuture;
use measure::Measure;
use saving::{Saving, Taken};
use sinks::SinkView;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// How often the loop looks around when nothing happens.
const TICK: Duration = Duration::from_millis(250);
/// Batches that may wait in front of a lane that the policy does not wait for.
const BACKLOG: usize = 1024;
/// A batch that no sink acknowledges for so long is trouble, and the status says so.
const STALLED_AFTER: Duration = Duration::from_secs(4);

/// How long a pipeline that fails waits for its last save.
const LAST_SAVE: Duration = Duration::from_secs(5);

/// The rank of a sink's trouble that holds nobody up.
const UNWAITED: u8 = 3;

/// The component name of the source in troubles.
const SOURCE: &str = "source";
/// The component name of the state store in troubles.
const STATE: &str = "state";

/// Starts a pipeline in a task of its own; connections are made, and fail, in there.
pub fn start(
    spec: PipelineSpec,
    store: Arc<dyn StateStore>,
    memory: &MemoryBudget,
    metrics: Arc<PipelineMetrics>,
) -> Handle {
    let (commands, command_queue) = mpsc::channel(8);
    let status = Status { started_ms: Some(clock::unix_millis()), ..Status::new() };
    let (said, listened) = watch::channel(status);
    let memory = memory.holder();
    let work = run(spec, store, memory, metrics, command_queue, said);
    Handle { commands, status: listened, task: Some(spawn("pipeline", work)) }
}

/// Takes the checkpoint over, runs the loop, and says how it ended.
async fn run(
    spec: PipelineSpec,
    store: Arc<dyn StateStore>,
    memory: Holder,
    metrics: Arc<PipelineMetrics>,
    commands: mpsc::Receiver<Command>,
    said: watch::Sender<Status>,
) {
    let name = spec.name.clone();
    tracing::info!(pipeline = name, "starting");
    let mut beginnings = Beginnings::new(memory, commands);
    // Why a pipeline that was stopped has not delivered all that it had read.
    let mut undelivered = None;
    let ended = loop {
        let commands = &mut beginnings.commands;
        let taken = match saving::take_over(&spec, store.as_ref(), commands, &said, beginnings.mode).await {
            Ok(Some(taken)) => taken,
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        };
        if let Some(letters) = DeadLetters::of(&spec, &store, taken.lease.epoch, &metrics) {
            letters.begin().await;
        }
        let mut running =
            Loop::new(spec.clone(), store.clone(), metrics.clone(), said.clone(), taken, beginnings);
        let ended = running.run().await;
        match ended {
            Err(failure) if failure.begin_again => {
                let trouble = Trouble::of(&failure.fault, &failure.component);
                match Box::pin(running.begin_again(failure)).await {
                    Some(again) => beginnings = again,
                    None => {
                        undelivered = Some(trouble);
                        break Ok(());
                    }
                }
            }
            ended => {
                if let Err(Failure { fault, component, .. }) = &ended {
                    // Closing may take a while, and says by then what it closes for; not that it would try again.
                    running.mode = Mode::Draining;
                    running.set_trouble(component, fault);
                    running.say();
                }
                Box::pin(running.close(ended.is_ok())).await;
                break ended;
            }
        }
    };
    let state = match &ended {
        Ok(()) => State::Stopped,
        Err(_) => State::Failed,
    };
    match &ended {
        Ok(()) => tracing::info!(pipeline = name, "stopped"),
        Err(Failure { fault, component, .. }) => {
            tracing::error!(pipeline = name, component, code = fault.code(), "failed: {fault}");
        }
    }
    said.send_modify(|status| {
        status.state = state;
        status.phase = Phase::Idle;
        status.note = None;
        status.trouble = ended.err().map(|f| Trouble::of(&f.fault, &f.component)).or(undelivered);
    });
}

/// Why a pipeline cannot go on.
struct Failure {
    fault: Fault,
    component: String,
    /// It can go on when everything is read again from where the sinks stand.
    begin_again: bool,
}

impl Failure {
    fn of(fault: Fault, component: &str) -> Failure {
        Failure { fault, component: component.into(), begin_again: false }
    }
}

/// What outlives a pipeline's beginning again.
struct Beginnings {
    memory: Holder,
    commands: mpsc::Receiver<Command>,
    mode: Mode,
    /// Since something was last delivered.
    attempts: u32,
    /// By sink.
    buried: Vec<BuriedEvents>,
    /// How far the sinks had come.
    sinks: Option<Vec<SinkView>>,
}

impl Beginnings {
    fn new(memory: Holder, commands: mpsc::Receiver<Command>) -> Beginnings {
        Beginnings { memory, commands, mode: Mode::Running, attempts: 0, buried: Vec::new(), sinks: None }
    }
}

/// Everything that can happen to a running pipeline.
enum Happening {
    /// An operator asks.
    Command(Command),
    /// A sink reports.
    Lane(LaneReport),
    /// A save has ended.
    Saved(Result<saving::Saved, Fault>),
    /// The source is open, or not.
    Opened(Result<Opened, Fault>),
    /// The source has filled what it had.
    Filled(Result<Fill, Fault>),
    /// It is time to open the source again.
    Reopen,
    /// Time has passed.
    Tick,
}

/// Where the source is.
enum Reading {
    /// Not opened before every exactly-once sink has said where its target stands.
    AwaitingSinks(resume::Standings),
    Opening(BoxFuture<'static, Result<Opened, Fault>>),
    Open(Box<dyn Source>),
    /// Broken; opened again then.
    Waiting(Instant),
    /// At its end.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Running,
    Paused,
    /// No more reading; the rest is delivered and saved.
    Draining,
}

/// A batch that some sink may still hold.
struct Kept {
    seq: deltaforge_core::BatchSeq,
    batch: Arc<Batch>,
    bytes: u64,
    cut_at: Instant,
    trigger: Trigger,
}

struct Loop {
    spec: PipelineSpec,
    metrics: Arc<PipelineMetrics>,
    memory: Holder,
    commands: mpsc::Receiver<Command>,
    said: watch::Sender<Status>,
    reading: Reading,
    /// How often the pipeline has begun again since it last delivered something.
    beginnings: u32,
    /// By sink, what its lane keeps for the next beginning.
    buried: Vec<BuriedEvents>,
    /// What the targets of exactly-once sinks held when the start was chosen, until their lanes are told.
    held_at_start: Vec<Option<Held>>,
    /// Failed attempts to open the source, or breaks, since it last gave something.
    source_attempts: u32,
    builder: BatchBuilder,
    /// The source had nothing more when it was last asked.
    idle: bool,
    /// When the oldest event in the builder came.
    first_event_at: Option<Instant>,
    lanes: Vec<Lane>,
    /// Some of the sinks make the same payloads.
    shares_encoding: bool,
    /// How far each of them has come.
    sinks: Vec<SinkView>,
    reports: mpsc::Receiver<LaneReport>,
    progress: Progress,
    /// Oldest first.
    held: VecDeque<Kept>,
    held_bytes: u64,
    saving: Saving,
    schemas: Arc<SchemaLog>,
    releaser: Releaser,
    released: Released,
    stats: Arc<SourceStats>,
    mode: Mode,
    /// By component.
    troubles: BTreeMap<String, Trouble>,
    measure: Measure,
}

impl Loop {
    #[allow(clippy::too_many_arguments)] // Called once; each is a different thing.
    fn new(
        spec: PipelineSpec,
        store: Arc<dyn StateStore>,
        metrics: Arc<PipelineMetrics>,
        said: watch::Sender<Status>,
        taken: Taken,
        beginnings: Beginnings,
    ) -> Loop {
        let Taken { lease, schemas, mode } = taken;
        let Beginnings { memory, commands, attempts, mut buried, sinks: sinks_before, .. } = beginnings;
        buried.resize_with(spec.sinks.len(), BuriedEvents::default);
        let resume = lease.checkpoint.as_ref();
        let end = resume.map(|c| End { position: c.position.clone(), events_done: c.events_done });
        let required = spec.sinks.iter().map(|s| s.required()).collect();
        let progress = Progress::new(spec.commit_policy, required, end);
        let limits = resume::limits(&spec);
        let events_done = resume.map_or(0, |c| c.events_done);
        let builder = BatchBuilder::new(limits, resume.map(|c| &c.position), events_done);
        let (releaser, released) = Released::new(resume.map(|c| c.position.clone()));
        said.send_modify(|status| status.checkpoint = resume.cloned());
        let (report_to, reports) = mpsc::channel(64);
        let encodings: Vec<_> = spec.sinks.iter().map(|plan| plan.encoding()).collect();
        let shares = |sink: usize| {
            let alike = |other: &&Option<String>| other.is_some() && **other == encodings[sink];
            encodings.iter().filter(alike).count() > 1
        };
        let shares_encoding = (0..spec.sinks.len()).any(shares);
        let context = |sink| SinkContext {
            shares_encoding: shares(sink),
            pipeline: spec.name.clone(),
            tenant: spec.tenant.clone(),
            source: spec.source.info().clone(),
            metrics: metrics.sink(sink).cloned(),
        };
        let letters = DeadLetters::of(&spec, &store, lease.epoch, &metrics);
        let lanes = (spec.sinks.iter().enumerate())
            .map(|(sink, plan)| {
                let settings = LaneSettings {
                    sink,
                    plan: plan.clone(),
                    context: context(sink),
                    epoch: lease.epoch,
                    source: spec.source.clone(),
                    buried: buried[sink].clone(),
                    waited_for: progress.waits_for(sink),
                    window: spec.batch.max_inflight,
                    backlog: BACKLOG,
                    letters: letters.clone(),
                    resume: resume.map(|c| c.position.clone()),
                };
                Lane::start(settings, report_to.clone())
            })
            .collect();
        let measure = Measure::new(&spec, metrics.clone());
        let ids: Vec<_> =
            spec.sinks.iter().enumerate().map(|(sink, plan)| (plan.id(), progress.waits_for(sink))).collect();
        let sinks = sinks_before.unwrap_or_else(|| SinkView::all(&ids, resume));
        let standings = resume::Standings::new(&spec.sinks, lease.checkpoint);
        Loop {
            beginnings: attempts,
            buried,
            held_at_start: Vec::new(),
            saving: Saving::new(store, lease.epoch),
            spec,
            metrics,
            memory,
            commands,
            said,
            reading: Reading::AwaitingSinks(standings),
            source_attempts: 0,
            builder,
            idle: false,
            first_event_at: None,
            lanes,
            shares_encoding,
            sinks,
            reports,
            progress,
            held: VecDeque::new(),
            held_bytes: 0,
            schemas,
            releaser,
            released,
            stats: Arc::new(SourceStats::default()),
            mode,
            troubles: BTreeMap::new(),
            measure,
        }
    }

    /// Runs until stopped or failed.
    async fn run(&mut self) -> Result<(), Failure> {
        self.begin_if_known()?;
        loop {
            let happening = self.next().await;
            self.handle(happening)?;
            if self.cut_what_is_due() && !self.idle {
                // A lane woken from here waits behind this task on its thread, and no other thread may take it. Stepping back
                // lets one thread encode while another goes on to read.
                tokio::task::yield_now().await;
            }
            self.save_what_is_due();
            self.measure_what_is_due()?;
            if self.is_drained() {
                return Ok(());
            }
        }
    }

    async fn next(&mut self) -> Happening {
        let (may_fill, draining) = (self.may_fill(), self.mode == Mode::Draining);
        let wake = self.wake_at();
        let Loop { reading, builder, commands, reports, saving, .. } = self;
        let reading = async {
            match reading {
                // What the source does no longer matters: what was read is to be delivered.
                _ if draining => std::future::pending().await,
                Reading::AwaitingSinks(_) => std::future::pending().await,
                Reading::Opening(opening) => Happening::Opened(opening.await),
                Reading::Waiting(until) => {
                    tokio::time::sleep_until(*until).await;
                    Happening::Reopen
                }
                Reading::Open(source) if may_fill => Happening::Filled(source.fill(builder).await),
                Reading::Open(source) => Happening::Filled(Err(source.broken().await)),
                Reading::Ended => std::future::pending().await,
            }
        };
        // What frees batches and steers comes before what makes more of them. Every branch is cancel-safe.
        tokio::select! {
            biased;
            Some(command) = commands.recv() => Happening::Command(command),
            Some(report) = reports.recv() => Happening::Lane(report),
            saved = saving.ended() => Happening::Saved(saved),
            () = tokio::time::sleep_until(wake) => Happening::Tick,
            happening = reading => happening,
        }
    }

    /// The builder takes more while it is not full, nobody has paused, and memory allows.
    fn may_fill(&self) -> bool {
        self.mode == Mode::Running && !self.builder.is_full() && self.has_memory()
    }

    /// At the ceiling the source waits; a single transaction or row above it still passes, alone.
    fn has_memory(&self) -> bool {
        let full = self.memory.held() >= self.spec.memory_limit || self.memory.is_exhausted();
        // With nothing in flight and nothing to cut, waiting would give no memory back: the rest of a transaction is let in.
        !full || (self.progress.in_flight() == 0 && !self.builder.can_cut())
    }

    fn wake_at(&self) -> Instant {
        let mut at = self.measure.next_tick();
        if let Some(save_at) = self.save_due() {
            at = at.min(save_at);
        }
        // Without something to cut the moment would pass again and again, at once.
        let may_cut = self.mode != Mode::Paused && self.builder.can_cut() && self.has_free_slot();
        if let (Some(first), true) = (self.first_event_at, may_cut) {
            at = at.min(first + self.spec.batch.max_wait);
        }
        at.max(Instant::now())
    }

    fn handle(&mut self, happening: Happening) -> Result<(), Failure> {
        match happening {
            Happening::Command(Command::Pause) => self.set_mode(Mode::Paused),
            Happening::Command(Command::Resume) => self.set_mode(Mode::Running),
            Happening::Command(Command::Stop) => self.set_mode(Mode::Draining),
            Happening::Command(Command::Redeliver(redelivery)) => self.redeliver(redelivery),
            Happening::Lane(report) => self.take_report(report)?,
            Happening::Saved(saved) => self.take_saved(saved)?,
            Happening::Opened(Ok(opened)) => self.take_source(opened),
            Happening::Filled(Ok(fill)) => self.take_fill(fill),
            Happening::Opened(Err(fault)) | Happening::Filled(Err(fault)) => self.source_broke(fault)?,
            Happening::Reopen => self.open_source(),
            Happening::Tick => {}
        }
        Ok(())
    }

    /// A lane that is not there, or has enough to do, drops the answer: nothing was delivered.
    fn redeliver(&self, redelivery: Redelivery) {
        let sink = self.spec.sinks.iter().position(|plan| plan.id() == redelivery.sink);
        if let Some(lane) = sink.and_then(|sink| self.lanes.get(sink)) {
            lane.redeliver(redelivery);
        }
    }

    fn set_mode(&mut self, mode: Mode) {
        if self.mode == Mode::Draining || self.mode == mode {
            return;
        }
        tracing::info!(
            pipeline = self.spec.name,
            "{}",
            match mode {
                Mode::Running => "resumed",
                Mode::Paused => "paused",
                Mode::Draining => "draining",
            }
        );
        self.mode = mode;
        self.say();
    }

    /// Begins to open the source where the builder stands, or the checkpoint, or nowhere.
    fn open_source(&mut self) {
        let checkpoint = self.builder.position().map(|position| Checkpoint {
            source_id: self.spec.source.id().into(),
            pipeline: self.spec.name.clone(),
            position,
            events_done: 0,
            version: 0,
            saved_ms: 0,
            sinks: Vec::new(),
        });
        let context = SourceContext {
            pipeline: self.spec.name.clone(),
            resume: checkpoint,
            released: self.released.clone(),
            schemas: self.schemas.clone(),
            stats: self.stats.clone(),
        };
        let plan = self.spec.source.clone();
        self.reading = Reading::Opening(Box::pin(async move { plan.open(context).await }));
    }

    fn take_source(&mut self, opened: Opened) {
        if self.source_attempts > 0 {
            self.metrics.source_reconnected();
        }
        if self.builder.position().is_none() {
            // The first start ever: the place is saved before anything else, so that no restart chooses it anew.
            let start = opened.start;
            self.builder.advance(|json| json.extend_from_slice(start.as_json().as_bytes()));
        }
        if !opened.same_log {
            self.builder.forget_delivered();
        }
        self.begin_lanes();
        self.reading = Reading::Open(opened.source);
        self.clear_trouble(SOURCE);
        self.said.send_if_modified(|status| {
            let first = status.phase == Phase::Starting;
            if first {
                status.phase = Phase::Streaming;
            }
            first
        });
        self.say();
    }

    fn take_fill(&mut self, fill: Fill) {
        self.source_attempts = 0;
        self.idle = fill == Fill::Idle;
        if fill == Fill::End {
            self.reading = Reading::Ended;
            self.set_mode(Mode::Draining);
        }
        self.note_waiting();
    }

    /// The builder holds more, or less, than before.
    fn note_waiting(&mut self) {
        if self.builder.is_empty() {
            self.first_event_at = None;
        } else if self.first_event_at.is_none() {
            self.first_event_at = Some(Instant::now());
        }
        self.count_memory();
    }

    /// The connection is gone: the open transaction will be read again, from its start.
    fn source_broke(&mut self, fault: Fault) -> Result<(), Failure> {
        self.metrics.source_error(fault.kind_of());
        let has_cut = self.builder.is_inside_cut();
        self.builder.rollback();
        // What is whole came before the break, and nothing follows it for now.
        self.idle = true;
        self.note_waiting();
        self.source_attempts += 1;
        let retry = self.spec.source.retry();
        if !fault.is_retry() || !retry.allows_another(self.source_attempts) {
            self.reading = Reading::Ended;
            return Err(Failure::of(fault, SOURCE));
        }
        if has_cut && self.is_exact() {
            // Parts that come again would join those that such a target has of the same transaction.
            return Err(Failure { begin_again: true, ..Failure::of(fault, SOURCE) });
        }
        let pause = retry.pause(self.source_attempts, random());
        tracing::warn!(
            pipeline = self.spec.name,
            source_id = self.spec.source.id(),
            attempt = self.source_attempts,
            sleep_ms = pause.as_millis() as u64,
            code = fault.code(),
            reason = fault.message(),
            "the source is away"
        );
        self.reading = Reading::Waiting(Instant::now() + pause);
        self.set_trouble(SOURCE, &fault);
        Ok(())
    }

    fn take_report(&mut self, report: LaneReport) -> Result<(), Failure> {
        let LaneReport { sink, what } = report;
        let Some(plan) = self.spec.sinks.get(sink) else { return Ok(()) };
        let (id, metrics) = (plan.id().to_string(), self.metrics.clone());
        let Some(counted) = metrics.sink(sink) else { return Ok(()) };
        match what {
            // With batches waiting the trouble is over when one is delivered: a full disk can be opened, too, and a status that
            // says ready between two failures would lie.
            LaneNews::Connected { held } => {
                if std::mem::replace(&mut self.sinks[sink].connected, true) {
                    counted.reconnected();
                }
                if self.sinks[sink].has_given() {
                    return Ok(());
                }
                self.clear_trouble(&id);
                if let Reading::AwaitingSinks(standings) = &mut self.reading {
                    standings.told(sink, held);
                    self.begin_if_known()?;
                }
            }
            LaneNews::Delivered { seq, events, bytes, took, stored } => {
                counted.batch_delivered(events, bytes, took);
                if let Some(ts_us) =
                    self.held.iter().find(|h| h.seq == seq).and_then(|h| h.batch.first_ts_us())
                {
                    let since_commit = (clock::unix_micros() - ts_us).max(0) as u64;
                    counted.end_to_end(Duration::from_micros(since_commit));
                }
                let end = self.held.iter().find(|h| h.seq == seq).and_then(|h| h.batch.end());
                if let (Some(end), true, true) = (end, stored, plan.exactly_once()) {
                    self.sinks[sink].stored(&end.position);
                }
                self.sinks[sink].delivered(seq);
                if stored {
                    self.beginnings = 0;
                }
                self.clear_trouble(&id);
                let settled = self.progress.delivered(sink, seq);
                self.settled(&settled);
            }
            LaneNews::GivenUp { seq, events } => {
                counted.given_up(events);
                self.sinks[sink].given_up(seq, events);
                let settled = self.progress.given_up(sink, seq);
                self.settled(&settled);
            }
            LaneNews::EventStored(fault) => counted.failed(fault.kind_of()),
            LaneNews::EventGivenUp => {
                counted.given_up(1);
                self.sinks[sink].event_given_up();
            }
            LaneNews::Troubled { fault, attempt, pause } => {
                counted.failed(fault.kind_of());
                counted.retried();
                if self.progress.waits_for(sink) {
                    self.metrics.batch_commit_failed();
                }
                tracing::warn!(
                    pipeline = self.spec.name,
                    sink_id = id,
                    attempt,
                    sleep_ms = pause.as_millis() as u64,
                    code = fault.code(),
                    reason = fault.message(),
                    "a delivery failed"
                );
                self.set_trouble(&id, &fault);
            }
            LaneNews::Failed(fault) => {
                counted.failed(fault.kind_of());
                return Err(Failure::of(fault, &id));
            }
            LaneNews::BeginAgain(fault) => {
                counted.failed(fault.kind_of());
                return Err(Failure { begin_again: true, ..Failure::of(fault, &id) });
            }
        }
        Ok(())
    }

    fn settled(&mut self, settled: &[crate::progress::Settled]) {
        for batch in settled {
            self.metrics.batch_committed();
            self.measure.delivered_events += batch.events;
            if let Some(held) = self.held.iter().find(|h| h.seq == batch.seq) {
                self.metrics.stage(Stage::Sink, held.trigger, held.cut_at.elapsed());
            }
        }
        self.let_go();
    }

    /// Batches that nobody else holds any more are gone, also those behind one that a slow sink still holds; a gone one's memory
    /// serves the next batch.
    fn let_go(&mut self) {
        let settled = self.measure.last_seq - self.progress.in_flight() as u64;
        let mut at = 0;
        while let Some(held) = self.held.get(at).filter(|held| held.seq.0 <= settled) {
            if Arc::strong_count(&held.batch) > 1 {
                at += 1;
                continue;
            }
            let Some(Kept { batch, bytes, .. }) = self.held.remove(at) else { break };
            self.held_bytes -= bytes;
            if let Ok(batch) = Arc::try_unwrap(batch) {
                self.builder.recycle(batch);
            }
        }
        self.count_memory();
    }

    fn count_memory(&mut self) {
        self.memory.set(self.held_bytes + self.builder.memory_bytes() as u64);
    }

    fn has_free_slot(&self) -> bool {
        // With a store that cannot be written nothing would ever be released: delivering on would only grow the replay. And
        // before the very first place is saved, a crash would make the next start choose another one, past what it missed.
        let can_save = self.progress.last_saved().is_some() && !self.troubles.contains_key(STATE);
        let has_room = self.progress.in_flight() < self.spec.batch.max_inflight || self.others_may_go_on();
        can_save && !self.awaits_schemas() && has_room
    }

    /// A sink that is away holds up the checkpoint and nothing else: the others go on as far as memory keeps for it what they
    /// get. One that is merely slow keeps everybody at its pace, so that a crash brings little again.
    fn others_may_go_on(&self) -> bool {
        let is_free = |sink: usize| self.progress.pending(sink) < self.spec.batch.max_inflight;
        let is_away = |sink: usize| self.troubles.contains_key(self.spec.sinks[sink].id());
        let mut sinks = 0..self.lanes.len();
        sinks.len() > 1
            && self.progress.in_flight() < BACKLOG
            && !self.is_crowded()
            && sinks.clone().any(|sink| is_free(sink) && !is_away(sink))
            && sinks.all(|sink| !self.progress.waits_for(sink) || is_free(sink) || is_away(sink))
    }

    /// What sinks that have fallen behind hold fills half of the memory.
    fn is_crowded(&self) -> bool {
        self.held_bytes > self.spec.memory_limit / 2 || self.memory.is_exhausted()
    }

    /// Hands what is due to the lanes; true when there was something.
    fn cut_what_is_due(&mut self) -> bool {
        let mut cut = false;
        while self.has_free_slot()
            && let Some(trigger) = self.due_cut()
            && let Some(batch) = self.builder.cut()
        {
            self.send(batch, trigger);
            cut = true;
            self.first_event_at = (!self.builder.is_empty()).then(Instant::now);
        }
        if let Some(end) = self.builder.take_advance() {
            self.progress.advance(end);
        }
        cut
    }

    /// Why a batch is to be cut now: it is full, the source has nothing more, its first event has waited, or the pipeline drains.
    fn due_cut(&self) -> Option<Trigger> {
        if self.mode == Mode::Paused || !self.builder.can_cut() {
            return None;
        }
        let waited = self.first_event_at.is_some_and(|at| at.elapsed() >= self.spec.batch.max_wait);
        match () {
            () if self.mode == Mode::Draining => Some(Trigger::Shutdown),
            () if self.builder.is_full() => Some(Trigger::Limits),
            () if waited => Some(Trigger::Timer),
            () if self.idle || !self.has_memory() => Some(Trigger::Idle),
            () => None,
        }
    }

    fn send(&mut self, batch: Batch, trigger: Trigger) {
        let events = batch.len() as u64;
        let trigger = if batch.end().is_none() { Trigger::TxPart } else { trigger };
        self.measure.cut(&batch);
        // Texts that sinks share live as long as the batch.
        let texts = if self.shares_encoding { batch.estimated_bytes() } else { 0 };
        let bytes = (batch.memory_bytes() + texts) as u64;
        let first_ts_us = batch.first_ts_us().unwrap_or(0);
        let seq = self.progress.cut(events, first_ts_us, batch.end().cloned());
        self.measure.last_seq = seq.0;
        let batch = Arc::new(batch);
        // Batches that are settled and that only slow sinks still hold may fill half of the memory, no more: then a sink that has
        // fallen behind gets nothing new. A sink without which nothing settles cannot fall behind.
        let crowded = self.is_crowded();
        for (sink, lane) in self.lanes.iter().enumerate() {
            let wanted = !crowded || lane.waiting() < self.progress.in_flight();
            let job = crate::lane::Job { seq, batch: batch.clone() };
            if wanted && lane.send(job) {
                self.sinks[sink].given(seq, &batch);
                continue;
            }
            // A lane that the policy waits for has room for all batches in flight; if it has ended, its report is on the way.
            if !self.progress.waits_for(sink)
                || matches!(self.spec.commit_policy, crate::spec::CommitPolicy::Quorum(_))
            {
                if let Some(counted) = self.metrics.sink(sink) {
                    counted.given_up(events);
                }
                self.sinks[sink].passed_over(events, batch.end().map(|end| &end.position));
                self.progress.given_up(sink, seq);
            }
        }
        self.held_bytes += bytes;
        self.held.push_back(Kept { seq, batch, bytes, cut_at: Instant::now(), trigger });
        self.count_memory();
    }

    fn is_drained(&self) -> bool {
        self.mode == Mode::Draining
            && self.progress.in_flight() == 0
            && !self.builder.can_cut()
            && !self.saving.is_running()
            && self.save_due().is_none()
    }

    /// Closes everything. After a failure what is safe is saved first, once, unless another owner has taken over.
    async fn close(mut self, drained: bool) {
        if !drained {
            // A store that does not answer must not keep the failure from being said.
            tokio::time::timeout(LAST_SAVE, self.save_once()).await.unwrap_or_default();
        }
        if let Reading::Open(source) = std::mem::replace(&mut self.reading, Reading::Ended) {
            source.close().await;
        }
        if drained {
            self.close_lanes().await;
        }
    }

    /// Sinks that nobody waits for may have batches left. What they report is taken until the last one has closed: a lane
    /// whose reports nobody takes would never come to its end.
    async fn close_lanes(&mut self) {
        let lanes = std::mem::take(&mut self.lanes);
        let mut closing = std::pin::pin!(futures_util::future::join_all(lanes.into_iter().map(Lane::close)));
        loop {
            tokio::select! {
                biased;
                Some(report) = self.reports.recv() => {
                    // Everything is saved: no sink can make the pipeline fail any more.
                    let _drained_already = self.take_report(report);
                }
                _closed = &mut closing => break,
            }
        }
    }

    fn set_trouble(&mut self, component: &str, fault: &Fault) {
        let same = |t: &Trouble| t.code == fault.code() && t.message == fault.message();
        if self.troubles.get(component).is_some_and(same) {
            return;
        }
        self.troubles.insert(component.into(), Trouble::of(fault, component));
        self.say();
    }

    fn clear_trouble(&mut self, component: &str) {
        if self.troubles.remove(component).is_some() {
            tracing::info!(pipeline = self.spec.name, component, "recovered");
            self.say();
        }
    }

    /// Publishes state, phase and trouble.
    fn say(&mut self) {
        let (mode, held_up) = (self.mode, self.present_trouble());
        let is_held_up = held_up.as_ref().is_some_and(|trouble| self.rank(&trouble.component) < UNWAITED);
        let trouble = held_up.or_else(|| self.stopped_tables());
        let open = matches!(self.reading, Reading::Open(_));
        let note = self.stats.current_note();
        let sinks = self.sink_statuses();
        self.said.send_if_modified(|status| {
            let before = status.clone();
            status.sinks = sinks;
            status.state = if mode == Mode::Paused { State::Paused } else { State::Running };
            status.phase = match mode {
                Mode::Paused => Phase::Idle,
                Mode::Draining => Phase::Draining,
                Mode::Running if is_held_up => Phase::Retrying,
                Mode::Running if open => Phase::Streaming,
                Mode::Running => Phase::Starting,
            };
            status.trouble = trouble;
            status.note = note;
            *status != before
        });
    }

    /// The trouble that holds the pipeline up: the store first, then a sink that is waited for, the source; or that of a sink
    /// that nothing waits for.
    fn present_trouble(&self) -> Option<Trouble> {
        self.troubles.values().min_by_key(|t| self.rank(&t.component)).cloned()
    }

    fn rank(&self, component: &str) -> u8 {
        let waited_for = |id: &str| {
            let sink = self.spec.sinks.iter().position(|s| s.id() == id);
            sink.is_some_and(|sink| self.progress.waits_for(sink))
        };
        match component {
            STATE => 0,
            SOURCE => 2,
            id if waited_for(id) => 1,
            _ => UNWAITED,
        }
    }

    /// The pipeline moves on, but without some table's rows.
    fn stopped_tables(&self) -> Option<Trouble> {
        let stopped = self.stats.stopped_tables();
        let first = stopped.first()?;
        let others = match stopped.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more tables are stopped)"),
        };
        let (table, why) = (&first.table, &first.why);
        let message = format!("table {table} is stopped, none of its rows is delivered: {why}{others}");
        let hint = "take the table out of `tables`, start the pipeline, and put it in again: it is captured from there on";
        let fault = Fault::new(Class::Data, "source.table_stopped", message).hint(hint);
        Some(Trouble { at_ms: first.at_ms, ..Trouble::of(&fault, SOURCE) })
    }

    /// Why the source is not asked, if it is not.
    fn waits_because(&self) -> Option<Reason> {
        match (self.mode, &self.reading) {
            (Mode::Paused, _) => Some(Reason::Pause),
            (Mode::Running, Reading::Open(_)) if !self.has_memory() => Some(Reason::Memory),
            (Mode::Running, Reading::Open(_)) if self.builder.is_full() => Some(Reason::Sink),
            _ => None,
        }
    }
}

/// A fault that no retry mends.
fn is_final(fault: &Fault) -> bool {
    fault.class() != Class::Retry
}
