//! The simulated store: the real one in memory, behind bad weather. What it holds outlives the engines.

use super::rng::Rng;
use super::world::{LaneFacts, World};
use async_trait::async_trait;
use deltaforge_core::checkpoint::{
    Checkpoint, CheckpointStore, DocumentStore, Lease, SchemaHistory, StateStore, Version,
};
use deltaforge_core::dead_letter::{
    Appended, DeadLetter, DeadLetterPage, DeadLetterQuery, DeadLetterStore, NewDeadLetter, Room, Which,
};
use deltaforge_core::fault::{Fault, Kind};
use deltaforge_core::position::Epoch;
use deltaforge_core::schema::SchemaRecord;
use std::sync::Arc;
use std::time::Duration;

/// The store as one engine start sees it.
pub(super) struct SimStore {
    pub(super) world: Arc<World>,
    pub(super) run: usize,
    pub(super) inner: Arc<dyn StateStore>,
}

/// How a call goes.
struct Fate {
    before: Duration,
    after: Duration,
    /// It fails, and this tells whether it has taken effect.
    fails: Option<bool>,
}

impl SimStore {
    fn fate(&self) -> Fate {
        let world = &self.world;
        let (traits, now) = (&world.plan.store, world.now());
        let mut rng = Rng::of(world.plan.seed ^ self.run as u64, "store", now.as_micros() as u64);
        if world.is_calm() {
            return Fate { before: Duration::ZERO, after: rng.millis(0, 2), fails: None };
        }
        let (before, after) = (rng.millis(0, traits.latency_ms), rng.millis(0, traits.latency_ms));
        let has_effect = rng.chance(traits.ambiguous_per_mille);
        if let Some(outage) = traits.weather.outage(now) {
            let hangs = if outage.hangs { outage.to - now } else { before };
            let fails =
                rng.chance(if outage.hangs { 300 } else { 1000 }).then_some(has_effect && outage.hangs);
            return if has_effect {
                Fate { before, after: hangs, fails }
            } else {
                Fate { before: hangs, after, fails }
            };
        }
        let fails = rng.chance(traits.weather.faults_per_mille).then_some(has_effect);
        Fate { before, after, fails }
    }

    /// Makes a call with a fate: late, twice as late, in vain, or in effect without an answer.
    async fn call<T>(&self, what: &str, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        self.world.facts().runs[self.run].awaits_store = true;
        let done = self.make(what, call).await;
        self.world.facts().runs[self.run].awaits_store = false;
        done
    }

    async fn make<T>(&self, what: &str, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let fate = self.fate();
        tokio::time::sleep(fate.before).await;
        if fate.fails == Some(false) {
            self.world.count("store faults");
            self.world.trace(|| format!("run {} store does not {what}", self.run));
            return Err(away());
        }
        let answer = call.await;
        tokio::time::sleep(fate.after).await;
        if fate.fails.is_some() {
            self.world.count("store calls done without an answer");
            self.world.trace(|| format!("run {} store has done {what} and does not say so", self.run));
            return Err(away());
        }
        answer
    }

    fn panics(&self) {
        let panics_at = self.world.plan.store.panics_at;
        let now = self.world.now();
        let mut facts = self.world.facts();
        let run = &mut facts.runs[self.run];
        if Some(run.saves) == panics_at && facts.panics == 0 && !self.world.is_calm() {
            facts.panics += 1;
            facts.runs[self.run].doomed.push((now, "engine.task_ended"));
            drop(facts);
            panic!("simulated: the store breaks down");
        }
    }
}

fn away() -> Fault {
    Fault::retry("state.unwritable", "the store does not answer").kind(Kind::Target)
}

#[async_trait]
impl CheckpointStore for SimStore {
    async fn acquire(&self, source_id: &str, pipeline: &str) -> Result<Lease, Fault> {
        let acquire = async {
            let lease = self.inner.acquire(source_id, pipeline).await?;
            let mut facts = self.world.facts();
            let place =
                lease.checkpoint.as_ref().and_then(|c| Some((super::log::lsn(&c.position)?, c.events_done)));
            let saved = facts.saved;
            let run = &mut facts.runs[self.run];
            run.epoch = Some(lease.epoch);
            if let Some((lsn, done)) = place {
                run.from = self.world.log.bound(lsn).map(|bound| bound + done);
                run.resumed = true;
                run.from_inside = done > 0;
                run.given = Some(lsn);
            }
            if self.world.plan.exact {
                // It begins where its sinks stand, perhaps not for the first time.
                (run.from, run.given, run.handed) = (None, None, 0);
                for lane in &mut run.lanes {
                    let acknowledged = std::mem::take(&mut lane.acknowledged);
                    *lane = LaneFacts { acknowledged, ..LaneFacts::default() };
                }
            }
            drop(facts);
            self.world.count(match place {
                None => "starts without a checkpoint",
                Some((_, 0)) => "resumes",
                Some(_) => "resumes inside a transaction",
            });
            if place != saved {
                self.world.violated(format!("the store holds {place:?}, saved was {saved:?}"));
            }
            self.world.trace(|| format!("run {} owns the checkpoint {place:?}", self.run));
            Ok(lease)
        };
        self.call("acquire", acquire).await
    }

