//! What sandboxes cost, as far as this machine can tell.

use super::read::{Table, Value};
use super::{Config, Provider};

/// The core of a sandbox for a second, in US dollars: Modal's price of October 2026.
const USD_PER_CORE_SECOND: f64 = 0.000_039_42;
/// A GiB of a sandbox's memory for a second, in US dollars: Modal's price of October 2026.
const USD_PER_GIB_SECOND: f64 = 0.000_006_67;
/// What a sandbox of Modal has where the configuration does not say it, in GiB.
const USUAL_MEMORY: f64 = 0.125;

/// `[cost]`: prices for estimates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// US dollars for a core and second.
    pub usd_per_core_second: f64,
    /// US dollars for a GiB of memory and second.
    pub usd_per_gib_second: f64,
}

pub(super) fn read(table: &mut Table<'_>) -> Cost {
    Cost {
        usd_per_core_second: table.read("usd_per_core_second", Value::amount).unwrap_or(USD_PER_CORE_SECOND),
        usd_per_gib_second: table.read("usd_per_gib_second", Value::amount).unwrap_or(USD_PER_GIB_SECOND),
    }
}

impl Config {
    /// US dollars for one sandbox and second: its cores and memory at the prices of `[cost]`. Without
    /// that section local sandboxes cost nothing, and others as much as Modal's.
    pub fn usd_per_sandbox_second(&self) -> f64 {
        let usual = match self.provider {
            Provider::Local(_) => Cost { usd_per_core_second: 0.0, usd_per_gib_second: 0.0 },
            Provider::Command(_) | Provider::Modal(_) => {
                Cost { usd_per_core_second: USD_PER_CORE_SECOND, usd_per_gib_second: USD_PER_GIB_SECOND }
            }
        };
        let cost = self.cost.unwrap_or(usual);
        let (cores, memory) = match &self.provider {
            Provider::Local(_) => (1.0, 0.0),
            Provider::Command(command) => (command.cpu_cores, 0.0),
            Provider::Modal(modal) => (modal.cpu_cores, modal.memory_gb.unwrap_or(USUAL_MEMORY)),
        };
        cores * cost.usd_per_core_second + memory * cost.usd_per_gib_second
    }
}
