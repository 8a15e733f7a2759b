//! A supervisor without engine and servers: connectors that only parse, a launcher whose pipelines do as they are told, and a
//! store that fails on demand. Shared with the tests of the control plane.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test binary uses its part, and a test fails by panicking"
)]

use async_trait::async_trait;
use deltaforge_core::checkpoint::{
    Checkpoint, CheckpointStore, DocumentStore, Lease, SchemaHistory, SinkProgress, StateStore, Version,
};
use deltaforge_core::config::{Fields, Report, RetryPolicy, Severity};
use deltaforge_core::dead_letter::{
    Appended, DeadLetter, DeadLetterPage, DeadLetterQuery, DeadLetterStore, NewDeadLetter, Room, Which,
};
use deltaforge_core::metrics::PipelineMetrics;
use deltaforge_core::schema::SchemaRecord;
use deltaforge_core::sink::{Sink, SinkContext, SinkKind, SinkPlan};
use deltaforge_core::source::{Names, Opened, SourceContext, SourceInfo, SourceKind, SourcePlan};
use deltaforge_core::{Epoch, Fault, Position, clock, task};
use deltaforge_engine::config::{Environment, Loader, Registry};
use deltaforge_engine::handle::{Command, Handle};
use deltaforge_engine::spec::PipelineSpec;
use deltaforge_engine::status::{Phase, State, Status, Trouble};
use deltaforge_engine::supervisor::Launcher;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};

/// Variables that tests set.
#[derive(Clone, Default)]
pub struct Variables(Arc<Mutex<HashMap<String, String>>>);

impl Variables {
    /// Sets a variable.
    pub fn set(&self, name: &str, value: &str) {
        self.0.lock().unwrap().insert(name.into(), value.into());
    }
}

impl Environment for Variables {
    fn var(&self, name: &str) -> Option<String> {
        self.0.lock().unwrap().get(name).cloned()
    }

    fn file(&self, _: &str) -> Result<String, String> {
        Err("there are no files".into())
    }
}

/// A loader that knows the fake connectors.
pub fn loader(variables: &Variables) -> Loader {
    let registry = Registry { sources: vec![&FakeSource], sinks: vec![&FakeSink], ..Registry::default() };
    Loader::new(Arc::new(registry), Arc::new(variables.clone()), 64 << 20)
}

/// Source type `fake`: keys `id`, `dsn`, `password`, `tables`. A DSN that contains `refused` fails its probe; one that contains
/// `busy` cannot be removed.
pub struct FakeSource;

struct FakeSourcePlan {
    id: String,
    dsn: String,
    info: SourceInfo,
}

/// How often a fake source was removed from its server, by id.
pub static REMOVED: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl SourceKind for FakeSource {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn summary(&self) -> &'static str {
        "parses and does nothing"
    }

    fn parse(&self, fields: &mut Fields<'_>, names: &Names<'_>) -> Option<Arc<dyn SourcePlan>> {
        let id = fields.text("id").unwrap_or_else(|| names.default_id.into());
        let dsn = fields.required_text("dsn");
        fields.secret("password");
        fields.texts("tables");
        let info = SourceInfo { connector: "fake", fields: &[] };
        Some(Arc::new(FakeSourcePlan { id, dsn: dsn?, info }))
    }
}

#[async_trait]
impl SourcePlan for FakeSourcePlan {
    fn id(&self) -> &str {
        &self.id
    }

    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::SOURCE
    }

    async fn check(&self) -> Report {
        probe(&self.dsn)
    }

    async fn open(&self, _: SourceContext) -> Result<Opened, Fault> {
        Err(Fault::config("fake.open", "a fake source does not open"))
    }

    async fn remove(&self) -> Result<(), Fault> {
        if self.dsn.contains("busy") {
            return Err(Fault::config("fake.busy", "the slot is in use").hint("end the other reader"));
        }
        REMOVED.lock().unwrap().push(self.id.clone());
        Ok(())
    }

    fn compare(&self, _: &Position, _: &Position) -> Option<Ordering> {
        None
    }

    fn number(&self, _: &Position) -> Option<u64> {
        None
    }
}

fn probe(address: &str) -> Report {
    let mut report = Report::default();
    if address.contains("refused") {
        report.add("login", Severity::Error, "the server refuses the login", Some("GRANT".into()));
    }
    report
}

/// Sink type `null`: keys `id`, `uri`, `note`.
pub struct FakeSink;

struct FakeSinkPlan {
    id: String,
    uri: String,
    required: bool,
}

