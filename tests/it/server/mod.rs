//! The server as a whole: how it starts with what it is given.

mod catalogue;
