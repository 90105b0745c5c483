//! How large the batches of a plan are to be.
//!
//! Equal bins: with one a machine this is LPT (R. L. Graham, "Bounds on multiprocessing timing
//! anomalies", SIAM J. Appl. Math. 17, 1969). Factoring: rounds of batches, each round a fixed part of
//! what remains (S. F. Hummel, E. Schonberg, L. E. Flynn, "Factoring: a method for scheduling parallel
//! loops", CACM 35(8), 1992).

/// However short the batches might be, no more rounds than this many batches a machine would make.
const MOST_BATCHES: f64 = 48.0;

/// A way to divide work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// So many batches of one size for each machine.
    Equal(u32),
    /// Decreasing batches: in the first round each machine gets one part in `first` of its share, in
    /// each later round one in two of what is left, and no batch is shorter than `least` seconds.
    Factoring { first: f64, least: f64 },
}

/// What is to be divided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amount {
    /// Seconds of tests, those that run alone included.
    pub(super) total: f64,
    /// Seconds of tests that may share a batch.
    pub(super) shared: f64,
    /// How many sandboxes there are, at least 1.
    pub(super) machines: u32,
}

impl Shape {
    /// The shapes worth trying, for an overhead of so many seconds a batch.
    pub(super) fn all(amount: Amount, overhead: f64) -> Vec<Shape> {
        let mut shapes = vec![Shape::Equal(1)];
        if amount.machines == 1 {
            return shapes;
        }
        let share = amount.total / f64::from(amount.machines);
        shapes.extend([Shape::Equal(2), Shape::Equal(4)]);
        let mut least: Vec<f64> = [48.0, 24.0, 12.0].map(|parts| (share / parts).max(2.0 * overhead)).into();
        least.dedup();
        for first in [1.25, 1.5, 2.0, 3.0] {
            shapes.extend(least.iter().map(|least| Shape::Factoring { first, least: *least }));
        }
        shapes
    }

    /// Tests longer than this (seconds) get a batch of their own in the first round.
    pub(super) fn long(self, amount: Amount) -> f64 {
        match self {
            Shape::Equal(_) => f64::INFINITY,
            Shape::Factoring { first, .. } => amount.total / f64::from(amount.machines) / first,
        }
    }

    /// The sizes of the batches in seconds, largest first, with `long` tests of `long_load` seconds
    /// set apart.
    pub(super) fn sizes(self, amount: Amount, long: u32, long_load: f64) -> Vec<f64> {
        let machines = f64::from(amount.machines);
        match self {
            Shape::Equal(times) => {
                let bins = amount.machines.saturating_mul(times);
                vec![amount.total / f64::from(bins); bins as usize]
            }
            Shape::Factoring { least, .. } => {
                let mut rest = amount.shared - long_load;
                let least = least.max(amount.total / machines / MOST_BATCHES).min(rest / machines).max(1e-6);
                let mut size = self.long(amount).min(rest / machines);
                let mut bins = amount.machines.saturating_sub(long);
                let mut sizes = Vec::new();
                while rest > 1e-9 {
                    for _ in 0..bins {
                        sizes.push(size.min(rest));
                        rest -= size;
                        if rest <= 1e-9 {
                            break;
                        }
                    }
                    bins = amount.machines;
                    size = (rest / machines / 2.0).max(least).min(size);
                }
                sizes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_at_least_as_long_as_their_overhead_twice_and_never_many() {
        let amount = Amount { total: 960.0, shared: 960.0, machines: 10 };
        let least = |overhead| {
            let shapes = Shape::all(amount, overhead).into_iter();
            let least = shapes.filter_map(|shape| match shape {
                Shape::Factoring { first: 2.0, least } => Some(least),
                _ => None,
            });
            least.collect::<Vec<f64>>()
        };
        assert_eq!(least(0.5), [2.0, 4.0, 8.0]);
        assert_eq!(least(3.0), [6.0, 8.0]);
        assert_eq!(Shape::all(Amount { machines: 1, ..amount }, 0.5), [Shape::Equal(1)]);
        let factoring = Shape::Factoring { first: 2.0, least: 2.0 };
        assert_eq!((factoring.long(amount), Shape::Equal(4).long(amount)), (48.0, f64::INFINITY));
        assert_eq!(Shape::Equal(2).sizes(amount, 0, 0.0), [48.0; 20]);
        // Half of each machine's share, then half of the rest, and so on down to the least.
        let sizes = factoring.sizes(Amount { total: 32.0, shared: 32.0, machines: 2 }, 0, 0.0);
        assert_eq!(sizes, [8.0, 8.0, 4.0, 4.0, 2.0, 2.0, 2.0, 2.0]);
        // A long test takes the place of one batch of the first round.
        let sizes = factoring.sizes(Amount { total: 32.0, shared: 32.0, machines: 2 }, 1, 16.0);
        assert_eq!(sizes, [8.0, 2.0, 2.0, 2.0, 2.0]);
        // However short they might be: a 48th of the share of each machine.
        let sizes = Shape::Factoring { first: 2.0, least: 0.0 }.sizes(amount, 0, 0.0);
        assert_eq!(sizes.iter().filter(|size| **size <= 2.0).collect::<Vec<_>>(), [&2.0; 15]);
        // What is left may be less than the least.
        assert_eq!(Shape::Factoring { first: 2.0, least: 50.0 }.sizes(amount, 0, 0.0), [48.0; 20]);
        assert_eq!(factoring.sizes(Amount { total: 960.0, shared: 5.0, machines: 10 }, 0, 0.0), [0.5; 10]);
    }

    #[test]
    fn the_sizes_add_up_to_the_work_and_decrease() {
        for (total, long, long_load, overhead) in
            [(1000.0, 0, 0.0, 1.0), (1000.0, 3, 700.0, 0.0), (0.004, 0, 0.0, 5.0), (50.0, 9, 50.0, 0.1)]
        {
            let amount = Amount { total, shared: total, machines: 8 };
            for shape in Shape::all(amount, overhead) {
                let sizes = shape.sizes(amount, long, long_load);
                let wanted = if matches!(shape, Shape::Equal(_)) { total } else { total - long_load };
                assert!((sizes.iter().sum::<f64>() - wanted).abs() < 1e-6, "{shape:?} {sizes:?}");
                assert!(sizes.is_sorted_by(|one, other| one >= other), "{shape:?} {sizes:?}");
                assert!(sizes.len() < 1000, "{shape:?}: {}", sizes.len());
            }
        }
    }
}
