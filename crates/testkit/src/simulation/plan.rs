//! What a seed decides before the clock starts: the pipeline's settings, everybody's manners, the weather and the operator.

use super::rng::Rng;
use deltaforge_core::config::RetryPolicy;
use deltaforge_engine::spec::{BatchSettings, CommitPolicy};
use std::time::Duration;

/// A simulated run, as the seed has it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// Some sink stores positions with its data.
    pub(super) exact: bool,
    /// From then on nothing fails any more: what must happen "in the end" must happen soon after.
    pub(super) calm_at: Duration,
    pub(super) policy: CommitPolicy,
    pub(super) memory_limit: u64,
    pub(super) process_limit: u64,
    pub(super) batch: BatchSettings,
    /// Each start has other batch settings.
    pub(super) vary_batch: bool,
    pub(super) sinks: Vec<SinkTraits>,
    pub(super) source: SourceTraits,
    pub(super) store: StoreTraits,
    pub(super) log: LogTraits,
    /// By time.
    pub(super) orders: Vec<(Duration, Order)>,
    /// A second engine is started on the same key at some time.
    pub(super) two_engines: bool,
}

/// What the operator, or fate, does to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// `kill -9`, and a start after so long.
    Crash(Duration),
    /// Pause, and a resume after so long.
    Pause(Duration),
    /// Stop, and a start after so long.
    Stop(Duration),
    /// Somebody starts a second engine on the same key.
    Second,
    /// A crash, and the state store is empty when the next start comes after so long.
    Lose(Duration),
}

/// The log.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogTraits {
    pub(super) events: u64,
    pub(super) largest: u64,
    pub(super) gap_ms: u64,
    /// Nothing is committed from then on, for [`SILENCE`].
    pub(super) silent_from: Option<Duration>,
    pub(super) calm_at: Duration,
}

/// How long a silence lasts: longer than anybody may need to get well again and be seen to be.
pub(super) const SILENCE: Duration = Duration::from_secs(32);

/// When a component cannot be used.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    outages: Vec<Outage>,
    /// Calls that fail outside outages.
    pub(super) faults_per_mille: u64,
    calm_at: Duration,
}

/// A component is away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    pub(super) from: Duration,
    pub(super) to: Duration,
    /// It does not refuse: it does not answer.
    pub(super) hangs: bool,
}

impl Weather {
    fn roll(rng: &mut Rng, calm_at: Duration, fair: bool) -> Weather {
        let mut outages = Vec::new();
        let faults_per_mille = if fair { 0 } else { rng.pick(&[0, 5, 20, 100]) };
        let number = if fair { 0 } else { rng.pick(&[0, 0, 1, 2]) };
        for _ in 0..number {
            let from = rng.millis(0, calm_at.as_millis() as u64);
            let to = (from + Duration::from_millis(rng.scale(200, 25_000))).min(calm_at);
            outages.push(Outage { from, to, hangs: rng.chance(400) });
        }
        outages.sort_by_key(|o| o.from);
        Weather { outages, faults_per_mille, calm_at }
    }

    pub(super) fn outage(&self, now: Duration) -> Option<Outage> {
        self.outages.iter().copied().find(|o| o.from <= now && now < o.to)
    }

    /// A moment after `now` that lies in rough weather still.
    pub(super) fn until(&self, now: Duration, wanted: Duration) -> Duration {
        (now + wanted).min(self.calm_at.max(now))
    }

    pub(super) fn next_outage(&self, now: Duration) -> Option<Duration> {
        self.outages.iter().map(|o| o.from).find(|from| *from > now)
    }
}

/// What a sink's target stores besides the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stores {
    Nothing,
    /// Positions, in one atomic step with the events before them.
    Transactions,
    /// Each event for good, the position with it: a chain in which each link names the one before.
    Chain,
}