    async fn load(&self, source_id: &str) -> Result<Option<Checkpoint>, Fault> {
        self.inner.load(source_id).await
    }

    async fn save(&self, checkpoint: &Checkpoint, epoch: Epoch) -> Result<u64, Fault> {
        self.world.check_save(self.run, checkpoint);
        self.panics();
        let save = async {
            let version = self.inner.save(checkpoint, epoch).await?;
            self.world.note_saved(self.run, checkpoint);
            self.world.trace(|| {
                format!("run {} saved {} + {}", self.run, checkpoint.position, checkpoint.events_done)
            });
            Ok(version)
        };
        self.call("save", save).await
    }

    fn has_versions(&self) -> bool {
        self.inner.has_versions()
    }

    async fn versions(&self, source_id: &str) -> Result<Vec<Version>, Fault> {
        self.inner.versions(source_id).await
    }

    async fn rollback(&self, source_id: &str, version: u64) -> Result<Option<Checkpoint>, Fault> {
        self.inner.rollback(source_id, version).await
    }

    async fn remove(&self, source_id: &str) -> Result<(), Fault> {
        self.inner.remove(source_id).await
    }

    async fn list(&self) -> Result<Vec<Checkpoint>, Fault> {
        self.inner.list().await
    }

    async fn size_bytes(&self, source_id: &str) -> Result<u64, Fault> {
        self.inner.size_bytes(source_id).await
    }
}

#[async_trait]
impl SchemaHistory for SimStore {
    async fn schemas(&self, source_id: &str) -> Result<Vec<SchemaRecord>, Fault> {
        self.call("read schemas", self.inner.schemas(source_id)).await
    }

    async fn append_schemas(
        &self,
        source_id: &str,
        records: &[SchemaRecord],
        epoch: Epoch,
    ) -> Result<(), Fault> {
        let append = async {
            self.inner.append_schemas(source_id, records, epoch).await?;
            let stored = records.last().map_or(0, |r| r.sequence);
            let mut facts = self.world.facts();
            facts.stored_schemas = facts.stored_schemas.max(stored);
            Ok(())
        };
        self.call("append schemas", append).await
    }
}

#[async_trait]
impl DocumentStore for SimStore {
    async fn put_document(&self, name: &str, json: &str) -> Result<(), Fault> {
        self.inner.put_document(name, json).await
    }

    async fn remove_document(&self, name: &str) -> Result<(), Fault> {
        self.inner.remove_document(name).await
    }

    async fn documents(&self) -> Result<Vec<(String, String)>, Fault> {
        self.inner.documents().await
    }
}

#[async_trait]
impl DeadLetterStore for SimStore {
    async fn append_dead_letter(
        &self,
        source_id: &str,
        entry: NewDeadLetter,
        room: Room,
        epoch: Epoch,
    ) -> Result<Appended, Fault> {
        self.call("append dead letter", self.inner.append_dead_letter(source_id, entry, room, epoch)).await
    }

    async fn dead_letters(&self, source_id: &str, query: &DeadLetterQuery) -> Result<DeadLetterPage, Fault> {
        self.inner.dead_letters(source_id, query).await
    }

    async fn dead_letters_by_id(&self, source_id: &str, ids: &[u64]) -> Result<Vec<DeadLetter>, Fault> {
        self.inner.dead_letters_by_id(source_id, ids).await
    }

    async fn remove_dead_letters(&self, source_id: &str, which: &Which) -> Result<u64, Fault> {
        self.inner.remove_dead_letters(source_id, which).await
    }

    async fn count_attempts(&self, source_id: &str, ids: &[u64]) -> Result<(), Fault> {
        self.inner.count_attempts(source_id, ids).await
    }

    async fn trim_dead_letters(&self, source_id: &str, before_ms: i64) -> Result<u64, Fault> {
        self.inner.trim_dead_letters(source_id, before_ms).await
    }

    async fn count_dead_letters(&self, source_id: &str) -> Result<u64, Fault> {
        self.inner.count_dead_letters(source_id).await
    }
}
