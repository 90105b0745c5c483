//! Whole runs of the built program on real tools. One binary, so that it is linked once.

#[cfg(test)]
mod ctest;
#[cfg(test)]
mod endings;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod flags;
#[cfg(test)]
mod history;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod modal;
#[cfg(test)]
mod nextest;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod pytest;
#[cfg(test)]
mod recording;
#[cfg(test)]
mod remote;
#[cfg(test)]
mod runner;
#[cfg(test)]
mod safety;
#[cfg(test)]
mod security;
#[cfg(test)]
mod sharing;
#[cfg(test)]
mod speculation;
#[cfg(test)]
mod support;
#[cfg(test)]
mod support_itself;
#[cfg(test)]
mod together;
#[cfg(test)]
mod verdicts;
#[cfg(test)]
mod vitest;
#[cfg(test)]
mod witness;
