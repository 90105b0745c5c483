//! Estimates what sandboxes cost.

use super::read::{Table, Value};
use super::{Config, Provider};

/// US dollars per core and second: Modal's price as of October 2026.
const USD_PER_CORE_SECOND: f64 = 0.000_039_42;
/// US dollars per GiB of memory and second: Modal's price as of October 2026.
const USD_PER_GIB_SECOND: f64 = 0.000_006_67;
/// Modal's default memory for a sandbox, in GiB.
const USUAL_MEMORY: f64 = 0.125;

/// `[cost]`: prices for estimates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// US dollars per core and second.
    pub usd_per_core_second: f64,
    /// US dollars per GiB of memory and second.
    pub usd_per_gib_second: f64,
}

pub(super) fn read(table: &mut Table<'_>) -> Cost {
    Cost {
        usd_per_core_second: table.read("usd_per_core_second", Value::amount).unwrap_or(USD_PER_CORE_SECOND),
        usd_per_gib_second: table.read("usd_per_gib_second", Value::amount).unwrap_or(USD_PER_GIB_SECOND),
    }
}

impl Config {
    /// US dollars per sandbox and second: its cores and memory at the prices in `[cost]`. Without that section,
    /// local sandboxes are free and all others cost as much as Modal's.
    pub fn usd_per_sandbox_second(&self) -> f64 {
        let default = match self.provider {
            Provider::Local(_) => Cost { usd_per_core_second: 0.0, usd_per_gib_second: 0.0 },
            Provider::Command(_) | Provider::Modal(_) => {
                Cost { usd_per_core_second: USD_PER_CORE_SECOND, usd_per_gib_second: USD_PER_GIB_SECOND }
            }
        };
        let cost = self.cost.unwrap_or(default);
        let (cores, memory) = match &self.provider {
            Provider::Local(_) => (1.0, 0.0),
            Provider::Command(command) => (command.cpu_cores, 0.0),
            Provider::Modal(modal) => (modal.cpu_cores, modal.memory_gb.unwrap_or(USUAL_MEMORY)),
        };
        cores * cost.usd_per_core_second + memory * cost.usd_per_gib_second
    }
}