/// A sink's manners.
#[derive(Clone, Debug)]
pub(super) struct SinkTraits {
    pub(super) id: String,
    pub(super) stores: Stores,
    pub(super) required: bool,
    pub(super) retry: RetryPolicy,
    pub(super) weather: Weather,
    pub(super) accept_ms: u64,
    pub(super) acknowledge_ms: u64,
    /// Of its faults, those that come after the batch was applied.
    pub(super) ambiguous_per_mille: u64,
    /// Deliveries that are accepted and not acknowledged for long.
    pub(super) stalls_per_mille: u64,
    /// Every so many events one is refused, for ever. Only sinks that nobody waits for.
    pub(super) refuses_every: Option<u64>,
    /// One event is refused until an operator has seen the pipeline fail. Only sinks that are waited for.
    pub(super) poison: Option<u64>,
    /// The task breaks down at this delivery.
    pub(super) panics_at: Option<u64>,
}

/// The source's manners.
#[derive(Clone, Debug)]
pub(super) struct SourceTraits {
    pub(super) retry: RetryPolicy,
    pub(super) weather: Weather,
    /// Most rows that arrive at once.
    pub(super) chunk: u64,
    /// Longest time between arrivals, milliseconds.
    pub(super) gap_ms: u64,
    pub(super) stalls_per_mille: u64,
    /// The server serves one reader at a time.
    pub(super) exclusive: bool,
    /// A first start reads from the log's beginning; else from its head.
    pub(super) from_oldest: bool,
    /// The log has an end that the source tells.
    pub(super) ends: bool,
    pub(super) panics_at: Option<u64>,
}

/// The store's manners.
#[derive(Clone, Debug)]
pub(super) struct StoreTraits {
    pub(super) weather: Weather,
    pub(super) latency_ms: u64,
    /// Of its faults, those that come after the save took effect.
    pub(super) ambiguous_per_mille: u64,
    pub(super) panics_at: Option<u64>,
}

impl SinkTraits {
    /// Whether nothing has been wrong with it for so long.
    pub(super) fn is_well_since(&self, now: Duration, long: Duration) -> bool {
        let faultless = self.stalls_per_mille == 0 && self.weather.faults_per_mille == 0;
        let agrees = self.refuses_every.is_none() && self.poison.is_none() && self.panics_at.is_none();
        faultless
            && agrees
            && now > long
            && self.weather.outages.iter().all(|o| o.to + long < now || o.from > now)
    }
}

impl Plan {
    pub(super) fn roll(seed: u64) -> Plan {
        let rng = &mut Rng::of(seed, "plan", 0);
        let calm_at = Duration::from_secs(rng.range(15, 70));
        let fair = rng.chance(80);
        let two_engines = !fair && rng.chance(120);
        let memory_limit = if rng.chance(350) { rng.scale(8 << 10, 256 << 10) } else { 64 << 20 };
        let batch = roll_batch(rng, memory_limit < 1 << 20);
        let policy_is = rng.below(10);
        let sinks = rng.pick(&[1, 1, 2, 2, 3]);
        let policy = match policy_is {
            0..2 => CommitPolicy::All,
            2..5 if sinks > 1 => CommitPolicy::Quorum(rng.range(1, sinks) as usize),
            _ => CommitPolicy::Required,
        };
        let mut sinks: Vec<_> = (0..sinks).map(|n| roll_sink(rng, n, calm_at, fair)).collect();
        let events = match rng.below(10) {
            0..6 => rng.range(60, 1200),
            6..9 => rng.range(1000, 4000),
            _ => rng.range(4000, 9000),
        };
        let log = LogTraits {
            events,
            largest: rng.pick(&[3, 30, 5000, 5000]),
            gap_ms: rng.scale(10, 4000),
            silent_from: (calm_at > SILENCE + Duration::from_secs(8) && rng.chance(400))
                .then(|| rng.millis(3000, 8000)),
            calm_at,
        };
        for sink in &mut sinks {
            roll_misfortunes(rng, sink, policy, fair, &log);
        }
        let source = roll_source(rng, calm_at, fair, two_engines);
        let mut store = StoreTraits {
            weather: Weather::roll(rng, calm_at, fair),
            latency_ms: rng.pick(&[0, 2, 50, 400]),
            ambiguous_per_mille: rng.pick(&[0, 300, 1000]),
            panics_at: (!fair && rng.chance(30)).then(|| rng.range(1, 12)),
        };
        let mut orders = if fair { Vec::new() } else { roll_orders(rng, calm_at, two_engines) };
        if !fair && rng.chance(60) {
            // Somebody pauses what cannot even begin.
            let to = rng.millis(2000, 6000);
            store.weather.outages = vec![Outage { from: Duration::ZERO, to, hangs: false }];
            orders.push((rng.millis(100, 1900), Order::Pause(Duration::from_secs(14))));
            orders.sort_by_key(|(at, _)| *at);
        }
        Plan {
            seed,
            exact: false,
            calm_at,
            policy,
            memory_limit,
            process_limit: if rng.chance(150) { rng.scale(8 << 10, 256 << 10) } else { 256 << 20 },
            batch,
            vary_batch: rng.chance(300),
            sinks,
            source,
            store,
            log,
            orders,
            two_engines,
        }
    }

