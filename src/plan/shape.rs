//! The sizes of the batches of a plan.
//!
//! Equal bins: with one per machine this is LPT (R. L. Graham, "Bounds on multiprocessing timing anomalies", SIAM J.
//! Appl. Math. 17, 1969). Factoring: rounds of batches, each of which covers a fixed fraction of the remaining work
//! (S. F. Hummel, E. Schonberg, L. E. Flynn, "Factoring: a method for scheduling parallel loops", CACM 35(8), 1992).

/// The minimum size of a batch is at least a machine's share of the work divided by this.
const MOST_BATCHES: f64 = 48.0;

/// A way to divide work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// This number of batches per machine, all of one size.
    Equal(u32),
    /// Decreasing batches. In the first round each machine gets 1/`first` of its share, in later rounds half of
    /// what is left. No batch is shorter than `least` seconds.
    Factoring { first: f64, least: f64 },
}

/// The work to divide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amount {
    /// Seconds of all tests.
    pub(super) total: f64,
    /// Seconds of the tests that may share a batch.
    pub(super) shared: f64,
    /// The number of sandboxes, at least 1.
    pub(super) machines: u32,
}

impl Shape {
    /// The shapes worth trying; `overhead` is in seconds per batch.
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

    /// Tests longer than this, in seconds, get their own batch in the first round.
    pub(super) fn long(self, amount: Amount) -> f64 {
        match self {
            Shape::Equal(_) => f64::INFINITY,
            Shape::Factoring { first, .. } => amount.total / f64::from(amount.machines) / first,
        }
    }

    /// The sizes of the batches in seconds, largest first. `long` tests of `long_load` seconds in total have their
    /// own batches and are not included.
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
    fn batches_take_at_least_twice_their_overhead_and_are_never_too_many() {
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
        // Half of each machine's share, then half of the rest, and so on down to the minimum.
        let sizes = factoring.sizes(Amount { total: 32.0, shared: 32.0, machines: 2 }, 0, 0.0);
        assert_eq!(sizes, [8.0, 8.0, 4.0, 4.0, 2.0, 2.0, 2.0, 2.0]);
        // A long test replaces one batch of the first round.
        let sizes = factoring.sizes(Amount { total: 32.0, shared: 32.0, machines: 2 }, 1, 16.0);
        assert_eq!(sizes, [8.0, 2.0, 2.0, 2.0, 2.0]);
        // The minimum is a 48th of each machine's share.
        let sizes = Shape::Factoring { first: 2.0, least: 0.0 }.sizes(amount, 0, 0.0);
        assert_eq!(sizes.iter().filter(|size| **size <= 2.0).collect::<Vec<_>>(), [&2.0; 15]);
        // The work may be less than the minimum.
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
