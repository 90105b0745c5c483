//! Suites to plan: made up ones, and recorded ones of real projects.

use std::path::Path;

/// A generator with a seed (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Lognormal with this mean and this spread of the logarithm.
    pub fn lognormal(&mut self, mean: f64, spread: f64) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.uniform()).cos();
        mean * (spread * normal - spread * spread / 2.0).exp()
    }
}

/// One test: the number of its file, and seconds.
pub type Row = (u32, f64);

pub struct Trace {
    pub name: String,
    pub rows: Vec<Row>,
}

impl Trace {
    fn new(name: &str, rows: impl IntoIterator<Item = Row>) -> Trace {
        Trace { name: name.into(), rows: rows.into_iter().collect() }
    }

    pub fn total(&self) -> f64 {
        self.rows.iter().map(|(_, seconds)| seconds).sum()
    }

    pub fn longest(&self) -> f64 {
        self.rows.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max)
    }
}

pub fn lognormal(tests: u32, seed: u64) -> Trace {
    let mut random = Random::new(seed);
    Trace::new("lognormal", (0..tests).map(|number| (number / 20, random.lognormal(0.6, 1.2))))
}

/// All traces.
pub fn all() -> Vec<Trace> {
    let mut random = Random::new(17);
    let bimodal = |random: &mut Random| {
        if random.uniform() < 0.02 { random.lognormal(15.0, 0.3) } else { random.lognormal(0.2, 0.5) }
    };
    let mut traces = vec![
        lognormal(5000, 1),
        Trace::new("bimodal", (0..5000).map(|number| (number / 20, bimodal(&mut random)))),
    ];
    // One test of a twentieth of all work: with 8 machines it is two fifths of the share of one.
    let mut straggler = lognormal(3000, 2);
    straggler.rows[1234].1 = straggler.total() / 20.0;
    traces.push(Trace { name: "straggler".into(), ..straggler });
    traces.push(Trace::new("heavy-345", (0..345).map(|number| (number / 5, random.lognormal(60.0, 0.5)))));
    traces.push(Trace::new("light-5275", (0..5275).map(|number| (number / 15, random.lognormal(0.15, 1.0)))));
    traces.extend(recorded());
    traces
}

/// What real suites took: a line for each test, the number of its file and microseconds.
fn recorded() -> Vec<Trace> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/traces");
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).expect("a readable trace");
        let rows = text.lines().filter_map(|line| {
            let (file, micros) = line.split_once(' ')?;
            Some((file.parse().ok()?, micros.parse::<f64>().ok()? / 1e6))
        });
        Trace::new(&path.file_stem().unwrap_or_default().to_string_lossy(), rows)
    };
    // What explains them is no trace.
    paths.iter().map(read).filter(|trace| !trace.rows.is_empty()).collect()
}
