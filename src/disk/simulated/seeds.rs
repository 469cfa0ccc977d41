//! Seeds of simulations: which ones a test runs, and which one it failed with.

use std::ops::Range;

/// The seeds of a simulation. `NAME_SEEDS` in the environment says how many there are, `NAME_SEED` which is the first.
#[derive(Clone, Copy, Debug)]
pub struct Seeds {
    /// The beginning of the names in the environment, such as `LOG`.
    pub name: &'static str,
    /// How many there are, unless the environment says so.
    pub count: u64,
}

impl Seeds {
    /// Runs the simulation with each seed, and returns the seeds for which it said yes, and how many there were. When
    /// it panics, the variable to repeat it with is printed.
    pub fn run(self, mut simulation: impl FnMut(u64) -> bool) -> (Vec<u64>, u64) {
        let seeds = self.range();
        let count = seeds.end - seeds.start;
        let said_yes = seeds.filter(|seed| {
            let _tell = TellSeed { name: self.name, seed: *seed };
            simulation(*seed)
        });
        (said_yes.collect(), count)
    }

    fn range(self) -> Range<u64> {
        let number = |suffix: &str| std::env::var(format!("{}_{suffix}", self.name)).ok()?.parse::<u64>().ok();
        let first = number("SEED").unwrap_or_default();
        first..first.saturating_add(number("SEEDS").unwrap_or(self.count))
    }
}

struct TellSeed {
    name: &'static str,
    seed: u64,
}

impl Drop for TellSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { name, seed } = self;
            eprintln!("to repeat: {name}_SEED={seed} {name}_SEEDS=1");
        }
    }
}