    /// The same world, but that sinks store positions, and that the state is lost.
    pub(super) fn roll_exact(seed: u64) -> Plan {
        let mut plan = Plan::roll(seed);
        let rng = &mut Rng::of(seed, "exact", 0);
        plan.exact = true;
        if matches!(plan.policy, CommitPolicy::Quorum(_)) {
            plan.policy = CommitPolicy::All;
        }
        let certain = rng.below(plan.sinks.len() as u64) as usize;
        for (number, sink) in plan.sinks.iter_mut().enumerate() {
            if number == certain || rng.chance(600) {
                sink.stores = if rng.chance(550) { Stores::Transactions } else { Stores::Chain };
                (sink.required, sink.refuses_every, sink.retry.max_attempts) = (true, None, 0);
            }
        }
        // Many parts of transactions cost many deliveries.
        plan.log.events = plan.log.events.min(2500);
        plan.log.largest = rng.pick(&[8, 60, 400, 400]);
        plan.batch = roll_exact_batch(rng);
        plan.vary_batch = rng.chance(700);
        let misfortunes = if plan.orders.is_empty() { 0 } else { rng.pick(&[0, 1, 1, 2]) };
        for _ in 0..misfortunes {
            let down = Duration::from_millis(rng.scale(1, 8000));
            plan.orders.push((rng.millis(500, plan.calm_at.as_millis() as u64), Order::Lose(down)));
        }
        plan.orders.sort_by_key(|(at, _)| *at);
        plan
    }

    /// The batch settings of a start.
    pub(super) fn batch_of(&self, run: usize) -> BatchSettings {
        if run == 0 || !self.vary_batch {
            return self.batch;
        }
        let rng = &mut Rng::of(self.seed, "batch", run as u64);
        if self.exact { roll_exact_batch(rng) } else { roll_batch(rng, self.memory_limit < 1 << 20) }
    }

    /// Whether each event must reach this sink before the checkpoint passes it.
    pub(super) fn must_reach(&self, sink: usize) -> bool {
        match self.policy {
            CommitPolicy::All => true,
            CommitPolicy::Quorum(n) => n == self.sinks.len(),
            CommitPolicy::Required => self.sinks[sink].required,
        }
    }

    /// Whether the checkpoint follows acknowledgements; without a required sink it follows attempts.
    pub(super) fn counts_acknowledgements(&self) -> bool {
        self.policy != CommitPolicy::Required || self.sinks.iter().any(|s| s.required)
    }
}

fn roll_batch(rng: &mut Rng, small: bool) -> BatchSettings {
    BatchSettings {
        max_events: rng.pick(&[1, 3, 10, 50, 200, 1000, 4000]),
        max_bytes: if small {
            rng.pick(&[2_000, 8_000, 30_000, 100_000])
        } else {
            rng.pick(&[3_000, 50_000, 1 << 20, 1 << 20])
        },
        max_wait: rng.millis(5, 1000),
        respect_source_tx: rng.chance(600),
        max_inflight: rng.range(1, 8) as usize,
    }
}

/// As validation demands of exactly-once sinks: transactions are whole. Small, so that many are above the limits.
fn roll_exact_batch(rng: &mut Rng) -> BatchSettings {
    BatchSettings {
        max_events: rng.pick(&[1, 3, 7, 25, 100, 1000]),
        max_bytes: rng.pick(&[3_000, 20_000, 1 << 20]),
        respect_source_tx: true,
        ..roll_batch(rng, false)
    }
}