impl SinkKind for FakeSink {
    fn name(&self) -> &'static str {
        "null"
    }

    fn summary(&self) -> &'static str {
        "parses and does nothing"
    }

    fn parse(
        &self,
        fields: &mut Fields<'_>,
        names: &Names<'_>,
        required: Option<bool>,
    ) -> Option<Arc<dyn SinkPlan>> {
        let id = fields.text("id").unwrap_or_else(|| names.default_id.into());
        let uri = fields.required_text("uri");
        fields.text("note");
        Some(Arc::new(FakeSinkPlan { id, uri: uri?, required: required.unwrap_or(true) }))
    }
}

#[async_trait]
impl SinkPlan for FakeSinkPlan {
    fn id(&self) -> &str {
        &self.id
    }

    fn required(&self) -> bool {
        self.required
    }

    fn retry(&self) -> RetryPolicy {
        RetryPolicy::REQUIRED_SINK
    }

    async fn check(&self) -> Report {
        probe(&self.uri)
    }

    async fn open(&self, _: &SinkContext) -> Result<Box<dyn Sink>, Fault> {
        Err(Fault::config("fake.open", "a fake sink does not open"))
    }
}

/// How the next pipeline of a name behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Script {
    /// Streams, and does what it is told.
    #[default]
    Streams,
    /// Fails at its start.
    Fails,
    /// Tries again for ever.
    Retries,
    /// Streams, and does not end when told to stop.
    NeverDrains,
}

/// What is done to a running pipeline.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// Its task panics.
    Panic,
    /// It gives up.
    Fail,
    /// A server is away.
    Retry,
}

/// Starts pipelines that do as they are told.
#[derive(Clone, Default)]
pub struct Scripted(Arc<Mutex<Board>>);

#[derive(Default)]
struct Board {
    scripts: HashMap<String, Script>,
    once: HashMap<String, Script>,
    running: HashMap<String, mpsc::UnboundedSender<Event>>,
    launched: Vec<(String, usize)>,
}

impl Scripted {
    /// What the pipeline does from its next start on.
    pub fn script(&self, pipeline: &str, script: Script) {
        self.0.lock().unwrap().scripts.insert(pipeline.into(), script);
    }

    /// What the pipeline does at its next start only.
    pub fn script_once(&self, pipeline: &str, script: Script) {
        self.0.lock().unwrap().once.insert(pipeline.into(), script);
    }

    /// Lets something happen to a running pipeline.
    pub fn happen(&self, pipeline: &str, event: Event) {
        self.0.lock().unwrap().running[pipeline].send(event).unwrap();
    }

    /// The starts so far: the pipeline and its `max_events`.
    pub fn launched(&self) -> Vec<(String, usize)> {
        self.0.lock().unwrap().launched.clone()
    }
}

impl Launcher for Scripted {
    fn launch(&self, spec: PipelineSpec, _: Arc<PipelineMetrics>) -> Handle {
        let (event_sender, events) = mpsc::unbounded_channel();
        let mut board = self.0.lock().unwrap();
        let once = board.once.remove(&spec.name);
        let script = once.or_else(|| board.scripts.get(&spec.name).copied()).unwrap_or_default();
        board.running.insert(spec.name.clone(), event_sender);
        board.launched.push((spec.name.clone(), spec.batch.max_events));
        let (command_sender, commands) = mpsc::channel(4);
        let (status, follow) = watch::channel(Status::new());
        Handle::new(
            command_sender,
            follow,
            task::spawn("scripted pipeline", run(script, commands, events, status)),
        )
    }
}

async fn run(
    script: Script,
    mut commands: mpsc::Receiver<Command>,
    mut events: mpsc::UnboundedReceiver<Event>,
    status: watch::Sender<Status>,
) {
    let say = |state, phase, trouble: Option<Fault>| {
        status.send_modify(|status| {
            status.state = state;
            status.phase = phase;
            status.trouble = trouble.map(|fault| Trouble::of(&fault, "source"));
            status.started_ms.get_or_insert_with(clock::unix_millis);
        });
    };
    let away = || Some(Fault::retry("fake.away", "the server is away"));
    match script {
        Script::Fails => {
            return say(State::Failed, Phase::Idle, Some(Fault::config("fake.refused", "refused")));
        }
        Script::Retries => say(State::Running, Phase::Retrying, away()),
        Script::Streams | Script::NeverDrains => say(State::Running, Phase::Streaming, None),
    }
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Pause) => say(State::Paused, Phase::Streaming, None),
                // Delivers what has an even number.
                Some(Command::Redeliver(asked)) => {
                    let ids = asked.letters.iter().map(|(id, _)| *id).filter(|id| id % 2 == 0).collect();
                    asked.answer.send(ids).unwrap();
                }
                Some(Command::Resume) => say(State::Running, Phase::Streaming, None),
                Some(Command::Stop) if script == Script::NeverDrains => {
                    say(State::Running, Phase::Draining, None);
                    std::future::pending::<()>().await;
                }
                Some(Command::Stop) | None => return say(State::Stopped, Phase::Idle, None),
            },
            event = events.recv() => match event {
                Some(Event::Panic) => panic!("told to"),
                Some(Event::Fail) => return say(State::Failed, Phase::Idle, Some(Fault::lost("fake.lost", "gone"))),
                Some(Event::Retry) => say(State::Running, Phase::Retrying, away()),
                None => std::future::pending().await,
            },
        }
    }
}

