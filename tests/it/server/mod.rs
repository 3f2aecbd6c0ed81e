//! The server as a whole: how it starts with what it is given, where its store is, and how it stops.

mod catalogue;
mod clock;
mod postgres;
mod stop;
