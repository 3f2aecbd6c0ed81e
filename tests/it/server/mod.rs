//! The server as a whole: how it starts with what it is given, and how it stops.

mod catalogue;
mod stop;