/// A store in memory with versions, which fails while told to.
#[derive(Clone, Default)]
pub struct TestStore(Arc<TestStoreInner>);

#[derive(Default)]
struct TestStoreInner {
    fails: AtomicBool,
    writes_fail: AtomicBool,
    without_versions: AtomicBool,
    calls: AtomicU32,
    checkpoints: Mutex<HashMap<String, Vec<Checkpoint>>>,
    documents: Mutex<HashMap<String, String>>,
    letters: Mutex<HashMap<String, Vec<DeadLetter>>>,
}

impl TestStore {
    /// Every call fails from here on, or works again.
    pub fn fail(&self, fails: bool) {
        self.0.fails.store(fails, SeqCst);
    }

    /// Every call that stores a document fails from here on, or works again.
    pub fn fail_writes(&self, fails: bool) {
        self.0.writes_fail.store(fails, SeqCst);
    }

    /// Keeps no versions.
    pub fn without_versions(&self) {
        self.0.without_versions.store(true, SeqCst);
    }

    /// Stores a checkpoint as a pipeline would.
    pub fn checkpoint(&self, pipeline: &str, source_id: &str, position: &str) {
        let mut all = self.0.checkpoints.lock().unwrap();
        let versions = all.entry(source_id.into()).or_default();
        let position = Position::from_json(position);
        let saved_ms = clock::unix_millis();
        versions.push(Checkpoint {
            source_id: source_id.into(),
            pipeline: pipeline.into(),
            position: position.clone(),
            events_done: 0,
            version: versions.len() as u64 + 1,
            saved_ms,
            sinks: vec![SinkProgress { sink: "a-null".into(), position, delivered_ms: saved_ms }],
        });
    }

    /// The stored document of a pipeline.
    pub fn document(&self, name: &str) -> Option<String> {
        self.0.documents.lock().unwrap().get(name).cloned()
    }

    /// As a shared store.
    pub fn shared(&self) -> Arc<dyn StateStore> {
        Arc::new(self.clone())
    }

