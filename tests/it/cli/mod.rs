//! The command line: the real binary, with an environment of its own.

mod config;
