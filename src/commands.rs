//! The commands: each wires stages, strategies and stores for one word of the command line.