    fn answer(&self) -> Result<(), Fault> {
        self.0.calls.fetch_add(1, SeqCst);
        match self.0.fails.load(SeqCst) {
            true => Err(Fault::retry("state.unwritable", "the disk is full").hint("make room")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl CheckpointStore for TestStore {
    async fn acquire(&self, source_id: &str, _: &str) -> Result<Lease, Fault> {
        Ok(Lease { source_id: source_id.into(), epoch: Epoch(1), checkpoint: self.load(source_id).await? })
    }

    async fn load(&self, source_id: &str) -> Result<Option<Checkpoint>, Fault> {
        self.answer()?;
        Ok(self.0.checkpoints.lock().unwrap().get(source_id).and_then(|versions| versions.last().cloned()))
    }

    async fn save(&self, _: &Checkpoint, _: Epoch) -> Result<u64, Fault> {
        self.answer().map(|()| 1)
    }

    fn has_versions(&self) -> bool {
        !self.0.without_versions.load(SeqCst)
    }

    async fn versions(&self, source_id: &str) -> Result<Vec<Version>, Fault> {
        self.answer()?;
        let all = self.0.checkpoints.lock().unwrap();
        let versions = all.get(source_id).into_iter().flatten().rev();
        let version = |c: &Checkpoint| Version {
            version: c.version,
            saved_ms: c.saved_ms,
            size_bytes: 64,
            position: c.position.clone(),
        };
        Ok(versions.map(version).collect())
    }

    async fn rollback(&self, source_id: &str, version: u64) -> Result<Option<Checkpoint>, Fault> {
        self.answer()?;
        let mut all = self.0.checkpoints.lock().unwrap();
        let Some(versions) = all.get_mut(source_id) else { return Ok(None) };
        let Some(mut found) = versions.iter().find(|c| c.version == version).cloned() else {
            return Ok(None);
        };
        found.version = versions.len() as u64 + 1;
        versions.push(found.clone());
        Ok(Some(found))
    }

    async fn remove(&self, source_id: &str) -> Result<(), Fault> {
        self.answer()?;
        self.0.checkpoints.lock().unwrap().remove(source_id);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Checkpoint>, Fault> {
        self.answer()?;
        Ok(self
            .0
            .checkpoints
            .lock()
            .unwrap()
            .values()
            .filter_map(|versions| versions.last().cloned())
            .collect())
    }

    async fn size_bytes(&self, _: &str) -> Result<u64, Fault> {
        self.answer().map(|()| 64)
    }
}

#[async_trait]
impl SchemaHistory for TestStore {
    async fn schemas(&self, _: &str) -> Result<Vec<SchemaRecord>, Fault> {
        Ok(Vec::new())
    }

    async fn append_schemas(&self, _: &str, _: &[SchemaRecord], _: Epoch) -> Result<(), Fault> {
        Ok(())
    }
}

#[async_trait]
impl DocumentStore for TestStore {
    async fn put_document(&self, name: &str, json: &str) -> Result<(), Fault> {
        self.answer()?;
        if self.0.writes_fail.load(SeqCst) {
            return Err(Fault::retry("state.unwritable", "the disk is full").hint("make room"));
        }
        self.0.documents.lock().unwrap().insert(name.into(), json.into());
        Ok(())
    }

    async fn remove_document(&self, name: &str) -> Result<(), Fault> {
        self.answer()?;
        self.0.documents.lock().unwrap().remove(name);
        Ok(())
    }

    async fn documents(&self) -> Result<Vec<(String, String)>, Fault> {
        self.answer()?;
        Ok(self.0.documents.lock().unwrap().iter().map(|(name, json)| (name.clone(), json.clone())).collect())
    }
}

#[async_trait]
impl DeadLetterStore for TestStore {
    /// Without regard to room and epoch.
    async fn append_dead_letter(
        &self,
        source_id: &str,
        entry: NewDeadLetter,
        _: Room,
        _: Epoch,
    ) -> Result<Appended, Fault> {
        self.answer()?;
        let mut all = self.0.letters.lock().unwrap();
        let letters = all.entry(source_id.into()).or_default();
        let id = letters.last().map_or(1, |letter| letter.id + 1);
        letters.push(DeadLetter { id, attempts: 1, entry });
        Ok(Appended::Stored { id, dropped: 0 })
    }

    async fn dead_letters(&self, source_id: &str, query: &DeadLetterQuery) -> Result<DeadLetterPage, Fault> {
        self.answer()?;
        let all = self.0.letters.lock().unwrap();
        let passing = all.get(source_id).into_iter().flatten().filter(|l| query.passes(&l.entry));
        let passing: Vec<_> = passing.cloned().collect();
        let total = passing.len() as u64;
        let mut entries: Vec<_> = passing.into_iter().filter(|l| l.id > query.after).collect();
        let more = entries.len() > query.limit;
        entries.truncate(query.limit);
        Ok(DeadLetterPage { entries, more, total })
    }

    async fn dead_letters_by_id(&self, source_id: &str, ids: &[u64]) -> Result<Vec<DeadLetter>, Fault> {
        let query = DeadLetterQuery { limit: usize::MAX, ..DeadLetterQuery::default() };
        let all = self.dead_letters(source_id, &query).await?.entries;
        Ok(all.into_iter().filter(|l| ids.contains(&l.id)).collect())
    }

    async fn remove_dead_letters(&self, source_id: &str, which: &Which) -> Result<u64, Fault> {
        self.answer()?;
        let mut all = self.0.letters.lock().unwrap();
        let letters = all.entry(source_id.into()).or_default();
        let before = letters.len();
        letters.retain(|l| matches!(which, Which::Ids(ids) if !ids.contains(&l.id)));
        Ok((before - letters.len()) as u64)
    }

    async fn count_attempts(&self, source_id: &str, ids: &[u64]) -> Result<(), Fault> {
        self.answer()?;
        let mut all = self.0.letters.lock().unwrap();
        let letters = all.entry(source_id.into()).or_default();
        letters.iter_mut().filter(|l| ids.contains(&l.id)).for_each(|l| l.attempts += 1);
        Ok(())
    }

    async fn trim_dead_letters(&self, _: &str, _: i64) -> Result<u64, Fault> {
        self.answer().map(|()| 0)
    }

    async fn count_dead_letters(&self, source_id: &str) -> Result<u64, Fault> {
        self.answer()?;
        Ok(self.0.letters.lock().unwrap().get(source_id).map_or(0, |letters| letters.len() as u64))
    }
}
