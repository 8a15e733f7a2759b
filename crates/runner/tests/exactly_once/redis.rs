//! Into Redis Streams, read by `redis-cli`.

use super::support::random::Random;
use super::support::streams::{exact_redis_sink, feed_stream};
use super::{Target, killed};
use deltaforge_testkit::ledger::Ledger;
use deltaforge_testkit::servers::{Redis, RedisOptions};

const STREAM: &str = "changes";

impl Target for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn sink(&self) -> String {
        exact_redis_sink(&self.uri(), STREAM)
    }

    fn feed(&self, ledger: &mut Ledger) {
        feed_stream(ledger, self, STREAM);
    }

    fn disturb(&self, random: &mut Random) {
        if random.one_in(2) {
            self.pause();
        } else {
            self.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
    }

    fn calm(&self) {
        self.resume();
    }
}

#[test]
fn killed_again_and_again() {
    killed(&Redis::start(&RedisOptions::default()).unwrap(), 60, false);
}

#[test]
fn the_state_is_forgotten() {
    killed(&Redis::start(&RedisOptions::default()).unwrap(), 16, true);
}