fn roll_sink(rng: &mut Rng, number: u64, calm_at: Duration, fair: bool) -> SinkTraits {
    let required = number == 0 && rng.chance(900) || rng.chance(500);
    SinkTraits {
        id: format!("sink{number}"),
        stores: Stores::Nothing,
        required,
        retry: RetryPolicy {
            initial_ms: rng.scale(20, 1000),
            max_ms: rng.range(1000, 5000),
            jitter: 0.0,
            max_attempts: 0,
        },
        weather: Weather::roll(rng, calm_at, fair),
        accept_ms: rng.pick(&[0, 0, 3, 30]),
        acknowledge_ms: rng.pick(&[1, 5, 50, 300]),
        ambiguous_per_mille: rng.pick(&[0, 300, 700]),
        stalls_per_mille: if fair { 0 } else { rng.pick(&[0, 0, 3, 15]) },
        refuses_every: None,
        poison: None,
        panics_at: (!fair && rng.chance(30)).then(|| rng.range(1, 60)),
    }
}

/// What depends on whether the policy may wait for the sink.
fn roll_misfortunes(rng: &mut Rng, sink: &mut SinkTraits, policy: CommitPolicy, fair: bool, log: &LogTraits) {
    let waited_for = policy != CommitPolicy::Required || sink.required;
    if waited_for {
        sink.poison = (!fair && rng.chance(40)).then(|| rng.below(log.events));
        return;
    }
    if let Some(silent_from) = log.silent_from.filter(|_| !fair && rng.chance(700)) {
        // It goes away and comes back while nobody has anything for it, and is perfect otherwise.
        let (from, to) = (silent_from - Duration::from_secs(1), silent_from + Duration::from_secs(5));
        sink.weather.outages = vec![Outage { from, to, hangs: false }];
        (sink.weather.faults_per_mille, sink.stalls_per_mille, sink.panics_at) = (0, 0, None);
        sink.retry =
            RetryPolicy { initial_ms: 50, max_ms: 500, jitter: 0.0, max_attempts: rng.range(1, 4) as u32 };
        return;
    }
    sink.retry.max_attempts = rng.pick(&[1, 3, 5]);
    sink.refuses_every = (!fair && rng.chance(300)).then(|| rng.scale(5, 500));
    if !fair && rng.chance(300) {
        // Down nearly all the time: a sink that nobody waits for must cost nobody anything.
        let (from, to) = (Duration::from_secs(1), sink.weather.calm_at);
        sink.weather.outages = vec![Outage { from, to, hangs: rng.chance(700) }];
    }
}

fn roll_source(rng: &mut Rng, calm_at: Duration, fair: bool, two_engines: bool) -> SourceTraits {
    SourceTraits {
        retry: RetryPolicy { initial_ms: rng.scale(50, 1000), max_ms: 5000, jitter: 0.0, max_attempts: 0 },
        weather: Weather::roll(rng, calm_at, fair),
        chunk: rng.scale(1, 3000),
        gap_ms: rng.pick(&[0, 1, 20, 200]),
        stalls_per_mille: if fair { 0 } else { rng.pick(&[0, 5, 30]) },
        exclusive: rng.chance(500),
        from_oldest: rng.chance(600),
        ends: !two_engines && rng.chance(100),
        panics_at: (!fair && rng.chance(20)).then(|| rng.range(1, 60)),
    }
}

fn roll_orders(rng: &mut Rng, calm_at: Duration, two_engines: bool) -> Vec<(Duration, Order)> {
    let end = calm_at.as_millis() as u64;
    let mut orders = Vec::new();
    for _ in 0..rng.pick(&[0, 1, 2, 4, 7]) {
        let pause = Duration::from_millis(rng.scale(1, 8000));
        let order = match rng.below(10) {
            0..5 => Order::Crash(pause),
            5..7 => Order::Pause(pause + Duration::from_millis(500)),
            _ => Order::Stop(pause),
        };
        orders.push((rng.millis(0, end), order));
    }
    if two_engines {
        orders.push((rng.millis(500, end), Order::Second));
    }
    orders.sort_by_key(|(at, _)| *at);
    orders
}
